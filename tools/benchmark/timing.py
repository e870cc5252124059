"""Time several pieces of work side by side, so that a busy machine slows all of them alike."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

# Once a block of this size was freed, Linux's C library keeps up to twice as much freed memory for the next tensors. Before,
# it hands it back to the system or not, by chance, and getting it again moves a loss's time by up to a half. In a training
# the activations see to it.
KEPT_BYTES = 31 * 2**20


@dataclass(frozen=True)
class Timing:
    """Times of one piece of work, in s, one of each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median time, in s."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, in s."""
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float(high - low) / 2


def clock(work: Callable[[], Any], device: str | torch.device = 'cpu') -> float:
    """Return the time of a piece of work, in s; a CUDA device is synchronised before and after."""
    on_gpu = torch.device(device).type == 'cuda'
    if on_gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def interleave(
    works: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 1, device: str | torch.device = 'cpu'
) -> dict[str, Timing]:
    """Time each piece of work once a round: a slow moment of the machine meets all of them, and their ratios stay."""
    if rounds < 1:
        raise ValueError(f'rounds={rounds}: at least 1 is needed (5 or more for a ratio that holds)')
    seconds: dict[str, list[float]] = {name: [] for name in works}
    turns = [name for _ in range(warmup + rounds) for name in works]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in progress.track(turns):
            progress.update(progress.task_ids[0], description=name)
            seconds[name].append(clock(works[name], device))
    return {name: Timing(tuple(taken[warmup:])) for name, taken in seconds.items()}


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Compute with this many threads of torch (0: unchanged), in memory that stays with the process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        torch.empty(KEPT_BYTES, dtype=torch.uint8)
        yield
    finally:
        torch.set_num_threads(before)


def machine(device: str | torch.device = 'cpu') -> dict[str, Any]:
    """Return the conditions of a measurement: processor, bfloat16 instructions, threads, versions."""
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.is_file() else ()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(':') for line in lines)}
    info: dict[str, Any] = dict(
        processor=about.get('model name', platform.machine()),
        bfloat16_instructions=bool({'avx512_bf16', 'amx_bf16'} & set(about.get('flags', '').split())),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
    )
    if torch.device(device).type == 'cuda':
        info['gpu'] = torch.cuda.get_device_name(device)
    return info
