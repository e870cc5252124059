"""Export the student, or any classifier, to ONNX or TorchScript; the file takes raw images and is checked by running it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .arguments import at_least_one, config_parser
from .exits import errors_in_one_line
from .loading import load_libraries

#: The keys of :data:`mmcls_kd.export.FORMATS`.
FORMATS = ('onnx', 'torchscript')


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = config_parser(__doc__)
    parser.add_argument('checkpoint', help='weights: exported by transfer, or written in training')
    parser.add_argument('--format', nargs='+', choices=FORMATS, default=['onnx'], help='(default: onnx)')
    parser.add_argument('--output', help='file to write, with or without suffix, or folder (default: beside the checkpoint)')
    parser.add_argument(
        '--size', nargs='+', type=at_least_one, metavar='PIXELS', help='height and width, where the test pipeline fixes none'
    )
    parser.add_argument('--batch-size', type=at_least_one, help='pin the batch size (default: any size where that is right)')
    parser.add_argument('--opset', type=at_least_one, default=18, help="version of ONNX's operators (default: 18)")
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; refuse more sizes than two."""
    args = (parsed := parser()).parse_args(argv)
    if args.size and len(args.size) > 2:
        parsed.error('--size takes one number, or height and width')
    if args.size and len(args.size) == 1:
        args.size *= 2
    return args


def plain_config(args: argparse.Namespace) -> Any:
    """Return the student's config, with its test pipeline."""
    from ..engine.config import load_config, merge_options, student_only

    cfg = load_config(args, 'model', 'test_dataloader')
    merge_options(cfg, args.cfg_options)
    student_only(cfg)
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    """Export into each format, and print input and output of the files."""
    args = parse_args(argv)
    load_libraries()
    from .. import export
    from ..networks.heads import is_multi_label

    with errors_in_one_line():
        export.check_libraries(args.format)
        paths = export.targets(args.checkpoint, args.format, args.output)
        cfg = plain_config(args)
        classifier = export.load_classifier(cfg, args.checkpoint)
        network = export.Deployable(classifier, export.image_format(cfg, args.size))
        about = export.metadata_of(cfg, args.checkpoint, network)
        for name, path in paths.items():
            print(export.export(network, path, export.FORMATS[name], about, args.batch_size, args.opset), flush=True)
    shape = ', '.join(map(str, about['input_shape']))
    print(f'input: `images`, float32 (N, {shape}), {about["input_order"]}, values from 0 to 255; normalised inside')
    following = 'sigmoid' if is_multi_label(classifier) else 'softmax'
    print(f'output: `logits`, float32 (N, {about["num_classes"]}), before {following}')
