"""Time the forward pass of a frozen teacher on a CPU: as loaded, with folded norms, and channels-last as well.

python docs/measurements/teacher_layout.py [--rounds 7]
"""

import argparse
import time
import warnings
from statistics import median

import timm
import torch

from mmcls_kd.engine.runtime import keep_memory
from mmcls_kd.teachers.fast import fold_norms, lay_channels_last, shared_copy

#: Networks of timm, height and width of the images, and their number in a batch.
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
}


def measure(name: str, rounds: int) -> list[float]:
    """Return the median processor time of a pass, in ms, of each of the three forms."""
    size, count = NETWORKS[name]
    plain = timm.create_model(name).eval().requires_grad_(False)
    folded = shared_copy(plain)
    fold_norms(folded)
    laid_out = shared_copy(folded)
    lay_channels_last(laid_out)
    images = torch.randn(count, 3, size, size)
    times: list[list[float]] = [[], [], []]
    with torch.no_grad():
        for turn in range(rounds + 2):  # two to warm up
            for network, taken in zip((plain, folded, laid_out), times, strict=True):
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
        plain, folded, laid_out = measure(name, rounds)
        print(
            f'| {name}, {count} × {size}² | {plain:.0f} | {folded:.0f} | {laid_out:.0f} | {folded / laid_out:.2f} × |',
            flush=True,
        )
