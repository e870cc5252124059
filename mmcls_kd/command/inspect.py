"""Print the modules of a network with their outputs, and the tensors that it offers to the losses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .arguments import add_trust, at_least_one, new_parser
from .exits import errors_in_one_line
from .loading import load_libraries


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(__doc__)
    parser.add_argument('config', help='a distiller config, another config, or a network by name, e.g. timm:resnet18')
    parser.add_argument('--depth', type=int, help='show only paths of up to this many parts, and those that are read')
    parser.add_argument('--size', type=at_least_one, help='height and width of the images (default: its own, else 64)')
    add_trust(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print each network of a config."""
    args = parser().parse_args(argv)
    load_libraries()
    from mmengine.registry import init_default_scope

    from ..analysis.inspection import describe, networks_in
    from ..networks.loading import guard_loading

    with errors_in_one_line():
        guard_loading(args.trust)
        init_default_scope('mmpretrain')
        for i, (role, source, taps) in enumerate(networks_in(args.config)):
            print('\n' * (i > 0) + '\n'.join(describe(role, source, taps, args.depth, args.size)))
