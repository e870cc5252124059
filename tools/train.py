"""Train a student under a distiller config, or any mmpretrain classifier."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmcls_kd.checks import check_data_folders, check_idx_files, check_training
from mmcls_kd.engine.setup import find_resume_point
from mmcls_kd.runtime import build_runner, ended_in_order, errors_in_one_line
from mmcls_kd.training import closing_line, count_samples, training_config, training_parser


def parse_args(argv=None):
    parser = training_parser(__doc__)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or from the latest one in the work directory if none is named',
    )
    parser.add_argument('--no-validate', action='store_true', help='do not validate during training')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the total batch size')
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    with errors_in_one_line('train.py'):
        cfg = training_config(args)
        check_data_folders(cfg, ('train_dataloader', 'val_dataloader'))
        check_idx_files(cfg, ('train_dataloader', 'val_dataloader'))
        count_samples(cfg)
        find_resume_point(cfg)
        runner = build_runner(cfg)
        check_training(runner)
        runner.dump_config()
    with ended_in_order('train.py'):
        runner.train()
        runner.logger.info(closing_line(runner))


if __name__ == '__main__':
    main()
