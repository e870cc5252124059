"""The published recipes: each trains one step on stand-in images, under its own pipeline, optimizer and schedule."""

import ast

import folders
import pytest
from commands import run
from mmengine.config import Config

from mmcls_kd.files.paths import TOOLBOX

FOLDER = TOOLBOX / 'configs' / 'distillers' / 'recipes'
#: Values of the published strategies: optimizer, its learning rate and weight decay, epochs, images a step.
STRATEGIES = {
    'beitv2-b_distill_res50_a2_img': ('Lamb', 5e-3, 0.02, 300, 2048),
    'beitv2-b_distill_res50_a1_img': ('Lamb', 5e-3, 0.01, 600, 2048),
    'bit-152x2_distill_bit-50_funmatch_img': ('AdamW', 0.03, 0.01, 1200, 4096),
    'res34_distill_res18_dist-b1_img': ('SGD', 0.1, 1e-4, 100, 256),
    'res50_distill_res18_dist-b2_img': ('timm.optim.RMSpropTF', 0.048, 1e-5, 450, 768),
    'deit-t_distill_res18_ofa_img': ('SGD', 0.1, 1e-4, 100, 512),
    'beitv2-l_distill_tinyvit-5m_in22k': ('AdamW', 2e-3, 0.01, 90, 4096),
    'swin-l_distill_res50_scalekd_img': ('AdamW', 1e-3, 0.05, 300, 1024),
    'deit-t_token_img': ('AdamW', 1e-3, 0.05, 300, 1024),
    'tinyvit-5m_finetune_img': ('AdamW', 5e-4, 1e-8, 30, 1024),
}


def test_each_recipe_is_known():
    assert {path.stem for path in FOLDER.glob('*.py')} == set(STRATEGIES)


@pytest.mark.parametrize('name', STRATEGIES)
def test_strategy(name):
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    optimizer, size = cfg.optim_wrapper.optimizer, cfg.train_dataloader.batch_size
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay, cfg.train_cfg.max_epochs, 8 * size) == STRATEGIES[name]
    last = cfg.param_scheduler[-1] if isinstance(cfg.param_scheduler, list) else cfg.param_scheduler
    assert last.get('end', cfg.train_cfg.max_epochs) == cfg.train_cfg.max_epochs
    assert name in ast.get_docstring(ast.parse((FOLDER / f'{name}.py').read_text()))  # its command


@pytest.mark.slow
@pytest.mark.parametrize('name', STRATEGIES)
def test_one_step(name, tmp_path):
    folders.imagenet(tmp_path, train=4, val=2)
    loaders = ['train_dataloader'] if 'in22k' in name else ['train_dataloader', 'val_dataloader', 'test_dataloader']
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=4']
    options += [f'{loader}.{key}' for loader in loaders for key in (f'dataset.data_root={tmp_path}', 'num_workers=0')]
    options += [f'{loader}.persistent_workers=False' for loader in loaders]
    if 'finetune' in name:
        options.append('model.backbone.init_cfg=None')
    else:
        options.append('model.teacher_pretrained=False')
    if 'in22k' in name:
        options.append('train_dataloader.dataset.ann_file=meta/train.txt')
    done = run('tools/train.py', FOLDER / f'{name}.py', '--work-dir', tmp_path / 'out', '--cfg-options', *options)
    assert 'Saving checkpoint at 1 epochs' in done.output
    assert ('loss_' in done.output) == ('finetune' not in name)


def test_the_page_lists_each():
    text = (TOOLBOX / 'docs' / 'recipes.md').read_text()
    assert all(f'`{name}`' in text for name in STRATEGIES)
