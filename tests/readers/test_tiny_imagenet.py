"""Tiny-ImageNet's folder as it is unpacked, and its pair."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image

from mmcls_kd.files.paths import TOOLBOX

CLASSES = ['n02', 'n01', 'n03']  # wnids.txt is not sorted


@pytest.fixture
def root(tmp_path):
    """Two training images of each class, four of validation; a red image has the value of its class in blue."""
    (tmp_path / 'wnids.txt').write_text(''.join(f'{name}\n' for name in CLASSES))
    for name in CLASSES:
        (tmp_path / 'train' / name / 'images').mkdir(parents=True)
        for i in range(2):
            picture(int(name[1:])).save(tmp_path / 'train' / name / 'images' / f'{name}_{i}.JPEG', quality=100)
        (tmp_path / 'train' / name / f'{name}_boxes.txt').write_text('')
    (tmp_path / 'val/images').mkdir(parents=True)
    lines = []
    for i, name in enumerate(['n03', 'n01', 'n02', 'n03']):
        picture(int(name[1:])).save(tmp_path / 'val/images' / f'val_{i}.JPEG', quality=100)
        lines.append(f'val_{i}.JPEG\t{name}\t0\t32\t44\t62\n')
    (tmp_path / 'val/val_annotations.txt').write_text(''.join(lines))
    return tmp_path


def picture(number):
    return Image.fromarray(np.full((64, 64, 3), (200, 10, 50 * number), np.uint8))


def built(root, split, **keywords):
    return DATASETS.build(dict(type='TinyImageNet', data_root=str(root), split=split, pipeline=[], **keywords))


def test_labels_are_those_of_the_sorted_classes(root):
    train, val = built(root, 'train'), built(root, 'val')
    assert train.metainfo['classes'] == val.metainfo['classes'] == ['n01', 'n02', 'n03']
    assert [train.get_data_info(i)['gt_label'] for i in range(len(train))] == [0, 0, 1, 1, 2, 2]
    assert [val.get_data_info(i)['gt_label'] for i in range(len(val))] == [2, 0, 1, 2]
    assert val.get_data_info(1)['img_path'] == str(root / 'val/images/val_1.JPEG')


def test_what_is_wrong_is_said(root):
    with pytest.raises(ValueError, match="split='test': choose 'train' or 'val'"):
        built(root, 'test')
    with (root / 'val/val_annotations.txt').open('a') as file:
        file.write('val_9.JPEG\tn09\t0\t0\t1\t1\n')
    with pytest.raises(ValueError, match='names no class of wnids.txt'):
        built(root, 'val')
    (root / 'wnids.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'wnids.txt: no such file; data_root is the folder tiny-imagenet-200'):
        built(root, 'val')


@pytest.mark.slow
def test_the_pair_trains_a_step_on_its_images(root):
    cfg = Config.fromfile(TOOLBOX / 'configs/distillers/tiny_imagenet/ResNet18_distill_ShuffleV2.py')
    cfg.train_dataloader.dataset.data_root = str(root)
    data = DATASETS.build(cfg.train_dataloader.dataset)
    torch.manual_seed(0)
    np.random.seed(0)
    cfg.model.teacher_pretrained = False
    distiller = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor}).train()
    inputs = distiller.data_preprocessor(pseudo_collate([data[i] for i in range(4)]), training=True)
    assert inputs['inputs'].shape == (4, 3, 64, 64)
    middle = inputs['inputs'][0, :, 32, 32].tolist()  # of a red image of the first class
    wanted = [(200 / 255 - 0.4802) / 0.2302, (10 / 255 - 0.4481) / 0.2265, (50 / 255 - 0.3975) / 0.2262]
    assert middle == pytest.approx(wanted, abs=0.1)
    assert distiller.teacher_holder.adapt.same_values
    losses = distiller.loss(**inputs)
    distiller.parse_losses(losses)[0].backward()
    assert set(losses) == {'ori_loss', 'loss_kd'}
    assert all(torch.isfinite(value) for value in losses.values())
    optimizer, schedule = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    assert (optimizer.lr, optimizer.weight_decay, cfg.train_dataloader.batch_size) == (0.2, 5e-4, 256)
    assert (schedule.milestones, cfg.train_cfg.max_epochs) == ([60, 120, 160], 200)
