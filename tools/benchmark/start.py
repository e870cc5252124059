"""Measure the start of a training or of storing with long annotation files: time and memory up to the first step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.files.showing import show

from .step import resident_peak

#: Ways of starting: a method to train by, or storing.
WAYS = ('kd', 'crd', 'store')
#: Number of classes, a folder each, and of image files in each.
CLASSES, FILES = 1000, 10
CONFIG = """
default_scope = 'mmpretrain'
randomness = dict(seed=0)
log_level = 'ERROR'
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


def network(width):
    backbone = dict(type='ResNet_CIFAR', depth=18, stem_channels=width, base_channels=width, strides=(2, 2, 2, 1))
    head = dict(type='LinearClsHead', num_classes=CLASSES, in_channels=8 * width)
    return dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)


def data(entries, shuffle):
    dataset = dict(type='CustomDataset', data_root='FOLDER', data_prefix='images', ann_file=f'{entries}.txt')
    dataset['pipeline'] = pipeline
    return dict(batch_size=32, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=shuffle))


model = dict(
    type='ClassificationDistiller',
    teacher_cfg=network(8),
    teacher_pretrained=False,
    student_cfg=network(4),
    distill_cfg=[
        dict(methods=[dict(type='KDLoss', name='kd')]),
        dict(methods=[dict(type='CRDLoss', name='crd', nce_k=None)]),
    ],
)
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_dataloader = data(ENTRIES, True)
val_dataloader = data(CLASSES, False)
val_evaluator = dict(type='Accuracy')
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02))
del network, data
"""


class Start(NamedTuple):
    """The start of a run: processor time after the imports, in s, and peak resident memory of the process, in bytes."""

    seconds: float
    peak_bytes: int


def make_data(folder: Path, lengths: Sequence[int]) -> None:
    """Write a config and an annotation file of each length: lines of evenly many images a class, from a few small files."""
    noise = np.random.RandomState(0)
    for label in range(CLASSES):
        home = folder / 'images' / f'n{label:08d}'
        home.mkdir(parents=True)
        for number in range(FILES):
            cv2.imwrite(str(home / f'{number:08d}.png'), noise.randint(0, 256, (32, 32, 3), np.uint8))
    for length in {*lengths, CLASSES}:
        lines = ((number * CLASSES // length, number % FILES) for number in range(length))
        text = '\n'.join(f'n{label:08d}/{file:08d}.png {label}' for label, file in lines)
        (folder / f'{length}.txt').write_text(text)
        text = CONFIG.replace('FOLDER', str(folder)).replace('CLASSES', str(CLASSES)).replace('ENTRIES', str(length))
        (folder / f'{length}.py').write_text(text)


def until_first_step(config: str, way: str) -> None:
    """Start, print the :class:`Start`, and end this process with the first optimizer step, or the first stored batch."""
    from mmcls_kd.command import store, train
    from mmcls_kd.command.loading import load_libraries

    load_libraries()
    from mmengine.optim import OptimWrapper

    from mmcls_kd.teacher_store import writer

    begin = time.process_time()

    def end(*_args: object, **_keywords: object) -> None:
        print(json.dumps(Start(time.process_time() - begin, resident_peak())), flush=True)
        os._exit(0)

    where = ['--work-dir', str(Path(config).with_suffix(''))]
    if way == 'store':
        writer.save = end
        writer.SHARD_BYTES = 0  # a file for each batch
        store.main([config, '--epochs', '1', '--methods', 'kd', *where])
    else:
        step = OptimWrapper.update_params

        def first_step(*args: object, **keywords: object) -> None:
            step(*args, **keywords)
            end()

        OptimWrapper.update_params = first_step
        train.main([config, '--methods', way, *where])


def measure_start(lengths: Sequence[int], ways: Sequence[str], rounds: int) -> dict[str, dict[int, Start]]:
    """Return the start of each way with each number of entries, the median of some processes each, one after the other."""
    found: dict[str, dict[int, list[Start]]] = {way: {length: [] for length in lengths} for way in ways}
    code = 'import sys; from benchmark.start import until_first_step; until_first_step(*sys.argv[1:])'
    paths = os.pathsep.join([str(TOOLBOX), str(TOOLBOX / 'tools')])
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), lengths)
        turns = [(way, length) for _ in range(rounds) for way in ways for length in lengths]
        for way, length in turns:
            command = [sys.executable, '-c', code, str(Path(folder, f'{length}.py')), way]
            done = subprocess.run(
                command, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': paths}, check=False
            )
            if done.returncode:
                raise RuntimeError(f'{way} with {length} entries did not reach its first step: {done.stderr.strip()[-500:]}')
            found[way][length].append(Start(*json.loads(done.stdout.splitlines()[-1])))
    return {
        way: {length: Start(*np.median(starts, axis=0).tolist()) for length, starts in of_way.items()}
        for way, of_way in found.items()
    }


def show_start(measured: dict[str, dict[int, Start]]) -> None:
    """Print time and memory of each, and those beyond the first number of entries."""
    rows = []
    for way, starts in measured.items():
        first = next(iter(starts.values()))
        for length, start in starts.items():
            more = start.seconds - first.seconds, (start.peak_bytes - first.peak_bytes) / 2**20
            rows.append(
                (
                    f'{way}, {length:,}',
                    f'{start.seconds:.2f}',
                    f'{start.peak_bytes / 2**20:.0f}',
                    *map('{:.1f}'.format, more),
                )
            )
    show('Up to the first step', ['entries', 'CPU (s)', 'peak (MiB)', 'more CPU (s)', 'more memory (MiB)'], rows)
