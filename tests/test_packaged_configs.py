"""``mmcls_kd::...`` from a checkout: as a base, in mmengine's hub, on the command line."""

import pytest
from commands import DISTILLER
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmcls_kd.configs.reading import read_config
from mmcls_kd.distillers import ClassificationDistiller
from mmcls_kd.files.paths import TOOLBOX

PACKAGED = f'mmcls_kd::{DISTILLER.removeprefix("configs/")}'


def test_a_config_inherits_from_any_folder(tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = '{PACKAGED}'\ntrain_cfg = dict(max_epochs=7)\n")
    cfg, base = Config.fromfile(tmp_path / 'mine.py'), Config.fromfile(TOOLBOX / DISTILLER)
    assert cfg.train_cfg == {**base.train_cfg, 'max_epochs': 7}
    assert cfg.model.distill_cfg == base.model.distill_cfg
    assert isinstance(MODELS.build(cfg.model), ClassificationDistiller)  # mmengine builds it in the scope mmcls_kd


def test_mmengines_own_runner_trains_it(data, tmp_path):
    lines = [f"_base_ = '{PACKAGED}'", f"work_dir = '{tmp_path}'", 'train_cfg = dict(max_epochs=1)']
    lines += [f"{name}_dataloader = dict(dataset=dict(data_root='{data}'))" for name in ('train', 'val', 'test')]
    (tmp_path / 'mine.py').write_text('\n'.join(lines))
    runner = Runner.from_cfg(Config.fromfile(tmp_path / 'mine.py'))
    runner.train()
    assert runner.iter == 2
    assert (tmp_path / 'epoch_1.pth').is_file()


OFFER = """
_base_ = ['mmcls_kd::fashion_mnist/resnet18-w4_3e.py', 'mmcls_kd::_base_/methods/imagenet_self.py']
from mmcls_kd.configs import offer

model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    teacher_cfg=None,
    student_cfg='mmcls_kd::fashion_mnist/resnet18-w4_3e.py',
    distill_cfg=offer(_base_.offered, ['tfnkd'], tfnkd=dict(loss_weight=2.0)),
)
"""


def test_methods_are_offered_from_a_packaged_base(tmp_path):
    (tmp_path / 'mine.py').write_text(OFFER)
    distiller = MODELS.build(dict(Config.fromfile(tmp_path / 'mine.py').model, _scope_='mmpretrain'))
    assert list(distiller.distill_losses) == ['loss_tfnkd']
    assert distiller.student.backbone.base_channels == 4


def test_the_hub_and_the_command_line_take_the_name():
    assert get_config(PACKAGED).model == Config.fromfile(TOOLBOX / DISTILLER).model
    assert read_config(PACKAGED).model == read_config(DISTILLER).model
    assert get_config('mmcls_kd::resnet/resnet18_8xb32_in1k.py').model.backbone.depth == 18  # not in the model index


def test_a_misspelt_package_or_config_is_an_error_that_names_it(tmp_path):
    for name in ('mmcls_k::resnet/resnet18_8xb32_in1k.py', 'mmcls_kd::resnet/resnet19.py'):
        with pytest.raises(FileNotFoundError, match=name):
            read_config(name)
    (tmp_path / 'mine.py').write_text("_base_ = 'mmcls_k::resnet/resnet18_8xb32_in1k.py'\n")
    with pytest.raises(ValueError, match=r'mine.py cannot be read: .*mmcls_k '):
        read_config(str(tmp_path / 'mine.py'))
