"""Look at teacher, student and loss terms before a training: accuracy, calibration, gradients, and what looks off."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmcls_kd.analysis.before import look, prepare, show
from mmcls_kd.analysis.showing import screen, write_json
from mmcls_kd.checks.training import check_data_folders, check_idx_files, check_training
from mmcls_kd.engine.runtime import at_least_one, build_runner, ended_in_order, errors_in_one_line
from mmcls_kd.engine.training import count_samples, training_config, training_parser
from mmcls_kd.errors import need_library


def parse_args(argv=None):
    parser = training_parser(__doc__)
    parser.add_argument('--images', type=at_least_one, help='validation images to use, evenly spread (default: all)')
    parser.add_argument('--batches', type=at_least_one, default=4, help='training batches for the gradients (default: 4)')
    parser.add_argument('--json', type=Path, help='write the numbers into this file')
    return parser.parse_args(argv)


def inspect(args) -> None:
    with errors_in_one_line('preflight.py'):
        need_library('torchmetrics', 'preflight.py', extra='analysis')
        if args.json and args.json.is_dir():
            raise ValueError(f'--json {args.json} is a folder: name a file in it')
        cfg = training_config(args)
        prepare(cfg)
        check_data_folders(cfg, ('train_dataloader', 'val_dataloader'))
        check_idx_files(cfg, ('train_dataloader', 'val_dataloader'))
        count_samples(cfg)
        runner = build_runner(cfg)
        check_training(runner)
        found = look(runner, args.images, args.batches, log=lambda line: print(line, file=sys.stderr))
        show(found, screen())
    if args.json:
        with ended_in_order('preflight.py', again='by the same command'):
            write_json(found.as_dict(), args.json)


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:  # the runner wants one for its log; nothing of a run's is touched
        args.work_dir = folder
        inspect(args)


if __name__ == '__main__':
    main()
