"""What mmpretrain and mmengine bring along works around a distiller: each feature once, in a tiny training."""

import itertools
import json
import random
import re
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmpretrain.evaluation import Accuracy, AveragePrecision, ConfusionMatrix, MultiLabelMetric, SingleLabelMetric
from mmpretrain.models import LabelSmoothLoss
from mmpretrain.registry import (
    BATCH_AUGMENTS,
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    RUNNERS,
    TRANSFORMS,
)
from networks import resnet, vit
from PIL import Image

from mmcls_kd.checks.training import check_one_label, check_training
from mmcls_kd.command.arguments import training_parser
from mmcls_kd.command.train import closing_line
from mmcls_kd.configs.reading import RunConfig
from mmcls_kd.engine.amp import CPUAmpOptimWrapper
from mmcls_kd.engine.config import count_samples, training_config
from mmcls_kd.engine.data import images_in
from mmcls_kd.engine.first_batch import first_images
from mmcls_kd.engine.models import fill_in_classes
from mmcls_kd.engine.runtime import build_runner
from mmcls_kd.engine.views import views_of
from mmcls_kd.errors import TrainingError
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.teacher_store.writer import StoreWriter

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*instance named of'),
    pytest.mark.filterwarnings('ignore:.*is not a meta file'),
]

CLASSES = ('ant', 'bee', 'cat')
PREPROCESSOR = dict(num_classes=3, mean=[127.0] * 3, std=[64.0] * 3, to_rgb=True)
LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackInputs')
FLIP = dict(type='RandomFlip', prob=0.5)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Folders of images: of training 4, 3 and 1 in a class, of validation one."""
    root, random = tmp_path_factory.mktemp('data'), np.random.RandomState(0)
    for split, counts in (('train', (4, 3, 1)), ('val', (1, 1, 1))):
        for name, count in zip(CLASSES, counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(random.randint(0, 256, (32, 32, 3)).astype(np.uint8)).save(root / split / name / f'{i}.png')
    return root


def images(data, split='train', pipeline=(LOAD, FLIP, PACK), **more):
    return dict(
        type='CustomDataset', data_root=str(data), data_prefix=split, pipeline=list(pipeline), **dict(with_label=True) | more
    )


def config(data, student=None, methods=(dict(type='KDLoss', name='loss_kd'),), **changes):
    """A config of a training of two or three steps."""
    loader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True))
    validation = dict(loader, dataset=images(data, 'val', (LOAD, PACK)), sampler=dict(type='DefaultSampler', shuffle=False))
    training = {**loader, 'dataset': images(data)}
    if set(more := changes.pop('train_dataloader', {})) == {'dataset'} and 'type' not in more['dataset']:
        more = dict(dataset=images(data, **more['dataset']))
    model = dict(
        type='ClassificationDistiller',
        student_cfg=student or resnet(2, 3),
        teacher_cfg=resnet(2, 3),
        teacher_pretrained=False,
        data_preprocessor=PREPROCESSOR,
        distill_cfg=[dict(methods=[dict(method)]) for method in methods],
    )
    cfg = dict(
        default_scope='mmpretrain',
        model={**model, **changes.pop('model', {})},
        train_dataloader={**training, **more},
        val_dataloader=validation,
        val_evaluator=dict(type='Accuracy', topk=(1,)),
        val_cfg=dict(),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        randomness=dict(seed=0),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=-1)),
        log_level='ERROR',
    )
    return {**cfg, **changes}


@pytest.fixture
def built(data, tmp_path, monkeypatch):
    """Makes the runner of a config and checks it, as tools/train.py does."""

    monkeypatch.setattr(RunConfig, 'pretty_text', '')  # half of the time, for what nobody reads here

    def build(**changes):
        text = '\n'.join(f'{key} = {value!r}' for key, value in config(data, **changes).items())
        (tmp_path / 'config.py').write_text(text)
        words = [str(tmp_path / 'config.py'), '--work-dir', str(tmp_path / 'run')]
        cfg = training_config(training_parser('').parse_args(words))
        cfg.experiment_name = f'{tmp_path.name}_{next(runs)}'  # mmengine's has the second: two runs would share their logs
        count_samples(cfg)
        runner = build_runner(cfg)
        check_training(runner)
        return runner

    runs = itertools.count()
    return build


@pytest.fixture
def trained(built):
    """Trains by a config, and returns the runner."""

    def train(**changes):
        runner = built(**changes)
        runner.train()
        return runner

    return train


def hook(kind, **keywords):
    return dict(custom_hooks=[dict(type=kind, **keywords)])


def switch(*recipes):
    """mmpretrain's hook that changes the recipe, each in the epoch that it names."""
    return hook('SwitchRecipeHook', schedule=[dict(recipe) for recipe in recipes])


MIXUP = dict(type='Mixup', alpha=0.8)


ARC_FACE = resnet(2, 3) | dict(head=dict(type='ArcFaceClsHead', num_classes=3, in_channels=16))

WORKS = {
    'ClassNumCheckHook': hook('ClassNumCheckHook'),
    'EMAHook': hook('EMAHook', momentum=0.1, evaluate_on_origin=True),
    'EarlyStoppingHook': hook('EarlyStoppingHook', monitor='accuracy/top1', rule='greater'),
    'EmptyCacheHook': hook('EmptyCacheHook', after_epoch=True),
    'PreciseBNHook': hook('PreciseBNHook', num_samples=8),
    'ProfilerHook': hook('ProfilerHook', by_epoch=False, profile_times=1, on_trace_ready=dict(type='log_trace')),
    'SetAdaptiveMarginsHook': dict(student=ARC_FACE, **hook('SetAdaptiveMarginsHook')),
    'SyncBuffersHook': hook('SyncBuffersHook'),
    'VisualizationHook': dict(
        default_hooks=dict(visualization=dict(type='VisualizationHook', enable=True, interval=1)),
        visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
    ),
    'WarmupParamHook': hook('WarmupParamHook', param_name='num_classes', module_name='student.head', warmup_epochs=0.1),
    'DefaultOptimWrapperConstructor': dict(
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.01, weight_decay=0.1),
            paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'student.head': dict(lr_mult=10)}),
        )
    ),
    'NaiveVisualizationHook': hook('NaiveVisualizationHook'),
    'IterBasedTrainLoop': dict(train_cfg=dict(by_epoch=False, max_iters=2)),
    'CosineAnnealingWeightDecay': dict(
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1)),
        param_scheduler=dict(type='CosineAnnealingWeightDecay', T_max=1, eta_min=0.01, convert_to_iter_based=True),
    ),
    'ReduceOnPlateauLR': dict(param_scheduler=dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater')),
    'Lamb': dict(optim_wrapper=dict(optimizer=dict(type='Lamb', lr=0.01))),
    'LARS': dict(optim_wrapper=dict(optimizer=dict(type='LARS', lr=0.01))),
    'Adan': dict(optim_wrapper=dict(optimizer=dict(type='Adan', lr=0.01))),
    'ConfusionMatrix': dict(val_evaluator=[dict(type='Accuracy', topk=(1,)), dict(type='ConfusionMatrix', num_classes=3)]),
    'SingleLabelMetric': dict(val_evaluator=dict(type='SingleLabelMetric', num_classes=3)),
    'clip_grad, accumulative_counts': dict(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01), clip_grad=dict(max_norm=1.0), accumulative_counts=2)
    ),
    'Mixup': dict(model=dict(train_cfg=dict(augments=MIXUP))),
    'CutMix, on half of the batches': dict(
        model=dict(train_cfg=dict(augments=dict(type='CutMix', alpha=1.0), probs=0.5)), train_cfg=dict(max_epochs=4)
    ),
    'ResizeMix': dict(model=dict(train_cfg=dict(augments=dict(type='ResizeMix', alpha=1.0)))),
    'RepeatAugSampler': dict(train_dataloader=dict(sampler=dict(type='RepeatAugSampler'))),
    'SequentialSampler': dict(train_dataloader=dict(sampler=dict(type='SequentialSampler', subsample_type='sequential'))),
    'InfiniteSampler': dict(
        train_cfg=dict(by_epoch=False, max_iters=2), train_dataloader=dict(sampler=dict(type='InfiniteSampler'))
    ),
}


@pytest.mark.parametrize('name', WORKS)
def test_it_works(name, trained):
    runner = trained(**WORKS[name])
    assert runner.iter >= 2
    assert all(p.isfinite().all() for p in runner.model.parameters())


@pytest.mark.parametrize('keys', [dict(train_cfg=dict(augments=MIXUP)), dict(data_preprocessor=dict(to_onehot=True))])
def test_one_hot_labels_have_the_classes_of_the_student(keys, built):
    runner = built(model=dict(dict(data_preprocessor={}), **keys))
    data = runner.model.data_preprocessor(first_images(runner.train_dataloader, 4), training=True)
    assert [len(sample.gt_score) for sample in data['data_samples']] == [3] * 4


@pytest.mark.parametrize('name', ['ImageClassifier', 'TimmClassifier'])
def test_one_hot_labels_have_the_classes_of_a_network(name):
    network = resnet(2, 3) if name == 'ImageClassifier' else dict(type=name, model_name='resnet10t', num_classes=3)
    model = MODELS.build(dict(network, train_cfg=dict(augments=MIXUP)))
    assert model.data_preprocessor.num_classes is None
    fill_in_classes(model)
    assert model.data_preprocessor.num_classes == 3


@pytest.mark.parametrize('keys', [{}, dict(loss_scale=512.0, dtype='float16')])
def test_on_a_cpu_mixed_precision_of_a_config_is_that_of_a_cpu(keys, trained, monkeypatch):
    said = []
    monkeypatch.setattr('mmcls_kd.engine.config.print_log', lambda text, *_: said.append(text))
    runner = trained(optim_wrapper=dict(type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01), **keys))
    assert isinstance(runner.optim_wrapper, CPUAmpOptimWrapper)
    assert said == ['AmpOptimWrapper needs a GPU: CPUAmpOptimWrapper, with bfloat16, takes its place']


def test_settings_of_no_parameter_are_told(built, monkeypatch):
    keys = {'student.head': dict(lr_mult=2.0), '.cls_token': dict(decay_mult=0.0), 'student.bakbone': dict(lr_mult=0.1)}
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda _, text: said.append(text))
    built(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1), paramwise_cfg=dict(custom_keys=keys)))
    [told] = [text for text in said if 'custom_keys' in text]
    assert told.startswith("optim_wrapper.paramwise_cfg.custom_keys: no parameter has 'student.bakbone' in its name, so")
    assert "did you mean 'student.backbone'" in told


LAYER_DECAY = dict(
    constructor='LearningRateDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.1),
    paramwise_cfg=dict(layer_decay_rate=0.5, norm_decay_mult=0.0, custom_keys={'.cls_token': dict(decay_mult=0.0)}),
)

REFUSED = {
    'DenseCLHook': (hook('DenseCLHook'), 'loss_lambda'),
    'another number of classes': (
        dict(model=dict(data_preprocessor=PREPROCESSOR | dict(num_classes=4)), **hook('ClassNumCheckHook')),
        r'ClassNumCheckHook .*does not matches',
    ),
    'a key that SwitchRecipeHook passes over': (
        switch(dict(action_epoch=1, train_augments=None)),
        "pass over 'train_augments'.*batch_augments",
    ),
    'an epoch that never comes': (
        dict(
            train_cfg=dict(by_epoch=False, max_iters=2),
            **switch(dict(action_epoch=1, batch_augments=None)),
        ),
        'action_epoch=1 would never come',
    ),
    'batch augmentation that would be passed over': (
        hook('SwitchRecipeHook', schedule=[dict(action_epoch=2, batch_augments=dict(augments=MIXUP))]),
        'batch_augments of epoch 2 would be passed over.*to_onehot=True',
    ),
    'batch augmentation that cannot be built': (
        hook(
            'SwitchRecipeHook',
            schedule=[dict(action_epoch=2, batch_augments=dict(augments=MIXUP, probs=2.0))],
        ),
        'the run cannot be built: .*probability',
    ),
    'a loss that does not fit': (
        switch(dict(action_epoch=2, loss=dict(type='CrossEntropyLoss', use_sigmoid=True))),
        'switches to in epoch 2',
    ),
    'a metric that there is not': (
        dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='acc', rule='greater'))),
        "save_best='acc' is no metric of val_evaluator.*accuracy/top1",
    ),
    'a metric whose better values are not known': (
        dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='single-label/recall'))),
        "rule for key single-label/recall.*default_hooks.checkpoint.*rule='greater'",
    ),
    'a first metric whose better values are not known': (
        dict(
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='auto')),
            val_evaluator=dict(type='SingleLabelMetric', items=['recall']),
        ),
        "rule for key single-label/recall.*default_hooks.checkpoint.*rule='greater'",
    ),
    'a metric that is a list': (
        dict(
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='single-label/precision_classwise')),
            val_evaluator=dict(type='SingleLabelMetric', average=None),
        ),
        "checkpoint.save_best='single-label/precision_classwise' is a list, and one number is needed: name another metric",
    ),
    'a first metric that is a matrix': (
        dict(
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='auto', rule='greater')),
            val_evaluator=[dict(type='ConfusionMatrix'), dict(type='Accuracy')],
        ),
        "save_best='auto': confusion_matrix/result is a Tensor, and one number.*; it gives accuracy/top1",
    ),
    'a list that stops the training': (
        dict(
            val_evaluator=dict(type='SingleLabelMetric', average=None),
            **hook('EarlyStoppingHook', monitor='single-label/recall_classwise', rule='greater'),
        ),
        "EarlyStoppingHook: monitor='single-label/recall_classwise' is a list",
    ),
    'a schedule that follows a metric that there is not': (
        dict(param_scheduler=dict(type='ReduceOnPlateauLR', rule='less')),
        "param_scheduler: monitor='loss' is no metric of val_evaluator; it gives accuracy/top1",
    ),
    'a schedule that follows a list': (
        dict(
            val_evaluator=dict(type='SingleLabelMetric', average=None, items=['recall']),
            param_scheduler=[dict(type='ReduceOnPlateauLR', monitor='single-label/recall_classwise', rule='greater')],
        ),
        "param_scheduler: monitor='single-label/recall_classwise' is a list",
    ),
    'layers without a depth': (
        dict(optim_wrapper=LAYER_DECAY),
        'does not say how deep its layers are',
    ),
    'an unknown hook': (hook('EMAHok'), r"custom_hooks.0.type='EMAHok': there is no hook 'EMAHok'; did you mean 'EMAHook'"),
    'an unknown optimizer': (dict(optim_wrapper=dict(optimizer=dict(type='SDG', lr=0.1))), "no optimizer 'SDG'.*'SGD'"),
    'an unknown transform': (
        dict(train_dataloader=dict(dataset=dict(pipeline=[LOAD, dict(type='RandomFlop'), PACK]))),
        "train_dataloader: .*no transform 'RandomFlop'.*'RandomFlip'",
    ),
    'a dataloader without a sampler': (dict(val_dataloader=dict(dataset={})), "val_dataloader has no 'sampler'"),
    'a student without a type': (
        dict(student=dict(backbone=dict(type='ResNet', depth=18))),
        'model.student_cfg.*type',
    ),
    'a student whose backbone does not exist': (
        dict(student=resnet(2, 3) | dict(backbone=dict(type='ResNett', depth=18))),
        "model.student_cfg: there is no model 'ResNett'.*'ResNet'",
    ),
    'a student whose keyword does not exist': (
        dict(student=resnet(2, 3) | dict(backbone=dict(type='ResNet', depht=18))),
        'model.student_cfg: .*depht',
    ),
    'a backbone alone': (
        dict(student=dict(type='ResNet', depth=18)),
        "loss_kd .* needs 'logit_s', and the student has no classes",
    ),
    'a config without a network': (
        dict(student='configs/_base_/methods/imagenet_cnn.py'),
        'model.student_cfg: .*nor `model`',
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_it_is_refused_in_one_line(name, trained):
    changes, message = REFUSED[name]
    with pytest.raises((ValueError, TrainingError), match=message) as refusal:
        trained(**changes)
    assert '\n' not in str(refusal.value)


def test_the_loss_is_switched_in_the_student(trained, built):
    schedule = [dict(action_epoch=2, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1))]
    runner = trained(train_cfg=dict(max_epochs=2), **hook('SwitchRecipeHook', schedule=schedule))
    assert isinstance(runner.model.student.head.loss_module, LabelSmoothLoss)
    assert not any('loss_module' in name for name, _ in runner.model.named_children())
    before = built(train_cfg=dict(max_epochs=2), **hook('SwitchRecipeHook', schedule=schedule)).model
    assert not isinstance(before.student.head.loss_module, LabelSmoothLoss)  # the trial was taken back


def test_the_loss_is_switched_in_a_student_that_has_no_head(trained):
    student = dict(type='TimmClassifier', model_name='resnet10t', num_classes=3, loss=dict(type='CrossEntropyLoss'))
    schedule = [dict(action_epoch=1, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1))]
    runner = trained(student=student, **hook('SwitchRecipeHook', schedule=schedule))
    assert isinstance(runner.model.student.loss_module, LabelSmoothLoss)


@HOOKS.register_module(force=True)
class WatchHook(Hook):
    """Notes what each epoch trains on: the batch augmentation, and the mean of the images."""

    priority = 'LOWEST'

    def before_run(self, runner):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        augments = getattr(runner.model.data_preprocessor.batch_augments, 'augments', [])
        means = [float(x.float().mean()) for x in data_batch['inputs']]
        places = [sample.sample_idx for sample in data_batch['data_samples']]
        self.seen += [
            (runner.epoch, [type(a).__name__ for a in augments], *pair) for pair in zip(places, means, strict=True)
        ]


def seen_by(runner):
    return next(h for h in runner.hooks if isinstance(h, WatchHook)).seen


def test_pipeline_and_batch_augmentation_are_switched(trained):
    invert = [LOAD, dict(type='Invert', prob=1.0), PACK]
    schedule = [
        dict(action_epoch=1, batch_augments=dict(augments=dict(type='CutMix', alpha=1.0))),
        dict(action_epoch=2, train_pipeline=invert, batch_augments=None),
    ]
    hooks = [dict(type='SwitchRecipeHook', schedule=schedule), dict(type='WatchHook')]
    preprocessor = dict(data_preprocessor=PREPROCESSOR | dict(to_onehot=True))
    seen = seen_by(trained(train_cfg=dict(max_epochs=2), custom_hooks=hooks, model=preprocessor))
    assert [augments for epoch, augments, *_ in seen] == 8 * [['CutMix']] + 8 * [[]]
    first, second = ({place: mean for e, _, place, mean in seen if e == epoch} for epoch in (0, 1))
    assert all(second[i] == pytest.approx(255 - first[i], abs=1e-3) for i in range(8))


def test_layers_of_the_student_get_their_own_learning_rates(built):
    """The distiller's are those that the student gets alone; the losses' parameters have the full rate."""
    runner = built(
        student=vit(16, classes=3), methods=[dict(type='CRDLoss', name='loss_crd', nce_k=4)], optim_wrapper=LAYER_DECAY
    )
    wrapper = runner.build_optim_wrapper(LAYER_DECAY)
    alone = runner.build_optim_wrapper.__func__(SimpleNamespace(model=runner.model.student), LAYER_DECAY)
    found = {g['param_name']: (g['lr'], g['weight_decay']) for g in wrapper.optimizer.param_groups}
    expected = {g['param_name']: (g['lr'], g['weight_decay']) for g in alone.optimizer.param_groups}
    assert len({lr for lr, _ in expected.values()}) == 6
    assert {k.removeprefix('student.'): v for k, v in found.items() if k.startswith('student.')} == expected
    assert {lr for name, (lr, _) in found.items() if name.startswith('distill_losses.')} == {0.1}


@pytest.mark.parametrize(
    ('wrapped', 'count', 'samples'),
    [
        (lambda one: dict(type='RepeatDataset', dataset=one('train'), times=2), 8, 16),
        (lambda one: dict(type='ClassBalancedDataset', dataset=one('train'), oversample_thr=0.5), 8, 12),
        (lambda one: dict(type='KFoldDataset', dataset=one('train'), fold=0, num_splits=4), 6, 6),
        (lambda one: dict(type='ConcatDataset', datasets=[one('train'), one('val')]), 11, 11),
        (
            lambda one: dict(
                type='ConcatDataset',
                datasets=[dict(type='RepeatDataset', dataset=one('val'), times=2), one('train')],
            ),
            11,
            14,
        ),
        (
            lambda one: dict(
                type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[one('train'), one('val')]), times=2
            ),
            11,
            22,
        ),
    ],
    ids=['RepeatDataset', 'ClassBalancedDataset', 'KFoldDataset', 'ConcatDataset', 'repeated in Concat', 'Concat repeated'],
)
def test_each_image_has_one_entry_in_crds_memory(wrapped, count, samples, data, trained):
    runner = trained(
        train_dataloader=dict(dataset=wrapped(lambda split: images(data, split)), drop_last=False),
        methods=[dict(type='CRDLoss', name='loss_crd', nce_k=2)],
        custom_hooks=[dict(type='WatchHook'), dict(type='ClassNumCheckHook')],
    )
    dataset = runner.train_dataloader.dataset
    memory = runner.model.distill_losses.loss_crd.memory_s
    assert (len(memory), images_in(dataset), len(dataset)) == (count, count, samples)
    assert torch.allclose(memory.norm(dim=1), torch.ones(count), atol=1e-5)  # each was written
    paths = {}
    for i in range(samples):
        paths.setdefault(dataset[i]['data_samples'].sample_idx, set()).add(dataset.get_data_info(i)['img_path'])
    assert sorted(paths) == list(range(count))
    assert all(len(names) == 1 for names in paths.values())
    assert len(set().union(*paths.values())) == count
    assert list(dataset.CLASSES) == list(CLASSES)
    assert len(dataset.get_gt_labels()) == samples


@TRANSFORMS.register_module(force=True)
class OwnShift:
    """Draws from a generator of its own, or, each time, from a new one."""

    def __init__(self, kind='numpy'):
        kinds = dict(numpy=np.random.default_rng, legacy=np.random.RandomState, python=random.Random, torch=torch.Generator)
        self.held = [dict(generator=kinds[kind]() if kind in kinds else None)]

    def __call__(self, results):
        generator = self.held[0]['generator'] or np.random.default_rng()
        if isinstance(generator, torch.Generator):
            shift = torch.randint(100, (), generator=generator).item()
        else:
            draw = next(
                getattr(generator, name) for name in ('integers', 'randrange', 'randint') if hasattr(generator, name)
            )
            shift = int(draw(100))
        results['img'] = results['img'] // 2 + np.uint8(shift)
        return results


ALBUMENTATIONS = dict(
    type='Albumentations', transforms=[dict(type='RandomBrightnessContrast', p=0.9), dict(type='GaussNoise')]
)


@pytest.mark.parametrize('transform', ['numpy', 'legacy', 'python', 'torch', 'albumentations'])
def test_generators_of_a_transforms_own_follow_the_seed(transform, data, trained):
    if transform == 'albumentations':
        pytest.importorskip('albumentations', minversion='1.4.21')
    step = ALBUMENTATIONS if transform == 'albumentations' else dict(type='OwnShift', kind=transform)
    dataset = images(data, pipeline=[LOAD, step, PACK])
    runs = [
        trained(train_dataloader=dict(dataset=dataset), custom_hooks=[dict(type='WatchHook')], train_cfg=dict(max_epochs=2))
        for _ in range(2)
    ]
    first, second = map(seen_by, runs)
    assert first == second
    assert len({mean for _, _, place, mean in first if place == 0}) == 2  # another draw in the second epoch


def test_draws_that_no_seed_reaches_are_said_and_never_stored(data, built, caplog):
    dataset = images(data, pipeline=[LOAD, dict(type='OwnShift', kind='new'), PACK])
    runner = built(train_dataloader=dict(dataset=dataset), log_level='WARNING')
    with pytest.raises(ValueError, match='store .*random generator that the seed does not reach'):
        views_of(runner)


def test_test_time_augmentation_averages_the_students_scores(data, built):
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
    views = [LOAD, dict(type='TestTimeAug', transforms=[flips, [PACK]])]
    loader = dict(batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    runner = built(
        test_dataloader=dict(loader, dataset=images(data, 'val', views)),
        test_evaluator=dict(type='Accuracy', topk=(1,)),
        test_cfg=dict(),
        custom_hooks=[dict(type='PrepareTTAHook', tta_cfg=dict(type='AverageClsScoreTTA'))],
    )
    batch = runner.build_dataloader(runner._test_dataloader).__iter__().__next__()
    model = runner.model.eval()
    each = [
        torch.stack([s.pred_score for s in model.test_step(dict(inputs=list(x), data_samples=list(y)))])
        for x, y in zip(batch['inputs'], batch['data_samples'], strict=True)
    ]
    runner.test()
    tta = runner.model
    assert type(tta).__name__ == 'AverageClsScoreTTA'
    got = torch.stack([s.pred_score for s in tta.test_step(batch)])
    torch.testing.assert_close(got, sum(each) / 2)
    assert not torch.equal(each[0], each[1])


def test_the_document_names_everything_that_the_platform_registers():
    text = (TOOLBOX / 'docs' / 'mmpretrain_features.md').read_text()
    names = set()
    for registry in (HOOKS, LOOPS, RUNNERS, OPTIM_WRAPPERS, OPTIM_WRAPPER_CONSTRUCTORS, DATA_SAMPLERS, BATCH_AUGMENTS):
        registry.import_from_location()
        for name, kind in {**(registry.parent or registry).module_dict, **registry.module_dict}.items():
            if kind.__module__.startswith(('mmpretrain.', 'mmengine.')):
                names.add(name)
    missing = sorted(name for name in names if f'`{name}`' not in text)
    assert not missing
    assert not [name for name in WORKS if f'`{name.split(",")[0]}`' not in text]


@pytest.mark.parametrize('keys', [dict(train_pipeline=[LOAD, PACK]), dict(batch_augments=None)])
def test_no_store_of_views_that_are_switched(keys, built):
    runner = built(**switch(dict(action_epoch=2, **keys)))
    with pytest.raises(ValueError, match='SwitchRecipeHook switches to others'):
        views_of(runner)


def test_gradient_norms_with_checkpointing_are_those_without(trained):
    norms = []
    for with_cp in (False, True):
        student = resnet(2, 3)
        student['backbone']['with_cp'] = with_cp
        runner = trained(student=student, train_cfg=dict(max_epochs=1, gradient_norm_interval=1))
        scalars = runner.message_hub.log_scalars
        norms.append({k: v.data[0].copy() for k, v in scalars.items() if 'gradient_norm' in k})
    assert set(norms[0]) == {'train/gradient_norm/ori_loss', 'train/gradient_norm/loss_kd'}
    assert all(np.allclose(norms[0][key], norms[1][key], rtol=1e-4) for key in norms[0])


def several_labels(data, split='train', labels=None):
    """A MultiLabelDataset of the images: no, one or two labels each, or those given."""
    given = labels or [[i, (i + 1) % 3][: (1, 2, 0)[i % 3]] for i in range(3)]
    infos = [dict(img_path=f'{name}/0.png', gt_label=each) for name, each in zip(CLASSES, given, strict=True)]
    path = data / f'several_{split}.json'
    path.write_text(json.dumps(dict(metainfo=dict(classes=CLASSES), data_list=infos)))
    place = dict(data_root=str(data), ann_file=path.name, data_prefix=dict(img_path=split))
    return dict(type='MultiLabelDataset', **place, pipeline=[LOAD, PACK])


def several_students(head='MultiLabelLinearClsHead', width=2):
    student = resnet(width, 3)
    student['head'] = dict(type=head, num_classes=3, in_channels=8 * width)
    if head == 'CSRAClsHead':
        del student['neck']
        student['head'].update(num_heads=1, lam=0.1)
    return student


SIGMOID_KD = dict(type='SigmoidKDLoss', name='loss_sigmoid_kd')


def test_several_labels_an_image_need_a_head_for_them(data, built):
    with pytest.raises(ValueError, match='train_dataloader: the samples have several labels each .MultiLabelDataset.*head='):
        built(train_dataloader=dict(dataset=several_labels(data)))


def test_a_metric_of_one_label_is_refused_for_several(data, built):
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    with pytest.raises(
        ValueError, match=r"^val_evaluator: Accuracy is for one .*set val_evaluator=\[dict\(type='MultiLabelM"
    ):
        built(
            student=several_students(),
            methods=(SIGMOID_KD,),
            model=dict(teacher_cfg=several_students(), data_preprocessor=dict(PREPROCESSOR, to_onehot=False)),
            train_dataloader=dict(dataset=several_labels(data)),
            val_dataloader=dict(loader, dataset=several_labels(data, 'val')),
        )


@pytest.mark.parametrize('kind', [Accuracy, SingleLabelMetric, ConfusionMatrix])
@pytest.mark.parametrize(
    ('labels', 'sample'), [([[0], [0, 1], []], 1), ([[0], [1], [1, 2]], 2), ([[0], [2], [1]], None)]
)  # as many as images, more, and one each
def test_metrics_of_one_label_take_one_for_each_image(kind, labels, sample, data):
    validation = DATASETS.build({**several_labels(data, 'val', labels), '_scope_': 'mmpretrain'})
    said = (
        rf'^test_evaluator: {kind.__name__} is .* sample {sample} has {re.escape(repr(labels[sample or 0]))}.*without --metr'
    )
    with pytest.raises(ValueError, match=said) if sample else nullcontext():
        check_one_label([kind()], validation, 'test_evaluator')
    check_one_label([MultiLabelMetric(thr=0.5), AveragePrecision()], validation, 'test_evaluator')


@pytest.mark.parametrize('head', ['MultiLabelLinearClsHead', 'CSRAClsHead'])
def test_several_labels_an_image_train_and_the_last_line_has_the_map(head, data, trained):
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    runner = trained(
        student=several_students(head),
        methods=(SIGMOID_KD, dict(type='MGDLoss', name='loss_mgd'), dict(type='SPLoss', name='loss_sp')),
        model=dict(teacher_cfg=several_students(head, 4), data_preprocessor=dict(PREPROCESSOR, to_onehot=False)),
        train_dataloader=dict(dataset=several_labels(data)),
        val_dataloader=dict(loader, dataset=several_labels(data, 'val')),
        val_evaluator=[dict(type='MultiLabelMetric'), dict(type='AveragePrecision')],
        train_cfg=dict(by_epoch=True, max_epochs=2),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='multi-label/mAP')),
    )
    values = runner.message_hub.log_scalars['val/multi-label/mAP'].data[0]
    assert len(values) == 2
    line = closing_line(runner).split('. Next:')[0]
    assert line == f'finished: multi-label/mAP {values[-1]:.2f} (best of 2 validations: {max(values):.2f})'


@pytest.mark.parametrize(
    ('name', 'rule', 'best'),
    [('accuracy/top1', None, max), ('single-label/recall', 'greater', max), ('single-label/precision', 'less', min)],
)
def test_the_last_line_has_the_metric_that_chooses_the_best_checkpoint(name, rule, best, built):
    runner = built(
        val_evaluator=[dict(type='Accuracy', topk=(1,)), dict(type='SingleLabelMetric', items=('recall', 'precision'))],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best=name, rule=rule)),
        **hook('KNNHook', k=2),
    )
    values = dict.fromkeys(('knn/top1', 'accuracy/top1', 'single-label/recall', 'single-label/precision'), (1.0, 2.0))
    for metric, numbers in values.items():
        for number in numbers:
            runner.message_hub.update_scalar(f'val/{metric}', number)
    line = closing_line(runner).split('. Next:')[0]
    assert line == f'finished: {name} {values[name][-1]:.2f} (best of 2 validations: {best(values[name]):.2f})'


def test_the_last_lines_have_the_command_of_a_test_if_there_are_test_data(built):
    runner = built()
    runner.cfg.test_dataloader = None
    (transfer,) = closing_line(runner).splitlines()[1:]
    assert '--dis_path' in transfer
    runner.cfg.test_dataloader = runner.cfg.train_dataloader
    assert closing_line(runner).splitlines()[1] == transfer
    assert closing_line(runner).splitlines()[2].endswith('student.pth')


@pytest.mark.parametrize(
    ('labels', 'said'),
    [
        ([[0], [1, 3], [2]], 'outside of the network.s 3 classes .0 to 2.; the first is 3, of sample 1'),
        ([[0], [1], [2, 1, 2]], r'1 samples name a label twice; the first is sample 2: \[2, 1, 2\]'),
    ],
)
def test_wrong_labels_among_several_are_refused(labels, said, data, built):
    with pytest.raises(ValueError, match=f'train_dataloader: .*{said}'):
        built(
            student=several_students(),
            methods=(SIGMOID_KD,),
            model=dict(teacher_cfg=several_students()),
            train_dataloader=dict(dataset=several_labels(data, labels=labels)),
        )


def test_a_store_of_several_labels_has_all_logits(data, built, tmp_path):
    runner = built(
        student=several_students(),
        methods=(SIGMOID_KD,),
        model=dict(teacher_cfg=several_students()),
        train_dataloader=dict(dataset=several_labels(data)),
    )
    with pytest.raises(ValueError, match='--top-k 2: of a multi-label teacher all 3 logits are needed'):
        StoreWriter(runner, tmp_path / 'store', 1, 2)
    assert StoreWriter(runner, tmp_path / 'store', 1).manifest.k == 3


def test_two_classes_with_one_logit(data, trained, tmp_path):
    for split in ('train', 'val'):
        for name in ('ant', 'bee'):
            (tmp_path / split).mkdir(exist_ok=True)
            (tmp_path / split / name).symlink_to(data / split / name)
    one = resnet(2) | dict(head=dict(type='BinaryClsHead', in_channels=16))
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    runner = trained(
        student=one,
        methods=(SIGMOID_KD,),
        model=dict(teacher_cfg=one, data_preprocessor=dict(PREPROCESSOR, num_classes=2)),
        train_dataloader=dict(dataset=images(tmp_path)),
        val_dataloader=dict(loader, dataset=images(tmp_path, 'val', (LOAD, PACK))),
    )
    assert runner.message_hub.get_scalar('val/accuracy/top1').current() in (0, 50, 100)


def unlabelled(data, **more):
    return dict(type='UnlabelledImages', data_root=str(data), data_prefix='train', pipeline=[LOAD, FLIP, PACK], **more)


def test_images_without_labels_alone(data, trained):
    (data / 'list.txt').write_text('bee/0.png\ncat/0.png\n')
    runner = trained(methods=(dict(type='DISTLoss', name='loss_dist'),), train_dataloader=dict(dataset=unlabelled(data)))
    assert len(runner.train_dataloader.dataset) == 8
    assert runner.message_hub.get_scalar('train/ori_loss').data[0].tolist() == [0, 0]
    assert runner.message_hub.get_scalar('train/loss_dist').current() > 0
    runner = trained(
        methods=(dict(type='NKDLoss', name='loss_nkd'),),
        model=dict(label='teacher'),
        train_dataloader=dict(dataset=unlabelled(data, ann_file=str(data / 'list.txt'))),
    )
    assert len(runner.train_dataloader.dataset) == 2


@pytest.mark.parametrize(('ratio', 'labelled', 'without'), [(1, 3 * 3, 8), (0.25, 11 * 3, 8), (2, 3, 8), (6, 3, 2 * 8)])
def test_images_without_labels_among_others(ratio, labelled, without, data, trained):
    few = images(data, indices=[0, 4, 7])
    mixed = dict(type='MixedDataset', datasets=[few, unlabelled(data)], ratio=ratio)
    methods = (dict(type='DISTLoss', name='loss_dist'), dict(type='CRDLoss', name='loss_crd', nce_k=4))
    runner = trained(methods=methods, train_dataloader=dict(dataset=mixed))
    dataset = runner.train_dataloader.dataset
    assert len(dataset) == labelled + without
    marks = [dataset[i]['data_samples'].get('unlabelled', False) for i in range(len(dataset))]
    assert marks == [False] * labelled + [True] * without
    assert images_in(dataset) == 11
    assert dataset.metainfo['classes'] == CLASSES


def test_the_step_of_a_mixed_batch(data, built):
    """The task loss is that of the labelled images alone."""
    mixed = dict(type='MixedDataset', datasets=[images(data, indices=[4]), dict(type='WithoutLabels', dataset=images(data))])
    runner = built(methods=(dict(type='DISTLoss', name='loss_dist'),), train_dataloader=dict(dataset=mixed))
    samples = [runner.train_dataloader.dataset[i] for i in (0, 9, 12)]
    batch = dict(inputs=[s['inputs'] for s in samples], data_samples=[s['data_samples'] for s in samples])
    model = runner.model.eval()
    data_of = model.data_preprocessor(batch, training=True)
    found = model(**data_of, mode='loss')['ori_loss']
    logit = model.student(data_of['inputs'])
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logit[:1], torch.tensor([1])))


REFUSED_UNLABELLED = {
    'methods that need a label': (
        dict(methods=(dict(type='NKDLoss', name='loss_nkd'),)),
        'loss_nkd needs a label: set label=',
    ),
    'mixup': (dict(model=dict(train_cfg=dict(augments=MIXUP))), 'mixup or CutMix would mix labelled images with unlabelled'),
}


@pytest.mark.parametrize('name', REFUSED_UNLABELLED)
def test_images_without_labels_are_refused_where_a_label_is_needed(name, data, built):
    changes, said = REFUSED_UNLABELLED[name]
    mixed = dict(type='MixedDataset', datasets=[images(data), unlabelled(data)])
    with pytest.raises(ValueError, match=f'train_dataloader: .*{said}'):
        built(train_dataloader=dict(dataset=mixed), **changes)


@pytest.mark.parametrize(
    ('keywords', 'said'),
    [
        (dict(ratio=0), 'ratio=0: give a number from 0.001 to 1000'),
        (dict(datasets=2), 'the second to be of type UnlabelledImages'),
        (dict(datasets=1), r'datasets=\[labelled, unlabelled\], two configs, not 1'),
    ],
)
def test_other_mixtures_are_refused(keywords, said, data, built):
    parts = [images(data)] * keywords.pop('datasets', 0) or [images(data), unlabelled(data)]
    with pytest.raises(ValueError, match=f'train_dataloader: .*MixedDataset.*{said}'):
        built(train_dataloader=dict(dataset=dict(type='MixedDataset', datasets=parts, **keywords)))


def test_no_labels_are_refused(data, built):
    with pytest.raises(ValueError, match='train_dataloader: the samples have no label .*with_label=True'):
        built(train_dataloader=dict(dataset=images(data, with_label=False)))
