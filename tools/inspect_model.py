"""Print the modules of a network with what they return, and the tensors that it offers to the losses."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmengine.registry import init_default_scope

from mmcls_kd.analysis.inspection import describe, networks_in
from mmcls_kd.engine.runtime import errors_in_one_line


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a distiller config, another config, or a network by name, e.g. timm:resnet18')
    parser.add_argument('--depth', type=int, help='show only paths of so many parts, and those that are read')
    parser.add_argument('--size', type=int, help="height and width of the images (default: the network's own, else 64)")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    with errors_in_one_line('inspect_model.py'):
        init_default_scope('mmpretrain')
        for i, (role, source, taps) in enumerate(networks_in(args.config)):
            print('\n' * (i > 0) + '\n'.join(describe(role, source, taps, args.depth, args.size)))


if __name__ == '__main__':
    main()
