"""On twelve classes of real pictures: one command, a student better than alone, ONNX; the same from Python."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from commands import run
from PIL import Image

CLASSES = ['china', *(f'digit {i}' for i in range(10)), 'flower']


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """What scikit-learn has in its package: 1,797 scanned digits, and tiles of two photographs."""
    datasets = pytest.importorskip('sklearn.datasets')
    root = tmp_path_factory.mktemp('real') / 'pictures'
    for name in CLASSES:
        (root / name).mkdir(parents=True)
    digits = datasets.load_digits()
    for i, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(root / f'digit {digit}' / f'{i}.png')
    for name in ('china', 'flower'):
        photograph = datasets.load_sample_image(f'{name}.jpg')
        for i in range(130):
            y, x = divmod(i, 13)
            tile = photograph[42 * y : 42 * (y + 1), 48 * x : 48 * (x + 1)]
            Image.fromarray(tile).save(root / name / f'{i}.jpg')
    return root


def top1(shown):
    """The table of a training: top-1 by network."""
    rows = (line.split('│') for line in shown.splitlines() if line.startswith('│'))
    return {row[1].strip(): float(row[2]) for row in rows}


@pytest.mark.slow
def test_from_a_folder_to_a_deployed_student(pictures, tmp_path):
    common = ['tools/train.py', '--data', pictures, '--size', 32]
    taught = run(*common, '--student', 'timm:resnet10t', '--epochs', 8, '--work-dir', tmp_path / 'teacher')
    weights = tmp_path / 'teacher' / 'student.pth'
    teacher = ['--teacher', 'timm:resnet10t', '--teacher-weights', weights]
    done = run(
        *common, '--student', 'timm:test_resnet', *teacher, '--epochs', 4, '--baseline', '--work-dir', tmp_path / 'student'
    )
    found = top1(done.stdout)
    assert found['teacher'] == pytest.approx(top1(taught.stdout)['student'], abs=0.26)  # one image: its layers are folded
    assert found['student, distilled'] > found['student alone'] > 50

    commands = [shlex.split(line)[1:] for line in done.stdout[done.stdout.index('Next:') :].splitlines()[1:4]]
    predicted, exported, tested = (run(*command).stdout for command in commands)
    image = Path(commands[0][-1])
    assert predicted.split(': ')[1].startswith(f'{image.parent.name} ')
    assert float(re.findall(r'accuracy/top1: ([\d.]+)', tested)[-1]) == pytest.approx(found['student, distilled'], abs=0.01)
    assert 'student.onnx: takes any batch size' in exported
    onnx = pytest.importorskip('onnxruntime').InferenceSession(tmp_path / 'student' / 'student.onnx')
    resized = Image.open(image).convert('RGB').resize((32, 32), Image.Resampling.BILINEAR)
    logits = onnx.run(None, dict(images=np.asarray(resized, np.float32).transpose(2, 0, 1)[None]))[0]
    assert CLASSES[logits.argmax()] == image.parent.name

    program = Path(__file__).with_name('distil_a_folder.py')
    lines = [line for line in program.read_text().splitlines()[1:] if line.strip()]
    assert len(lines) <= 10
    shown = run(program, pictures, weights, image, cwd=tmp_path).stdout.splitlines()[-1]
    alone, distilled, name = re.fullmatch(r'([\d.]+) ([\d.]+) (.+) timm\.models\.resnet', shown).groups()
    assert name == image.parent.name
    assert (float(alone), float(distilled)) == pytest.approx((found['student alone'], found['student, distilled']), abs=0.01)
