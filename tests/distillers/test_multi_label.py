"""Heads for several labels an image and with one logit, and images without labels, in a ClassificationDistiller."""

import libraries
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.evaluation import Accuracy
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from networks import build, images, method, resnet, samples
from small_networks import CNN

from mmcls_kd.analysis.outputs import ClassifierReader
from mmcls_kd.dis_losses import DistillLoss, nkd_loss, sigmoid_kd_loss
from mmcls_kd.networks.heads import is_multi_label, probabilities
from mmcls_kd.recipe.labels import filled

LABELS = [[0, 3], [], [1], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
SIGMOID, KD, NKD = method('SigmoidKDLoss'), method('KDLoss'), method('NKDLoss')


def several(width=4, head='MultiLabelLinearClsHead', classes=10):
    cfg = resnet(width, classes)
    cfg['head'] = dict(type=head, num_classes=classes, in_channels=8 * width)
    if head == 'CSRAClsHead':
        cfg.pop('neck')
        cfg['head'].update(num_heads=2, lam=0.1)
    return cfg


def library_student(library, folder):
    """A multi-label classifier of another library than mmpretrain."""
    if library == 'hugging face':
        libraries.hugging_face(folder)
        return dict(type='HuggingFaceClassifier', model_name=str(folder), multi_label=True)
    make = libraries.timm_resnet if library == 'timm' else libraries.torchvision_cnn
    return make(multi_label=True)


def binary(width=4):
    return resnet(width) | dict(head=dict(type='BinaryClsHead', in_channels=8 * width))


def with_labels(labels=LABELS):
    return [DataSample().set_gt_label(each) for each in labels]


def without_label(places, batch=None):
    """Samples that have no label at these places, as the data sets of unlabelled images give them."""
    from mmcls_kd.distillers.labels import without_label as mark

    batch = batch or samples()
    return [mark(sample) if i in places else sample for i, sample in enumerate(batch)]


@MODELS.register_module()
class SeenLabels(DistillLoss):
    """Keeps the labels that a loss gets; 0 itself."""

    def forward(self, logit_s, logit_t, gt_label):
        self.gt_label, self.logits = gt_label, (logit_s.detach(), logit_t)
        return 0 * logit_s.sum()


SEEN = method('SeenLabels', 'loss_seen')


def hot(labels=LABELS):
    return torch.tensor([[float(i in each) for i in range(10)] for each in labels])


class TestSeveralLabels:
    @pytest.mark.parametrize('head', ['MultiLabelLinearClsHead', 'CSRAClsHead'])
    @pytest.mark.parametrize('form', ['labels', 'scores'])
    def test_losses(self, head, form):
        model = build(SIGMOID, SEEN, method('MGDLoss'), student=several(head=head), teacher=several(8, head)).eval()
        batch = with_labels() if form == 'labels' else [DataSample().set_gt_score(row) for row in hot().long()]
        found = model.loss(images(), batch)
        logit_s, logit_t = model.student(images()), model.teacher(images())
        p = logit_s.sigmoid()
        torch.testing.assert_close(found['ori_loss'], -(hot() * p.log() + (1 - hot()) * (1 - p).log()).sum(1).mean())
        torch.testing.assert_close(found['loss_sigmoidkd'], sigmoid_kd_loss(logit_s, logit_t))
        assert torch.equal(model.distill_losses['loss_seen'].gt_label.float(), hot())
        assert found['loss_mgd'] > 0

    def test_softmax_methods_are_refused(self):
        for wrong in ('KDLoss', 'DKDLoss', 'DISTLoss', 'OFALogitLoss', 'TTMLoss', 'SimKD', 'TFNKDLoss'):
            with pytest.raises(ValueError, match=r'^loss_x: .*softmax.* multi-label .*choose among .*SigmoidKDLoss'):
                build(method(wrong, 'loss_x'), student=several(), teacher=several(8))

    def test_a_module_of_the_users(self):
        cfg = dict(type='ModuleClassifier', model=CNN(), multi_label=True)
        model = build(SIGMOID, SEEN, student=cfg, teacher=several(8)).eval()
        found = model.loss(images(), with_labels())
        torch.testing.assert_close(
            found['ori_loss'], 10 * F.binary_cross_entropy_with_logits(model.student(images()), hot())
        )
        predicted = model(images(), with_labels(), mode='predict')
        assert torch.equal(torch.stack([s.pred_score for s in predicted]), model.student(images()).sigmoid())

    @pytest.mark.parametrize('library', ['timm', 'hugging face', 'torchvision'])
    def test_classifiers_of_other_libraries(self, library, tmp_path):
        cfg = library_student(library, tmp_path)
        model = build(SIGMOID, SEEN, method('RKDLoss'), student=cfg, teacher=several(8)).eval()
        logit = model.student(images())
        bce = 10 * F.binary_cross_entropy_with_logits(logit, hot())
        for batch in (with_labels(), [DataSample().set_gt_score(row) for row in hot().long()]):
            found = model.loss(images(), batch)
            torch.testing.assert_close(found['ori_loss'], bce)
            torch.testing.assert_close(found['loss_sigmoidkd'], sigmoid_kd_loss(logit, model.teacher(images())))
            assert torch.equal(model.distill_losses['loss_seen'].gt_label.float(), hot())
        found = build(SIGMOID, student=cfg, teacher=several(8)).eval()
        found.student.load_state_dict(model.student.state_dict())
        mixed = found.loss(images(), without_label([0], with_labels()))['ori_loss']
        torch.testing.assert_close(mixed, 10 * F.binary_cross_entropy_with_logits(logit[1:], hot()[1:]))
        predicted = model(images(), with_labels(), mode='predict')
        assert torch.equal(torch.stack([s.pred_score for s in predicted]), logit.sigmoid())
        alone = MODELS.build(model_cfg := cfg | dict(multi_label=False))
        assert model.student.state_dict().keys() == alone.state_dict().keys()
        assert not is_multi_label(alone)
        with pytest.raises(ValueError, match='loss_kd: .*softmax.* multi-label'):
            build(KD, student=cfg, teacher=several(8))
        assert build(KD, student=model_cfg).loss(images(), samples())['ori_loss'] > 0

    def test_a_head_on_a_network_without_classes(self):
        network = dict(type='TimmClassifier', model_name='test_resnet', num_classes=0)
        student = MODELS.build(dict(type='LinearHeadClassifier', network=network, num_classes=10, multi_label=True)).eval()
        losses = student(images(), with_labels(), mode='loss')
        torch.testing.assert_close(losses['loss'], 10 * F.binary_cross_entropy_with_logits(student(images()), hot()))

    def test_the_keyword_in_a_classifier_of_mmpretrain_is_refused(self):
        with pytest.raises(ValueError, match="multi_label: an ImageClassifier .*head=dict.type='MultiLabelLinearClsHead'"):
            build(SIGMOID, student=resnet() | dict(multi_label=True), teacher=several(8))

    def test_several_teachers(self):
        model = build(SEEN, student=several(), teacher=[several(8), several(6)], teacher_pretrained=[False, False]).eval()
        model.loss(images(), with_labels())
        mean = sum(network(images()).sigmoid() for network in model.teachers) / 2
        torch.testing.assert_close(model.distill_losses['loss_seen'].logits[1].sigmoid(), mean)

    def test_a_teacher_of_the_other_kind_is_told(self, monkeypatch):
        told = []
        monkeypatch.setattr('mmcls_kd.distillers.labels.print_log', lambda text, *_: told.append(text))
        build(SIGMOID, student=several(), teacher=several(8))
        assert not told
        build(SIGMOID, student=several(), teacher=resnet(8))
        build(SIGMOID, student=resnet(), teacher=several(8))
        assert 'head (LinearClsHead) is for one label an image' in told[0]
        assert 'head (MultiLabelLinearClsHead) is for several labels an image' in told[1]
        build(SIGMOID, student=several(), teacher=libraries.timm_resnet())
        build(SIGMOID, student=several(), teacher=libraries.timm_resnet(multi_label=True))
        assert len(told) == 3
        assert 'classifier (TimmClassifier) is for one label an image' in told[2]


class TestOneLogit:
    def test_losses_and_predictions(self):
        model = build(SIGMOID, SEEN, student=binary(), teacher=binary(8)).eval()
        batch = samples(classes=2)
        labels = torch.tensor([0, 1, 0, 1])
        found = model.loss(images(), batch)
        z = model.student(images())
        two = torch.cat([torch.zeros_like(z), z], dim=1)
        torch.testing.assert_close(found['ori_loss'], F.cross_entropy(two, labels))
        torch.testing.assert_close(found['loss_sigmoidkd'], sigmoid_kd_loss(z, model.teacher(images())))
        assert torch.equal(model.distill_losses['loss_seen'].gt_label, labels)
        predicted = model(images(), batch, mode='predict')
        torch.testing.assert_close(torch.stack([s.pred_score for s in predicted]), two.softmax(dim=1))
        assert torch.equal(torch.cat([s.pred_label for s in predicted]), two.argmax(dim=1))
        metric = Accuracy()
        metric.process(None, [s.to_dict() for s in predicted])
        right = 100 * (two.argmax(dim=1) == labels).float().mean()
        assert metric.evaluate(4)['accuracy/top1'] == pytest.approx(float(right))

    def test_mixed_images(self):
        model = build(SIGMOID, student=binary(), teacher=binary(8)).eval()
        found = model.loss(images(), samples(classes=2, soft=True))
        share = torch.tensor([[0.3], [0.7], [0.3], [0.7]])
        torch.testing.assert_close(found['ori_loss'], F.binary_cross_entropy_with_logits(model.student(images()), share))

    def test_refusals(self):
        with pytest.raises(
            ValueError, match='student has 1 classes and the teacher 2: one logit and two logits are two forms'
        ):
            build(SIGMOID, student=binary(), teacher=resnet(8, 2))
        with pytest.raises(ValueError, match='LinearClsHead has one logit, whose softmax is always 1.*BinaryClsHead'):
            build(SIGMOID, student=resnet(4, 1), teacher=resnet(8, 1))
        with pytest.raises(ValueError, match='loss_kd: .*one logit'):
            build(KD, student=binary(), teacher=binary(8))
        with pytest.raises(ValueError, match='BinaryClsHead has one logit for two classes .num_classes=1., not 2'):
            MODELS.build(dict(type='BinaryClsHead', in_channels=4, num_classes=2))

    def test_a_threshold_is_that_of_the_label_alone(self, monkeypatch):
        told = []
        monkeypatch.setattr('mmcls_kd.networks.heads.print_log', lambda text, *_: told.append(text))
        MODELS.build(dict(type='BinaryClsHead', in_channels=4, thr=0.5))
        assert not told
        head = MODELS.build(dict(type='BinaryClsHead', in_channels=4, thr=0.9))
        assert 'thr=0.9 is that of pred_label alone' in told[0]
        [sample] = head._get_predictions(torch.tensor([[1.0]]), None)
        assert sample.pred_label.item() == 0  # 0.73 < 0.9
        assert sample.pred_score.argmax().item() == 1


class TestWithoutLabels:
    def test_the_task_loss_is_the_mean_over_the_labelled_ones(self):
        model = build(KD).eval()
        found = model.loss(images(), without_label([1, 2]))
        whole = model.loss(images(), samples())
        logit = model.student(images())
        torch.testing.assert_close(found['ori_loss'], 0.5 * F.cross_entropy(logit[[0, 3]], torch.tensor([0, 3])))
        assert torch.equal(found['loss_kd'], whole['loss_kd'])
        assert model.loss(images(), without_label(range(4)))['ori_loss'] == 0
        assert model.loss(images(), [DataSample() for _ in range(4)])['ori_loss'] == 0  # of a data set of the user's own
        assert torch.equal(model.loss(images(), samples())['ori_loss'], whole['ori_loss'])

    @pytest.mark.parametrize(
        'loss',
        [
            dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=10),
            dict(type='FocalLoss'),
            dict(type='CrossEntropyLoss', use_sigmoid=True),
            dict(type='CrossEntropyLoss', class_weight=list(range(10))),
        ],
        ids=lambda loss: loss['type'],
    )
    def test_with_every_loss_of_the_head(self, loss):
        student = resnet()
        student['head']['loss'] = loss
        model = build(KD, student=student).eval()
        scores = loss['type'] == 'FocalLoss' or loss.get('use_sigmoid')
        batch = [s.set_gt_score(F.one_hot(s.gt_label[0], 10)) for s in samples()] if scores else samples()
        marked = without_label([1, 2], batch)
        if scores:
            for i in (1, 2):
                marked[i].set_gt_score(F.one_hot(torch.tensor(0), 10))  # as the preprocessor makes it
        found = model.loss(images(), marked)['ori_loss']
        few = [samples()[i] for i in (0, 3)]
        few = [s.set_gt_score(F.one_hot(s.gt_label[0], 10).float()) for s in few] if scores else few
        expected = model.student.head.loss((model.student.extract_feat(images())[0][[0, 3]],), few)['loss']
        torch.testing.assert_close(found, 0.5 * expected)

    def test_of_several_labels_and_one_logit(self):
        model = build(SIGMOID, student=several(), teacher=several(8)).eval()
        found = model.loss(images(), without_label([0], with_labels()))['ori_loss']
        logit = model.student(images())[1:]
        torch.testing.assert_close(found, 10 * F.binary_cross_entropy_with_logits(logit, hot()[1:]))
        model = build(SIGMOID, student=binary(), teacher=binary(8)).eval()
        found = model.loss(images(), without_label([0], samples(classes=2)))['ori_loss']
        target = torch.tensor([[1.0], [0.0], [1.0]])
        torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(model.student(images())[1:], target))

    def test_accuracies_of_training_are_left_out(self):
        student = resnet()
        student['head']['cal_acc'] = True
        model = build(KD, student=student).eval()
        assert 'ori_accuracy_top-1' in model.loss(images(), samples())
        assert 'ori_accuracy_top-1' not in model.loss(images(), without_label([1]))

    def test_methods_that_need_a_label(self):
        with pytest.raises(ValueError, match="images without labels, and loss_nkd needs a label: set label='teacher'"):
            build(NKD).loss(images(), without_label([1]))
        model = build(NKD, SEEN, label='teacher').eval()
        found = model.loss(images(), without_label([1]))
        logit_t = model.teacher(images())
        expected = torch.tensor([0, int(logit_t[1].argmax()), 2, 3])
        assert torch.equal(model.distill_losses['loss_seen'].gt_label, expected)
        torch.testing.assert_close(found['loss_nkd'], nkd_loss(model.student(images()), logit_t, expected))

    def test_the_teachers_class_needs_its_logits_even_if_no_method_reads_them(self):
        @MODELS.register_module(force=True)
        class LabelAndMap(DistillLoss):
            def forward(self, feat_s, feat_t, gt_label):
                self.gt_label = gt_label
                return (feat_s.mean() - feat_t.mean()).square()

        model = build(method('LabelAndMap', 'loss_lm'), label='teacher').eval()
        model.loss(images(), without_label(range(4)))
        assert torch.equal(model.distill_losses['loss_lm'].gt_label, model.teacher(images()).argmax(dim=1))

    def test_the_teachers_class_of_one_logit_is_its_sign(self):
        logit_t = torch.tensor([[2.0], [-3.0], [1.0], [-1.0]])
        labels = filled(torch.tensor([-1, -1, 0, 1]), logit_t, multi_label=True)
        assert torch.equal(labels, torch.tensor([1, 0, 0, 1]))

    def test_another_substitute_is_refused(self):
        with pytest.raises(ValueError, match="label='student': choose 'teacher'"):
            build(KD, label='student')
        with pytest.raises(ValueError, match="label='teacher': loss_tfnkd has no teacher"):
            build(method('TFNKDLoss'), label='teacher')


def test_the_analysis_is_of_one_label_an_image():
    ClassifierReader(build(KD))
    for model in (build(SIGMOID, student=several(), teacher=several(8)), MODELS.build(binary())):
        with pytest.raises(ValueError, match='measures classifiers of one label an image'):
            ClassifierReader(model)


def test_probabilities_of_each_kind_of_head():
    logit = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(probabilities(MODELS.build(resnet()), logit), logit.exp() / logit.exp().sum(1, keepdim=True))
    torch.testing.assert_close(probabilities(MODELS.build(several()), logit), 1 / (1 + (-logit).exp()))
    p = 1 / (1 + (-logit[:, :1]).exp())
    torch.testing.assert_close(probabilities(MODELS.build(binary()), logit[:, :1]), torch.cat([1 - p, p], 1))
