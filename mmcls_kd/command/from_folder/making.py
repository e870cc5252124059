"""The configs of trainings on a folder of images: made of the user's order, and checked against the networks."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn

from ...configs.reading import read_config
from ...distillers.teacher import network_pixels
from ...errors import close_names, refusals_named
from ...features.dry_run import dry_run, own_sizes
from ...files.atomic import save_atomically
from ...files.checkpoint import read_checkpoint
from ...files.paths import absolute
from ...networks.classes import names_in
from ...networks.loading import fetch, load_strictly
from ...networks.sources import OWN_WEIGHTS, Source, check_to_be_had, find_network, is_weights, kind_of, own_weights
from ...networks.towers import find_teacher, lacks_classes, without_classes
from ...recipe.methods import MethodList, needs_teacher, offer
from .choices import Choices, choose, size_of
from .images import FolderImages, find_images
from .writing import PARTS, Name, assignments, config_text, list_text, write_files

#: The word for the weights that a library or zoo publishes with a network.
PUBLISHED = 'pretrained'
#: Mean and standard deviation of ImageNet, for students that state none.
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
#: Keyword of each library's classifier for its number of classes.
COUNTS = dict(
    TimmClassifier='num_classes',
    TorchvisionClassifier='num_classes',
    CifarClassifier='num_classes',
    HuggingFaceClassifier='num_labels',
)
#: Settings of a training of a student without classes: no metric of predictions, but nearest neighbours.
EMBEDDED = dict(val_evaluator=[], test_evaluator=[], custom_hooks=[dict(type='LiveProgressHook'), dict(type='KNNHook')])
#: File of the weights that a student without a teacher starts from, under its own names.
START = 'start.pth'
#: File of the weights of a student without classes on which a head is put.
BACKBONE = 'backbone.pth'
#: The method under a teacher with classes, and under one without.
DEFAULT, DEFAULT_BARE = 'dist', 'embedding'
#: Largest queue of ``QueueLoss``.
QUEUE = 8192
#: Steps of factor transfer's first phase in a long training; warm-ups take at most this part of the epochs.
FT_STEPS, WARMUP_SHARE = 1000, 12
#: Trainings of a head on such a student.
THEN = ('linear', 'finetune')


@dataclass
class Order:
    """The settings that a user gives for a training on a folder.

    Attributes:
        data: The folder, see :func:`.images.find_images`.
        student: The student's network, see :func:`~mmcls_kd.networks.sources.find_network`.
        teachers: The teachers' networks; none to train the student alone.
        teacher_weights: For each teacher a file, folder or address of weights, or ``'pretrained'``; none for that of all.
        student_weights: The same of the student; None for random weights.
        methods: Distillation methods; none for ``dist`` if there is a teacher, ``embedding`` if it has no classes.
        epochs: Number of epochs; None for the table's.
        then: ``'linear'`` to train a linear classifier on the student of a teacher without classes, ``'finetune'`` to train
            all of it; None for neither.
        then_epochs: Number of epochs of that; None for that of the distillation.
        size: Size of images in training; None for the table's.
        val_fraction: Share of images for validation, if the folder has none.
        seed: Seed of the split and of the training.
        baseline: Whether to train the student alone too, on the same budget.
        work_dir: Folder of the results; None for ``work_dirs/FOLDER-STUDENT``.
        command: The command line, for the head of the config.
    """

    data: str
    student: str | Mapping
    teachers: Sequence[str | Mapping] = ()
    teacher_weights: Sequence[str] = ()
    student_weights: str | None = None
    methods: Sequence[str] = ()
    epochs: int | None = None
    then: str | None = None
    then_epochs: int | None = None
    size: int | None = None
    val_fraction: float = 0.2
    seed: int = 0
    baseline: bool = False
    work_dir: str | None = None
    command: str = ''


@dataclass
class Made:
    """A made training.

    Attributes:
        folder: Folder of the results.
        configs: Config of each training, by its name in results: ``'distilled'`` or ``'student'``, ``'linear'`` or
            ``'finetune'``, and ``'alone'``.
        images: The images.
        choices: The chosen settings.
        notes: Remarks for the user.
        lacks_classes: Whether the final student has no classes.
    """

    folder: Path
    configs: dict[str, Path]
    images: FolderImages
    choices: Choices
    notes: list[str] = field(default_factory=list)
    lacks_classes: bool = False

    @property
    def final(self) -> str:
        """The name of the training that ends with the student."""
        return next((name for name in THEN if name in self.configs), next(iter(self.configs)))

    @property
    def backbone(self) -> Path:
        """File of the weights of a student without classes on which a head is put."""
        return self.folder / BACKBONE

    def run_folder(self, name: str) -> Path:
        """Return the work directory of a training."""
        return self.folder / name


def make(order: Order) -> Made:
    """Make the config of a training on a folder, its lists of images and that of the student alone, and write them.

    Raises:
        FileNotFoundError: If the folder or a file of weights is missing.
        ValueError: If an entry is unknown, the folder is unusable, or the folder of results has another training.
    """
    check_networks(order)
    teachers = _teachers(order)
    bare = bool(teachers) and all(lacks_classes(source.cfg) for source, _ in teachers)
    check_then(order, bare)
    entries = chosen_methods(order, DEFAULT_BARE if bare else DEFAULT)
    images = find_images(order.data, order.val_fraction, order.seed)
    count = 0 if bare else len(images.classes)
    with refusals_named('--student'):
        student = find_network(order.student)
        student.cfg = without_classes(student.cfg) if bare else with_classes(student.cfg, count)
    network = build(student, count)
    size = order.size or next((size[0] for size in own_sizes(network)), size_of(images.side))
    with refusals_named('--size' if order.size else '--student'):
        dry_run(network, 'student', (size, size))
    choices = choose(len(images.train), size, network, bool(order.student_weights), order.epochs)
    fit_methods(entries, len(images.train), choices.batch_size, choices.epochs)
    folder = Path(
        order.work_dir or Path('work_dirs', f'{_plain(images.root.name)}-{_plain(_named(order.student))}')
    ).resolve()
    _check_folder(folder, images)
    name = 'distilled' if entries else 'student'
    with refusals_named('--student-weights'):
        started = load_start(student, network, order, count) and not bare
    start = dict(load_from=str(folder / START)) if started else {}
    model = _model(order, student, teachers, entries, len(images.classes)) if entries else _alone(student, order)
    values = settings(images, choices, folder, order.seed) | dict(
        data_preprocessor=preprocessor(network, student),
        model=model,
        work_dir=str(folder / name),
        **({} if entries else start),
        **(EMBEDDED if bare else {}),
    )
    made = {name: (values, choices)} | (on_labels(order, student, network, images, choices, folder) if bare else {})
    texts = {run: config_text(own, order.command, chosen(images, its)) for run, (own, its) in made.items()}
    if order.baseline and entries and not bare:
        values = dict(_base_=f'./{folder.name}.py', work_dir=str(folder / 'alone'), **start)
        texts['alone'] = assignments(values | dict(model=dict(_delete_=True, **_alone(student, order))))
    configs = {run: folder / f'{folder.name}{"" if run == name else f"_{run}"}.py' for run in texts}
    lists = {folder / f'{part}.txt': list_text(found) for part in PARTS if (found := getattr(images, part))}
    rest = {configs[run]: text for run, text in texts.items() if run != name}
    write_files({configs[name]: texts[name], **lists, **rest}, folder, images.root)
    if started:
        save_atomically({'state_dict': network.state_dict()}, folder / START)
    return Made(folder, configs, images, choices, images.notes, bare and not order.then)


def check_networks(order: Order) -> None:
    """Refuse files of weights in the places of networks."""
    for role, names in dict(student=[order.student], teacher=order.teachers).items():
        for name in names:
            if is_weights(name):
                raise ValueError(
                    f'--{role} {name} is a file of weights: name its network (--{role} timm:NAME, or the config beside the '
                    f'file) and give the file by --{role}-weights {name}'
                )


def _check_folder(folder: Path, images: FolderImages) -> None:
    """Refuse a folder of results that is a file, or would become a class folder."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'--work-dir {folder} is a file: name a folder')
    if images.root in (folder, *folder.parents) and not images.divided:
        raise ValueError(f'the results would be in {folder}, inside of --data: name another --work-dir')


def check_then(order: Order, bare: bool) -> None:
    """Refuse a head that is unknown, or for a student that has classes."""
    if order.then is not None and order.then not in THEN:
        raise ValueError(f'--then {order.then!r}: choose one of {", ".join(THEN)}')
    if order.then_epochs and not order.then:
        raise ValueError('--then-epochs needs --then linear or --then finetune')
    if order.then and not bare:
        raise ValueError(
            f'--then {order.then} puts a classifier on a student without classes, and this one has classes: leave it out, '
            'or give a --teacher without classes (hf:facebook/dinov2-small, timm:vit_small_patch14_dinov2.lvd142m)'
        )


def on_labels(
    order: Order, student: Source, network: nn.Module, images: FolderImages, choices: Choices, folder: Path
) -> dict[str, tuple[dict[str, Any], Choices]]:
    """Return settings and choices of the trainings on labels beside a student without classes: its head, the baseline.

    The baseline has the epochs of the distillation and of the head.
    """
    made: dict[str, tuple[dict[str, Any], Choices]] = {}

    def add(name: str, epochs: int, pretrained: str | bool | None, low_rate: bool) -> None:
        own = choose(len(images.train), choices.size, network, low_rate, epochs)
        model = dict(
            type='LinearHeadClassifier',
            network=student.in_full,
            num_classes=len(images.classes),
            pretrained=pretrained,
            frozen=name == 'linear',
        )
        around = dict(data_preprocessor=preprocessor(network, student), model=model, work_dir=str(folder / name))
        made[name] = settings(images, own, folder, order.seed) | around, own

    epochs = (order.then_epochs or choices.epochs) if order.then else 0
    if order.then:
        add(order.then, epochs, str(folder / BACKBONE), order.then == 'finetune')
    if order.baseline:
        start = order.student_weights
        add('alone', choices.epochs + epochs, _weights(start) if start else None, bool(start))
    return made


def chosen_methods(order: Order, default: str = DEFAULT) -> list[dict]:
    """Return the ``distill_cfg`` of the chosen methods; empty for a training of the student alone."""
    names = list(order.methods) or ([default] if order.teachers else [])
    own, alone = (read_config(f'mmcls_kd::_base_/methods/{name}.py').offered for name in ('own_images', 'imagenet_self'))
    alone.uskd.pop('num_classes')  # found by the dry run
    offered = {**own, **alone}
    for name in names:
        if name not in offered:
            raise ValueError(f'--method: no method {name!r}{close_names(name, offered)}; methods are {", ".join(offered)}')
    if not names:
        if order.baseline:
            raise ValueError('--baseline: without --teacher, the student is trained alone anyway: leave it out')
        return []
    entries = offer(offered, names)
    needy = [m.name for m in MethodList(entries).parsed() if any(map(needs_teacher, m.inputs))]
    if needy and not order.teachers:
        raise ValueError(f'--method {needy[0].removeprefix("loss_")} needs --teacher NAME')
    if order.teachers and not needy:
        raise ValueError(f'--method {" ".join(names)} needs no teacher: leave --teacher out, or add a method that needs one')
    return entries


def fit_methods(entries: Sequence[Mapping], images: int, batch_size: int, epochs: int) -> None:
    """Fit methods to a training, in place.

    A queue has the power of two from a quarter to half of the images, at most 8,192. Factor transfer's first phase takes at
    most a quarter of the steps, a warm-up at most a twelfth of the epochs, as the benchmark's 20 of 240.
    """
    queue = min(QUEUE, 2 ** (max(2, images).bit_length() - 2))
    steps = -(-images // batch_size) * epochs
    for entry in (method for group in entries for method in group['methods']):
        if entry['type'] == 'QueueLoss':
            entry['queue_size'] = max(queue, batch_size)
        if entry['type'] == 'FTLoss' and steps // 4 < FT_STEPS:
            entry['paraphraser_steps'] = steps // 4
        weight = entry.get('loss_weight')
        if isinstance(weight, Mapping) and weight.get('warmup', 0) > epochs / WARMUP_SHARE:
            entry['loss_weight'] = {**weight, 'warmup': max(1, epochs // WARMUP_SHARE)}


def _teachers(order: Order) -> list[tuple[Source, str | bool]]:
    """Return the teachers' networks, each with its weights."""
    count, given = len(order.teachers), order.teacher_weights
    if len(given) not in (0, count):
        raise ValueError(
            f'--teacher-weights names {len(given)} files for {count} teachers: give one for '
            f'each, in their order ({PUBLISHED!r} for the weights published with it)'
        )
    return [_teacher(*pair) for pair in zip(order.teachers, given or [PUBLISHED] * count, strict=True)]


def _teacher(network: str | Mapping, weights: str) -> tuple[Source, str | bool]:
    """Return a teacher's network and its weights: True for those published with it."""
    with refusals_named('--teacher'):
        source = find_teacher(network)
    if weights != PUBLISHED:
        fetch(weights, 'teacher')
        return source, absolute(weights)
    if not source.weights and kind_of(source.cfg) not in OWN_WEIGHTS:
        raise ValueError(
            f'--teacher {network}: no weights are published with it: give --teacher-weights FILE. A training of it on the '
            'same folder makes one: train --data FOLDER --student NETWORK'
        )
    return source, True


def with_classes(cfg: Mapping, count: int) -> ConfigDict:
    """Return a network's config for a number of classes."""
    made = ConfigDict(copy.deepcopy(dict(cfg)))
    if key := COUNTS.get(kind_of(made)):
        made[key] = count
        if key == 'num_labels':
            made['ignore_mismatched_sizes'] = True
        return made
    _set_classes(made, count)
    return made


def _set_classes(value: Any, count: int) -> None:
    """Set each number of classes in a config, in place, and leave larger k out of top-k."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == 'num_classes':
                value[key] = count
            elif key == 'topk':
                value[key] = tuple(k for k in ([inner] if isinstance(inner, int) else inner) if k <= count)
            else:
                _set_classes(inner, count)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _set_classes(inner, count)


def build(student: Source, count: int) -> nn.Module:
    """Build the student from random weights; refuse one of another number of classes."""
    scope = DefaultScope.overwrite_default_scope('mmpretrain')
    with scope, torch.random.fork_rng(devices=[]), refusals_named('--student'):
        check_to_be_had(student.cfg)
        network = MODELS.build(copy.deepcopy(student.cfg))
        network.eval()
        found = dry_run(network, 'student').num_classes
    if found != count:
        raise ValueError(
            f'--student: the network has {found} classes and the folder {count}, and its config names no number of classes '
            '(num_classes) to set'
        )
    return network


def preprocessor(network: nn.Module, student: Source) -> dict[str, Any]:
    """Return the data preprocessor of the student: with its library's mean and std, else ImageNet's."""
    spec = network_pixels(network, student)
    if set(spec.mean) == {0.0} and set(spec.std) == {1.0} and 'mean' not in student.pixels:
        return dict(type='ClsDataPreprocessor', **IMAGENET)
    rounded = {key: [round(value, 4) for value in getattr(spec, key)] for key in ('mean', 'std')}
    return dict(type='ClsDataPreprocessor', **rounded, to_rgb=spec.to_rgb)


def _model(
    order: Order, student: Source, teachers: Sequence[tuple[Source, str | bool]], entries: Sequence[dict], count: int
) -> dict[str, Any]:
    """Return the distiller's config."""
    networks, weights = [], []
    for source, file in teachers:
        if isinstance(file, str):
            known = names_in(read_checkpoint(fetch(file, 'teacher')).get('meta'))
            if not lacks_classes(source.cfg):
                source.cfg = with_classes(source.cfg, len(known) if known else count)
        networks.append(source.in_full)
        weights.append(file)
    of_student = dict(student_pretrained=_weights(order.student_weights)) if order.student_weights else {}
    one = len(networks) == 1
    of_teacher = dict(
        teacher_cfg=(networks[0] if one else networks) if networks else None,
        teacher_pretrained=(weights[0] if one else weights) if networks else None,
    )
    return dict(type='ClassificationDistiller', student_cfg=student.in_full, **of_student, **of_teacher, distill_cfg=entries)


def _weights(given: str) -> str | bool:
    return True if given == PUBLISHED else absolute(given)


def _alone(student: Source, order: Order) -> dict[str, Any]:
    """Return the config of the student without a teacher, which loads its library's weights if these are to start it."""
    cfg = own_weights(student.cfg, 'student') if order.student_weights == PUBLISHED and not student.weights else student.cfg
    return {key: value for key, value in cfg.items() if key != 'data_preprocessor'}


def load_start(student: Source, network: nn.Module, order: Order, count: int) -> bool:
    """Load the file of weights that the student starts from, as a distiller does; return whether there is one."""
    if not order.student_weights:
        return False
    _, file = student.with_weights(_weights(order.student_weights), 'student')
    if file:
        load_strictly(network, file, 'student', count)
    return bool(file)


def settings(images: FolderImages, choices: Choices, folder: Path, seed: int) -> dict[str, Any]:
    """Return the settings of a training without the networks."""
    size, steps = choices.size, max(1, len(images.train) // choices.batch_size)
    edge = size if images.side < size else round(size / 0.875)
    resized = [dict(type='ResizeEdge', scale=edge, edge='short'), dict(type='CenterCrop', crop_size=size)]
    cropped = [
        dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(choices.area, 1.0)),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    ]

    def loader(part: str, transforms: list[dict], shuffle: bool) -> dict[str, Any]:
        return dict(
            batch_size=choices.batch_size,
            num_workers=choices.workers,
            dataset=dict(
                type='CustomDataset',
                data_root=str(images.root),
                ann_file=str(folder / f'{part}.txt'),
                metainfo=dict(classes=Name('classes')),
                pipeline=[dict(type='LoadImageFromFile'), *transforms, dict(type='PackInputs')],
            ),
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
            drop_last=shuffle and choices.drop_last,
        )

    begin = choices.warm_up
    rising = (
        [dict(type='LinearLR', start_factor=0.01, end=begin, by_epoch=True, convert_to_iter_based=True)] if begin else []
    )
    return dict(
        classes=images.classes,
        default_scope='mmpretrain',
        custom_imports=dict(imports=['mmcls_kd'], allow_failed_imports=False),
        randomness=dict(seed=seed),
        train_cfg=dict(by_epoch=True, max_epochs=choices.epochs, val_interval=1),
        optim_wrapper=dict(optimizer=choices.optimizer),
        param_scheduler=[
            *rising,
            dict(type='CosineAnnealingLR', begin=begin, by_epoch=True, convert_to_iter_based=True),
        ],
        train_dataloader=loader('train', cropped, shuffle=True),
        val_dataloader=loader('val', resized, shuffle=False),
        test_dataloader=loader('test', resized, shuffle=False) if images.test else Name('val_dataloader'),
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=dict(type='Accuracy', topk=(1,)),
        test_evaluator=Name('val_evaluator'),
        auto_scale_lr=dict(base_batch_size=choices.batch_size),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
            logger=dict(type='LoggerHook', interval=min(50, max(1, steps // 2))),
        ),
        custom_hooks=[dict(type='LiveProgressHook')],
        visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
    )


def chosen(images: FolderImages, choices: Choices) -> str:
    """Return the images and the chosen settings in one line."""
    parts = dict(training=images.train, validation=images.val, test=images.test)
    *first, last = [f'{len(part):,} {name}' for name, part in parts.items() if part]
    return (
        f'{", ".join(first)} and {last} images of {len(images.classes)} classes, '
        f'shorter side {images.side} pixels: size {choices.size}, batches of {choices.batch_size}, {choices.epochs} epochs, '
        f'{choices.optimizer["type"]} with learning rate {choices.optimizer["lr"]:g}'
    )


def _named(network: str | Mapping) -> str:
    return network if isinstance(network, str) else str(network.get('model_name') or network.get('type') or 'student')


def _plain(name: str) -> str:
    """Return a name as part of a file's: of a path its last part, without library."""
    stem = Path(name.partition(':')[2] or name).stem if not name.endswith('.py') else Path(name).stem
    return re.sub(r'[^\w.-]+', '_', stem)
