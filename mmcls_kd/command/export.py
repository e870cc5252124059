"""Export the student, or any classifier, to ONNX (float, int8) or TorchScript; files take raw images and are checked."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .arguments import at_least_one, command_line, config_parser
from .exits import errors_in_one_line
from .loading import load_libraries

#: The keys of :data:`mmcls_kd.export.FORMATS`.
FORMATS = ('onnx', 'torchscript')
#: The keys of :data:`mmcls_kd.export.CALIBRATIONS`.
CALIBRATIONS = ('minmax', 'percentile')


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
    parser.add_argument('--int8', action='store_true', help='also write OUTPUT.int8.onnx, quantised, and compare both')
    int8 = parser.add_argument_group('options of --int8')
    int8.add_argument('--calibrate', metavar='FOLDER', help='calibration images (default: training images of the config)')
    int8.add_argument('--calibrate-images', type=at_least_one, default=300, metavar='N', help='use at most N (default: 300)')
    int8.add_argument('--calibrate-method', choices=CALIBRATIONS, default='minmax', help='ranges (default: minmax)')
    int8.add_argument('--symmetric', action='store_true', help='zero point 0 for activations too, as TensorRT needs it')
    int8.add_argument('--test-images', type=at_least_one, metavar='N', help='measure on at most N images (default: all)')
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; refuse more sizes than two, and int8 without ONNX."""
    args = (parsed := parser()).parse_args(argv)
    if args.int8 and 'onnx' not in args.format:
        parsed.error('--int8 quantises the ONNX file: add onnx to --format')
    if args.calibrate and not args.int8:
        parsed.error('--calibrate needs --int8')
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


def calibration(args: argparse.Namespace, cfg: Any, form: Any, about: Mapping[str, Any]) -> Any:
    """Return the calibration images, each read, and print their number and sizes."""
    from .. import export

    images = export.calibration_images(cfg, args.calibrate, form, about['classes'], args.calibrate_images).held()
    print(f'calibration images: {images.count} of {images.source}', flush=True)
    return images


def write_int8(
    args: argparse.Namespace, cfg: Any, form: Any, about: Mapping[str, Any], path: Path, calibration: Any, sigmoid: bool
) -> None:
    """Quantise an exported file, and print both side by side.

    Args:
        args: The command line.
        cfg: The plain config.
        form: Images of the export.
        about: Metadata of the file.
        path: The file in float.
        calibration: Calibration images.
        sigmoid: Whether each logit is a label of its own.
    """
    from .. import export

    target = path.with_suffix('.int8.onnx')
    layers = export.quantise(path, target, calibration, args.calibrate_method, args.symmetric)
    kind = 'symmetric' if args.symmetric else 'asymmetric'
    print(f'{target}: {layers} layers in 8 bits; weights per channel, activations {kind}, ranges by {args.calibrate_method}')
    images, reason = export.measured_images(cfg, args.calibrate, form, about['classes'], args.test_images)
    rows = export.compare({'float': path, 'int8': target}, images or calibration, sigmoid)
    print(export.table(rows))
    measured = images or calibration
    print(f'measured on {measured.count} images of {measured.source}, in onnxruntime on one thread')
    if reason:
        print(f'the test data are not used: {reason}')
    if (points := export.lost(rows)) > export.ACCEPTED:
        print(f'warning: int8 loses {points:.2f} points to float. Train on under fake quantisation, and export again:')
        print(f'  {shlex.join(next_command(args))}', flush=True)


def next_command(args: argparse.Namespace) -> list[str]:
    """Return the command of a quantisation-aware distillation from the exported weights."""
    from ..configs.reading import read_config

    distils = 'student_cfg' in (read_config(args.config).get('model') or {})
    options = ['fake_quant=True', f'model.student_pretrained={args.checkpoint}']
    work_dir = str(Path('work_dirs', f'{Path(args.config).stem}_int8'))
    config = args.config if distils else 'DISTILLER_CONFIG'
    return command_line('train', 'train.py', config, '--work-dir', work_dir, '--cfg-options', *options)


def main(argv: Sequence[str] | None = None) -> None:
    """Export into each format, quantise, and print input and output of the files."""
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
        images = calibration(args, cfg, network.images, about) if args.int8 else None
        for name, path in paths.items():
            print(export.export(network, path, export.FORMATS[name], about, args.batch_size, args.opset), flush=True)
        if images is not None:
            write_int8(args, cfg, network.images, about, paths['onnx'], images, is_multi_label(classifier))
    shape = ', '.join(map(str, about['input_shape']))
    print(f'input: `images`, float32 (N, {shape}), {about["input_order"]}, values from 0 to 255; normalised inside')
    following = ', before sigmoid' if is_multi_label(classifier) else ', before softmax' if about['num_classes'] else ''
    print(f'output: `{network.output}`, float32 (N, {network.width}){following}')
