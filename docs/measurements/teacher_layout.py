"""Time the forward pass of a frozen teacher on a CPU: as loaded, norms folded, channels-last too, activations in place too.

python docs/measurements/teacher_layout.py [--rounds 7]
"""

import argparse
import time
import warnings
from itertools import pairwise
from statistics import median

import timm
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification

from mmcls_kd.backbones import cifar_benchmark
from mmcls_kd.engine.runtime import keep_memory
from mmcls_kd.teachers.fast import act_in_place, fold_norms, lay_channels_last, shared_copy

#: Networks of timm, the CIFAR benchmark and Hugging Face's Transformers, height and width of the images, number in a batch.
NETWORKS = {
    'resnet34': (224, 8),
    'resnet50': (224, 8),
    'mobilenetv2_100': (224, 8),
    'efficientnet_b0': (224, 8),
    'regnety_016': (224, 8),
    'densenet121': (224, 4),
    'vgg16': (224, 4),
    'inception_v3': (299, 4),
    'convnext_tiny': (224, 4),
    'benchmark/resnet32x4': (32, 64),
    'hf/resnet': (224, 8),
    'hf/regnet': (224, 8),
    'hf/mobilenet_v2': (224, 8),
}


def make(name: str) -> nn.Module:
    """Make a network with random weights; one of Hugging Face's by its default config."""
    library, _, of_library = name.rpartition('/')
    if library == 'benchmark':
        return cifar_benchmark.build(of_library, num_classes=100)
    if library == 'hf':
        return AutoModelForImageClassification.from_config(AutoConfig.for_model(of_library))
    return timm.create_model(name)


def measure(name: str, rounds: int) -> list[float]:
    """Return the median processor time of a pass, in ms, of each of the forms."""
    size, count = NETWORKS[name]
    forms = [make(name).eval().requires_grad_(False)]
    for change in (fold_norms, lay_channels_last, act_in_place):
        forms.append(shared_copy(forms[-1]))
        change(forms[-1])
    images = torch.randn(count, 3, size, size)
    times: list[list[float]] = [[] for _ in forms]
    with torch.no_grad():
        for turn in range(rounds + 2):  # two to warm up
            for network, taken in zip(forms, times, strict=True):
                start = time.process_time()
                network(images)
                if turn > 1:
                    taken.append(1e3 * (time.process_time() - start))
    return [median(taken) for taken in times]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7)
    rounds = parser.parse_args().rounds
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    keep_memory()
    for name, (size, count) in NETWORKS.items():
        times = measure(name, rounds)
        gains = [before / after for before, after in pairwise(times[1:])]
        print(
            ' | '.join([f'| {name}, {count} × {size}²', *(f'{t:.0f}' for t in times), *(f'{g:.2f} ×' for g in gains), '']),
            flush=True,
        )
