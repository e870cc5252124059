"""What each method costs beside KD: forward and backward of its loss, on tensors of the sizes of a pair of networks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

from ..dis_losses import LOSSES
from ..errors import close_names
from ..features.taps import Shape, shape_of
from ..files.paths import TOOLBOX
from ..recipe.methods import Method, chosen_methods
from .losses import KEPT_BYTES, random_labels
from .timing import Timing, interleave, show

UNIT = 'kd'
#: Where the entries of the methods stand, the first one of each counts.
ENTRIES = ('imagenet_cnn', 'imagenet_vit', 'imagenet_self')
#: Width and height of each stage of ResNet-18 and ResNet-34 at 224 × 224 pixels.
STAGES = ((64, 56), (128, 28), (256, 14), (512, 7))
#: Number and width of the patch tokens of DeiT-Tiny (student) and DeiT-Small (teacher) there.
PATCHES, TOKEN_WIDTHS = 196, dict(s=192, t=384)
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Cost:
    """What a method costs.

    Attributes:
        timing: Times of forward and backward of its loss.
        own: Its parameters and buffers, in bytes.
        peak: The most that is allocated at once in forward and backward beyond what there was before, in bytes: what the
            loss keeps and computes on its way, and the gradients of its parameters and of the student's tensors.
    """

    timing: Timing
    own: int
    peak: int

    @property
    def memory(self) -> int:
        """Both, in bytes; what the optimizer keeps for each parameter is not in it."""
        return self.own + self.peak


def stand_ins(batch: int, classes: int, num_samples: int, device: str = 'cpu') -> dict[str, Any]:
    """Random tensors with the sizes of ResNet-34's and ResNet-18's, and what else a loss may ask for.

    Patch tokens are those of DeiT-Small and DeiT-Tiny. The student's require a gradient.

    Args:
        batch: Number of samples N.
        classes: Number of classes C.
        num_samples: Number of training samples.
        device: Where the tensors are.
    """
    found: dict[str, Any] = {}
    for side, width in TOKEN_WIDTHS.items():
        stages = tuple(torch.randn(batch, channels, size, size, device=device) for channels, size in STAGES)
        made = dict(
            logit=torch.randn(batch, classes, device=device),
            feat=torch.randn_like(stages[-1]),
            feat_mid=torch.randn(batch, STAGES[-2][0], device=device),
            vector=torch.randn(batch, STAGES[-1][0], device=device),
            tokens_low=torch.randn(batch, 2, PATCHES, width, device=device),
            tokens_high=torch.randn(batch, PATCHES, width, device=device),
            stages=stages,
        )
        found |= {f'{name}_{side}': value for name, value in made.items()}
    found['feat_mid'] = found['feat_mid_s']
    for tensor in tensors_of(value for name, value in found.items() if not name.endswith('_t')):
        tensor.requires_grad_()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(STAGES[-1][0], classes)).to(device)
    return dict(
        **found,
        gt_label=random_labels(batch, classes, device=device),
        sample_idx=torch.randint(num_samples, (batch,), device=device),
        teacher_head=head.requires_grad_(False),
    )


def tensors_of(values: Any) -> list[Tensor]:
    """The tensors among values, those of tuples too."""
    return [t for value in values for t in (value if isinstance(value, tuple) else (value,)) if isinstance(t, Tensor)]


def shapes_of(values: Mapping[str, Any]) -> dict[str, Shape]:
    """The shape of each tensor, by name; of a tuple the shapes of its tensors."""
    return {name: shape_of(value) for name, value in values.items() if isinstance(value, (Tensor, tuple))}


def offered_methods() -> dict[str, dict[str, Any]]:
    """The entry of every method that the configs for ImageNet offer, and of every other registered loss a bare one."""
    entries: dict[str, dict[str, Any]] = {}
    for file in ENTRIES:
        offered = Config.fromfile(TOOLBOX / 'configs' / '_base_' / 'methods' / f'{file}.py').offered
        for name, entry in offered.items():
            entries.setdefault(name, dict(entry))
    for entry in entries.values():
        entry.pop('num_classes', None)  # as many as the tensors have
    types = {entry['type'] for entry in entries.values()}
    return entries | {name: dict(type=name) for name in LOSSES if name not in types}


def wanted_methods(names: Sequence[str] = ()) -> list[Method]:
    """The methods of these names, of all that are offered if there are none; KD is always the first.

    Raises:
        ValueError: If nobody offers one of them.
    """
    entries = offered_methods()
    for name in names:
        if name not in entries:
            raise ValueError(f'unknown method {name!r}{close_names(name, entries)}; there are {", ".join(entries)}')
    chosen = dict.fromkeys([UNIT, *(names or entries)])
    return chosen_methods([dict(methods=[dict(entries[name], name=name)]) for name in chosen])


def work_of(loss: nn.Module, given: Mapping[str, Any]) -> Callable[[], Any]:
    """Forward and backward of a loss: the gradients of its parameters and of all given tensors that require one."""
    trained = [t for t in (*loss.parameters(), *tensors_of(given.values())) if t.requires_grad]
    return lambda: torch.autograd.grad(loss(**given), trained, allow_unused=True)


def peak_bytes(work: Callable[[], Any], device: str = 'cpu') -> int:
    """The most that torch has allocated at once on a device during some work, beyond what there was before.

    On a CPU torch's profiler reports every allocation; the caches inside of libraries are not among them.

    Args:
        work: The work; what it returns counts, as long as it is there.
        device: A CPU or a CUDA device.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with tempfile.TemporaryDirectory() as folder:
        with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            work()
        path = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    changes = sorted((event for event in events if event['name'] == '[memory]'), key=lambda event: event['ts'])
    now = peak = 0
    for change in changes:
        now += change['args']['Bytes']
        peak = max(peak, now)
    return peak


def measure_methods(
    names: Sequence[str] = (),
    batch: int = 64,
    classes: int = 1000,
    num_samples: int = 1_281_167,
    rounds: int = 10,
    threads: int = 1,
    device: str = 'cpu',
) -> dict[str, Cost]:
    """Measure methods side by side, on :func:`stand_ins`, with the hyper-parameters of the configs for ImageNet.

    Their losses are built as the distiller builds them. What reading the tensors costs in the networks is not measured.

    Args:
        names: Which; all if there are none. KD is always there.
        batch: Number of samples N.
        classes: Number of classes C.
        num_samples: Number of training samples, of which some methods remember each.
        rounds: How many rounds count.
        threads: How many threads torch computes with meanwhile, 0 for as many as it has; afterwards as before.
        device: Where the losses run.

    Raises:
        ValueError: If there is no such method, or no round counts.
    """
    methods = wanted_methods(names)
    tensors = stand_ins(batch, classes, num_samples, device)
    facts = dict(
        num_samples=lambda: num_samples,
        teacher_weight=lambda: tensors['teacher_head'][-1].weight,
        teacher_head=lambda: tensors['teacher_head'],
    )
    losses = {method.name: method.build(shapes_of(tensors), facts).to(device) for method in methods}
    works = {m.name: work_of(losses[m.name], {name: tensors[name] for name in m.inputs}) for m in methods}
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        torch.empty(KEPT_BYTES, dtype=torch.uint8)
        timings = interleave(works, rounds, device=device)
        peaks = {name: peak_bytes(work, device) for name, work in works.items()}
    finally:
        torch.set_num_threads(before)
    return {name: Cost(timings[name], own_bytes(loss), peaks[name]) for name, loss in losses.items()}


def own_bytes(loss: nn.Module) -> int:
    """The size of a loss's parameters and buffers, in bytes."""
    return sum(tensor.nbytes for tensor in (*loss.parameters(), *loss.buffers()))


def beside_kd(costs: Mapping[str, Cost]) -> dict[str, tuple[str, str]]:
    """What :func:`measure_methods` found, beside KD: the median time in units of KD's, and the memory beyond KD's in MiB."""
    unit = costs[UNIT]
    return {
        name: (
            f'{cost.timing.median / unit.timing.median:.1f}',
            f'{(cost.memory - unit.memory) / MEBIBYTE:.1f}',
        )
        for name, cost in costs.items()
    }


def show_methods(costs: Mapping[str, Cost]) -> None:
    """Print what :func:`measure_methods` found, and how it compares with KD."""
    relative = beside_kd(costs)
    show(
        'Forward and backward of each loss',
        ['method', 'median (ms)', 'spread (ms)', 'KDs', 'own (MiB)', 'peak (MiB)', 'both − KD’s (MiB)'],
        [
            (
                name,
                f'{1000 * cost.timing.median:.2f}',
                f'{1000 * cost.timing.spread:.2f}',
                relative[name][0],
                f'{cost.own / MEBIBYTE:.1f}',
                f'{cost.peak / MEBIBYTE:.1f}',
                relative[name][1],
            )
            for name, cost in costs.items()
        ],
    )
