"""What a loss is told beside the networks' tensors: of the teacher's classifier, of the data set, of each sample."""

import pytest
import torch
from kit import assert_close
from mmengine.runner import Runner
from networks import build, images, method, resnet, samples, vit
from torch import nn

from mmcls_kd.teachers.head import Head


def twice(weight):
    """Something made of a fact."""
    return 2 * weight


class Knowing(nn.Module):
    """A loss that needs to know everything."""

    facts = {
        'count': 'num_samples',
        'rows': 'teacher_weight',
        'double': ('teacher_weight', twice),
        'judge': 'teacher_head',
    }

    def __init__(self, count, rows, double=None, judge=None):
        super().__init__()
        self.count, self.rows, self.double, self.judge = count, rows, double, judge

    def forward(self, logit_s, logit_t):
        return logit_s.mean() + logit_t.mean()


def known(teacher=None, keywords=None, loss=Knowing, **distiller):
    """The distiller of a loss that knows everything, and that loss."""
    distiller = build(method(loss, 'loss_x', **(keywords or {})), teacher=teacher, num_samples=77, **distiller)
    return distiller, distiller.distill_losses['loss_x']


class TestFacts:
    def test_of_data_set_and_teacher(self):
        distiller, loss = known()
        weight = distiller.teacher.head.fc.weight
        assert loss.count == 77
        assert loss.rows.equal(weight)
        assert not loss.rows.requires_grad
        assert loss.double.equal(2 * weight)
        inputs = images()
        with torch.no_grad():
            assert_close(loss.judge(distiller.teacher.backbone(inputs)[-1]), distiller.teacher(inputs))

    def test_in_the_students_classes(self):
        classes = [11, 0, 3, 4, 5, 6, 7, 8, 9, 10]
        distiller, loss = known(resnet(8, classes=12), teacher_classes=classes)
        assert loss.rows.equal(distiller.teacher.head.fc.weight[classes])
        assert loss.double.shape == (10, 64)
        inputs = images()
        with torch.no_grad():
            feat, logit = distiller.teacher.backbone(inputs)[-1], distiller.teacher(inputs)
            assert_close(loss.judge(feat), logit[:, classes])

    def test_the_head_is_frozen_part_of_no_state_and_lets_gradients_through(self):
        _, loss = known()
        feat = torch.randn(2, 64, 4, 4, requires_grad=True)
        loss.judge(feat).sum().backward()
        assert feat.grad.any()
        assert isinstance(loss.judge, Head)
        assert not [name for name, value in loss.judge.named_parameters() if value.requires_grad]

    @pytest.mark.parametrize('given', [0, 5])
    def test_what_the_config_says_comes_first(self, given):
        _, loss = known(keywords=dict(count=given, rows=[1.0], double=3, judge='mine'))
        assert (loss.count, loss.rows, loss.double, loss.judge) == (given, [1.0], 3, 'mine')

    def test_none_in_a_config_means_that_it_says_nothing(self):
        distiller, loss = known(keywords=dict(count=None, rows=None, double=None))
        assert loss.count == 77
        assert loss.double.equal(2 * distiller.teacher.head.fc.weight)

    def test_one_that_nobody_knows_is_left_to_the_losss_own_default(self):
        _, loss = known(vit(16))  # judges by its class token
        assert loss.judge is None
        assert loss.rows.shape == (10, 16)

    def test_or_to_its_own_error(self):
        with pytest.raises(ValueError, match=r"loss_x: .*missing 1 required positional argument: 'count'"):
            build(method(Knowing, 'loss_x'))
        two = dict(teacher=[resnet(8), vit(16)], teacher_pretrained=[False, False], num_samples=3)
        with pytest.raises(ValueError, match=r"loss_x: .*missing 1 required positional argument: 'rows'"):
            build(method(Knowing, 'loss_x'), **two)

    def test_a_losss_error_names_the_method(self):
        class Strict(Knowing):
            def __init__(self, **_):
                raise ValueError('rows are too few')

        with pytest.raises(ValueError, match='loss_x: rows are too few'):
            build(method(Strict, 'loss_x'))

    def test_or_refused_where_the_loss_says_that_it_needs_it(self):
        class Needing(Knowing):
            needed_facts = {'judge': 'it needs a judge'}

        with pytest.raises(ValueError, match='^loss_x: it needs a judge$'):
            known(vit(16), loss=Needing)
        assert known(loss=Needing)[1].judge is not None
        with pytest.raises(ValueError, match='loss_simkd: SimKD needs a teacher whose class scores'):
            build(method('SimKD', 'loss_simkd'), teacher=vit(16))

    def test_also_at_several_stages(self):
        class AtMaps(Knowing):
            def forward(self, feat_s):
                return feat_s.mean()

        distiller = build(method(AtMaps, 'loss_x', stages=[1, 2], count=1, rows=2))
        assert [loss.count for loss in distiller.distill_losses['loss_x'].losses.values()] == [1, 1]


class Indexed(nn.Module):
    """Keeps the indices of the batch."""

    def forward(self, sample_idx, logit_s, gt_label):
        self.seen = sample_idx, gt_label
        return logit_s.mean()


#: A student of grey images.
GREY = resnet(4)
GREY['backbone']['in_channels'] = 1


class TestSampleIndex:
    @staticmethod
    def batches(data, **pack):
        """Shuffled batches of a data set without augmentation, and the data set."""
        pipeline = [dict(type='mmpretrain.PackInputs', **pack)]
        dataset = dict(type='mmpretrain.FashionMNIST', data_root=str(data), split='train', pipeline=pipeline, indices=50)
        sampler = dict(type='DefaultSampler', shuffle=True)
        loader = Runner.build_dataloader(dict(batch_size=8, num_workers=0, dataset=dataset, sampler=sampler), seed=3)
        return loader, loader.dataset

    def test_is_the_place_of_each_image_in_the_data_set(self, data):
        distiller = build(method(Indexed, 'loss_x'), student=GREY).train()
        loader, dataset = self.batches(data)
        found = []
        for batch in loader:
            raw = batch['inputs']
            prepared = distiller.data_preprocessor(dict(batch), training=True)
            distiller(**prepared, mode='loss')
            indices, label = distiller.distill_losses['loss_x'].seen
            assert indices.dtype == torch.int64
            for index, image, one in zip(indices.tolist(), raw, label.tolist(), strict=True):
                assert dataset[index]['inputs'].equal(image)
                assert dataset[index]['data_samples'].gt_label.item() == one
            found += indices.tolist()
        assert sorted(found) == list(range(50))
        assert found != list(range(50))

    def test_samples_without_it_are_refused(self, data):
        distiller = build(method(Indexed, 'loss_x'), student=GREY)
        (batch, *_), _ = self.batches(data, meta_keys=('img_shape',))
        batch = distiller.data_preprocessor(batch, training=True)
        with pytest.raises(ValueError, match=r"no 'sample_idx': let PackInputs in the train pipeline keep it \(meta_keys\)"):
            distiller(**batch, mode='loss')

    def test_nobody_needs_it_who_does_not_ask(self):
        assert build(method('NKDLoss')).loss(images(), samples())['loss_nkd'].isfinite()
