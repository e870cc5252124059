"""Prototypes of classes by a teacher: what tools/class_cost.py writes, and what it refuses before any work."""

import pytest
import torch
from commands import DISTILLER, STUDENT
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmpretrain.registry import DATASETS, MODELS
from stores import refused, run

from mmcls_kd.distillers.recipe import Recipe, read_files
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.loading import load_strictly
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.recipe.methods import parse_method

pytestmark = pytest.mark.filterwarnings('ignore:.*instance named of')

TEACHER = ('configs/fashion_mnist/resnet18-w16_9e.py', 'configs/fashion_mnist/teacher.pth')
#: The method that the cost is for, which cannot be built without it; and images as they are.
CONFIG = """
_base_ = '{base}'
train_dataloader = dict(batch_size=50, dataset=dict(data_root='{data}', pipeline=[dict(type='PackInputs')]))
model = dict(
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)),
    teacher_mode='train',
    distill_cfg=[dict(methods=[dict(type='WKDLogitLoss', name='loss_wkd', cost='nowhere.pth')])],
)
methods = ['wkd']
"""


@pytest.fixture(scope='module')
def config(data, tmp_path_factory):
    path = tmp_path_factory.mktemp('class_cost') / 'config.py'
    path.write_text(CONFIG.format(base=TOOLBOX / DISTILLER, data=data))
    return path


@pytest.fixture(scope='module')
def expected(data):
    """The cost by the network itself, over all images in their order."""
    cfg = network_cfg(TEACHER[0])
    teacher = MODELS.build(cfg).eval()
    load_strictly(teacher, TEACHER[1], 'teacher')
    dataset = DATASETS.build(
        dict(type='FashionMNIST', data_root=str(data), split='train', pipeline=[dict(type='PackInputs')])
    )
    batch = teacher.data_preprocessor(pseudo_collate([dataset[i] for i in range(len(dataset))]))
    with torch.no_grad():
        vectors = teacher.extract_feat(batch['inputs'])[-1].double()
    classes = torch.tensor([int(sample.gt_label) for sample in batch['data_samples']])
    means = torch.stack([vectors[classes == i].mean(dim=0) for i in range(10)])
    return 1 - torch.nn.functional.cosine_similarity(means[:, None], means[None], dim=2)


def test_the_cost_is_that_of_the_mean_vectors_of_all_images(config, expected, tmp_path):
    output = tmp_path / 'new' / 'cost.pth'
    log = run('class_cost', config, tmp_path / 'run', '--output', output)
    content = torch.load(output)
    assert content['images'].tolist() == [26] * 6 + [25] * 4
    torch.testing.assert_close(content['cost'].double(), expected, rtol=0, atol=2e-6)
    assert expected.max() > 0.05
    assert 'teacher: 256/256 views' in log
    assert f"set cost='{output}' of WKDLogitLoss" in log
    (method,) = read_files([parse_method('loss_wkd', dict(type='WKDLogitLoss', cost=str(output)))])
    assert torch.equal(method.keywords['cost'], content['cost'])


def test_some_of_the_images_do(config, expected, tmp_path):
    run('class_cost', config, tmp_path / 'run', '--output', tmp_path / 'cost.pth', '--images', 120)
    content = torch.load(tmp_path / 'cost.pth')
    assert content['images'].sum() == 120
    assert 1e-4 < (content['cost'] - expected).abs().max() < 0.05


def test_images_without_a_label_are_of_no_class(config, expected, data, tmp_path):
    mixed = tmp_path / 'mixed.py'
    mixed.write_text(
        f"_base_ = '{config}'\n"
        f"test = dict(type='FashionMNIST', data_root='{data}', split='test', test_mode=True)\n"
        "more = dict(type='WithoutLabels', dataset=dict(pipeline=[dict(type='PackInputs')], **test))\n"
        'train_dataloader = dict(\n'
        "    dataset=dict(_delete_=True, type='MixedDataset', datasets=[_base_.train_dataloader.dataset, more], ratio=0.4)\n"
        ')\n'
    )
    run('class_cost', mixed, tmp_path / 'run', '--output', tmp_path / 'cost.pth')
    content = torch.load(tmp_path / 'cost.pth')
    assert content['images'].tolist() == [26] * 6 + [25] * 4
    torch.testing.assert_close(content['cost'].double(), expected, rtol=0, atol=2e-6)


def test_the_path_of_a_cost_holds_in_every_folder(config, tmp_path, monkeypatch):
    (tmp_path / 'cost.pth').touch()
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(config)
    entry = cfg.model.distill_cfg[0].methods[0]
    for given, kept in (('cost.pth', str(tmp_path / 'cost.pth')), ('nowhere.pth', 'nowhere.pth'), (None, None)):
        entry.cost = given
        Recipe(cfg.model).complete({})
        assert entry.cost == kept


class TestRefusals:
    def said(self, config, tmp_path, *arguments, options=()):
        arguments = arguments or ('--output', tmp_path / 'cost.pth')
        message = refused('class_cost', config, tmp_path / 'run', *arguments, options=options)
        assert not (tmp_path / 'cost.pth').exists()
        return message

    @pytest.mark.parametrize('images', [-1, 9, 257])
    def test_a_number_of_images_that_cannot_be(self, images, config, tmp_path):
        message = self.said(config, tmp_path, '--output', tmp_path / 'cost.pth', '--images', images)
        assert f'--images {images}: choose from 10, the number of classes, to 256' in message

    def test_data_without_a_class(self, config, tmp_path):
        options = [f'train_dataloader.dataset.indices={",".join(str(i) for i in range(60) if i % 10 not in (3, 7))}']
        assert 'the training data have no image of 2 classes (3, 7)' in self.said(config, tmp_path, options=options)

    def test_images_without_labels(self, config, data, tmp_path):
        bare = tmp_path / 'bare.py'
        bare.write_text(
            f"_base_ = '{config}'\n"
            'train_dataloader = dict(\n'
            "    dataset=dict(_delete_=True, type='WithoutLabels', dataset=_base_.train_dataloader.dataset)\n"
            ')\n'
        )
        assert 'the training images have no labels' in self.said(bare, tmp_path)

    def test_no_distiller(self, data, tmp_path):
        options = [f'train_dataloader.dataset.data_root={data}']
        assert 'trains no distiller' in self.said(TOOLBOX / STUDENT, tmp_path, options=options)

    def test_several_teachers(self, config, tmp_path):
        more = tmp_path / 'two.py'
        more.write_text(
            f"_base_ = '{config}'\nmodel = dict(teacher_cfg=['{TEACHER[0]}'] * 2, teacher_pretrained=['{TEACHER[1]}'] * 2)\n"
        )
        assert 'names several' in self.said(more, tmp_path)

    def test_a_teacher_without_weights(self, config, tmp_path):
        assert 'model.teacher_pretrained' in self.said(config, tmp_path, options=['model.teacher_pretrained=None'])

    def test_missing_data(self, config, tmp_path):
        options = ['train_dataloader.dataset.data_root=nowhere']
        assert 'folder nowhere does not exist' in self.said(config, tmp_path, options=options)

    def test_an_output_that_is_a_folder(self, config, tmp_path):
        assert f'--output {tmp_path} is a folder' in self.said(config, tmp_path, '--output', tmp_path)

    def test_too_few_images_for_every_class_end_the_run_in_one_line(self, config, tmp_path):
        message = self.said(config, tmp_path, '--output', tmp_path / 'cost.pth', '--images', 11)
        assert '11 images have no image of' in message
        assert message.endswith(': take more (--images)')
