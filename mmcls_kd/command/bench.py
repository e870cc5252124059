"""Measure speed and memory: training steps, losses, methods, the input side, storing a teacher, the start."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from .arguments import at_least_one, new_parser, training_parser
from .exits import errors_in_one_line
from .loading import load_libraries


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(__doc__)
    parts = parser.add_subparsers(dest='part', required=True)

    step = parts.add_parser(
        'step', parents=[training_parser(None, add_help=False)], help='a training step, in many settings'
    )
    step.add_argument('--settings', nargs='+', default=['plain', 'channels_last'], help='e.g. plain amp,channels_last,bf16')
    step.add_argument('--groups', nargs='+', default=[''], help='methods to compare, those of one run joined by commas')
    step.add_argument('--batch-sizes', nargs='+', type=int, default=[32])
    step.add_argument('--image-size', type=int, default=224, help='height and width of the images')
    step.add_argument('--profile', action='store_true', help='show only the share of each operator of the distiller')
    step.add_argument('--no-memory', action='store_true', help='leave peak memory out, which takes a process each')

    losses = parts.add_parser('losses', help='the logit losses beside a cross entropy')
    losses.add_argument('--batch-size', type=int, default=256)
    losses.add_argument('--classes', type=int, default=1000)
    losses.add_argument('--soft', action='store_true', help='scores (N, C) as labels')

    methods = parts.add_parser('methods', help='time and memory of every method’s loss, beside KD')
    methods.add_argument('--methods', nargs='*', default=[], help='methods to measure (default: all)')
    methods.add_argument('--batch-size', type=int, default=64)
    methods.add_argument('--classes', type=int, default=1000)
    methods.add_argument('--num-samples', type=int, default=1_281_167, help='of training images, which some remember')

    data = parts.add_parser('data', parents=[training_parser(None, add_help=False)], help='the training dataloader alone')
    data.add_argument('--workers', nargs='+', type=int, default=[0, 1, 2])
    data.add_argument('--backends', nargs='*', default=[], help='libraries to decode images, e.g. cv2 pillow')
    data.add_argument('--reduce-to', nargs='*', type=float, default=[], help='values of LoadAndCrop for JPEGs, e.g. 1 0.5')

    store = parts.add_parser('store', help="the effect of storing a teacher's largest logits alone on the losses")
    store.add_argument('logits', help='.npz file with logit_s (N, C), logit_t (N, C) and gt_label (N,)')
    store.add_argument('--top-k', nargs='+', type=int, help='(default: 10, 50, 100 and all)')

    start = parts.add_parser('start', help='the start of a run with long annotation files, up to its first step')
    start.add_argument('--entries', nargs='+', type=at_least_one, default=[10_000, 1_300_000], help='lines of the files')
    start.add_argument('--ways', nargs='+', default=['kd', 'crd', 'store'], choices=['kd', 'crd', 'store'])

    for part in (step, losses, methods, data, store, start):
        part.add_argument('--json', help='write the measurements into this file')
    for part, rounds, threads in ((step, 7, 0), (losses, 50, 1), (methods, 10, 1), (data, 5, 0), (start, 3, 0)):
        part.add_argument('--rounds', type=at_least_one, default=rounds)
        part.add_argument('--threads', type=int, default=threads, help='of torch, on a CPU (0: its default)')
        part.add_argument('--device', help='(default: cuda where there is one)')
    return parser


def measure_step(args: argparse.Namespace) -> dict:
    """Measure training steps: times, their ratios, and peak memory."""
    from benchmark.step import Bench, measure_memory, measure_steps, profile, ratios, show_steps

    from ..engine.config import training_config
    from ..files.showing import show

    cfg = training_config(args)
    with Bench(cfg, args.image_size, args.device) as bench:
        with_timm = importlib.util.find_spec('timm') is not None
        chosen = bench.requests(args.batch_sizes, args.settings, args.groups, with_timm)
        if args.profile:
            request = next(r for r in chosen if r.kind == 'distiller')
            shares = profile(bench.work(request), args.device)
            show(f'Where the time goes: {request.name}', ['operator', 'share'], [(n, f'{s:.1%}') for n, s in shares])
            return dict(results=shares)
        timings = measure_steps(bench, chosen, args.rounds)
        show_steps(timings)
        memory = {} if args.no_memory else measure_memory(bench, chosen)
    if memory:
        show('Peak memory', ['work', 'MiB'], [(r.name, f'{peak / 2**20:.0f}') for r, peak in memory.items()])
    results = [dict(name=r.name, timing=t, peak_bytes=memory.get(r)) for r, t in timings.items()]
    return dict(results=results, ratios=dict(ratios(timings)))


def measure_logit_losses(args: argparse.Namespace) -> dict:
    """Measure the logit losses."""
    from benchmark.losses import measure_losses, show_losses

    timings = measure_losses(args.batch_size, args.classes, args.rounds, args.threads, args.soft, args.device)
    show_losses(timings)
    return dict(results=timings)


def measure_each_method(args: argparse.Namespace) -> dict:
    """Measure the losses of all methods."""
    from benchmark.methods import measure_methods, show_methods

    costs = measure_methods(
        args.methods, args.batch_size, args.classes, args.num_samples, args.rounds, args.threads, args.device
    )
    show_methods(costs)
    return dict(results=costs)


def measure_data(args: argparse.Namespace) -> dict:
    """Measure the training dataloader."""
    from benchmark.data import measure_loading, show_loading, variants

    from ..engine.config import training_config
    from ..engine.folders import check_data_folders
    from ..engine.views import preprocessing_of

    cfg = training_config(args)
    check_data_folders(cfg, ('train_dataloader',))
    chosen = variants(cfg.train_dataloader, args.workers, args.backends, preprocessing_of(cfg), args.reduce_to)
    measured = measure_loading(chosen, args.rounds)
    show_loading(measured)
    return dict(results={name: dict(images=images, timing=timing) for name, (images, timing) in measured.items()})


def measure_store(args: argparse.Namespace) -> dict:
    """Measure the errors that a store of the largest logits makes."""
    import numpy as np
    import torch

    from benchmark.losses import show_store_errors, store_errors

    with np.load(args.logits) as file:
        logit_s, logit_t, gt_label = (torch.from_numpy(file[name]) for name in ('logit_s', 'logit_t', 'gt_label'))
    classes = logit_t.shape[1]
    errors = store_errors(logit_s, logit_t, gt_label, args.top_k or [k for k in (10, 50, 100, classes) if k <= classes])
    show_store_errors(errors)
    return dict(results=[dict(loss=name, k=k, value=v, gradient=g) for (name, k), (v, g) in errors.items()])


def measure_starts(args: argparse.Namespace) -> dict:
    """Measure the start of runs."""
    from benchmark.start import measure_start, show_start

    measured = measure_start(args.entries, args.ways, args.rounds)
    show_start(measured)
    return dict(results={way: {n: start._asdict() for n, start in of.items()} for way, of in measured.items()})


PARTS = dict(
    step=measure_step,
    losses=measure_logit_losses,
    methods=measure_each_method,
    data=measure_data,
    store=measure_store,
    start=measure_starts,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the measurements."""
    args = parser().parse_args(argv)
    from ..files.paths import TOOLBOX

    with errors_in_one_line():
        if not Path(TOOLBOX, 'tools', 'benchmark').is_dir():
            raise FileNotFoundError(f'the benchmark needs a clone of the toolbox: {TOOLBOX} has no tools/benchmark/')
        sys.path.append(str(TOOLBOX / 'tools'))
    load_libraries()
    import torch
    from mmengine.logging import MMLogger

    from benchmark.timing import machine

    from ..files.showing import write_json

    MMLogger.get_current_instance().setLevel('WARNING')  # the optimizer tells each parameter's options
    args.device = getattr(args, 'device', None) or ('cuda' if torch.cuda.is_available() and args.part != 'store' else 'cpu')
    with errors_in_one_line():
        if getattr(args, 'threads', 0):
            torch.set_num_threads(args.threads)
        measured = PARTS[args.part](args)
        if args.json:
            command = list(sys.argv[1:] if argv is None else argv)
            write_json(dict(command=command, machine=machine(args.device), **measured), Path(args.json))
