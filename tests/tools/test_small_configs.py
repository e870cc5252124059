"""The small configs from registry to tested student; .ci/old_names runs them on the original distributions, too."""

import os
import shutil

import pytest
from commands import accuracy, data_options, metrics
from interruption import Run, assert_equal, fork, last
from mmpretrain.registry import MODELS
from torch import nn

from mmcls_kd import dis_losses
from mmcls_kd.configs.reading import read_config
from mmcls_kd.distillers import ClassificationDistiller
from mmcls_kd.files.paths import TOOLBOX

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
CONFIGS = sorted((TOOLBOX / 'configs' / 'distillers' / 'fashion_mnist').glob('*.py'))


def use(tool, log, *arguments):
    """Run a program in a child process; fails unless it ends well."""
    child = fork(arguments, log, {}, tool=tool)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, log.read_text()


def test_losses_are_in_mmpretrains_registry():
    losses = list(dis_losses.LOSSES.values())
    assert len(losses) == 54
    assert all(issubclass(loss, nn.Module) and MODELS.get(loss.__name__) is loss for loss in losses)


@pytest.fixture(scope='module', params=CONFIGS, ids=lambda path: path.stem)
def config(request):
    return request.param


@pytest.fixture(scope='module')
def whole(config, data, tmp_path_factory):
    """A training of two epochs that was not disturbed: its work directory, and its options."""
    work_dir = tmp_path_factory.mktemp(config.stem) / 'whole'
    options = [*data_options(data), 'train_cfg.max_epochs=2', 'default_hooks.checkpoint.max_keep_ckpts=2']
    run = Run(config, work_dir, '--cfg-options', *options)
    assert run.wait() == [0], run.output()
    return work_dir, options


def test_is_built(config):
    distiller = MODELS.build(read_config(str(config)).model)
    assert type(distiller) is ClassificationDistiller
    assert len(distiller.distill_losses) == len(read_config(str(config)).methods)


def test_a_resumed_training_ends_with_the_same_bits(config, whole, tmp_path):
    work_dir, options = whole
    (tmp_path / 'resumed').mkdir()
    shutil.copy(work_dir / 'epoch_1.pth', tmp_path / 'resumed')
    resumed = Run(config, tmp_path / 'resumed', '--resume', '--cfg-options', *options)
    assert resumed.wait() == [0], resumed.output()
    assert 'Epoch(train) [1]' not in resumed.output()
    a, b = last(tmp_path / 'resumed'), last(work_dir)
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_equal(a[part], b[part], part)


def test_the_transferred_student_has_the_accuracy_of_the_training(config, whole, tmp_path):
    work_dir, options = whole
    student, out = tmp_path / 'student.pth', tmp_path / 'out.json'
    checkpoint = work_dir / 'epoch_2.pth'
    use('pth_transfer.py', tmp_path / 'transfer.log', '--dis_path', checkpoint, '--output_path', student)
    plain = TOOLBOX / read_config(str(config)).model.student_cfg
    arguments = [plain, student, '--work-dir', tmp_path, '--out', out, '--out-item', 'metrics']
    use('tools/test.py', tmp_path / 'test.log', *arguments, '--cfg-options', *options)
    assert metrics(out)['accuracy/top1'] == accuracy(work_dir.with_suffix('.log').read_text())
