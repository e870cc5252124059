"""The configs of the CIFAR-100 distillation benchmark: its protocol, its pairs, and a step of each."""

import ast
import copy
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import MultiStepLR
from mmpretrain.registry import MODELS, TRANSFORMS
from networks import batch

from mmcls_kd.configs import benchmark_pair
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.recipe.methods import MethodList
from mmcls_kd.study.study_file import read_study

FOLDER = TOOLBOX / 'configs/distillers/cifar100_benchmark'
#: RepDistiller's thirteen pairs, and DKD's beta of each where mdistiller has one.
STANDARD = {
    'wrn_40_2_distill_wrn_16_2': 6,
    'wrn_40_2_distill_wrn_40_1': 6,
    'resnet56_distill_resnet20': 2,
    'resnet110_distill_resnet20': None,
    'resnet110_distill_resnet32': 2,
    'resnet32x4_distill_resnet8x4': 8,
    'vgg13_distill_vgg8': 6,
    'vgg13_distill_MobileNetV2': 6,
    'ResNet50_distill_MobileNetV2': 8,
    'ResNet50_distill_vgg8': None,
    'resnet32x4_distill_ShuffleV1': 8,
    'resnet32x4_distill_ShuffleV2': 8,
    'wrn_40_2_distill_ShuffleV1': 8,
}
#: Pairs of later papers.
FURTHER = [f'resnet32x4_distill_{student}' for student in ('wrn_16_2', 'wrn_40_2', 'vgg8', 'MobileNetV2')]
FURTHER += [f'wrn_40_2_distill_{student}' for student in ('resnet8x4', 'MobileNetV2', 'vgg8')]
FURTHER += ['ResNet50_distill_ShuffleV1']
QUICK = ('wrn_40_2_distill_ShuffleV1', 'vgg13_distill_MobileNetV2')
#: Methods that fit every pair.
ALWAYS = {'kd', 'dkd', 'nkd', 'dist', 'ctkd', 'rld', 'normkd', 'rkd', 'pkt', 'cc', 'crd', 'srrl', 'wkd_logit', 'wkd_feature'}
ALWAYS |= {'mgd', 'at', 'nst', 'sp', 'vid', 'fitnet', 'ofa'}
#: Methods that compare stage by stage, and refuse networks with different numbers of them.
STAGE_BY_STAGE = {'reviewkd'}
UNEQUAL = {'resnet32x4_distill_vgg8', 'resnet32x4_distill_MobileNetV2', 'wrn_40_2_distill_MobileNetV2'}
UNEQUAL |= {'wrn_40_2_distill_vgg8', 'ResNet50_distill_ShuffleV1'}
TWO_VIEWS = '_two-views'
#: The study's pairs by their configs.
PAIRS = read_study(TOOLBOX / 'studies/cifar100_benchmark.py').pairs
PAIRS = {name.replace('-', '_distill_'): pair for name, pair in PAIRS.items()}


def read(name):
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    cfg.model.teacher_pretrained = False
    cfg.model.num_samples = 20_000  # more than CRD's negatives
    return cfg


def entries(cfg):
    return {e['name'].removeprefix('loss_'): e for group in cfg.model.distill_cfg for e in group['methods']}


def step(cfg, methods):
    """A step's losses and the gradients' absence."""
    model = copy.deepcopy(cfg.model)
    MethodList(model.distill_cfg).select(methods)
    distiller = MODELS.build({**model, 'data_preprocessor': cfg.data_preprocessor}).train()
    data = distiller.data_preprocessor(batch(2, 32, 100), training=True)
    losses = distiller.loss(**data)
    distiller.parse_losses(losses)[0].backward()
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert not [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None]
    return distiller, losses


def test_every_pair_is_there_and_has_its_command():
    shipped = {path.stem: path.read_text() for path in FOLDER.glob('*.py') if not path.stem.endswith(TWO_VIEWS)}
    assert set(shipped) == {*STANDARD, *FURTHER}
    for name, text in shipped.items():
        teacher, student = name.split('_distill_')
        assert f'cifar100_benchmark/{name}.py' in ast.get_docstring(ast.parse(text))
        assert f"'../../cifar100_benchmark/{student}.py'" in text
        assert f"'{teacher}', '{student}'" in text
        beta = re.search(r'dkd=dict\(beta=([\d.]+)\)', text)
        assert (float(beta[1]) if beta else None) == STANDARD.get(name)
    files = (TOOLBOX / 'configs/cifar100_benchmark').glob('*.py')
    alone = {path.stem: path.read_text() for path in files if not path.stem.endswith('_tiny_imagenet')}
    assert {part for name in shipped for part in name.split('_distill_')} <= set(alone)
    assert all(f"model_name='{name}'" in text for name, text in alone.items())
    slow = {name for name, text in alone.items() if 'lr=0.01' in text}
    assert slow == {'MobileNetV2', 'ShuffleV1', 'ShuffleV2'}


def test_two_views_of_each_pair_with_a_number_of_mlkd():
    shipped = {path.stem: path.read_text() for path in FOLDER.glob(f'*{TWO_VIEWS}.py')}
    assert set(shipped) == {f'{name}{TWO_VIEWS}' for name, pair in PAIRS.items() if 'mlkd' in pair.published}
    for name, text in shipped.items():
        teacher, student = name.removesuffix(TWO_VIEWS).split('_distill_')
        assert f'cifar100_benchmark/{name}.py' in ast.get_docstring(ast.parse(text))
        assert f"'../../cifar100_benchmark/{student}.py'" in text
        assert f"'{teacher}', '{student}'" in text
    one, two = read('resnet56_distill_resnet20'), read(f'resnet56_distill_resnet20{TWO_VIEWS}')
    (views, pack), transforms = two.train_dataloader.dataset.pipeline, one.train_dataloader.dataset.pipeline
    assert (views.type, views.weak, pack) == ('TwoViews', transforms[:-1], transforms[-1])
    assert list(entries(two)) == ['mlkd', 'crld']
    for part in ('train_cfg', 'optim_wrapper', 'param_scheduler', 'data_preprocessor', 'val_dataloader'):
        assert one[part] == two[part]
    assert {**one.model, 'distill_cfg': None} == {**two.model, 'distill_cfg': None}


def test_protocol():
    cfg = read('resnet32x4_distill_resnet8x4')
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval, cfg.train_dataloader.batch_size) == (240, 1, 64)
    assert not cfg.train_dataloader.get('drop_last')
    assert (cfg.train_dataloader.dataset.type, cfg.val_dataloader.dataset.split) == ('CIFAR100', 'test')
    assert cfg.default_hooks.checkpoint.save_best == 'accuracy/top1'
    preprocessor = MODELS.build({**cfg.data_preprocessor, 'type': 'mmpretrain.ClsDataPreprocessor'})
    image = torch.tensor([255, 0, 51], dtype=torch.uint8)[:, None, None].expand(3, 32, 32)
    found = preprocessor(dict(inputs=image[None], data_samples=None))['inputs'][0, :, 0, 0]
    wanted = [(1 - 0.5071) / 0.2675, -0.4867 / 0.2565, (0.2 - 0.4408) / 0.2761]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    torch.manual_seed(0)
    crop = TRANSFORMS.build(dict(cfg.train_dataloader.dataset.pipeline[0]))
    corners = [crop(dict(img=torch.full((32, 32, 3), 7).numpy().astype('uint8')))['img'] for _ in range(40)]
    assert {one.shape for one in corners} == {(32, 32, 3)}
    assert {int(value) for one in corners for value in one.flatten()} == {0, 7}


def test_first_drop_of_the_rate_is_in_epoch_151():
    cfg = read('wrn_40_2_distill_ShuffleV1')
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.optim_wrapper.optimizer.lr)
    options = {k: v for k, v in cfg.param_scheduler.items() if k != 'type'}
    scheduler, rates = MultiStepLR(optimizer, **options), []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    drops = [epoch for epoch in range(2, 241) if rates[epoch - 1] < rates[epoch - 2]]  # epochs count from 1
    assert drops == [151, 181, 211]
    assert rates[0] == 0.01
    assert rates[-1] == pytest.approx(1e-5)


def test_weights_are_the_published_ones():
    methods = entries(read('resnet32x4_distill_resnet8x4'))
    published = dict(
        kd=dict(temp=4, alpha=0.9, divergence=True),
        dkd=dict(temp=4, alpha=1, beta=8, loss_weight=dict(value=1, warmup=20)),
        reviewkd=dict(loss_weight=dict(value=5, warmup=20)),
        fitnet=dict(loss_weight=100, stages=[2], norm_act=True),
        at=dict(loss_weight=1000, stages=[1, 2, 3]),
        nst=dict(loss_weight=50, stages=[1, 2, 3]),
        vid=dict(stages=[1, 2, 3], init_pred_var=5),
        sp=dict(loss_weight=3000, stages=[-1]),
        cc=dict(loss_weight=0.02),
        rkd=dict(distance_weight=25, angle_weight=50),
        pkt=dict(loss_weight=30000),
        crd=dict(loss_weight=0.8, nce_k=16384, nce_t=0.07, nce_m=0.5),
    )
    published |= dict(
        ft=dict(loss_weight=200),
        ab=dict(margin=1),
        fsp=dict(loss_weight=50),
        semckd=dict(loss_weight=400),
        norm=dict(parts=8, task_weight=0.1),
        normkd=dict(temp=2, task_weight=0.1, loss_weight=0.9),
        luminet=dict(temp=4, alpha=33, task_weight=2, loss_weight=dict(value=1, warmup=20)),
        catkd=dict(loss_weight=15, resolution=2, normalize=False),
        sdd=dict(scales=[1, 2, 4], loss=dict(type='DKDLoss', temp=4, alpha=1, beta=8)),
        ofd=dict(loss_weight=1e-3),
        ickd=dict(loss_weight=4),
        pefd=dict(loss_weight=25),
        afd=dict(loss_weight=200),
    )
    for name, keywords in published.items():
        assert {key: methods[name][key] for key in keywords} == keywords


@pytest.mark.parametrize('name', [QUICK[0], pytest.param(QUICK[1], marks=pytest.mark.slow)])
def test_all_methods_that_fit_train_a_step_together(name):
    """The others are refused before training, by a sentence that names the method; those of logits and pooled maps fit."""
    cfg, refused = read(name), {}
    if 'semckd+kd' in PAIRS[name].rows:
        entries(cfg)['semckd']['batch_size'] = 2  # a training states it
    wanted = [method for method in entries(cfg) if method != 'simkd']  # which predicts instead of the student
    while True:
        fitting = [method for method in wanted if method not in refused]
        try:
            distiller, losses = step(cfg, fitting)
        except ValueError as error:
            method = re.match(r'loss_(\w+)', str(error))[1]
            assert method not in refused
            refused[method] = str(error)
        else:
            break
    assert {f'loss_{method}' for method in fitting} <= set(losses)
    assert not {*refused} & ALWAYS
    assert not {*refused} & {*PAIRS[name].methods, *(method for row in PAIRS[name].rows.values() for method in row.methods)}
    assert not STAGE_BY_STAGE - {*refused} or name not in UNEQUAL
    assert distiller.teacher_holder.adapt.same_values  # the teacher has the student's images as they are


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in (*STANDARD, *FURTHER) if name not in QUICK])
def test_all_methods_that_fit_train_a_step_together_in_every_pair(name):
    test_all_methods_that_fit_train_a_step_together(name)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet56_distill_resnet20'])
def test_each_method_trains_a_step_alone(name):
    cfg = read(name)
    for method in entries(cfg):
        if method == 'semckd':  # whose layers are as wide as the batch, which a training states
            with pytest.raises(ValueError, match='set batch_size'):
                step(cfg, [method])
            continue
        _, losses = step(cfg, [method])
        assert f'loss_{method}' in losses


@pytest.mark.slow
def test_each_row_of_the_study_trains_a_step():
    """With its own keywords; MLKD's, of two views, is trained in tests/study/test_published_runs.py."""
    pair = PAIRS['resnet32x4_distill_resnet8x4']
    assert set(pair.rows) == {'semckd+kd', 'norm+kd', 'wkd_logit+wkd_feature', 'kd+dot', 'dkd+ls', 'ctkd+ls', 'mlkd'}
    weights = {'semckd+kd': 1.0, 'norm+kd': 0.1, 'wkd_logit+wkd_feature': 1.0, 'kd+dot': 0.1, 'dkd+ls': 1.0, 'ctkd+ls': 0.1}
    for name, wanted in weights.items():
        cfg, row = read('resnet32x4_distill_resnet8x4'), pair.rows[name]
        entries(cfg)['semckd']['batch_size'] = 2
        for method, keywords in row.settings.items():
            entries(cfg)[method].update(keywords)
        distiller, losses = step(cfg, row.methods)
        assert {f'loss_{method}' for method in row.methods} <= set(losses)
        assert distiller.task_weight == pytest.approx(wanted)


def test_a_method_that_does_not_fit_is_refused_by_a_sentence():
    cfg = read('wrn_40_2_distill_MobileNetV2')
    with pytest.raises(ValueError, match='compares stage by stage, but the student has 4 of them and the teacher 3'):
        step(cfg, ['reviewkd'])


def test_stages_are_those_that_both_networks_have():
    offered = dict(at=dict(type='ATLoss'), kd=dict(type='KDLoss'))
    (at,) = benchmark_pair(offered, 'ResNet50', 'ShuffleV1')['distill_cfg'][0]['methods']
    assert at['stages'] == [1, 2, 3]
    (at,) = benchmark_pair(offered, 'ResNet50', 'vgg8', at=dict(stages=[4]))['distill_cfg'][0]['methods']
    assert at['stages'] == [4]
    with pytest.raises(ValueError, match="no network 'resnet33'"):
        benchmark_pair(offered, 'ResNet50', 'resnet33')
