"""Print the likeliest classes of images, with probabilities, by a saved student."""

from __future__ import annotations

import argparse
import mimetypes
from collections.abc import Sequence

from .arguments import add_trust, at_least_one, new_parser
from .exits import errors_in_one_line
from .loading import load_libraries


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(
        __doc__, usage=f'{new_parser(None).prog} [-h] [--top N] [--trust] [CONFIG] STUDENT IMAGE [IMAGE ...]'
    )
    parser.add_argument(
        'words',
        nargs='+',
        metavar='STUDENT IMAGE',
        help='student.pth (before it a config, if it has none), and image files or folders',
    )
    parser.add_argument('--top', type=at_least_one, default=5, metavar='N', help='number of classes to print (default: 5)')
    add_trust(parser)
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line: a config, if there is one, weights, images."""
    args = (parsed := parser()).parse_intermixed_args(argv)  # an option may stand among the images
    words = list(args.words)
    args.config = words.pop(0) if _is_config(words[0]) else None
    if len(words) < 2:
        parsed.error('give the weights of a student, and at least one image')
    args.student, *args.images = words
    if _is_image(args.student):
        others = [word for word in args.images if not _is_image(word)]
        order = (
            [*others, args.student, *(word for word in args.images if _is_image(word))] if others else ['STUDENT', *words]
        )
        parsed.error(f'{args.student} is an image, and the student comes before the images: {" ".join(order)}')
    if configs := [word for word in args.images if _is_config(word)]:
        parsed.error(f'{configs[0]} is a config, which comes before the student: CONFIG STUDENT IMAGE')
    return args


def _is_image(word: str) -> bool:
    return (mimetypes.guess_type(word)[0] or '').startswith('image/')


def _is_config(word: str) -> bool:
    return word.endswith(('.py', '.json', '.yaml', '.yml')) or '::' in word


def main(argv: Sequence[str] | None = None) -> None:
    """Classify each image."""
    args = parse_args(argv)
    load_libraries()
    from ..engine.console import hide_platform_warnings
    from ..errors import listed
    from ..networks.loading import guard_loading
    from .from_folder.predictor import Predictor, UndecodedImageError, images_at

    with errors_in_one_line():
        hide_platform_warnings()
        guard_loading(args.trust)
        images = [image for place in args.images for image in images_at(place)]
        predictor = Predictor(args.student, args.config)
        broken = []
        for image in images:
            try:
                found = predictor(image)[: args.top]
            except UndecodedImageError as error:
                broken.append(str(error))
                continue
            print(f'{image}: {", ".join(f"{name} {100 * probability:.1f} %" for name, probability in found)}', flush=True)
        if broken:
            raise ValueError(f'{len(broken)} of {len(images)} images: ' * (len(images) > 1) + listed(broken))
