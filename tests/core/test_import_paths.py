"""Earlier import paths lead to what they led to; mmengine's registries are joined in whatever order one imports."""

import importlib
import subprocess
import sys

import pytest

import mmcls_kd
from mmcls_kd import MOVED, RENAMED
from mmcls_kd.dis_losses import common
from mmcls_kd.networks import pixels
from mmcls_kd.teachers import inputs

ORDERS = [
    'import mmcls_kd\nimport mmpretrain',
    'import mmpretrain\nimport mmcls_kd',
    'from mmpretrain.registry import MODELS\nassert MODELS.get("ImageClassifier")\nimport mmcls_kd',
    'from mmcls_kd import Distiller\nimport mmengine.config',
]
CHECK = """
from mmengine.config.utils import MODULE2PACKAGE
from mmpretrain.registry import HOOKS, MODELS
assert MODULE2PACKAGE['mmcls_kd'] == 'mmcls_kd'
for name in ('ClassificationDistiller', 'NKDLoss', 'TorchvisionClassifier', 'ModuleClassifier'):
    assert MODELS.get(name).__module__.startswith('mmcls_kd.'), name
from mmcls_kd import Distiller, losses
assert MODELS.get('MGDLoss') is losses.MGDLoss
from mmengine.registry import DefaultScope
with DefaultScope.overwrite_default_scope('mmcls_kd'):
    assert MODELS.get('ImageClassifier').__module__.startswith('mmpretrain.')
"""


def own_names(module):
    """The public functions and classes that a module defines."""
    found = ((name, getattr(value, '__module__', None) or '') for name, value in vars(module).items())
    return [name for name, of in found if of.startswith(module.__name__) and not name.startswith('_')]


@pytest.mark.parametrize('old', MOVED)
def test_an_earlier_path_leads_to_all_of_its_homes(old):
    module = importlib.import_module(f'mmcls_kd.{old}')
    homes = [importlib.import_module(f'mmcls_kd.{home}') for home in MOVED[old]]
    for home in homes:
        assert own_names(home)
        for name in own_names(home):
            first = next(each for each in homes if hasattr(each, name))
            assert getattr(module, name) is getattr(first, name)
    with pytest.raises(AttributeError, match=f"module 'mmcls_kd.{old}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018
    parent, _, name = f'mmcls_kd.{old}'.rpartition('.')
    assert getattr(importlib.import_module(parent), name) is module


@pytest.mark.parametrize('old', RENAMED)
def test_an_earlier_name_is_found_at_an_earlier_path(old):
    modules = [importlib.import_module(f'mmcls_kd.{path}') for path in MOVED]
    assert any(hasattr(module, old) for module in modules)


def test_resizing_is_found_where_it_was():
    assert pixels.resized is inputs.resized


def test_what_losses_of_users_import():
    from mmcls_kd.dis_losses.common import fit_map, fit_tokens, full_precision  # noqa: F401
    from mmcls_kd.losses import KDLoss, kd_loss  # noqa: F401

    assert fit_map is common.resize_map
    assert KDLoss is mmcls_kd.dis_losses.KDLoss
    for name in mmcls_kd.__all__:
        assert getattr(mmcls_kd, name)
    with pytest.raises(AttributeError, match="'mmcls_kd' has no attribute 'nothing'"):
        mmcls_kd.nothing  # noqa: B018


@pytest.mark.slow
def test_every_order_of_imports_registers():
    programs = [subprocess.Popen([sys.executable, '-c', f'{order}\n{CHECK}'], stderr=subprocess.PIPE) for order in ORDERS]
    for program, order in zip(programs, ORDERS, strict=True):
        errors = program.communicate()[1].decode()
        assert program.returncode == 0, f'{order}\n{errors}'


def test_networks_pixels():
    from mmcls_kd.networks.pixels import PixelAdapter, Pixels
    from mmcls_kd.teachers.inputs import InputAdapter, InputSpec

    assert (Pixels, PixelAdapter) == (InputSpec, InputAdapter)
