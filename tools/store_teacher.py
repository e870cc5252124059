"""Store a teacher's logits for the views that a training will see; model.teacher_store=DIR then trains without it."""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

if __name__ == '__main__':  # asked to end while importing, which takes seconds
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmcls_kd.checks.training import check_data_folders, check_idx_files, load_data
from mmcls_kd.engine.runtime import build_runner, ended_in_order, ended_when_asked, errors_in_one_line, join_processes
from mmcls_kd.engine.setup import decided_by_first
from mmcls_kd.engine.training import training_config, training_parser
from mmcls_kd.files.locks import alone
from mmcls_kd.teacher_store.writer import StoreWriter, prepare

BUSY = 'another program is storing into this folder; wait for its end, or give this one a folder of its own (--store)'


def parse_args(argv=None):
    parser = training_parser(__doc__)
    parser.add_argument('--epochs', type=int, required=True, help='how many epochs of views to store')
    parser.add_argument('--store', help='folder of the store (default: teacher_store in the work directory)')
    parser.add_argument('--top-k', type=int, help='how many logits of each view to store (default: all)')
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    with ExitStack() as held:
        held.enter_context(ended_when_asked('store_teacher.py', 'what is stored stays; the same command goes on'))
        with errors_in_one_line('store_teacher.py'):
            cfg = training_config(args)
            prepare(cfg, args.epochs)
            check_data_folders(cfg, ('train_dataloader',))
            check_idx_files(cfg, ('train_dataloader',))
            join_processes(cfg)
            folder = Path(args.store or Path(cfg.work_dir, 'teacher_store'))
            decided_by_first(lambda: held.enter_context(alone(folder, BUSY)))
            runner = build_runner(cfg)
            load_data(runner)
            writer = StoreWriter(runner, folder, args.epochs, args.top_k)
            writer.announce()
            writer.check_space()
        with ended_in_order('store_teacher.py', again='by the same command'):
            writer.write()


if __name__ == '__main__':
    main()
