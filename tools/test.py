"""Test a classifier, or the student of a distiller config (no teacher is built)."""

import sys
from copy import deepcopy
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.hooks import EMAHook, Hook

from mmcls_kd.checks.data import model_classes
from mmcls_kd.checks.training import check_batches, check_data, check_data_folders, check_idx_files
from mmcls_kd.engine.models import unwrapped
from mmcls_kd.engine.runtime import (
    base_parser,
    build_runner,
    complete_dataloaders,
    ended_in_order,
    errors_in_one_line,
    is_distiller,
    load_config,
    make_self_contained,
    need,
    student_only,
)
from mmcls_kd.files.checkpoint import read_checkpoint
from mmcls_kd.networks.classes import compare_order, names_in
from mmcls_kd.networks.labels import ways_of
from mmcls_kd.networks.loading import fetch, load_strictly
from mmcls_kd.networks.weights import student_weights, weights_of

METRICS = ('accuracy', 'precision', 'recall', 'f1-score')


def parse_args(argv=None):
    parser = base_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint to test: exported, or one that a distiller wrote in training')
    parser.add_argument('--metrics', nargs='+', choices=METRICS, help="in place of the config's own metrics")
    parser.add_argument('--out', help='file for predictions or metrics')
    parser.add_argument('--out-item', choices=['metrics', 'pred'], help='what --out holds (default: pred)')
    parser.add_argument('--show-dir', help='folder for drawn predictions')
    parser.add_argument('--show', action='store_true', help='show drawn predictions in a window')
    parser.add_argument('--interval', type=int, default=1, help='draw every n-th sample')
    parser.add_argument('--wait-time', type=float, default=2, help='how long a window stays, in seconds')
    parser.add_argument('--tta', action='store_true', help='average the scores of the image and its mirror image')
    args = parser.parse_args(argv)
    if args.out is None and args.out_item is not None:
        parser.error('--out-item needs --out FILE')
    return args


def evaluators(metrics, configured, num_classes=None) -> list[dict]:
    """The evaluators for the metrics asked for; accuracy keeps the config's own top-k."""
    configured = configured if isinstance(configured, list) else [configured]
    own = [e for e in configured if e.get('type') == 'Accuracy']
    chosen = (
        (own or [dict(type='Accuracy', topk=(1, 5) if (num_classes or 5) >= 5 else (1,))]) if 'accuracy' in metrics else []
    )
    single = [m for m in metrics if m != 'accuracy']
    return chosen + ([dict(type='SingleLabelMetric', items=single)] if single else [])


def add_drawing(cfg: Config, args) -> None:
    """Draw predictions through mmpretrain's VisualizationHook; names of classes are text, no formulas."""
    import matplotlib

    matplotlib.rcParams['text.parse_math'] = False
    cfg.default_hooks['visualization'] = dict(
        type='VisualizationHook',
        enable=True,
        show=args.show,
        wait_time=args.wait_time,
        out_dir=args.show_dir,
        interval=args.interval,
    )


def add_tta(cfg: Config) -> None:
    """Test-time augmentation as the config has it, else a horizontal flip."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    augment = dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])
    cfg.test_dataloader.dataset.pipeline = cfg.get('tta_pipeline') or [*deepcopy(pipeline[:-1]), augment]
    wrapper = cfg.get('tta_model') or dict(type='mmpretrain.AverageClsScoreTTA')
    cfg.model = ConfigDict(**wrapper, module=cfg.model)


class UnaveragedWeightsHook(Hook):
    """Gives the model the weights themselves once EMAHook has its copy of the averaged ones, which a checkpoint has first.

    Args:
        model: The model, which has loaded the averaged weights.
        unaveraged: ``ema_state_dict`` of the checkpoint, which has the weights themselves.
    """

    def __init__(self, model, unaveraged) -> None:
        weights = weights_of({'state_dict': unaveraged})
        self.model, self.weights = model, student_weights(weights) or weights

    def before_test(self, *_) -> None:
        """Put them in; EMAHook chooses what is tested."""
        self.model.load_state_dict(self.weights, strict=False)


def heed_average(runner, model, source: str) -> None:
    """Let EMAHook test what it validated in training: the average, the weights themselves, or both."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    unaveraged = read_checkpoint(fetch(source, 'test')).get('ema_state_dict') if hooks else None
    if unaveraged:
        runner.register_hook(UnaveragedWeightsHook(model, unaveraged))
    for hook in hooks if not unaveraged else ():  # only one kind of weights is here
        hook.evaluate_on_ema, hook.evaluate_on_origin = True, False


def run_config(args) -> Config:
    """The config of this test: file, command line, and what both leave open."""
    cfg = load_config(args)
    need(cfg, 'model', 'test_dataloader', 'test_cfg', 'test_evaluator')
    cfg.load_from, cfg.resume = None, False
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if is_distiller(cfg.model):
        student_only(cfg)
    if args.metrics:
        cfg.test_evaluator = evaluators(args.metrics, cfg.test_evaluator, model_classes(cfg))
    if args.show or args.show_dir:
        add_drawing(cfg, args)
    if args.tta:
        add_tta(cfg)
    complete_dataloaders(cfg, not args.no_pin_memory, persistent_workers=False)
    make_self_contained(cfg)
    return cfg


def main() -> None:
    args = parse_args()
    with errors_in_one_line('test.py'):
        cfg = run_config(args)
        check_data_folders(cfg, ('test_dataloader',))
        check_idx_files(cfg, ('test_dataloader',))
        runner = build_runner(cfg)
        model = unwrapped(runner)
        model = model.module if args.tta else model
        meta = load_strictly(model, args.checkpoint, 'test')
        heed_average(runner, model, args.checkpoint)
        data = {'test_dataloader': runner.test_dataloader}
        check_data(runner, data)
        check_batches(runner, data)
        compare_order(names_in(meta), ways_of(runner.test_dataloader.dataset), args.checkpoint, refuse=True)
        runner.dump_config()
        if args.out and args.out_item != 'metrics':
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    with ended_in_order('test.py'):
        metrics = runner.test()
        if args.out and args.out_item == 'metrics':
            mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
