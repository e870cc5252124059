"""Make the data set Glyphs: images of letters and digits in the fonts of Debian's packages, split by font family."""

import argparse
import hashlib
import json
import logging
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

#: The classes: digits, Latin, accented, Greek and Cyrillic letters, none with the usual shape of another.
ALPHABETS = (
    '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz',
    'àáâãäåçèéêëñöü',
    'ΔΘΛΞΣΩαβδελω',
    'БДЖЗИЙЧШЩЪЬЯ',
)
CLASSES = ''.join(ALPHABETS)
PACKAGES = Path(__file__).with_name('glyph_packages.txt')
#: SHA-256 of the four files in their order, made of these packages by Pillow 13.0.0 with FreeType 2.14.3.
PUBLISHED = '6398bb7eb3e3ac6c6b2472a0f3c8c3fdae972983f0c900e88740881616176a1c'
FILES = tuple(f'{split}-{kind}-ubyte' for split in ('train', 't10k') for kind in ('images-idx3', 'labels-idx1'))

SIDE = 28
#: Pixels of a drawing for each pixel of an image, in both directions.
SCALE = 3
#: Fonts are compared in images with capitals of this height, in pixels, on this baseline.
CAPITAL, BASELINE = 16, 21
SMALL = ''.join(letter for letter in ALPHABETS[0] + ALPHABETS[1] if letter.islower())
#: Letters whose capital has another shape.
TWO_SHAPES = 'ABDEGHNQRTFM'
#: A font whose capitals and small letters are alike by this cosine (the median) has no small letters.
SMALL_CAPITALS = 0.85
#: Two glyphs of a font are the same from this cosine on: neither gets an image.
SAME = 0.985
#: The share of an alphabet's letters that have to be nearer to the mean image of their own class than to others.
LEGIBLE = 0.5
#: Fonts whose images have this cosine, in the mean over digits and Latin letters, are of one family: copies, derivatives.
DERIVED = 0.97


@dataclass(frozen=True)
class Font:
    """A font file.

    Attributes:
        path: The file.
        family: First word of its family's name.
        letters: The classes that it has a glyph for.
    """

    path: Path
    family: str
    letters: frozenset[str]
    _sizes: dict[int, ImageFont.FreeTypeFont] = field(default_factory=dict, repr=False, compare=False)

    def of_capitals(self, height: int) -> ImageFont.FreeTypeFont:
        """Return the font in the size in which ``H`` is ``height`` pixels high."""
        if height not in self._sizes:
            measured = ImageFont.truetype(str(self.path), 200, layout_engine=ImageFont.Layout.BASIC)
            capital = -measured.getbbox('H', anchor='ls')[1]
            if not 20 < capital < 400:
                raise ValueError(f'{self.path}: its H is {capital / 2} % of its size')
            self._sizes[height] = measured.font_variant(size=round(200 * height / capital))
        return self._sizes[height]

    def draw(self, letter: str, height: int, right: int = 0, down: int = 0) -> np.ndarray:
        """Draw a letter, white on black; all lengths are in pixels of the drawing, :data:`SCALE` to one of the image.

        Args:
            letter: The letter.
            height: Height of capitals; less for a letter that would be wider than the image.
            right: Shift from the centre.
            down: Shift from the baseline.
        """
        font, whole = self.of_capitals(height), SIDE * SCALE
        left, _, end, _ = font.getbbox(letter, anchor='ls')
        if end - left > whole - 2 * SCALE:
            font = self.of_capitals(max(1, height * (whole - 2 * SCALE) // (end - left)))
            left, _, end, _ = font.getbbox(letter, anchor='ls')
        image = Image.new('L', (whole, whole))
        place = ((whole - left - end) // 2 + right, BASELINE * SCALE + down)
        ImageDraw.Draw(image).text(place, letter, fill=255, font=font, anchor='ls')
        return np.asarray(image.reduce(SCALE))


# ---- fonts


def read_packages(path: Path) -> dict[str, str]:
    """Read a list of packages, ``NAME VERSION`` in each line."""
    lines = [line.split() for line in path.read_text(encoding='utf-8').splitlines()]
    if wrong := [line for line in lines if len(line) != 2]:
        raise ValueError(f'{path}: {" ".join(wrong[0])!r} is not NAME VERSION')
    return dict(lines)


def fetch(packages: dict[str, str], debs: Path, folder: Path) -> None:
    """Download packages that are not in ``debs`` yet, and unpack all into ``folder``."""
    for place in (debs, folder):
        place.mkdir(parents=True, exist_ok=True)

    def there(name: str, version: str) -> Path | None:
        return next(debs.glob(f'{name}_{version.replace(":", "%3a")}_*.deb'), None)

    missing = [f'{name}={version}' for name, version in packages.items() if not there(name, version)]
    if missing:
        if not shutil.which('apt-get'):
            raise ValueError('apt-get is not here, which downloads the packages: name a folder of fonts by --fonts')
        print(f'downloading {len(missing)} packages', flush=True)
        done = subprocess.run(['apt-get', 'download', *missing], cwd=debs, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(
                f'apt-get cannot download the packages ({done.stderr.strip().splitlines()[0]}): run apt-get update; on '
                'another release of Debian, write a list with its versions, or name a folder of fonts by --fonts'
            )
    for name, version in packages.items():
        subprocess.run(['dpkg-deb', '-x', str(there(name, version)), str(folder / name)], check=True)


def find_fonts(folder: Path) -> list[Font]:
    """Return the fonts in a folder, by path, that Pillow can draw; those with few letters are left out."""
    from fontTools.ttLib import TTFont

    logging.getLogger('fontTools').setLevel(logging.CRITICAL)
    found = []
    for path in sorted(folder.rglob('*'), key=lambda path: path.relative_to(folder).parts):
        if path.suffix.lower() not in ('.ttf', '.otf') or path.is_symlink():
            continue
        try:
            with TTFont(path, lazy=True) as tables:
                name = tables['name'].getDebugName(16) or tables['name'].getDebugName(1) or path.stem
                letters = frozenset(CLASSES) & {chr(code) for code in tables.getBestCmap() or ()}
            font = Font(path, family_of(name), letters)
            if letters >= set('HaA0'):
                font.of_capitals(CAPITAL * SCALE)
                found.append(font)
        except Exception as error:  # whatever is wrong with a font
            print(f'left out: {path.name} ({type(error).__name__})', flush=True)
    return found


def family_of(name: str) -> str:
    """Return the first word of a family's name; what families share by name counts as one.

    Example:
        >>> family_of('DejaVu Sans Mono'), family_of('FreeSerif'), family_of('LMRoman10')
        ('deja', 'free', 'lmroman')
    """
    words = re.findall(r'[^\W\d_]+|\d+', re.sub(r'([a-z])([A-Z])', r'\1 \2', name))
    return words[0].lower() if words else name.lower()


# ---- checks


def draw_all(fonts: Sequence[Font]) -> np.ndarray:
    """Return images (fonts, classes, 28, 28) of all letters, blank without a glyph."""
    images = np.zeros((len(fonts), len(CLASSES), SIDE, SIDE), np.uint8)
    for of_font, font in zip(images, fonts, strict=True):
        for image, letter in zip(of_font, CLASSES, strict=True):
            if letter in font.letters:
                image[:] = font.draw(letter, CAPITAL * SCALE)
    return images


def whole_numbers(images: np.ndarray) -> np.ndarray:
    """Return images as vectors of the numbers 0 to 15, whose products are exact and so the same on every machine."""
    return (images >> 4).reshape(*images.shape[:-2], -1).astype(np.float32)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine of each of some vectors (n, d) with each of others (m, d); 0 for a vector of zeros."""
    lengths = [(vectors * vectors).sum(1, dtype=np.float64) for vectors in (one, other)]
    return (one @ other.T) / np.sqrt(np.maximum(np.outer(*lengths), 1))


def shape_of(image: np.ndarray) -> np.ndarray:
    """Return the box around a glyph in 16 × 16 pixels: its shape without size and place."""
    inked = image > 64
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    if not len(rows):
        return np.zeros((16, 16), np.uint8)
    box = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return np.asarray(box.resize((16, 16), Image.Resampling.BILINEAR))


def base_of(letter: str) -> str:
    """Return the small letter without its accent."""
    return unicodedata.normalize('NFD', letter)[0].lower()


def good_glyphs(images: np.ndarray) -> np.ndarray:
    """Return a mask (fonts, classes) of the glyphs that show their class.

    Left out are blank glyphs; glyphs that a font has twice, as boxes for missing ones; small letters that are small
    capitals; and alphabets of which less than :data:`LEGIBLE` of the glyphs are nearest to the mean of their class or of
    one with the same base letter.
    """
    shapes = whole_numbers(np.array([[shape_of(image) for image in of_font] for of_font in images]))
    good = shapes.any(2)
    good &= ~(has_small_capitals(shapes)[:, None] & [letter in SMALL for letter in CLASSES])
    for alphabet in ALPHABETS:
        columns = [CLASSES.index(letter) for letter in alphabet]
        legible = is_legible(shapes[:, columns], good[:, columns], alphabet)[:, None]
        good[:, columns] &= legible
        if alphabet == ALPHABETS[0]:
            good &= legible
    for of_font, vectors in zip(good, whole_numbers(images), strict=True):
        same = np.triu(cosines(vectors, vectors) > SAME, 1) & of_font & of_font[:, None]
        of_font &= ~(same.any(0) | same.any(1))
    return good


def has_small_capitals(shapes: np.ndarray) -> np.ndarray:
    """Return a mask of the fonts whose small letters have the shapes of capitals."""
    pairs = [(CLASSES.index(letter), CLASSES.index(letter.lower())) for letter in TWO_SHAPES]
    alike = [[cosines(font[[one]], font[[other]])[0, 0] for one, other in pairs] for font in shapes]
    return np.median(alike, axis=1) > SMALL_CAPITALS


def is_legible(shapes: np.ndarray, good: np.ndarray, alphabet: str) -> np.ndarray:
    """Return a mask of the fonts with enough glyphs that are nearest to the mean of a class with the same base letter."""
    bases = np.array([base_of(letter) for letter in alphabet])
    means = np.stack([shapes[has, label].sum(0, dtype=np.float64) for label, has in enumerate(good.T)])
    nearest = np.stack([cosines(of_font, means).argmax(1) for of_font in shapes.astype(np.float64)])
    right = (bases[nearest] == bases) & good
    return right.sum(1) >= LEGIBLE * np.maximum(good.sum(1), 1)


def related(fonts: Sequence[Font], images: np.ndarray, good: np.ndarray) -> dict[str, str]:
    """Return, for each family, the first by name of the families that it is related to: by copied or derived fonts."""
    total, common = np.zeros((2, len(fonts), len(fonts)))
    for label in range(len(ALPHABETS[0])):
        total += cosines(*[whole_numbers(images[:, label]) * good[:, label, None]] * 2)
        common += np.outer(good[:, label], good[:, label])
    close = total > DERIVED * np.maximum(common, 1)
    first = {font.family: font.family for font in fonts}

    def root(family: str) -> str:
        while first[family] != family:
            family = first[family]
        return family

    for one, other in zip(*np.nonzero(np.triu(close, 1)), strict=True):
        low, high = sorted((root(fonts[one].family), root(fonts[other].family)))
        first[high] = low
    return {family: root(family) for family in first}


# ---- images


def split_of(group: str, share: float) -> str:
    """Return the split of a group of related families, by its name."""
    return 't10k' if zlib.crc32(group.encode()) < share * 2**32 else 'train'


def view(font: Font, letter: str, random: np.random.RandomState) -> np.ndarray:
    """Draw a letter in random size, at a random place, in a random grey."""
    height = random.randint(14 * SCALE, 18 * SCALE + 1)
    right, down = random.randint(-SCALE, SCALE + 1, 2)
    ink = random.randint(160, 256)
    return (font.draw(letter, height, right, down).astype(np.int64) * ink // 255).astype(np.uint8)


def choose(fonts_of: dict[str, list[Font]], count: int, random: np.random.RandomState) -> list[Font]:
    """Choose fonts for the images of a class: each family in turn, and each of its fonts in turn."""
    turns = [[fonts[i] for i in random.permutation(len(fonts))] for _, fonts in sorted(fonts_of.items())]
    order = random.permutation(len(turns))
    return [turns[k][turn % len(turns[k])] for turn in range(-(-count // max(1, len(turns)))) for k in order][:count]


def make_split(split: str, count: int, fonts: Sequence[Font], good: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images, labels and families of a split, in random order; ``count`` images of each class."""
    random = np.random.RandomState(zlib.crc32(split.encode()))
    chosen = []
    for label, letter in enumerate(CLASSES):
        of_class = defaultdict(list)
        for font, has in zip(fonts, good[:, label], strict=True):
            if has:
                of_class[font.family].append(font)
        chosen += [(label, letter, font) for font in choose(of_class, count, random)]
    chosen = [chosen[i] for i in random.permutation(len(chosen))]
    images = np.stack([view(font, letter, random) for _, letter, font in chosen])
    return images, np.array([label for label, _, _ in chosen], np.uint8), [font.family for _, _, font in chosen]


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array of bytes as MNIST's files are."""
    path.write_bytes(struct.pack(f'>4B{array.ndim}I', 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def digest(folder: Path) -> str:
    """Return the SHA-256 of the four files in their order."""
    return hashlib.sha256(b''.join((folder / name).read_bytes() for name in FILES)).hexdigest()


def make(fonts: Sequence[Font], root: Path, counts: dict[str, int], share: float, packages: dict[str, str]) -> str:
    """Write the four files, and ``glyphs.json`` about them, into ``root``; return their SHA-256.

    Args:
        fonts: The fonts.
        root: The folder.
        counts: Images of each class, by split.
        share: Share of the groups of related families whose images are for testing.
        packages: The fonts' packages and versions.

    Raises:
        ValueError: If a class has no font in a split.
    """
    images = draw_all(fonts)
    good = good_glyphs(images)
    groups = related(fonts, images, good)
    splits = np.array([split_of(groups[font.family], share) for font in fonts])
    for split in counts:
        if lacking := [letter for letter, has in zip(CLASSES, good[splits == split].T, strict=True) if not has.any()]:
            raise ValueError(f'no font of the split {split} has {" ".join(lacking)}: more fonts are needed')
    about: dict = dict(
        classes=[unicodedata.name(letter).lower() for letter in CLASSES],
        pillow=f'{features.version("pil")} with FreeType {features.version("freetype2")}',
        packages=packages,
    )
    root.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        chosen, has = [font for font, own in zip(fonts, splits, strict=True) if own == split], good[splits == split]
        pixels, labels, families = make_split(split, count, chosen, has)
        write_idx(root / f'{split}-images-idx3-ubyte', pixels)
        write_idx(root / f'{split}-labels-idx1-ubyte', labels)
        names = sorted(set(families))
        about[split] = dict(families=names, family=[names.index(family) for family in families])
        print(f'{split}: {len(labels)} images, {len(names)} families, {int(has.any(1).sum())} fonts', flush=True)
    (root / 'glyphs.json').write_text(json.dumps(about), encoding='utf-8')
    return digest(root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', type=Path, default=Path('data/glyphs'), help='default: data/glyphs')
    parser.add_argument('--packages', type=Path, default=PACKAGES, help=f'list of NAME VERSION; default: {PACKAGES.name}')
    parser.add_argument('--fonts', type=Path, help='folder of fonts, instead of packages')
    parser.add_argument('--debs', type=Path, help='folder that keeps the downloaded packages')
    parser.add_argument('--train', type=int, default=300, help='training images of each class; default: 300')
    parser.add_argument('--test', type=int, default=100, help='test images of each class; default: 100')
    parser.add_argument('--share', type=float, default=0.2, help='share of families for testing; default: 0.2')
    args = parser.parse_args()
    if min(args.train, args.test) < 1:
        parser.error(f'--train {args.train}, --test {args.test}: give at least 1')
    if not 0 < args.share < 1:
        parser.error(f'--share {args.share}: give a number between 0 and 1')
    try:
        with tempfile.TemporaryDirectory() as folder:
            packages = {} if args.fonts else read_packages(args.packages)
            if not args.fonts:
                fetch(packages, (args.debs or Path(folder, 'debs')).resolve(), Path(folder, 'fonts'))
            place = args.fonts or Path(folder, 'fonts')
            if not (fonts := find_fonts(place)):
                raise ValueError(f'{place}: no .ttf or .otf file with Latin letters and digits in it')
            found = make(fonts, args.root, dict(train=args.train, t10k=args.test), args.share, packages)
    except ImportError as error:
        sys.exit(f'make_glyphs.py: error: {error}; pip install fonttools')
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f'make_glyphs.py: error: {error}')
    print(f'Glyphs is now in {args.root}; SHA-256 {found}{" (as documented)" * (found == PUBLISHED)}')


if __name__ == '__main__':
    main()
