"""The cost of a network: parameters, operations, and time for one image."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

#: Number of timed forward passes, after some that warm up.
TIMED, WARM_UP = 20, 3


def count_flops(network: nn.Module, images: Tensor) -> int:
    """Return the floating point operations of a classifier's forward pass; a multiply-add is two."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # nothing in a fused attention is counted
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            network(images, mode='tensor')
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def milliseconds(network: nn.Module, image: Tensor) -> float:
    """Return the shortest time of a forward pass of one image, in ms, on the image's device."""
    times = []
    for _ in range(WARM_UP + TIMED):
        start = time.perf_counter()
        network(image, mode='tensor')
        if image.is_cuda:
            torch.cuda.synchronize(image.device)
        times.append(1000 * (time.perf_counter() - start))
    return min(times[WARM_UP:])
