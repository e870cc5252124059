"""Times of several pieces of work, taken side by side, so that a busy machine slows all of them alike."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table


@dataclass(frozen=True)
class Timing:
    """How long one piece of work took, over all rounds.

    Attributes:
        seconds: The time of each round, in s.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median time, in s."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, in s; 0 for a single round."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method='inclusive')
        return (high - low) / 2


def clock(work: Callable[[], Any], device: str | torch.device = 'cpu') -> float:
    """How long a piece of work takes, in s: by events on a CUDA device, which is synchronised, else by the wall clock."""
    if torch.device(device).type != 'cuda':
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000  # events count milliseconds


def interleave(
    works: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 1, device: str | torch.device = 'cpu'
) -> dict[str, Timing]:
    """Time each piece of work once a round, one after the other, and again in the next round.

    So what slows the machine for a while slows all of them, and their ratios stay.

    Args:
        works: What to time, by name.
        rounds: How many rounds count.
        warmup: How many rounds go before them and do not count.
        device: Where the work runs.

    Raises:
        ValueError: If no round counts.
    """
    if rounds < 1:
        raise ValueError(f'rounds={rounds}: at least 1 is needed (5 or more for a ratio that holds)')
    seconds: dict[str, list[float]] = {name: [] for name in works}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task('warm-up', total=(warmup + rounds) * len(works))
        for k in range(warmup + rounds):
            for name, work in works.items():
                progress.update(task, description=name if k >= warmup else f'{name} (warm-up)')
                took = clock(work, device)
                if k >= warmup:
                    seconds[name].append(took)
                progress.advance(task)
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def machine(device: str | torch.device = 'cpu') -> dict[str, Any]:
    """What the numbers of this machine depend on: processor, threads, versions, and whether it computes in bfloat16."""
    path = Path('/proc/cpuinfo')
    about = dict(line.split(':', 1) for line in path.read_text().splitlines() if ':' in line) if path.is_file() else {}
    about = {key.strip(): value.strip() for key, value in about.items()}
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


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    table = Table(*columns, title=title, title_justify='left')
    for column in table.columns[1:]:
        column.justify = 'right'
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=120).print(table)


def write_json(path: str | Path, **content: Any) -> None:
    """Write what was measured; a :class:`Timing` as ``{"seconds": [...]}``, other dataclasses likewise."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, indent=1, default=plain) + '\n')
