"""docs/deploy.md: every command and every piece of code runs as written, in order, in what looks like a checkout."""

import os
import re

import pytest
from commands import run

from mmcls_kd.files.paths import TOOLBOX

pytestmark = pytest.mark.slow


def test_every_block(trained, tmp_path):
    for name in ('configs', 'tools', 'mmcls_kd', 'pth_transfer.py'):
        (tmp_path / name).symlink_to(TOOLBOX / name)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'fashion_mnist').symlink_to(trained.data)
    work_dir = tmp_path / 'work_dirs' / 'res18-w16_distill_res18-w4_fmnist'
    work_dir.mkdir(parents=True)
    (work_dir / 'epoch_3.pth').symlink_to(trained.checkpoint)
    text = (TOOLBOX / 'docs' / 'deploy.md').read_text()
    blocks = re.findall(r'^```(bash|python)\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
    said = []
    for number, (language, block) in enumerate(blocks):
        script = tmp_path / f'{number}.{dict(bash="sh", python="py")[language]}'
        script.write_text('set -e\n' * (language == 'bash') + block)
        env = {**os.environ, 'PYTHONPATH': str(TOOLBOX), 'PYTHONWARNINGS': 'ignore'}
        said.append(run(script, cwd=tmp_path, env=env).stdout.strip())
    assert [language for language, _ in blocks] == ['bash', 'bash', 'python', 'python', 'python', 'python']
    onnx, torchscript, inferencer = (text.splitlines() for text in said[3:])
    assert onnx == torchscript
    assert inferencer[-1] == 'torch.Size([32, 4, 4])'
    assert any(line.endswith(onnx[0]) for line in inferencer)
