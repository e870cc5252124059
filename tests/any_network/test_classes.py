"""Teachers with more classes than the student, or in another order."""

import json
import sys

import libraries
import pytest
import torch
import torchvision
from containers import files_of, write_shards
from folders import class_folders
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import MODELS
from networks import build, images, method, resnet, samples

from mmcls_kd.dis_losses import kd_loss
from mmcls_kd.engine.labels import training_names
from mmcls_kd.networks.classes import class_index, class_names, index_by_name, match, names_in, synset_words
from mmcls_kd.networks.sources import network_cfg

KD, NKD = method('KDLoss'), method('NKDLoss')
SRRL = method('SRRLLoss')
ANIMALS = ['cat', 'dog', 'Sea Lion', 'crane', 'crane', 'bee']
TWENTY = [f'class {i}' for i in range(20)]


class TestImageNet:
    """ImageNet's identifiers, folders of the data, find the words of each library at the same place."""

    @pytest.fixture
    def synsets(self):
        return dict(enumerate(pytest.importorskip('timm.data').ImageNetInfo('imagenet-1k').label_names()))

    @pytest.fixture(params=['torchvision', 'mmpretrain', 'timm'])
    def known(self, request):
        if request.param == 'torchvision':
            return torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta['categories']
        if request.param == 'mmpretrain':
            return IMAGENET_CATEGORIES
        info = pytest.importorskip('timm.data').ImageNetInfo('imagenet-1k')
        return [info.label_name_to_description(name, detailed=False) for name in info.label_names()]

    def test_all_at_the_same_place(self, synsets, known):
        assert match(synset_words(synsets), dict(enumerate(known))) == {i: i for i in range(1000)}

    def test_some_in_another_order(self, synsets, known):
        chosen = [639, 134, 517, 0, 638, 282]  # two of them cranes, two maillots
        names = {i: synsets[label] for i, label in enumerate(chosen)}
        assert index_by_name([names, synset_words(names)], list(known), 1000, 6) == chosen
        moved = [known[999 - i] for i in range(1000)]  # not in ImageNet's order: words alone, which are ambiguous
        with pytest.raises(ValueError, match='crane'):
            index_by_name([names, synset_words(names)], moved, 1000, 6)

    def test_without_timm(self, synsets, monkeypatch):
        monkeypatch.setitem(sys.modules, 'timm.data', None)
        names = synset_words(synsets)
        assert names[0] == 'n01440764, tench, Tinca tinca'
        assert match(names, dict(enumerate(IMAGENET_CATEGORIES))) == {i: i for i in range(1000)}
        assert synset_words(dict(list(synsets.items())[:999])) == {}
        assert synset_words({label: synsets[999 - label] for label in range(1000)}) == {}

    def test_other_names(self):
        assert synset_words({}) == synset_words({0: 'n01440764', 1: 'ant'}) == synset_words({0: 'n99999999'}) == {}

    def test_names_of_folders_and_shards(self, tmp_path):
        class_folders(tmp_path / 'train', n02012849=1, n01440764=1)
        write_shards(files_of(tmp_path / 'train'), tmp_path / 'shards')
        words = {0: 'n01440764, tench, Tinca tinca', 1: 'n02012849, crane, crane bird'}
        for kind, folder in (('CustomDataset', 'train'), ('WebDataset', 'shards')):
            data = dict(type=kind, data_root=str(tmp_path / folder), pipeline=[])
            assert training_names(data) == [{0: 'n01440764', 1: 'n02012849'}, words]


class TestIndex:
    @pytest.mark.parametrize(
        ('classes', 'expected'),
        [
            ([0, 1, 5], [0, 1, 5]),
            ([5, 1, 0], [5, 1, 0]),
            (('dog', 'cat', 'bee'), [1, 0, 5]),
            (['sea lion', 'CAT', 3], [2, 0, 3]),
            (range(3), [0, 1, 2]),
        ],
    )
    def test_by_index_and_by_name(self, classes, expected):
        assert class_index(classes, ANIMALS, 6, 3) == expected

    def test_the_exact_name_comes_first(self):
        assert class_index(['Crane', 'crane'], ['crane', 'Crane'], 2, 2) == [1, 0]

    @pytest.mark.parametrize(
        ('classes', 'message'),
        [
            (['cat', 'dog'], 'names 2 classes and the student has 3'),
            ([], 'names 0 classes and the student has 3'),
            (['cat', 'dog', 'bee', 'crane'], 'names 4 classes and the student has 3'),
            (
                ['cat', 'dog', 'beee'],
                "leaves class 2 of the student out: the teacher has no class 'beee'; did you mean 'bee'",
            ),
            (['cat', 'dog', 'crane'], r"'crane' is the name of the teacher’s classes \[3, 4\]; give indices"),
            (['cat', 'bee', 'CAT'], "'CAT' to two classes of the student, 0 and 2"),
            (['cat', 'bee', 0], '0 to two classes of the student, 0 and 2'),
            ([0, 1, 6], '6, for class 2 of the student, is outside of 0 to 5'),
            ([0, -1, 2], '-1, for class 1 of the student, is outside of 0 to 5'),
            ([0, None, 2], 'leaves class 1 of the student out'),
            ([0, 1.0, 2], 'leaves class 1 of the student out'),
            ([False, True, 2], 'leaves class 0 of the student out'),
            ('cat', "is a list with the teacher’s class for each class of the student, not 'cat'"),
            (dict(cat='dog'), 'is a list'),
            (3, 'is a list'),
        ],
    )
    def test_what_is_refused(self, classes, message):
        with pytest.raises(ValueError, match=message):
            class_index(classes, ANIMALS, 6, 3)

    @pytest.mark.parametrize('names', [None, ['cat', 'dog'], [*ANIMALS, 'ant']])
    def test_unknown_names_and_those_of_other_data(self, names):
        with pytest.raises(ValueError, match=r"names 'cat', but the names of this teacher’s classes are not known"):
            class_index(['cat', 'dog', 'bee'], names, 6, 3)
        assert class_index([3, 4, 5], names, 6, 3) == [3, 4, 5]


class TestNames:
    @pytest.mark.parametrize(
        ('meta', 'names'),
        [
            (dict(dataset_meta=dict(classes=('a', 'b'))), ['a', 'b']),
            (dict(CLASSES=['a', 'b']), ['a', 'b']),
            (dict(dataset_meta=None, CLASSES=('a',)), ['a']),
            (dict(dataset_meta=dict(classes=None)), None),
            (dict(dataset_meta=dict(classes='ab')), None),
            (dict(epoch=3), None),
            ({}, None),
            (None, None),
        ],
    )
    def test_of_checkpoints(self, meta, names):
        assert names_in(meta) == names

    def test_of_hugging_face(self, tmp_path):
        libraries.hugging_face(tmp_path / 'a', labels=TWENTY)
        assert class_names(MODELS.build(network_cfg(f'hf:{tmp_path / "a"}')), 20) == TWENTY
        libraries.hugging_face(tmp_path / 'b')  # LABEL_0, LABEL_1, ...
        assert class_names(MODELS.build(network_cfg(f'hf:{tmp_path / "b"}')), 10) is None

    def test_of_torchvision(self, monkeypatch):
        network = torchvision.models.shufflenet_v2_x0_5()
        monkeypatch.setattr(
            'torchvision.models._api.load_state_dict_from_url', lambda *args, **keywords: network.state_dict()
        )
        cfg = dict(type='TorchvisionClassifier', model_name='shufflenet_v2_x0_5')
        names = class_names(MODELS.build({**cfg, 'weights': 'DEFAULT'}), 1000)
        assert names[:2] == ['tench', 'goldfish']
        assert class_names(MODELS.build(cfg), 1000) is None

    def test_of_timm(self):
        names = class_names(MODELS.build(network_cfg('timm:test_resnet')), 1000)
        assert (len(names), names[0]) == (1000, 'n01440764, tench, Tinca tinca')
        assert class_names(MODELS.build(network_cfg(libraries.timm_resnet())), 10) is None

    def test_of_others_nothing_is_known(self):
        assert class_names(MODELS.build(network_cfg(dict(type='libraries.Plain'))), 10) is None
        assert class_names(MODELS.build(resnet(4)), 10) is None


CHOSEN = [19, 3, 5, 7, 0, 11, 13, 2, 17, 4]


class TestInTheDistiller:
    def test_its_logits_are_the_teachers_columns(self):
        distiller = build(KD, teacher=resnet(8, 20), teacher_classes=CHOSEN).eval()
        losses = distiller.loss(images(), samples())
        expected = kd_loss(distiller.student(images()), distiller.teacher(images())[:, CHOSEN])
        torch.testing.assert_close(losses['loss_kd'], expected, rtol=1e-4, atol=1e-5)
        assert distiller.num_classes == distiller.teacher_holder.num_classes == 10
        assert distiller.teacher_holder.shapes['logit'] == (2, 10)

    def test_no_mapping_leaves_all_of_them(self):
        distiller = build(KD, teacher=resnet(8)).eval()
        tensors = distiller.teacher_holder(images(), samples(), ['logit'])
        torch.testing.assert_close(tensors['logit'], distiller.teacher(images()), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize('precision', [None, 'bf16'])
    def test_a_permutation(self, precision):
        order = [3, 1, 2, 0, 9, 8, 7, 6, 5, 4]
        distiller = build(KD, teacher_classes=order, teacher_precision=precision).eval()
        logit = distiller.teacher_holder(images(), samples(), ['logit'])['logit']
        plain = build(KD, teacher_precision=precision).eval()
        plain.teacher.load_state_dict(distiller.teacher.state_dict())
        assert torch.equal(logit, plain.teacher_holder(images(), samples(), ['logit'])['logit'][:, order])

    def test_the_teachers_head_gives_them_too(self):
        distiller = build(SRRL, KD, teacher=resnet(8, 20), teacher_classes=CHOSEN).eval()
        feat = distiller.teacher.extract_feat(images(), stage='backbone')[0].requires_grad_()
        logit = distiller.teacher_head(feat)
        torch.testing.assert_close(logit, distiller.teacher(images())[:, CHOSEN], rtol=1e-4, atol=1e-5)
        logit.sum().backward()
        assert feat.grad.any()
        assert all(torch.isfinite(value) for value in distiller.loss(images(), samples()).values())

    def test_it_follows_the_weights_to_another_type(self):
        distiller = build(KD, teacher=resnet(8, 20), teacher_classes=CHOSEN).double()
        assert distiller.loss(images().double(), samples())['loss_kd'].dtype == torch.float64

    def checkpoint(self, path, classes=20, **meta):
        torch.save(dict(state_dict=MODELS.build(resnet(8, classes)).state_dict(), meta=meta), path)
        return str(path)

    @pytest.mark.parametrize('older', [False, True])
    def test_by_the_names_in_its_checkpoint(self, older, tmp_path):
        meta = dict(CLASSES=TWENTY) if older else dict(dataset_meta=dict(classes=TWENTY))
        path = self.checkpoint(tmp_path / 'a.pth', **meta)
        names = [f'Class {i}' for i in CHOSEN]
        distiller = build(KD, teacher=resnet(8, 20), teacher_pretrained=path, teacher_classes=names).eval()
        logit = distiller.teacher_holder(images(), samples(), ['logit'])['logit']
        torch.testing.assert_close(logit, distiller.teacher(images())[:, CHOSEN], rtol=1e-4, atol=1e-5)

    def test_by_hugging_faces_names(self, tmp_path):
        libraries.hugging_face(tmp_path, labels=TWENTY)
        names = [TWENTY[i] for i in CHOSEN]
        distiller = build(KD, teacher=f'hf:{tmp_path}', teacher_pretrained=True, teacher_classes=names).eval()
        logit = distiller.teacher_holder(images(), samples(), ['logit'])['logit']
        torch.testing.assert_close(logit, distiller.teacher(images())[:, CHOSEN], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ('keywords', 'message'),
        [
            (dict(teacher=resnet(8, 20)), 'the student has 10 classes and the teacher 20: .*model.teacher_classes'),
            (dict(teacher=resnet(8, 20), teacher_classes=CHOSEN[:9]), 'names 9 classes and the student has 10'),
            (dict(teacher=resnet(8, 20), teacher_classes=[*CHOSEN[:9], 20]), '20, for class 9 .* outside of 0 to 19'),
            (dict(teacher=resnet(8, 20), teacher_classes=TWENTY[:10]), 'the names of this teacher’s classes are not known'),
            (dict(teacher=resnet(8, 5), teacher_classes=[0, 1, 2, 3, 4, 0, 1, 2, 3, 4]), '0 to two classes of the student'),
            (dict(teacher=[resnet(8, 20), resnet(8)], teacher_classes=CHOSEN), 'a list with one entry for each of the 2'),
        ],
    )
    def test_what_is_refused(self, keywords, message):
        with pytest.raises(ValueError, match=message):
            build(KD, **keywords)

    def test_a_checkpoint_with_names_of_other_data(self, tmp_path):
        path = self.checkpoint(tmp_path / 'a.pth', dataset_meta=dict(classes=TWENTY[:12]))
        with pytest.raises(ValueError, match="'class 19', but the names of this teacher’s classes are not known"):
            build(KD, teacher=resnet(8, 20), teacher_pretrained=path, teacher_classes=['class 19', *CHOSEN[1:]])

    def test_several_teachers_each_with_its_own(self):
        distiller = build(KD, teacher=[resnet(8, 20), resnet(8)], teacher_classes=[CHOSEN, None]).eval()
        first, second = distiller.teachers
        expected = (first(images())[:, CHOSEN].softmax(1) + second(images()).softmax(1)).log() - torch.log(torch.tensor(2.0))
        logit = distiller.teacher_holder(images(), samples(), ['logit'])['logit']
        torch.testing.assert_close(logit, expected, rtol=1e-4, atol=1e-4)


def test_labels_that_a_config_lists_out_of_order(tmp_path):
    libraries.hugging_face(tmp_path, labels=TWENTY)
    config = json.loads((tmp_path / 'config.json').read_text())
    config['id2label'] = dict(reversed(config['id2label'].items()))
    (tmp_path / 'config.json').write_text(json.dumps(config))
    assert class_names(MODELS.build(network_cfg(f'hf:{tmp_path}')), 20) == TWENTY


def test_a_kind_that_has_no_labels_unless_they_are_given(tmp_path):
    libraries.hugging_face(tmp_path)
    network = MODELS.build(network_cfg(f'hf:{tmp_path}'))
    network.model.config.id2label = None  # as in PVT's
    assert class_names(network, libraries.CLASSES) is None
