"""Measure each method beside KD: forward and backward of its loss, on tensors with the sizes of a pair of networks."""

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

from mmcls_kd.dis_losses import LOSSES
from mmcls_kd.errors import close_names
from mmcls_kd.features.taps import Shape, shape_of
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.files.showing import show
from mmcls_kd.recipe.methods import Method, MethodList, needs_teacher

from .losses import random_labels
from .timing import Timing, computing, interleave

UNIT = 'kd'
#: Configs with the entries of the methods; the first entry of each counts.
ENTRIES = ('imagenet_cnn', 'imagenet_vit', 'imagenet_self', 'multi_label', 'own_images', 'two_views')
#: Width and height of each stage of ResNet-18 and ResNet-34 at 224 × 224 pixels.
STAGES = ((64, 56), (128, 28), (256, 14), (512, 7))
#: Number and width of the patch tokens of DeiT-Tiny (student) and DeiT-Small (teacher) there.
PATCHES, TOKEN_WIDTHS = 196, dict(s=192, t=384)
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Cost:
    """Cost of a method: times of forward and backward of its loss, and memory in bytes.

    Attributes:
        own: Its parameters and buffers.
        peak: Largest additional allocation in forward and backward: intermediate tensors of the loss, and the gradients of
            its parameters and of the student's tensors.
    """

    timing: Timing
    own: int
    peak: int

    @property
    def memory(self) -> int:
        """Sum of both, in bytes; without the optimizer's state of each parameter."""
        return self.own + self.peak


def stand_ins(batch: int, classes: int, num_samples: int, device: str = 'cpu') -> dict[str, Any]:
    """Return every input of a loss: random tensors with the sizes of ResNet-34's and ResNet-18's.

    Patch tokens are those of DeiT-Small and DeiT-Tiny. The student's require a gradient.
    """
    found: dict[str, Any] = {}
    for side, width in TOKEN_WIDTHS.items():
        stages = tuple(torch.randn(batch, channels, size, size, device=device) for channels, size in STAGES)
        made = dict(
            logit=torch.randn(batch, classes, device=device),
            logit_token=torch.randn(batch, classes, device=device),
            feat=torch.randn_like(stages[-1]),
            feat_mid=torch.randn(batch, STAGES[-2][0], device=device),
            vector=torch.randn(batch, STAGES[-1][0], device=device),
            tokens_low=torch.randn(batch, 2, PATCHES, width, device=device),
            tokens_high=torch.randn(batch, PATCHES, width, device=device),
            stages=stages,
            stages_preact=tuple(torch.randn_like(stage) for stage in stages),
        )
        found |= {f'{name}_{side}': value for name, value in made.items()}
    found['feat_mid'] = found['feat_mid_s']
    found |= {f'logit_{side}_strong': torch.randn(batch, classes, device=device) for side in TOKEN_WIDTHS}
    for tensor in tensors_of(value for name, value in found.items() if not needs_teacher(name)):
        tensor.requires_grad_()
    linear = nn.Linear(STAGES[-1][0], classes).to(device)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    weight, bias = (part.detach() for part in (linear.weight, linear.bias))
    return dict(
        **found,
        gt_label=random_labels(batch, classes, device=device),
        sample_idx=torch.randint(num_samples, (batch,), device=device),
        teacher_head=head.requires_grad_(False),
        teacher_weight=weight,
        teacher_bias=bias,
        student_weight=weight.clone().requires_grad_(),
        student_bias=bias.clone().requires_grad_(),
    )


def tensors_of(values: Any) -> list[Tensor]:
    """Return the tensors among values, those of tuples too."""
    return [t for value in values for t in (value if isinstance(value, tuple) else (value,)) if isinstance(t, Tensor)]


def offered_methods() -> dict[str, dict[str, Any]]:
    """Return the entry of every method in the configs for ImageNet, and a bare one of every other registered loss."""
    entries: dict[str, dict[str, Any]] = {}
    for file in ENTRIES:
        offered = Config.fromfile(TOOLBOX / 'configs' / '_base_' / 'methods' / f'{file}.py').offered
        for name, entry in offered.items():
            entries.setdefault(name, dict(entry)).pop('num_classes', None)  # as many as the tensors have
    entries['scalekd']['perception'] = False  # there is no teacher whose last stage could be run
    types = {entry['type'] for entry in entries.values()}
    return entries | {name: dict(type=name) for name in LOSSES if name not in types}


def wanted_methods(names: Sequence[str] = ()) -> list[Method]:
    """Return the methods of these names, all if there are none; KD is always the first."""
    entries = offered_methods()
    for name in names:
        if name not in entries:
            raise ValueError(f'unknown method {name!r}{close_names(name, entries)}; there are {", ".join(entries)}')
    chosen = dict.fromkeys([UNIT, *(names or entries)])
    return MethodList([dict(methods=[dict(entries[name], name=name)]) for name in chosen]).parsed()


def work_of(loss: nn.Module, given: Mapping[str, Any]) -> Callable[[], Any]:
    """Return forward and backward of a loss: the gradients of its parameters and of all given tensors that require one."""
    trained = [t for t in (*loss.parameters(), *tensors_of(given.values())) if t.requires_grad]
    return lambda: torch.autograd.grad(loss(**given), trained, allow_unused=True)


def peak_bytes(work: Callable[[], Any], device: str = 'cpu') -> int:
    """Return the largest additional allocation of torch on a device during some work, its result included.

    On a CPU torch's profiler reports every allocation; the caches inside of libraries are not among them.
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
    now = peak = 0
    for change in sorted((event for event in events if event['name'] == '[memory]'), key=lambda event: event['ts']):
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
    """Measure methods (and KD) side by side, on :func:`stand_ins`, with the hyper-parameters of the configs for ImageNet.

    Their losses are built as the distiller builds them. Reading the tensors from the networks is not measured. Some methods
    remember each of ``num_samples`` training samples.
    """
    methods = wanted_methods(names)
    tensors = stand_ins(batch, classes, num_samples, device)
    shapes: dict[str, Shape] = {n: shape_of(value) for n, value in tensors.items() if isinstance(value, (Tensor, tuple))}
    facts = dict(
        num_samples=lambda: num_samples,
        batch_size=lambda: batch,
        teacher_weight=lambda: tensors['teacher_head'][-1].weight,
        teacher_head=lambda: tensors['teacher_head'],
        teacher_norms=lambda: [nn.BatchNorm2d(width) for width, _ in STAGES],
    )
    losses = {method.name: method.build(shapes, facts).to(device) for method in methods}
    works = {m.name: work_of(losses[m.name], {name: tensors[name] for name in m.inputs}) for m in methods}
    with computing(threads):
        timings = interleave(works, rounds, device=device)
        peaks = {name: peak_bytes(work, device) for name, work in works.items()}
    return {name: Cost(timings[name], own_bytes(loss), peaks[name]) for name, loss in losses.items()}


def own_bytes(loss: nn.Module) -> int:
    """Return the size of a loss's parameters and buffers, in bytes."""
    return sum(tensor.nbytes for tensor in (*loss.parameters(), *loss.buffers()))


def beside_kd(costs: Mapping[str, Cost]) -> dict[str, tuple[str, str]]:
    """Return costs beside KD: the median time in units of KD's, and the memory beyond KD's in MiB."""
    time, memory = costs[UNIT].timing.median, costs[UNIT].memory
    return {
        name: (f'{cost.timing.median / time:.1f}', f'{(cost.memory - memory) / MEBIBYTE:.1f}')
        for name, cost in costs.items()
    }


def show_methods(costs: Mapping[str, Cost]) -> None:
    """Print the costs of methods, and how they compare with KD."""
    columns = ['method', 'median (ms)', 'spread (ms)', 'KDs', 'own (MiB)', 'peak (MiB)', 'both − KD’s (MiB)']
    rows = []
    for name, (times, memory) in beside_kd(costs).items():
        timing, own, peak = costs[name].timing, costs[name].own / MEBIBYTE, costs[name].peak / MEBIBYTE
        milliseconds = [f'{1000 * timing.median:.2f}', f'{1000 * timing.spread:.2f}']
        rows.append([name, *milliseconds, times, f'{own:.1f}', f'{peak:.1f}', memory])
    show('Forward and backward of each loss', columns, rows)
