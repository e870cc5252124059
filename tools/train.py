"""Train a student under a distiller config, or any mmpretrain classifier."""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

if __name__ == '__main__':  # asked to end while importing, which takes seconds
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmcls_kd.checks.training import check_data_folders, check_idx_files, check_training
from mmcls_kd.engine.runtime import build_runner, ended_in_order, ended_when_asked, errors_in_one_line, join_processes
from mmcls_kd.engine.setup import decided_by_first, find_resume_point
from mmcls_kd.engine.training import closing_line, count_samples, training_config, training_parser
from mmcls_kd.files.locks import alone

BUSY = 'another training is running in this folder; wait for its end, or give this one a folder of its own (--work-dir)'


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
    with ExitStack() as held:
        held.enter_context(ended_when_asked('train.py', 'nothing had begun; the same command starts'))
        with errors_in_one_line('train.py'):
            cfg = training_config(args)
            check_data_folders(cfg, ('train_dataloader', 'val_dataloader'))
            check_idx_files(cfg, ('train_dataloader', 'val_dataloader'))
            count_samples(cfg)
            join_processes(cfg)
            decided_by_first(lambda: held.enter_context(alone(Path(cfg.work_dir), BUSY)))
            find_resume_point(cfg)
            runner = build_runner(cfg)
            check_training(runner)
            runner.dump_config()
        with ended_in_order('train.py'):
            runner.train()
            runner.logger.info(closing_line(runner))


if __name__ == '__main__':
    main()
