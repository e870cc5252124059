"""Drawn predictions: the colours of the images, and a file for each."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import tool
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from networks import resnet
from PIL import Image
from processes import run_in_two

from mmcls_kd.engine.drawing import DrawingHook, as_levels

pytestmark = pytest.mark.filterwarnings('ignore:.*instance named of')
COLOURS = {'blue': (20, 30, 220), 'red': (220, 20, 30)}
CONFIG = """
log_level = 'WARNING'
data_preprocessor = dict(num_classes=2, mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
test_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
    type='CustomDataset', data_root={root!r}, pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
test_evaluator, test_cfg = dict(type='Accuracy'), dict()
model = {model!r}
"""


@pytest.fixture
def drawn(tmp_path, monkeypatch, capfd):
    """Tests a network by images of two colours, with the same names; returns the drawings."""
    for name, colour in COLOURS.items():
        (tmp_path / 'images' / name).mkdir(parents=True)
        for number in range(3):
            Image.new('RGB', (64, 64), colour).save(tmp_path / 'images' / name / f'{number}.png')
    torch.save(MODELS.build(dict(resnet(4, 2), _scope_='mmpretrain')).state_dict(), tmp_path / 'weights.pth')

    def call(*words):
        text = CONFIG.format(root=str(tmp_path / 'images'), model=resnet(4, 2))
        (tmp_path / 'config.py').write_text(text)
        words = [*words, '--show-dir', tmp_path / 'drawn', '--work-dir', tmp_path / 'run']
        options = ['--cfg-options', f'experiment_name={tmp_path.name}']
        argv = ['test.py', tmp_path / 'config.py', tmp_path / 'weights.pth', *words, *options]
        monkeypatch.setattr('sys.argv', [str(word) for word in argv])
        tool('test')()
        capfd.readouterr()
        return {path.name: Image.open(path).convert('RGB') for path in (tmp_path / 'drawn').iterdir()}

    return call


class TestCommand:
    def test_colours_and_names(self, drawn):
        colours = {f'{i}_{i % 3}.png_0.png': COLOURS['blue' if i < 3 else 'red'] for i in range(6)}
        assert {name: image.getpixel((60, 60)) for name, image in drawn().items()} == colours

    def test_every_second_image_of_a_test_with_augmentation(self, drawn):
        assert sorted(drawn('--tta', '--interval', 2)) == ['0_0.png_0.png', '2_2.png_0.png', '4_1.png_0.png']


def hook_and_drawings(interval=1):
    drawings = {}
    hook = DrawingHook(enable=True, interval=interval)
    hook._visualizer = SimpleNamespace(visualize_cls=lambda image, _sample, **given: drawings.update({given['name']: image}))
    return hook, drawings


def run_of(images, size):
    """A runner whose model takes images as they are."""
    model = SimpleNamespace(data_preprocessor=SimpleNamespace(to_rgb=False))
    return SimpleNamespace(model=model, test_dataloader=SimpleNamespace(batch_size=size, dataset=images))


def test_a_last_batch_of_fewer_images():
    images = torch.arange(7, dtype=torch.uint8)[:, None, None, None].expand(7, 1, 2, 2)
    hook, drawings = hook_and_drawings()
    for number, batch in enumerate(images.split(4)):
        hook.after_test_iter(run_of(images, 4), number, dict(inputs=batch), [DataSample()] * len(batch))
    assert {name: image.max() for name, image in drawings.items()} == {str(i): i for i in range(7)}


def drawn_by_each(rank):
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 2, 2)
    own = images[[0, 2, 4]] if rank == 0 else images[[1, 3, 0]]  # the sampler gives the first image again
    hook, drawings = hook_and_drawings()
    hook.after_test_iter(run_of(images, 3), 0, dict(inputs=own), [DataSample()] * 3)
    assert {name: image.max() for name, image in drawings.items()} == {str(i): i for i in range(rank, 5, 2)}


def test_two_processes_draw_each_image_once():
    run_in_two(drawn_by_each)


class TestLevels:
    def test_three_channels_are_reversed(self):
        image = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]
        assert as_levels(image, reverse=True).tolist() == [[[30, 20, 10]]]
        assert as_levels(image, reverse=False).tolist() == [[[10, 20, 30]]]

    def test_grey_has_no_order(self):
        assert as_levels(torch.full((1, 2, 2), 9, dtype=torch.uint8), reverse=True).tolist() == [[[9], [9]], [[9], [9]]]

    @pytest.mark.parametrize(('values', 'levels'), [([0.0, 0.5, 1.0], [0, 128, 255]), ([-1.0, 0.0, 3.0], [0, 64, 255])])
    def test_normalised_images_fill_the_levels(self, values, levels):
        assert as_levels(torch.tensor(values)[None, None], reverse=False).ravel().tolist() == levels

    def test_floats_of_levels_stay(self):
        assert as_levels(torch.tensor([[[3.0, 250.4]]]), reverse=False).ravel().tolist() == [3, 250]

    def test_an_image_of_one_value(self):
        assert as_levels(torch.zeros(1, 2, 2), reverse=False).dtype == np.uint8
