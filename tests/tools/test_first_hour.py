"""What somebody meets who has images in folders and has read the README."""

import re
import runpy
import shlex
import sys

import numpy as np
import pytest
import timm
import torch
from commands import tool
from mmengine.config import Config
from mmpretrain.registry import DATASETS
from PIL import Image

from mmcls_kd.engine.folders import check_data_folders
from mmcls_kd.files.paths import TOOLBOX

OPTIONS = (
    'train_cfg.max_epochs=3 train_dataloader.batch_size=6 train_dataloader.num_workers=0 val_dataloader.num_workers=0 '
    'test_dataloader.num_workers=0 train_dataloader.dataset.pipeline.1.scale=32 val_dataloader.dataset.pipeline.1.scale=32 '
    'val_dataloader.dataset.pipeline.2.crop_size=32 test_dataloader.dataset.pipeline.1.scale=32 '
    'test_dataloader.dataset.pipeline.2.crop_size=32'
)
SMALL = dict(resnet50='resnet10t', resnet18='resnet10t')
METHODS = ['dist', 'crd', 'wsld', 'nkd']


def own_config():
    """README's config, of smaller networks."""
    block = re.search(r'<!-- own images -->\n```python\n(.*?)```', (TOOLBOX / 'README.md').read_text(), re.DOTALL)
    text = block[1]
    assert len(text.splitlines()) <= 12
    for name, small in SMALL.items():
        text = text.replace(f"'{name}'", f"'{small}'")
    return text


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images in class folders, a teacher's weights and the config."""
    root = tmp_path_factory.mktemp('own')
    random = np.random.RandomState(0)
    for split in ('train', 'val'):
        for number, name in enumerate(('apple', 'leaf', 'sky')):
            images = root / 'my_images' / split / name
            images.mkdir(parents=True)
            for i in range(4):
                pixels = random.randint(0, 120, (40, 48, 3)) + 120 * (np.arange(3) == number)
                Image.fromarray(pixels.astype(np.uint8)).save(images / f'{i}.jpg')
    torch.save(timm.create_model('resnet10t', num_classes=3).state_dict(), root / 'teacher.pth')
    (root / 'my_config.py').write_text(own_config())
    return root


def run(monkeypatch, capfd, main, *words):
    """What a program prints that runs in this process."""
    monkeypatch.setattr(sys, 'argv', [str(word) for word in words])
    capfd.readouterr()
    main()
    return capfd.readouterr().out


@pytest.mark.filterwarnings('ignore')
def test_readmes_config_trains_and_the_closing_lines_are_commands_that_run(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    words = ['--methods', *METHODS, '--cfg-options', *OPTIONS.split()]
    shown = run(monkeypatch, capfd, tool('train'), TOOLBOX / 'tools/train.py', 'my_config.py', *words)
    lines = shown.splitlines()
    first = next(i for i, line in enumerate(lines) if 'Epoch(train)' in line)
    assert first <= 12
    assert all(f'loss_{name}: ' in lines[first] for name in METHODS)
    accuracies = re.findall(r'accuracy/top1: ([\d.]+)', shown)
    closing = shown[shown.index('finished:') :].splitlines()
    last, best = float(accuracies[-1]), max(map(float, accuracies))
    assert closing[0] == f'finished: accuracy/top1 {last:.2f} (best of 3 validations: {best:.2f}). Next:'
    log = next(folder.glob('work_dirs/my_config/*/*.log')).read_text()
    assert 'Hooks will be executed' in log
    assert "type='CRDLoss'" in log
    transfer, test = (shlex.split(line)[1:] for line in closing[1:3])
    run(monkeypatch, capfd, lambda: runpy.run_path(transfer[0], run_name='__main__'), *transfer)
    tested = run(monkeypatch, capfd, tool('test'), *test)
    assert re.findall(r'accuracy/top1: ([\d.]+)', tested)[-1] == accuracies[-1]


@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        (dict(split='test'), r"FashionMNIST\(split='test', test_mode=False\) reads the training images.*set test_mode=True"),
        (dict(split='train', test_mode=True), 'reads the test images.*set test_mode=False'),
    ],
)
def test_a_data_set_that_reads_another_split_than_it_names_is_refused(data, keywords, message):
    dataset = dict(type='FashionMNIST', data_root=str(data), **keywords)
    wrapped = dict(type='RepeatDataset', times=2, dataset=dataset)
    with pytest.raises(ValueError, match=message):
        check_data_folders(Config(dict(val_dataloader=dict(dataset=wrapped))), ('val_dataloader',))


def test_it_does_read_the_other_split(data):
    """Else the refusal would be wrong."""
    assert len(DATASETS.build(dict(type='FashionMNIST', data_root=str(data), split='test'))) == 256
    assert len(DATASETS.build(dict(type='FashionMNIST', data_root=str(data), split='train', test_mode=True))) == 100
