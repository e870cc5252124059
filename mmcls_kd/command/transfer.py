"""Turn a distiller's checkpoint into one of the student alone, which the plain mmpretrain config loads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .arguments import add_trust, new_parser
from .exits import errors_in_one_line


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(__doc__)
    parser.add_argument('--dis_path', '--dis-path', required=True, help="a distiller's training checkpoint")
    parser.add_argument('--output_path', '--output-path', required=True, help='the file to write')
    add_trust(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Transfer, and print the parts that were kept and left out."""
    args = parser().parse_args(argv)
    from ..networks.transfer import transfer

    with errors_in_one_line():
        done = transfer(args.dis_path, args.output_path, args.trust)
    print(f'{args.output_path}: {len(done.kept)} tensors of the student')
    if done.ema:
        print('the weights are the moving average (EMA) of the run')
    if done.dropped:
        print(f'layers that only distillation needed, left out: {", ".join(done.dropped)}')
    if done.left_out:
        print(f'left out: {", ".join(done.left_out)}')
    if done.simkd:
        print(
            'the teacher’s head predicts (SimKD): its weights and the projector’s are in the file. Test with the config of '
            "the training, or with model=dict(type='SimKDClassifier', student=..., teacher=...)"
        )
    if done.deit3:
        print(
            "warning: the student is a DeiT-III; mmpretrain's own DeiT3 runs it wrongly (mmpretrain issue 1614). "
            "Add custom_imports=dict(imports=['mmcls_kd']) to its config"
        )
