"""Export the student, or any classifier, to ONNX or TorchScript; the file takes raw images and is checked by running it."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without being installed

from mmengine.config import Config

from mmcls_kd.engine.runtime import Options, at_least_one, errors_in_one_line, is_distiller, load_config, need, student_only
from mmcls_kd.export import FORMATS, Deployable, check_libraries, export, image_format, load_classifier, metadata_of, targets


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file: a path, or mmpretrain::PATH')
    parser.add_argument('checkpoint', help='weights: exported by pth_transfer.py, or written in training')
    parser.add_argument('--format', nargs='+', choices=list(FORMATS), default=['onnx'], help='(default: onnx)')
    parser.add_argument('--output', help='file to write, with or without suffix, or folder (default: beside the checkpoint)')
    parser.add_argument(
        '--size', nargs='+', type=at_least_one, metavar='PIXELS', help='height and width, where the test pipeline fixes none'
    )
    parser.add_argument('--batch-size', type=at_least_one, help='pin the batch size (default: any size where that is right)')
    parser.add_argument('--opset', type=at_least_one, default=18, help="version of ONNX's operators (default: 18)")
    parser.add_argument('--trust', action='store_true', help='let checkpoints run code while they are read')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE', help='override settings of the config'
    )
    # what load_config asks for, and an export has no use for
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)
    args = parser.parse_args(argv)
    if args.size and len(args.size) > 2:
        parser.error('--size takes one number, or height and width')
    if args.size and len(args.size) == 1:
        args.size *= 2
    return args


def plain_config(args) -> Config:
    """The student's config, with its test pipeline."""
    cfg = load_config(args)
    need(cfg, 'model', 'test_dataloader')
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if is_distiller(cfg.model):
        student_only(cfg)
    return cfg


def main() -> None:
    args = parse_args()
    with errors_in_one_line('export_student.py'):
        check_libraries(args.format)
        paths = targets(args.checkpoint, args.format, args.output)
        cfg = plain_config(args)
        network = Deployable(load_classifier(cfg, args.checkpoint), image_format(cfg, args.size))
        about = metadata_of(cfg, args.checkpoint, network)
        for name, path in paths.items():
            print(export(network, path, FORMATS[name], about, args.batch_size, args.opset), flush=True)
    shape = ', '.join(map(str, about['input_shape']))
    print(f'input: `images`, float32 (N, {shape}), {about["input_order"]}, values from 0 to 255; normalised inside')
    print(f'output: `logits`, float32 (N, {about["num_classes"]}), before softmax')


if __name__ == '__main__':
    main()
