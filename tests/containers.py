"""Images of class folders in WebDataset shards and parquet files, as the libraries themselves write them."""

import io
import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from webdataset import TarWriter


def files_of(folder):
    """The image files of class folders, in mmpretrain's order."""
    return sorted(path for path in folder.glob('*/*') if path.is_file())


def write_shards(files, folder, per_shard=7, label=lambda path: path.parent.name, kind='cls', **more):
    """Write shards of image files, with a label for each in a text or JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, len(files), per_shard):
        shards.append(folder / f's-{start // per_shard:03d}.tar')
        with TarWriter(str(shards[-1])) as writer:
            for path in files[start : start + per_shard]:
                sample = {'__key__': f'{path.parent.name}_{path.stem}', path.suffix[1:]: path.read_bytes()}
                text = label(path)
                sample[kind] = json.dumps(text).encode() if kind == 'json' else str(text).encode()
                writer.write({**sample, **more})
    return shards


def write_parquet(files, path, labels=None, names=None):
    """Write a parquet file of image files, with the class folders as ClassLabel unless other labels are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = names or sorted({file.parent.name for file in files})
    images = [dict(bytes=file.read_bytes(), path=file.name) for file in files]
    if labels is None:
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
        rows = dict(image=images, label=[names.index(file.parent.name) for file in files])
        datasets.Dataset.from_dict(rows, features).to_parquet(str(path))
    else:
        pq.write_table(pa.table(dict(image=[image['bytes'] for image in images], label=labels)), path)
    return path


def fashion_folders(root, train=128, val=50):
    """Grey images of 28 × 28 in class folders: each class is a bright bar at its own height, under noise."""
    random = np.random.RandomState(0)
    for split, count in (('train', train), ('val', val)):
        for i in range(count):
            image = random.randint(0, 60, (28, 28)).astype(np.uint8)
            image[4 + 2 * (i % 10) : 6 + 2 * (i % 10), 4:24] = 200
            path = root / split / f'class{i % 10}' / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def cut(path, share=0.6):
    """Cut a file short."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(len(content) * share)])


def odd_images(folder):
    """Images of other modes: grey, palette, transparent, CMYK, 16 bit, turned by EXIF."""
    (folder / 'odd').mkdir(parents=True)
    pixels = np.random.RandomState(0).randint(0, 256, (24, 32, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    for mode, name in (('L', 'grey.png'), ('P', 'palette.png'), ('RGBA', 'clear.png'), ('CMYK', 'cmyk.jpg')):
        image.convert(mode).save(folder / 'odd' / name)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / 'odd' / 'deep.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', exif=exif)
    (folder / 'odd' / 'turned.jpg').write_bytes(buffer.getvalue())
    return folder
