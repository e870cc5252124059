import sys
from types import SimpleNamespace

import pytest
from commands import DISTILLER, data_options, run, tool

from mmcls_kd.files.paths import TOOLBOX


@pytest.fixture(scope='session')
def trained(data, tmp_path_factory):
    """The distiller config trained by tools/train.py, with two methods and a moving average."""
    work_dir = tmp_path_factory.mktemp('trained')
    config = work_dir / 'with_ema.py'
    config.write_text(f"_base_ = '{TOOLBOX / DISTILLER}'\ncustom_hooks = [dict(type='EMAHook', momentum=0.1)]\n")
    options = ['--work-dir', work_dir / 'run', '--methods', 'kd', 'srrl', '--cfg-options', *data_options(data)]
    done = run('tools/train.py', config, *options)
    work_dir /= 'run'
    return SimpleNamespace(work_dir=work_dir, output=done.output, checkpoint=work_dir / 'epoch_1.pth', data=data)


@pytest.fixture(scope='session')
def exported(trained):
    """The student out of the trained distiller, by pth_transfer.py."""
    path = trained.work_dir / 'student.pth'
    done = run('pth_transfer.py', '--dis_path', trained.checkpoint, '--output_path', path)
    return SimpleNamespace(path=path, output=done.output)


@pytest.fixture
def main(monkeypatch, capsys):
    """Runs export_student.py in this process and returns what it prints, the error included."""

    def call(*words):
        monkeypatch.setattr(sys, 'argv', ['export_student.py', *map(str, words)])
        capsys.readouterr()
        try:
            tool('export_student')()
        except SystemExit as stopped:
            return capsys.readouterr().err if stopped.code == 2 else str(stopped.code)
        return capsys.readouterr().out

    return call
