"""Train a student under a distiller config, or any mmpretrain classifier."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

import torch
from mmengine.config import Config

from mmcls_kd.checks import check_data_folders, check_idx_files, preflight
from mmcls_kd.configs import follow_methods, select_methods
from mmcls_kd.engine.setup import find_resume_point, make_resumable
from mmcls_kd.runtime import (
    base_parser,
    build_runner,
    complete_dataloaders,
    ended_in_order,
    errors_in_one_line,
    inline_networks,
    is_distiller,
    load_config,
    make_self_contained,
    need,
)


def parse_args(argv=None):
    parser = base_parser(__doc__)
    parser.add_argument('--methods', nargs='+', help='the distillation methods to switch on, e.g. --methods vitkd nkd')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or from the latest one in the work directory if none is named',
    )
    parser.add_argument('--no-validate', action='store_true', help='do not validate during training')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the total batch size')
    parser.add_argument('--no-persistent-workers', action='store_true', help='start the workers anew every epoch')
    return parser.parse_args(argv)


def run_config(args) -> Config:
    """The config of this run: file, command line, and what both leave open."""
    cfg = load_config(args)
    need(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    inline_networks(cfg)  # so that options reach into them
    if 'methods' in cfg and is_distiller(cfg.model):
        follow_methods(cfg.model, cfg.methods)
    if args.amp and torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif args.amp:
        cfg.optim_wrapper.type = 'CPUAmpOptimWrapper'
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    methods = args.methods or (args.cfg_options or {}).get('methods')
    if methods is not None:
        select_methods(cfg.model, [methods] if isinstance(methods, str) else methods)
        cfg.methods = methods
    complete_dataloaders(cfg, not args.no_pin_memory, not args.no_persistent_workers)
    make_resumable(cfg)
    make_self_contained(cfg)
    return cfg


def main() -> None:
    args = parse_args()
    with errors_in_one_line('train.py'):
        cfg = run_config(args)
        check_data_folders(cfg, ('train_dataloader', 'val_dataloader'))
        check_idx_files(cfg, ('train_dataloader', 'val_dataloader'))
        find_resume_point(cfg)
        runner = build_runner(cfg)
        preflight(runner)
        runner.dump_config()
    with ended_in_order('train.py'):
        runner.train()


if __name__ == '__main__':
    main()
