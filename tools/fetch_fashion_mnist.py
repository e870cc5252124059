"""Put Fashion-MNIST into a folder: from Debian's package, installed or downloaded without root, else from its authors."""

import argparse
import gzip
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = 'dataset-fashion-mnist'
#: The published files, decompressed, and their MD5.
FILES = {
    'train-images-idx3-ubyte': 'f4a8712d7a061bf5bd6d2ca38dc4d50a',
    'train-labels-idx1-ubyte': '9018921c3c673c538a1fc5bad174d6f9',
    't10k-images-idx3-ubyte': '8181f5470baa50b63fa0f6fddb340f0a',
    't10k-labels-idx1-ubyte': '15d484375f8d13e6eb1aabb0c3f46965',
}


def installed() -> list[Path]:
    """List the files of the installed Debian package."""
    listing = subprocess.run(['dpkg', '-L', PACKAGE], capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in listing.splitlines()]


def downloaded(folder: Path) -> list[Path]:
    """Download the Debian package, unpack it into a folder, and list its files."""
    subprocess.run(['apt-get', 'download', PACKAGE], cwd=folder, capture_output=True, check=True)
    package = next(folder.glob(f'{PACKAGE}_*.deb'))
    subprocess.run(['dpkg-deb', '-x', package.name, 'unpacked'], cwd=folder, capture_output=True, check=True)
    return list((folder / 'unpacked').rglob('*'))


def sources(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Iterate over the sources of Debian's package, in the order to try."""
    for name, find in (("Debian's installed package", installed), ("Debian's package", lambda: downloaded(folder))):
        try:
            yield name, find()
        except (OSError, subprocess.CalledProcessError, StopIteration):
            print(f'{name} {PACKAGE}: not to be had here', flush=True)


def is_published(path: Path, name: str) -> bool:
    """Check whether a file is the published one of that name."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == FILES[name]


def unpack(files: list[Path], root: Path) -> bool:
    """Decompress missing ones of the four files into ``root``; False if they are not all among ``files``."""
    by_name = {path.name: path for path in files}
    if any(f'{name}.gz' not in by_name for name in FILES):
        return False
    root.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (root / name).exists():
            continue
        unfinished = root / f'{name}.part'
        with gzip.open(by_name[f'{name}.gz']) as packed, unfinished.open('wb') as plain:
            shutil.copyfileobj(packed, plain)
        if not is_published(unfinished, name):
            unfinished.unlink()
            print(f'{by_name[f"{name}.gz"]} is not the published file', flush=True)
            return False
        unfinished.rename(root / name)
    return True


def fetch(root: Path) -> None:
    """Make sure that the four files are in ``root``; existing ones are never overwritten.

    Raises:
        ValueError: If an existing one is not the published one.
    """
    there = [name for name in FILES if (root / name).exists()]
    if other := [str(root / name) for name in there if not is_published(root / name, name)]:
        raise ValueError(
            f'{", ".join(other)}: there, but by MD5 not as published, and left so. Move it away to have it fetched, or name '
            'another folder by --root'
        )
    if len(there) == len(FILES):
        print(f'Fashion-MNIST is in {root}')
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, files in sources(Path(folder)):
            if unpack(files, root):
                print(f'Fashion-MNIST is now in {root}, from {name}')
                return
    print('downloading from the authors of the data set', flush=True)
    from mmpretrain.datasets import FashionMNIST

    FashionMNIST(data_root=str(root), split='train', pipeline=[])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', type=Path, default=Path('data/fashion_mnist'), help='default: data/fashion_mnist')
    args = parser.parse_args()
    try:
        fetch(args.root)
    except ValueError as error:
        sys.exit(f'fetch_fashion_mnist.py: error: {error}')
    except (OSError, AssertionError) as error:
        sys.exit(f'fetch_fashion_mnist.py: error: Fashion-MNIST could not be had ({error}); put {", ".join(FILES)} there')


if __name__ == '__main__':
    main()
