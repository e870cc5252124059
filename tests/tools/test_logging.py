"""Logging through mmengine's backends: what lands in them, and what is said where a library is missing."""

import json
import re
import runpy
import sys

import numpy as np
import pytest
from commands import DISTILLER, data_options, run

from mmcls_kd.files.paths import TOOLBOX

MANUAL = (TOOLBOX / 'docs' / 'logging.md').read_text()


def line(backend):
    """The documented line of a config that switches a backend on."""
    (found,) = re.findall(rf'^visualizer = .*{backend}.*$', MANUAL, re.MULTILINE)
    return found


@pytest.mark.slow
def test_tensorboards_event_file_has_what_the_json_log_has(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / 'mine.py').write_text(f"_base_ = 'mmcls_kd::{DISTILLER[8:]}'\n{line('TensorboardVisBackend')}\n")
    options = ['--methods', 'nkd', 'mgd', '--cfg-options', *data_options(data), 'train_cfg.max_epochs=2']
    run(TOOLBOX / 'tools' / 'train.py', 'mine.py', '--work-dir', 'run', *options, cwd=tmp_path)
    (scalars,) = tmp_path.glob('run/*/vis_data/scalars.json')
    expected = {}
    for entry in map(json.loads, scalars.read_text().splitlines()):
        for name, value in entry.items():
            if name != 'step':
                expected.setdefault(name, []).append((entry['step'], np.float32(value)))
    (file,) = scalars.parent.glob('events.out.tfevents.*')
    events = EventAccumulator(str(file)).Reload()
    recorded = {name: [(e.step, np.float32(e.value)) for e in events.Scalars(name)] for name in events.Tags()['scalars']}
    assert {'loss', 'ori_loss', 'loss_nkd', 'loss_mgd', 'lr', 'accuracy/top1'} <= set(recorded)
    assert len(recorded['loss_nkd']) == 8  # every second of eight iterations, in two epochs
    assert recorded == expected


@pytest.mark.parametrize(
    ('backend', 'library'),
    [('TensorboardVisBackend', 'tensorboard'), ('WandbVisBackend', 'wandb'), ('MLflowVisBackend', 'mlflow')],
)
def test_a_missing_library_is_said_with_its_extra_before_anything_is_done(backend, library, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    (tmp_path / 'mine.py').write_text(f"_base_ = '{TOOLBOX / DISTILLER}'\n{line(backend)}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['train.py', 'mine.py', '--cfg-options', *data_options(data)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOLBOX / 'tools' / 'train.py'), run_name='__main__')
    assert ended.value.code == (
        f"train.py: error: {backend} needs {library}, which is not installed: pip install 'mmcls_kd[{library}]'"
    )
    assert [path.name for path in tmp_path.iterdir()] == ['mine.py']


def test_every_backend_has_its_extra():
    extras = re.findall(r"pip install 'mmcls_kd\[(\w+)\]'", MANUAL)
    assert extras == ['tensorboard', 'wandb', 'mlflow']
    setup = (TOOLBOX / 'setup.py').read_text()
    assert all(f'    {extra}=[' in setup for extra in extras)
