"""docs/teachers.md: its code runs, its configs build distillers that compute their losses, its commands do what they say."""

import os
import re
import runpy
import shlex

import pytest
import torch
from commands import data_options, run
from mmpretrain.registry import MODELS
from networks import samples

from mmcls_kd.command.arguments import training_parser
from mmcls_kd.engine.config import training_config
from mmcls_kd.files.paths import TOOLBOX

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]

TEXT = (TOOLBOX / 'docs' / 'teachers.md').read_text()
FILES = dict(re.findall(r'^```python\n# (\w+\.py)\n(.*?)^```', TEXT, re.MULTILINE | re.DOTALL))
COMMANDS = ''.join(re.findall(r'^```bash\n(.*?)^```', TEXT, re.MULTILINE | re.DOTALL)).splitlines()
CONFIGS = [name for name in FILES if name.startswith('distil_')]


@pytest.fixture(scope='module')
def desk(data, tmp_path_factory):
    """A folder with all of the page's files, in what looks like a checkout; what makes weights has run, in order."""
    folder = tmp_path_factory.mktemp('desk')
    for name in ('configs', 'tools'):
        (folder / name).symlink_to(TOOLBOX / name)
    (folder / 'data').mkdir()
    (folder / 'data' / 'fashion_mnist').symlink_to(data)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        for name in FILES:
            if name.startswith('make'):
                runpy.run_path(name, run_name='__main__')
    return folder


@pytest.fixture
def in_desk(desk, monkeypatch):
    monkeypatch.chdir(desk)
    monkeypatch.syspath_prepend(desk)


def test_each_piece_of_code_has_a_name():
    assert len(FILES) == TEXT.count('```python\n')
    assert len(CONFIGS) > 7


@pytest.mark.parametrize('name', CONFIGS)
def test_config(in_desk, name):
    cfg = training_config(training_parser(None).parse_args([name]))
    distiller = MODELS.build(cfg.model).train()
    batch = dict(inputs=[torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8) for _ in range(4)], data_samples=samples(4))
    batch = distiller.data_preprocessor(batch, training=True)
    losses = distiller(**batch, mode='loss')
    methods = [entry['name'] for group in cfg.model.distill_cfg for entry in group['methods']]
    assert set(losses) == {'ori_loss', *methods}
    total, _ = distiller.parse_losses(losses)
    total.backward()
    assert total.isfinite()


@pytest.mark.parametrize('command', COMMANDS)
def test_command(in_desk, desk, data, command, tmp_path):
    if 'fetch' in command:  # into a place without data: what stands here is no published file, and would be left so
        (tmp_path / 'tools').symlink_to(TOOLBOX / 'tools')
        run(*shlex.split(command)[1:], cwd=tmp_path)
        assert len([*tmp_path.glob('data/fashion_mnist/*-ubyte')]) == 4
        return
    words = shlex.split(command.removeprefix('PYTHONPATH=. '))
    options = ['--cfg-options', *data_options(data)] if 'train.py' in command else []
    env = {**os.environ, 'PYTHONPATH': '.'} if command.startswith('PYTHONPATH=. ') else None
    said = run(*words[1:], *options, cwd=desk, env=env).output
    if 'inspect' in command:
        for word in ('student: ', 'teacher: ', 'feat_s', 'feat_t', 'model.layer4'):
            assert word in said


def test_what_the_log_says(in_desk):
    said = re.search(r'^the teacher gets .*$', TEXT, re.MULTILINE)[0]
    distiller = MODELS.build(training_config(training_parser(None).parse_args(['distil_timm.py'])).model)
    assert f'the teacher gets {distiller.teacher_holder.adapt.wanted}' == said
