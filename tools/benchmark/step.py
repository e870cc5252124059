"""Measure a training step: the distiller's beside the student's alone, the teacher's forward, and the usual ways.

Each kind of work has its own networks, of the same config and with random weights, and does the whole of a step: images as
uint8 through preprocessing, forward, backward, optimizer.
"""

from __future__ import annotations

import copy
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmcls_kd.distillers.classification import refuse_narrow
from mmcls_kd.distillers.recipe import is_distiller
from mmcls_kd.engine.config import take_precision
from mmcls_kd.engine.views import preprocessing_of
from mmcls_kd.features.dry_run import dry_run
from mmcls_kd.files.showing import show
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.recipe.methods import GT_LABEL, MethodList
from mmcls_kd.recipe.schedules import Progress
from mmcls_kd.teachers.fast import compile_parts
from mmcls_kd.teachers.records import encode
from mmcls_kd.teachers.store import Manifest, Shard, save

from .timing import Timing, interleave

#: The words of a setting, beside ``plain``.
WORDS = ('amp', 'channels_last', 'bf16', 'fp16', 'compile')
#: The kinds of work, and the method of :class:`Bench` that makes each.
KINDS = {
    'student alone': '_student',
    'teacher forward': '_teacher',  # in eval mode, as loaded
    'fast teacher': '_fast_teacher',  # the same as the distiller runs it
    'storing': '_storing',  # the same from the dataloader's batch to a file of a store
    'distiller': '_distiller',
    'stored teacher': '_stored',
    'stand-in': '_stand_in',
    "timm's task": '_timm',
}
#: Number of logits in a store here, where there are so many classes.
STORED = 100
Work = Callable[[], Any]


@dataclass(frozen=True)
class Request:
    """One kind of work to measure, of :data:`KINDS`, with a number of images in a batch.

    Attributes:
        setting: Words of :data:`WORDS`, joined by commas: mixed precision, memory format, the teacher's precision,
            compilation; ``'plain'`` for none of them.
        methods: The methods, joined by commas; empty for those of the config.
    """

    kind: str
    batch_size: int
    setting: str = 'plain'
    methods: str = ''

    @property
    def name(self) -> str:
        """Name in tables and files."""
        methods = f' {self.methods}' if self.methods else ''
        return f'{self.kind}{methods}, batch {self.batch_size}, {self.setting}'

    def has(self, word: str) -> bool:
        """Return whether the setting has a word."""
        return word in self.setting.split(',')


def check_setting(setting: str) -> str:
    """Refuse a setting with an unknown word or two precisions."""
    words = setting.split(',') if setting != 'plain' else []
    for word in words:
        if word not in WORDS:
            raise ValueError(f'setting {setting!r}: {word!r} is none of plain, {", ".join(WORDS)}')
    if {'bf16', 'fp16'} <= set(words):
        raise ValueError(f'setting {setting!r}: the teacher has one precision, bf16 or fp16')
    return setting


class Bench:
    """Makes the work of requests; use it in a ``with`` block, which removes the files of the work at its end.

    The config is of a distiller with one teacher, as of :func:`~mmcls_kd.engine.config.training_config`.
    """

    def __init__(self, cfg: Config, image_size: int, device: str = 'cpu') -> None:
        init_default_scope('mmpretrain')
        if not is_distiller(cfg.model):
            raise ValueError(f'{cfg.filename} trains no distiller; its steps are those of mmpretrain')
        if isinstance(cfg.model.get('teacher_cfg'), (list, tuple)):
            raise ValueError(f'{cfg.filename} has several teachers; the benchmark takes one')
        self.cfg, self.image_size, self.device = cfg, image_size, device
        self.student_cfg = network_cfg(cfg.model.student_cfg)
        self.preprocessing = {**preprocessing_of(cfg), 'batch_augments': None}
        self._folders = ExitStack()
        self.channels = len(self.preprocessing.get('mean', 'RGB'))
        self.classes = dry_run(MODELS.build(self.student_cfg), 'student').num_classes

    def requests(
        self, batch_sizes: Sequence[int], settings: Sequence[str], groups: Sequence[str], timm: bool
    ) -> list[Request]:
        """Return all requests.

        ``groups`` are methods that run together, joined by commas; an empty word for those of the config. Where they need
        more than logits, there is neither a stand-in nor a stored teacher; without a teacher, nor timm's task.
        """
        chosen, taught = [], self.cfg.model.get('teacher_cfg') is not None
        logits = [group for group in groups if taught and self._only_logits(group)]
        parts = ('student alone', 'teacher forward', 'fast teacher', 'storing') if taught else ('student alone',)
        for size in batch_sizes:
            chosen += [Request('stand-in', size, methods=group) for group in logits]
            for setting in map(check_setting, settings):
                chosen += [Request(kind, size, setting) for kind in parts]
                for group in groups:
                    kinds = ('distiller', 'stored teacher') if group in logits else ('distiller',)
                    chosen += [Request(kind, size, setting, group) for kind in kinds]
                chosen += [Request("timm's task", size, setting)] if timm and taught else []
        return chosen

    def work(self, request: Request) -> Work:
        """Return a function that does one step of a kind of work."""
        torch.manual_seed(0)
        return getattr(self, KINDS[request.kind])(request)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self._folders.close()

    # ---- parts of a step

    def _batch(self, request: Request) -> dict[str, Any]:
        """Return a batch as of the dataloader."""
        shape = (request.batch_size, self.channels, self.image_size, self.image_size)
        inputs = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        samples = [DataSample().set_gt_label(i % self.classes) for i in range(request.batch_size)]
        for place, sample in enumerate(samples):
            sample.set_field((0, place), 'view', field_type='metainfo')
        return dict(inputs=inputs, data_samples=samples)

    def _preprocessor(self) -> nn.Module:
        return MODELS.build(dict(self.preprocessing)).to(self.device)

    def _folder(self) -> Path:
        """Return an empty folder, which exists until the bench is closed."""
        return Path(self._folders.enter_context(tempfile.TemporaryDirectory(prefix='teacher_store_')))

    def _network(self, cfg: Mapping, request: Request) -> Any:
        network = MODELS.build(dict(cfg, data_preprocessor=dict(self.preprocessing))).to(self.device)
        if request.has('compile'):
            compile_parts(network, {})
        if not request.has('channels_last'):
            return network
        refuse_narrow(network)
        return network.to(memory_format=torch.channels_last)

    def _teacher_network(self, request: Request) -> Any:
        return self._network(network_cfg(self.cfg.model.teacher_cfg), request).requires_grad_(False)

    def _wrapper(self, model: nn.Module, request: Request) -> Any:
        cfg = Config(dict(optim_wrapper=copy.deepcopy(dict(self.cfg.optim_wrapper))))
        if request.has('amp'):
            take_precision(cfg, self.device)
        return build_optim_wrapper(model, cfg.optim_wrapper)

    def _autocast(self, request: Request) -> AbstractContextManager:
        return torch.autocast(torch.device(self.device).type, enabled=request.has('amp'))

    def _trained(self, model: Any, request: Request) -> Work:
        """Return a step of an mmengine model, as its Runner takes it."""
        wrapper, batch = self._wrapper(model, request), self._batch(request)
        model.train()

        def step() -> None:
            model.train_step(dict(batch), optim_wrapper=wrapper)

        return step

    def _loop(self, request: Request, student: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> Work:
        """Return a step of a plain loop: images and labels to a loss."""
        batch, preprocessor = self._batch(request), self._preprocessor()
        optimizer = self._wrapper(student, Request(request.kind, request.batch_size)).optimizer
        label = torch.cat([sample.gt_label for sample in batch['data_samples']]).to(self.device)
        layout = torch.channels_last if request.has('channels_last') else torch.contiguous_format

        def step() -> None:
            inputs = preprocessor(dict(batch), training=False)['inputs'].contiguous(memory_format=layout)
            with self._autocast(request):
                value = loss(inputs, label)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

        return step

    def _model_cfg(self, methods: str) -> Any:
        model = copy.deepcopy(self.cfg.model)
        if methods:
            MethodList(model.get('distill_cfg')).select(methods.split(','))
        return model

    def _only_logits(self, methods: str) -> bool:
        """Return whether the losses have no inputs but logits and labels."""
        chosen = MethodList(self._model_cfg(methods).distill_cfg).parsed()
        return {name for method in chosen for name in method.inputs} <= {'logit_s', 'logit_t', GT_LABEL}

    def _build_distiller(self, request: Request, **changes: Any) -> Any:
        model = self._model_cfg(request.methods)
        precision = next((word for word in ('bf16', 'fp16') if request.has(word)), None)
        model.update(
            teacher_pretrained=False,
            data_preprocessor=dict(self.preprocessing),
            channels_last=request.has('channels_last'),
            compile=request.has('compile'),
            teacher_precision=precision,
        )
        model.update(changes)
        return MODELS.build(model).to(self.device)

    # ---- the kinds of work

    def _student(self, request: Request) -> Work:
        return self._trained(self._network(self.student_cfg, request), request)

    def _teacher(self, request: Request) -> Work:
        """Return the forward pass alone, of preprocessed images: eval mode, as loaded, under autocast with ``amp``."""
        teacher = self._teacher_network(request).eval()
        inputs = self._preprocessor()(self._batch(request), training=False)['inputs']

        def forward() -> None:
            with torch.no_grad(), self._autocast(request):
                teacher(inputs)

        return forward

    def _live_teacher(self, request: Request) -> Callable[[Any], Tensor]:
        """Return the distiller's teacher: preprocessed images to logits."""
        distiller = self._build_distiller(request)
        if distiller.teacher is None:
            raise ValueError('none of the methods needs a teacher; choose others by --methods')

        def logits(data: Any) -> Tensor:
            inputs = distiller.arrange(data['inputs'])
            with torch.no_grad(), self._autocast(request):
                return distiller.teacher_holder(inputs, data['data_samples'], ['logit'])['logit']

        return logits

    def _fast_teacher(self, request: Request) -> Work:
        teacher, data = self._live_teacher(request), self._preprocessor()(self._batch(request), training=False)
        return lambda: teacher(data)

    def _storing(self, request: Request) -> Work:
        """Return a step that writes a file of its own, where ``mmcls_kd store`` writes one of many steps."""
        teacher, preprocessor, batch = self._live_teacher(request), self._preprocessor(), self._batch(request)
        folder = self._folder()

        def store() -> None:
            logit = teacher(preprocessor(dict(batch), training=False))
            save(folder, Shard(0, 0, 0), encode(logit, min(logit.shape[1], STORED)))

        return store

    def _distiller(self, request: Request) -> Work:
        return self._trained(self._build_distiller(request), request)

    def _stored(self, request: Request) -> Work:
        """Return a step with stored logits, those of a random teacher."""
        classes, folder = self.classes, self._folder()
        records = encode(torch.randn(request.batch_size, classes), min(classes, STORED))
        k = records['logit'].shape[1]
        save(folder, Shard(0, 0, 0), records)
        Manifest({}, {}, classes, k, 1, len(records), len(records), epochs=1).write(folder)
        changes = dict(teacher_store=str(folder), teacher_cfg=None, teacher_precision=None)
        return self._trained(self._build_distiller(request, **changes), request)

    def _stand_in(self, request: Request) -> Work:
        """Return a step of the usual way: float32, contiguous, the teacher in train mode under no_grad, the same losses."""
        student, teacher = self._network(self.student_cfg, request), self._teacher_network(request).train()
        shape = (request.batch_size, self.classes)
        methods = MethodList(self._model_cfg(request.methods).distill_cfg).parsed()
        losses = [(method, method.build(dict(logit_s=shape, logit_t=shape))) for method in methods]

        def value(inputs: Tensor, label: Tensor) -> Tensor:
            logit_s = student(inputs)
            with torch.no_grad():
                logit_t = teacher(inputs)
            tensors = dict(logit_s=logit_s, logit_t=logit_t, gt_label=label)
            total = nn.functional.cross_entropy(logit_s, label)
            for method, loss in losses:
                total = total + method.weight.now(Progress()) * loss(**{word: tensors[word] for word in method.inputs})
            return total

        return self._loop(request, student.train(), value)

    def _timm(self, request: Request) -> Work:
        """Return a step of timm's distillation task, and its way of running a teacher, with the same networks."""
        from timm.task import LogitDistillationTask

        student, teacher = self._network(self.student_cfg, request), self._teacher_network(request)
        for network in (student, teacher):
            network.num_classes, network.in_chans = self.classes, self.channels
            same = (0.0,) * self.channels, (1.0,) * self.channels  # mean and std: pixels are normalised already
            network.pretrained_cfg = network.default_cfg = dict(zip(('mean', 'std'), same, strict=True))
        task = LogitDistillationTask(
            student, teacher, criterion=nn.CrossEntropyLoss(), distill_loss_weight=1.0, task_loss_weight=1.0, verbose=False
        ).to(self.device)
        return self._loop(request, student.train(), lambda inputs, label: task(inputs, label)['loss'])


def measure_memory(bench: Bench, chosen: Sequence[Request]) -> dict[Request, int]:
    """Measure the peak memory of a process of its own for each kind of work, one after the other, in bytes.

    On a CPU that is the process's resident memory, libraries and all; on a CUDA device what torch allocates there.
    """
    settings = (bench.cfg._cfg_dict.to_dict(), bench.image_size, bench.device, torch.get_num_threads())
    peaks = {}
    for request in chosen:
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
            try:
                peaks[request] = pool.submit(_own_peak, request, *settings).result()
            except BrokenProcessPool:
                raise RuntimeError(f'{request.name}: the process that measures its memory ended early') from None
    return peaks


def _own_peak(request: Request, cfg: dict, image_size: int, device: str, threads: int) -> int:
    torch.set_num_threads(threads)
    with Bench(Config(cfg), image_size, device) as bench:
        work = bench.work(request)
        for _ in range(3):
            work()
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == 'cuda' else resident_peak()


def resident_peak() -> int:
    """Return the peak resident memory of this process, in bytes."""
    status = Path('/proc/self/status')
    if status.is_file():  # getrusage would count the parent process's
        line = next(line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def measure_steps(bench: Bench, chosen: Sequence[Request], rounds: int) -> dict[Request, Timing]:
    """Time all kinds of work side by side."""
    works = {request.name: bench.work(request) for request in chosen}
    timings = interleave(works, rounds, warmup=2, device=bench.device)
    return {request: timings[request.name] for request in chosen}


def ratios(timings: Mapping[Request, Timing]) -> Iterator[tuple[str, float]]:
    """Compare the distiller's steps with student plus teacher of the same setting, and with the usual ways.

    Of timm's task the best setting counts. A stored teacher's step compares with the student alone.
    """

    def median(kind: str, size: int, setting: str | None = None) -> float | None:
        found = [
            t.median for r, t in timings.items() if (r.kind, r.batch_size) == (kind, size) and setting in (None, r.setting)
        ]
        return min(found, default=None)

    for request, timing in timings.items():
        size, setting = request.batch_size, request.setting
        alone, teacher = median('student alone', size, setting), median('teacher forward', size, setting)
        if request.kind == 'distiller':
            both = alone + teacher if alone and teacher else None
            others = {'(student alone + teacher forward)': both, 'stand-in': median('stand-in', size)}
            for name, other in (others | {"timm's best": median("timm's task", size)}).items():
                if other:
                    yield f'{request.name} / {name}', timing.median / other
        if request.kind == 'storing' and (forward := median('fast teacher', size, setting)):
            yield f'{request.name}: speed / fast teacher', forward / timing.median
        if request.kind == 'stored teacher' and alone:
            yield f'{request.name} / student alone', timing.median / alone


def profile(work: Work, device: str = 'cpu', steps: int = 3, top: int = 12) -> list[tuple[str, float]]:
    """Return the share of the time of a kind of work, once warmed up, that the longest operators take, and ``'all others'``.

    Only time on its device counts.
    """
    for _ in range(2):
        work()
    on_gpu = [torch.profiler.ProfilerActivity.CUDA] if torch.device(device).type == 'cuda' else []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, *on_gpu]) as seen:
        for _ in range(steps):
            work()
    taken = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in seen.key_averages()}
    total = sum(taken.values())
    shares = [(name, time / total) for name, time in sorted(taken.items(), key=lambda item: -item[1])[:top]]
    return [*shares, ('all others', 1 - sum(share for _, share in shares))]


def show_steps(timings: Mapping[Request, Timing]) -> None:
    """Print the times and images a second of each kind of work, and the ratios."""
    rows = [(r.name, f'{t.median:.3f}', f'{t.spread:.3f}', f'{r.batch_size / t.median:.1f}') for r, t in timings.items()]
    show('A training step', ['work', 'median (s)', 'spread (s)', 'images/s'], rows)
    show('Ratios', ['what', 'ratio'], [(name, f'{value:.3f}') for name, value in ratios(timings)])
