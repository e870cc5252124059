"""docs/deploy.md: every command and every piece of code runs as written, in order, in what looks like a checkout."""

import json
import os
import re

import pytest
from commands import run
from PIL import Image

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
    assert_turned_by_exif(tmp_path, [tmp_path / f'{number}.py' for number in (3, 4)])


def assert_turned_by_exif(folder, scripts):
    """A JPEG that lies on its side, as its EXIF data say, has the logits of the upright one."""
    upright, found = Image.open(folder / 'image.png').copy(), []
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    for image, more in ((upright, {}), (upright.transpose(Image.Transpose.ROTATE_90), dict(exif=exif))):
        image.save(folder / 'image.png', 'JPEG', quality=100, **more)
        for script in scripts:
            if 'print(logits' not in (text := script.read_text()):
                script.write_text(f'{text}print(logits[0].tolist())\n')
            env = {**os.environ, 'PYTHONPATH': str(TOOLBOX), 'PYTHONWARNINGS': 'ignore'}
            found.append(json.loads(run(script, cwd=folder, env=env).stdout.splitlines()[-1]))
    largest = max(map(abs, found[0]))
    for logits in found[1:]:
        assert logits == pytest.approx(found[0], abs=0.03 * largest)
