"""The shipped configs: names, published hyper-parameters, teachers, and one training step of each."""

import ast
import copy
import inspect
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS
from networks import batch

import mmcls_kd.dis_losses as losses
from mmcls_kd.configs.reading import RunConfig, read_config
from mmcls_kd.dis_losses.wkd_logit import class_cost
from mmcls_kd.engine.config import check_loops
from mmcls_kd.errors import close_names
from mmcls_kd.files.paths import TOOLBOX, find_file
from mmcls_kd.networks.sources import network_cfg, zoo_weights
from mmcls_kd.recipe.methods import MethodList, offer

FOLDER = TOOLBOX / 'configs' / 'distillers'
VECTORS = ['rkd', 'pkt', 'cc', 'crd']
LATER = ['dist', 'lskd', 'ttm', 'wttm', 'ctkd', 'ofa_logit', 'ofa', 'wkd_logit', *VECTORS]  # beyond those of the original
LATER += ['normkd', 'normdkd', 'rld', 'abkd', 'luminet', 'srd', 'srd_correlation', 'pefd', 'vkd']
MAPS = ['at', 'sp', 'nst', 'vid', 'fitnet', 'wkd_feature', 'scalekd', 'reviewkd', 'simkd']  # and of convolutional networks
MAPS += ['ickd', 'semckd', 'afd', 'ft', 'norm', 'catkd', 'sdd']
CNN = ['srrl', 'mgd', 'wsld', 'dkd', 'kd', 'nkd', *LATER, *MAPS]
VIT = ['vitkd', 'wsld', 'dkd', 'nkd', 'kd', *LATER]
SELF = ['uskd', 'tfnkd']

# config: (methods offered, on by default, size of the student, its class count)
CONFIGS = {
    'imagenet/res34_distill_res18_img': (CNN, ['nkd'], 11_689_512),
    'imagenet/res50_distill_mv1_img': (CNN, ['nkd'], 4_231_976),
    'imagenet/deit-s3_distill_deit-t_img': (VIT, ['vitkd', 'nkd'], 5_717_416),
    'imagenet/deit-b3_distill_deit-s_img': (VIT, ['vitkd', 'nkd'], 22_050_664),
    'imagenet/deit-l3_distill_deit-b_img': (VIT, ['vitkd', 'nkd'], 86_567_656),
    'imagenet/deit-s_distill_deit-t_img': (VIT, ['vitkd', 'nkd'], 5_717_416),
    'imagenet/res18_sd_img': (SELF, ['uskd'], 11_689_512),
    'imagenet/res50_sd_img': (SELF, ['uskd'], 25_557_032),
    'imagenet/res101_sd_img': (SELF, ['uskd'], 44_549_160),
    'imagenet/mv1_sd_img': (SELF, ['uskd'], 4_231_976),
    'imagenet/mv2_sd_img': (SELF, ['uskd'], 3_504_872),
    'imagenet/shuffv2_sd_img': (SELF, ['uskd'], 2_278_604),
    'imagenet/regnet-1.6gf_sd_img': (SELF, ['uskd'], 9_190_136),
    'imagenet/swin-t_sd_img': (SELF, ['uskd'], 28_288_354 + 2 * (96 + 192 + 384)),  # the norms that USKD's taps may need
    'imagenet/deit-t_sd_img': (SELF, ['uskd'], 5_717_416),
    'cifar100/res34_distill_res18_cifar': ([*CNN, 'fsp', 'ab', 'ofd'], ['nkd'], 11_220_132),
    'cifar100/res18_sd_cifar': (SELF, ['uskd'], 11_220_132),
}
EXAMPLES = ('imagenet/res34', 'imagenet/deit-s_', 'imagenet/mv1', 'cifar100/')  # whose steps are not slow tests

# As their own authors run them, or RepDistiller does; wkd_logit's gamma goes by pair.
PUBLISHED_LATER = {
    'lskd': dict(temp=2, loss_weight=9),
    'ttm': dict(gamma=0.1, loss_weight=45),
    'wttm': dict(gamma=0.1),
    'ctkd': dict(alpha=0.9, divergence=True, curriculum=dict(start=1, range=20, epochs=10)),
    'wkd_logit': dict(temp=2, gamma=30),
    'normdkd': dict(temp=2, alpha=1, beta=8, loss_weight=dict(value=1, warmup=20)),
    'abkd': dict(alpha=0.8, beta=0.3, temp=4, loss_weight=64),
    'luminet': dict(temp=4, alpha=33, loss_weight=dict(value=0.5, warmup=20)),
    'srd': dict(exponent=4, temp=1),
    'pefd': dict(num_projectors=3, loss_weight=25),
    'rkd': dict(distance_weight=25, angle_weight=50),
    'pkt': dict(loss_weight=30000),
    'cc': dict(loss_weight=0.02),
    'crd': dict(loss_weight=0.8, nce_k=16384, nce_t=0.07, nce_m=0.5),
}
RLD = dict(temp=4, tau_alpha=1, alpha=1, beta=8)
ON_IMAGENET = dict(
    dist=dict(temp=1, beta=1, gamma=1, loss_weight=2),
    ofa_logit=dict(eps=1.5, temp=1),
    ofa=dict(eps=1.5, temp=1),
    normkd=dict(temp=1),
    rld=dict(**RLD, loss_weight=dict(value=1, warmup=1)),
    sdd=dict(scales=[1, 2, 4], loss=dict(type='DKDLoss', temp=1, alpha=1, beta=0.5)),
)
ON_CIFAR = dict(
    dist=dict(temp=4, beta=1, gamma=1, loss_weight=2),
    ofa_logit=dict(eps=1, temp=1),
    ofa=dict(eps=1, temp=1),
    normkd=dict(temp=2, loss_weight=9),
    rld=dict(**RLD, loss_weight=dict(value=1, warmup=20)),
    sdd=dict(scales=[1, 2, 4], loss=dict(type='DKDLoss', temp=4, alpha=1, beta=8), loss_weight=dict(value=1, warmup=20)),
)
EVERY_STAGE = [1, 2, 3, 4]
PUBLISHED_MAPS = {
    'at': dict(loss_weight=1000, stages=EVERY_STAGE),
    'sp': dict(loss_weight=3000),
    'nst': dict(loss_weight=50),
    'vid': dict(stages=EVERY_STAGE, init_pred_var=5),
    'fitnet': dict(loss_weight=100, stages=[2], norm_act=True),
    'wkd_feature': dict(grid=1),
    'simkd': dict(factor=2),
    'ickd': dict(loss_weight=4),
    'norm': dict(parts=8),
    'afd': dict(qk_dim=128, loss_weight=200),
    'ft': dict(rate=0.5, p1=2, p2=1, loss_weight=200),
    'catkd': dict(resolution=2, normalize=True),
}
PUBLISHED = {
    'imagenet CNN': {
        **PUBLISHED_LATER,
        **PUBLISHED_MAPS,
        **ON_IMAGENET,
        'reviewkd': dict(loss_weight=dict(value=1, warmup=1)),
        'semckd': dict(loss_weight=50),
        'kd': dict(temp=1, alpha=0.5),
        'dkd': dict(temp=1, alpha=1, beta=0.5),
        'wsld': dict(temp=2, alpha=2.5),
        'nkd': dict(temp=1, gamma=1.5),
        'srrl': dict(alpha=1, beta=1),
        'mgd': dict(alpha_mgd=7e-5, lambda_mgd=0.15),
        'uskd': dict(alpha=1, beta=0.1, mu=0.005),
    },
    'imagenet DeiT': {
        **PUBLISHED_LATER,
        **ON_IMAGENET,
        'kd': dict(temp=1, alpha=0.5),
        'dkd': dict(temp=1, alpha=1, beta=0.5),
        'wsld': dict(temp=2, alpha=2.5),
        'nkd': dict(temp=1, gamma=1),
        'vitkd': dict(alpha_vitkd=3e-5, beta_vitkd=3e-6, lambda_vitkd=0.5),
        'uskd': dict(alpha=1, beta=0.1, mu=0.005),
    },
    'cifar100': {
        **PUBLISHED_LATER,
        **PUBLISHED_MAPS,
        **ON_CIFAR,
        'reviewkd': dict(loss_weight=dict(value=1, warmup=20)),
        'semckd': dict(loss_weight=400),
        'fsp': dict(loss_weight=50),
        'ab': dict(margin=1),
        'ofd': dict(loss_weight=1e-3),
        'kd': dict(temp=3, alpha=0.5),
        'dkd': dict(temp=4, alpha=1, beta=8),
        'wsld': dict(temp=4, alpha=2.25),
        'nkd': dict(temp=3, gamma=3.5),
        'srrl': dict(alpha=1, beta=5),
        'mgd': dict(alpha_mgd=1.2e-3, lambda_mgd=0.15),
        'uskd': dict(alpha=0.1, beta=0.1, mu=0.1),
    },
}


@cache
def read_once(name):
    return Config.fromfile(FOLDER / f'{name}.py')


def read(name):
    """A shipped config, to be changed at will."""
    return copy.deepcopy(read_once(name))


def entries(cfg):
    return {e['name'].removeprefix('loss_'): e for group in cfg.model.distill_cfg for e in group['methods']}


def with_speed_marks(names):
    """Slow tests but for the examples; the largest pair, of the parts of imagenet/deit-b3, is an acceptance test."""
    marks = dict.fromkeys(names, pytest.mark.slow) | {'imagenet/deit-l3_distill_deit-b_img': pytest.mark.acceptance}
    return [pytest.param(n, marks=() if n.startswith(EXAMPLES) else marks[n]) for n in names]


def test_all_of_the_originals_names_are_there():
    shipped = {str(p.relative_to(FOLDER).with_suffix('')) for p in FOLDER.glob('*/*.py')}
    assert set(CONFIGS) <= shipped
    assert {n for n in shipped if n.startswith(('cifar100/', 'imagenet/'))} == set(CONFIGS)


@pytest.mark.parametrize('name', CONFIGS)
class TestConfig:
    def test_reads_as_a_diff(self, name):
        text = (FOLDER / f'{name}.py').read_text()
        assert len(text.splitlines()) <= 26
        assert name in ast.get_docstring(ast.parse(text))  # its command

    def test_offers_its_methods(self, name):
        methods = entries(read(name))
        offered, on, _ = CONFIGS[name]
        assert set(offered) <= set(methods)
        assert {n for n, e in methods.items() if e['use_this']} == set(on)

    def test_hyper_parameters_are_the_published_ones(self, name):
        kind = 'cifar100' if 'cifar' in name else 'imagenet DeiT' if 'deit' in name else 'imagenet CNN'
        classes = 100 if 'cifar' in name else 1000
        methods = entries(read(name))
        for method in CONFIGS[name][0]:
            entry, expected = methods[method], PUBLISHED[kind].get(method, {})
            if (name, method) == ('imagenet/res50_distill_mv1_img', 'reviewkd'):
                expected = dict(loss_weight=dict(value=8, warmup=1))
            if (name, method) == ('imagenet/res50_distill_mv1_img', 'wkd_logit'):
                expected = dict(temp=2, gamma=25)
            assert {k: entry[k] for k in expected} == expected
            assert entry.get('num_classes', classes) == classes
            extra = set(entry) - set(expected) - {'type', 'name', 'use_this', 'num_classes'}
            widths = {'channel', 'student_channels', 'teacher_channels', 'student_dims', 'teacher_dims'}
            assert extra <= widths

    def test_is_seeded_and_imports_the_toolbox(self, name):
        cfg = read(name)
        assert cfg.randomness.seed is not None
        assert cfg.randomness.diff_rank_seed
        assert 'mmcls_kd' in cfg.custom_imports.imports


@pytest.mark.parametrize(
    ('name', 'model', 'config', 'accuracy'),
    [
        ('res34_distill_res18_img', 'resnet34_8xb32_in1k', 'resnet34_8xb32_in1k', 73.62),
        ('res50_distill_mv1_img', 'resnet50_8xb32_in1k', 'resnet50_8xb32_in1k', 76.55),
        ('deit-s3_distill_deit-t_img', 'deit3-small-p16_in21k-pre_3rdparty_in1k', 'deit3-small-p16_64xb64_in1k', 83.06),
        ('deit-b3_distill_deit-s_img', 'deit3-base-p16_in21k-pre_3rdparty_in1k', 'deit3-base-p16_64xb64_in1k', 85.70),
        ('deit-l3_distill_deit-b_img', 'deit3-large-p16_in21k-pre_3rdparty_in1k', 'deit3-large-p16_64xb64_in1k', 86.97),
        ('deit-s_distill_deit-t_img', 'deit-small_4xb256_in1k', 'deit-small_pt-4xb256_in1k', 80.69),
    ],
)
def test_teacher_is_the_model_indexs(name, model, config, accuracy):
    cfg = read(f'imagenet/{name}')
    index = ModelHub.get(model)
    assert cfg.model.teacher_pretrained == index.weights
    assert Path(cfg.model.teacher_cfg).stem == config
    (result,) = index.results
    assert result.metrics['Top 1 Accuracy'] == accuracy
    assert dict(network_cfg(cfg.model.teacher_cfg).backbone) == dict(index.config.model.backbone)


def test_schedules():
    for name in CONFIGS:
        cfg = read(name)
        optimizer, epochs = cfg.optim_wrapper.optimizer, cfg.train_cfg.max_epochs
        if 'cifar' in name:
            assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay, epochs) == (0.1, 0.9, 5e-4, 200)
            assert (cfg.param_scheduler.milestones, cfg.param_scheduler.gamma) == ([60, 120, 160], 0.2)
            assert cfg.train_dataloader.batch_size == 128
        elif 'deit' in name or 'swin' in name:
            assert (optimizer.type, optimizer.weight_decay, epochs) == ('AdamW', 0.05, 300)
            assert math.isclose(optimizer.lr, 1e-3)
            assert cfg.optim_wrapper.clip_grad.max_norm == 5.0
        elif 'res' in name or 'mv1' in name:
            assert (optimizer.lr, optimizer.weight_decay, epochs) == (0.1, 1e-4, 100)
            assert cfg.train_dataloader.batch_size == 32
    assert read('imagenet/res50_distill_mv1_img').optim_wrapper.clip_grad.max_norm == 5.0
    assert 'clip_grad' not in read('imagenet/res34_distill_res18_img').optim_wrapper


def step(cfg, size):
    """One optimiser step of a config's distiller on two random images; returns the distiller and its losses."""
    cfg.model.teacher_pretrained = False
    cfg.model.num_samples = 20_000  # more than CRD's negatives
    cfg.model.batch_size = 8
    preprocessor = cfg.get('data_preprocessor')
    distiller = MODELS.build({**cfg.model, **({'data_preprocessor': preprocessor} if preprocessor else {})}).train()
    before = {k: v.clone() for k, v in distiller.student.named_parameters()}
    data = distiller.data_preprocessor(batch(2, size, 100 if size == 32 else 1000), training=True)
    losses = distiller.loss(**data)
    distiller.parse_losses(losses)[0].backward()
    # DDP runs with find_unused_parameters=False
    assert not [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None]
    torch.optim.SGD(distiller.parameters(), lr=1e-3).step()
    assert any(not torch.equal(v, before[k]) for k, v in distiller.student.named_parameters())
    assert all(torch.isfinite(v) for v in losses.values())
    return distiller, losses


@pytest.mark.parametrize('name', with_speed_marks(CONFIGS))
def test_one_step_of_the_default_methods(name):
    _, on, parameters = CONFIGS[name]
    distiller, losses = step(read(name), 32 if 'cifar' in name else 224)
    assert sum(p.numel() for p in distiller.student.parameters()) == parameters
    assert set(losses) == {'ori_loss', *(f'loss_{m}' for m in on)}


# Alone on the small pair, where two ways of taking features are enough by default: several stages one by one, and all stages
# at once. On two processes (tests/engine/test_ddp.py) every kind of config trains all of its
# methods together.
SMALL = ('cifar100/res34_distill_res18_cifar', 'cifar100/res18_sd_cifar')
QUICK = ('at', 'reviewkd', 'tfnkd')


@pytest.mark.parametrize(
    ('name', 'method'),
    [
        pytest.param(name, method, marks=() if method in QUICK else pytest.mark.slow)
        for name in SMALL
        for method in CONFIGS[name][0]
        if [method] != CONFIGS[name][1]
    ],
)
def test_one_step_of_every_other_method(name, method):
    cfg = read(name)
    MethodList(cfg.model.distill_cfg).select([method])
    _, losses = step(cfg, 32)
    assert set(losses) == {'ori_loss', f'loss_{method}', *(['temp_ctkd'] if method == 'ctkd' else [])}


def test_one_step_of_the_later_methods_together():
    cfg = read('cifar100/res34_distill_res18_cifar')
    MethodList(cfg.model.distill_cfg).select(LATER)
    _, losses = step(cfg, 32)
    assert set(losses) == {'ori_loss', 'temp_ctkd', *(f'loss_{method}' for method in LATER)}


FUNCTIONS = {
    'kd': losses.kd_loss,
    'dkd': losses.dkd_loss,
    'wsld': losses.wsld_loss,
    'nkd': losses.nkd_loss,
    'dist': losses.dist_loss,
    'lskd': losses.lskd_loss,
    'ttm': losses.ttm_loss,
    'wttm': losses.wttm_loss,
    'ofa_logit': losses.ofa_logit_loss,
    'wkd_logit': losses.wkd_logit_loss,
    'normkd': losses.normkd_loss,
    'abkd': losses.abkd_loss,
}


@pytest.mark.parametrize(
    'name', ['imagenet/res34_distill_res18_img', 'imagenet/deit-s_distill_deit-t_img', 'cifar100/res34_distill_res18_cifar']
)
def test_logit_losses_inside_a_config_are_the_published_functions(name):
    cfg = read(name)
    logit_methods = [m for m in CONFIGS[name][0] if m in FUNCTIONS]
    MethodList(cfg.model.distill_cfg).select(logit_methods)
    cfg.model.teacher_pretrained = False
    distiller = MODELS.build(cfg.model).eval()
    classes = 100 if 'cifar' in name else 1000
    data = distiller.data_preprocessor(batch(2, 32 if 'cifar' in name else 224, classes), training=False)
    with torch.no_grad():
        values = distiller.loss(**data)
        logit_s = distiller.student(data['inputs'])
        logit_t = distiller.teacher_holder(data['inputs'], data['data_samples'], ['logit'])['logit']
    kind = 'cifar100' if 'cifar' in name else 'imagenet DeiT' if 'deit' in name else 'imagenet CNN'
    published = PUBLISHED[kind] | (dict(wkd_logit=dict(temp=2, gamma=25)) if 'mv1' in name else {})
    cost = class_cost(distiller.teacher.get_submodule('head.layers.head' if 'deit' in name else 'head.fc').weight)
    for method in logit_methods:
        keywords = dict(published[method])
        weight = keywords.pop('loss_weight', 1)
        others = dict(gt_label=torch.arange(2), cost=cost)
        asked = inspect.signature(FUNCTIONS[method]).parameters.keys() & others
        expected = FUNCTIONS[method](logit_s, logit_t, **{key: others[key] for key in asked}, **keywords)
        torch.testing.assert_close(values[f'loss_{method}'], weight * expected)


class TestMethods:
    BASE = dict(kd=dict(type='KDLoss', temp=1.0), nkd=dict(type='NKDLoss'))

    def test_offer(self):
        assert offer(self.BASE, ['nkd'], kd=dict(temp=2.0)) == [
            dict(methods=[dict(name='loss_kd', use_this=False, type='KDLoss', temp=2.0)]),
            dict(methods=[dict(name='loss_nkd', use_this=True, type='NKDLoss')]),
        ]

    def test_an_unknown_method_lists_the_offers(self):
        with pytest.raises(ValueError, match="unknown method 'nkdd'; did you mean 'nkd'.*offers: kd, nkd"):
            offer(self.BASE, ['nkdd'])
        with pytest.raises(ValueError, match="unknown method 'mgd'.*offers: kd, nkd"):
            offer(self.BASE, ['nkd'], mgd=dict(student_channels=1))

    def test_no_method(self):
        with pytest.raises(ValueError, match='no distillation method is chosen; this config offers: kd, nkd'):
            offer(self.BASE, [])

    def test_one_word_in_the_file_switches(self, tmp_path):
        text = (FOLDER / 'imagenet' / 'res34_distill_res18_img.py').read_text()
        changed = text.replace("methods = ['nkd']", "methods = ['srrl', 'kd']").replace('../../', f'{TOOLBOX}/configs/')
        (tmp_path / 'mine.py').write_text(changed)
        methods = entries(Config.fromfile(tmp_path / 'mine.py'))
        assert [n for n, e in methods.items() if e['use_this']] == ['srrl', 'kd']

    def test_select(self):
        model = dict(distill_cfg=offer(self.BASE, ['nkd']))
        MethodList(model['distill_cfg']).select(['kd'])
        assert [e['methods'][0]['use_this'] for e in model['distill_cfg']] == [True, False]


class TestText:
    """Text of a run's config, against mmengine's own, laid out by yapf."""

    VALUES = dict(
        a=dict(type='X', lr=1e-05, nested=[dict(p=None), dict(), [], (), (1,), (1, 2.5), True], text="it's \\ \n"),
        b={'x y': 1, 3: 'three', 'z': {'k': (('a',), {'l m': [2]})}},
        c=['a' * 60, 'b' * 60, dict(d='c' * 100)],
        d=dict,
        e=-0.0,
        f={'class': 1, 'self': 2},
    )

    @pytest.mark.parametrize('path', [*list(CONFIGS)[2:4], 'fashion_mnist/res18-w16_distill_res18-w4_fmnist'])
    def test_it_says_what_mmengines_says(self, path):
        cfg = RunConfig.of(Config.fromfile(FOLDER / f'{path}.py'))
        ours, theirs = (Config.fromstring(text, '.py') for text in (cfg.pretty_text, super(RunConfig, cfg).pretty_text))
        assert ours.to_dict() == cfg.to_dict()
        assert repr(ours._cfg_dict) == repr(theirs._cfg_dict)  # the order too

    def test_it_gives_back_every_kind_of_value(self):
        text = RunConfig(self.VALUES).pretty_text
        assert Config.fromstring(text, '.py').to_dict() == self.VALUES
        assert max(map(len, text.splitlines())) == len(f"        d='{'c' * 100}',")

    def test_what_cannot_be_written_is_named(self):
        with pytest.raises(ValueError, match=r"collate=\{'fn': <function .*>\} cannot be written as Python"):
            RunConfig(dict(collate=dict(fn=lambda: 0))).dump()


class TestPaths:
    def test_working_directory_then_toolbox_then_mmpretrain(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        path = 'configs/resnet/resnet18_8xb32_in1k.py'
        assert find_file(path) == TOOLBOX / path
        assert read_config(path).model.backbone.depth == 18
        Path('configs/resnet').mkdir(parents=True)
        Path(path).write_text("model = dict(type='Mine')")
        assert read_config(path).model.type == 'Mine'
        assert read_config('configs/vgg/vgg11_8xb32_in1k.py').model.backbone.depth == 11
        assert read_config('mmpretrain::vgg/vgg13_8xb32_in1k.py').model.backbone.depth == 13

    def test_a_config_of_mmpretrain_is_found_without_its_index(self, monkeypatch):
        monkeypatch.setattr('mmengine.config.utils.load', lambda path: pytest.fail(f'{path} is read'))
        assert read_config('mmpretrain::vgg/vgg13_8xb32_in1k.py').model.backbone.depth == 13
        assert read_config('configs/resnet/resnet18_8xb32_in1k.py').model.backbone.depth == 18  # inherits from mmpretrain's

    @pytest.mark.parametrize('path', ['configs/none.py', 'mmpretrain::none/none.py'])
    def test_nowhere(self, path):
        with pytest.raises(FileNotFoundError, match=path):
            read_config(path)

    def test_a_network_comes_with_its_preprocessor(self):
        assert network_cfg('configs/resnet/resnet18_8xb32_in1k.py').data_preprocessor.to_rgb
        with pytest.raises(ValueError, match='nor `model`'):
            network_cfg(dict(data_preprocessor={}))

    def test_zoo_weights(self):
        assert zoo_weights('resnet34_8xb32_in1k').endswith('.pth')
        with pytest.raises(ValueError, match='resnet35'):
            zoo_weights('resnet35')


def test_close_names_ignore_case():
    assert close_names('nkdloss', ['NKDLoss', 'VGG']) == "; did you mean 'NKDLoss'?"
    assert close_names('zzz', ['NKDLoss']) == ''


@pytest.mark.parametrize(
    ('lacking', 'said'),
    [
        ('val_cfg', 'has val_dataloader and val_evaluator, but no val_cfg: give all three, .* without validation'),
        ('test_evaluator', 'has test_dataloader and test_cfg, but no test_evaluator: .* for a training without test'),
    ],
)
def test_parts_of_a_validation_or_test_are_refused(lacking, said):
    cfg = read_config('configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py')
    check_loops(cfg)
    cfg[lacking] = None
    with pytest.raises(ValueError, match=said):
        check_loops(cfg)
    cfg.update(dict.fromkeys([f'{lacking.partition("_")[0]}_{part}' for part in ('dataloader', 'cfg', 'evaluator')]))
    check_loops(cfg)
