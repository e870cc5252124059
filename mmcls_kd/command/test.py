"""Test a classifier, or the student of a distiller config (no teacher is built)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from .arguments import base_parser
from .exits import ended_in_order, errors_in_one_line
from .loading import load_libraries

#: Endings of the file of ``--out``, by its content.
ENDINGS = {'pred': ('.pkl', '.pickle'), 'metrics': ('.json', '.yaml', '.yml', '.pkl', '.pickle')}
METRICS = ('accuracy', 'precision', 'recall', 'f1-score')


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = base_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint to test: exported, or written by a distiller in training')
    parser.add_argument('--metrics', nargs='+', choices=METRICS, help="in place of the config's own metrics")
    parser.add_argument('--out', help='file for predictions or metrics')
    parser.add_argument('--out-item', choices=['metrics', 'pred'], help='content of --out (default: pred)')
    parser.add_argument('--show-dir', help='folder for drawn predictions')
    parser.add_argument('--show', action='store_true', help='show drawn predictions in a window')
    parser.add_argument('--interval', type=int, default=1, help='draw every n-th sample')
    parser.add_argument('--wait-time', type=float, default=2, help='how long a window stays, in seconds')
    parser.add_argument('--tta', action='store_true', help='average the scores of the image and its mirror image')
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; refuse ``--out-item`` without a file, and a file of an unknown form."""
    args = (parsed := parser()).parse_args(argv)
    if args.out is None and args.out_item is not None:
        parsed.error('--out-item needs --out FILE')
    if args.out and not args.out.endswith(endings := ENDINGS[args.out_item or 'pred']):
        parsed.error(f'--out {args.out}: name a file that ends in {", ".join(endings)}')
    return args


def evaluators(metrics: Sequence[str], configured: Any, num_classes: int | None = None) -> list[dict]:
    """Return the evaluators of some metrics; accuracy keeps the config's own top-k."""
    configured = configured if isinstance(configured, list) else [configured]
    own = [e for e in configured if e.get('type') == 'Accuracy']
    chosen = (
        (own or [dict(type='Accuracy', topk=(1, 5) if (num_classes or 5) >= 5 else (1,))]) if 'accuracy' in metrics else []
    )
    single = [m for m in metrics if m != 'accuracy']
    return chosen + ([dict(type='SingleLabelMetric', items=single)] if single else [])


def as_lists(value: Any) -> Any:
    """Return metrics with numbers and lists in place of arrays and tensors, as each kind of file can hold them.

    Example:
        >>> import numpy as np
        >>> as_lists({'confusion_matrix/result': np.eye(2, dtype=int), 'accuracy/top1': np.float64(50)})
        {'confusion_matrix/result': [[1, 0], [0, 1]], 'accuracy/top1': 50.0}
    """
    if isinstance(value, Mapping):
        return {name: as_lists(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_lists(one) for one in value]
    return value.tolist() if hasattr(value, 'tolist') else value


def add_drawing(cfg: Any, args: argparse.Namespace) -> None:
    """Draw predictions through mmpretrain's visualizer; names of classes are text, no formulas."""
    import matplotlib

    matplotlib.rcParams['text.parse_math'] = False
    hook = dict(
        type='DrawingHook',
        enable=True,
        show=args.show,
        wait_time=args.wait_time,
        out_dir=args.show_dir,
        interval=args.interval,
    )
    cfg.default_hooks = {**(cfg.get('default_hooks') or {}), 'visualization': hook}


def add_tta(cfg: Any) -> None:
    """Augment at test time as the config has it, else by a horizontal flip."""
    from mmengine.config import ConfigDict

    from ..networks.trial import leaves

    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    for leaf in leaves(cfg.test_dataloader.dataset):
        augment = dict(type='TestTimeAug', transforms=[flips, [leaf['pipeline'][-1]]])
        leaf['pipeline'] = cfg.get('tta_pipeline') or [*deepcopy(leaf['pipeline'][:-1]), augment]  # type: ignore[index]
    wrapper: Mapping = cfg.get('tta_model') or dict(type='mmpretrain.AverageClsScoreTTA')
    cfg.model = ConfigDict(**wrapper, module=cfg.model)


def run_config(args: argparse.Namespace) -> Any:
    """Return the config of this test: file, command line, and defaults for the rest."""
    from ..checks.data import model_classes
    from ..engine.config import complete_dataloaders, load_config, make_paths_absolute, merge_options, student_only

    cfg = load_config(args, 'model', 'test_dataloader', 'test_cfg', 'test_evaluator')
    cfg.load_from, cfg.resume = None, False
    if args.amp:
        cfg.test_cfg.fp16 = True
    merge_options(cfg, args.cfg_options)
    student_only(cfg)
    if args.metrics:
        cfg.test_evaluator = evaluators(args.metrics, cfg.test_evaluator, model_classes(cfg))
    if args.show or args.show_dir:
        add_drawing(cfg, args)
    if args.tta:
        add_tta(cfg)
    complete_dataloaders(cfg, not args.no_pin_memory, persistent_workers=False)
    make_paths_absolute(cfg)
    return cfg


def prepare(args: argparse.Namespace) -> Any:
    """Return the runner of this test, with the checkpoint loaded and all checked."""
    from mmengine.evaluator import DumpResults

    from ..checks.training import check_batches, check_data
    from ..engine.ema import use_validated_weights
    from ..engine.folders import check_data_folders
    from ..engine.labels import ways_of
    from ..engine.models import unwrapped
    from ..engine.runtime import build_runner
    from ..networks.classes import compare_order, names_in
    from ..networks.loading import load_strictly

    cfg = run_config(args)
    check_data_folders(cfg, ('test_dataloader',))
    runner = build_runner(cfg)
    model = unwrapped(runner)
    model = model.module if args.tta else model
    meta = load_strictly(model, args.checkpoint, 'test')
    use_validated_weights(runner, model, args.checkpoint)
    data = {'test_dataloader': runner.test_dataloader}
    check_data(runner, data)
    check_batches(runner, data)
    compare_order(names_in(meta), ways_of(runner.test_dataloader.dataset), args.checkpoint, refuse=True)
    runner.dump_config()
    if args.out and args.out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    return runner


def main(argv: Sequence[str] | None = None) -> None:
    """Test."""
    args = parse_args(argv)
    load_libraries()
    import mmengine

    with errors_in_one_line():
        runner = prepare(args)
    with ended_in_order(again='by the same command'):
        metrics = runner.test()
        if args.out and args.out_item == 'metrics':
            mmengine.dump(as_lists(metrics), args.out)
