"""Look through the data of a config before days are spent: every image, label and class; nothing is written."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmengine.config import Config

from mmcls_kd.checks.data import DataCheck, counted
from mmcls_kd.checks.training import check_data_folders
from mmcls_kd.engine.runtime import DATALOADERS, Options, errors_in_one_line, inline_networks, load_config


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file: a path, or mmpretrain::PATH')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='images read at a time (default: CPUs)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE', help='override settings of the config'
    )
    # what load_config asks for, and a check has no use for
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0, trust=False)
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error('--workers must be at least 1')
    return args


def run_config(args) -> Config:
    """The config with the command line's options, which reach into a distiller's networks."""
    cfg = load_config(args)
    if 'model' in cfg:
        inline_networks(cfg)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    return cfg


def main() -> None:
    args = parse_args()
    try:
        with errors_in_one_line('check_data.py'):
            cfg = run_config(args)
            check_data_folders(cfg, DATALOADERS)
            check = DataCheck(cfg, args.workers)
            faults = check.run()
    except KeyboardInterrupt:
        print('check_data.py: interrupted, the data are not checked to their end', file=sys.stderr)
        sys.exit(130)
    sys.stdout.flush()  # the last line, on the other stream, comes last
    if faults:
        sys.exit(f'check_data.py: error: {counted(faults, "fault")} in the data ({check.faults_by_name()})')
    print('check_data.py: all is well')


if __name__ == '__main__':
    main()
