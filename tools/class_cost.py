"""Write how unlike the classes are to a distiller's teacher, by training images: the cost that WKDLogitLoss needs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmcls_kd.analysis.prototypes import Prototypes, prepare
from mmcls_kd.checks.training import check_data_folders, check_idx_files
from mmcls_kd.engine.runtime import build_runner, ended_in_order, errors_in_one_line
from mmcls_kd.engine.training import training_config, training_parser


def parse_args(argv=None):
    parser = training_parser(__doc__)
    parser.add_argument('--output', type=Path, required=True, help='the file to write')
    parser.add_argument('--images', type=int, help='how many training images to use (default: all)')
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    with errors_in_one_line('class_cost.py'):
        if args.output.is_dir():
            raise ValueError(f'--output {args.output} is a folder: name a file in it')
        args.output.parent.mkdir(parents=True, exist_ok=True)
        cfg = training_config(args)
        prepare(cfg)
        check_data_folders(cfg, ('train_dataloader',))
        check_idx_files(cfg, ('train_dataloader',))
        prototypes = Prototypes(build_runner(cfg), args.images)
    with ended_in_order('class_cost.py', again='by the same command'):
        prototypes.add_all()
        prototypes.write_cost(args.output)


if __name__ == '__main__':
    main()
