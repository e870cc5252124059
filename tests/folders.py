"""Small data sets on disk, in the layouts that the configs expect."""

import pickle
import struct

import numpy as np
from PIL import Image


def _write_idx(path, array):
    header = struct.pack('>BBBB', 0, 0, 8, array.ndim) + struct.pack(f'>{array.ndim}I', *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def fashion_mnist(folder, train=256, test=100, wrong_label=None):
    """Files as Fashion-MNIST's: each class is a bright bar at its own height, under noise."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    for split, count in (('train', train), ('t10k', test)):
        labels = np.arange(count) % 10
        images = random.randint(0, 60, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[4 + 2 * label : 6 + 2 * label, 4:24] = 200
        if wrong_label is not None and split == 'train':
            labels[17] = wrong_label
        _write_idx(folder / f'{split}-images-idx3-ubyte', images)
        _write_idx(folder / f'{split}-labels-idx1-ubyte', labels)
    return folder


def textures(folder, train=640, test=200):
    """Files as Fashion-MNIST's: five stripe patterns in two contrasts, at random places, under noise."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    y, x = np.mgrid[:28, :28]
    for split, count in (('train', train), ('t10k', test)):
        labels, images = np.arange(count) % 10, np.zeros((count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            a, b = y + random.randint(8), x + random.randint(8)
            stripes = (a // 2 % 2, b // 2 % 2, a // 4 % 2, b // 4 % 2, (a // 2 + b // 2) % 2)[label % 5]
            image += (90 if label < 5 else 220) * stripes + random.randint(0, 30, (28, 28))
        _write_idx(folder / f'{split}-images-idx3-ubyte', images)
        _write_idx(folder / f'{split}-labels-idx1-ubyte', labels)
    return folder


def first_images(source, folder, train=5000, test=1000):
    """The first images of Fashion-MNIST's four files, as files of their own."""
    for split, count in (('train', train), ('t10k', test)):
        for kind, start in (('images-idx3', 784), ('labels-idx1', 1)):
            header = 16 if start > 1 else 8
            with (source / f'{split}-{kind}-ubyte').open('rb') as file:
                head = file.read(header)
                (folder / f'{split}-{kind}-ubyte').write_bytes(
                    head[:4] + struct.pack('>I', count) + head[8:] + file.read(count * start)
                )
    return folder


def imagenet(folder, train=8, val=6):
    """JPEG files and annotations in ImageNet's layout."""
    random = np.random.RandomState(0)
    (folder / 'meta').mkdir(parents=True, exist_ok=True)
    for split, count in (('train', train), ('val', val)):
        (folder / split).mkdir(exist_ok=True)
        lines = []
        for i in range(count):
            image = np.kron(random.randint(0, 256, (8, 8, 3)), np.ones((32, 32, 1)))
            Image.fromarray(image.astype(np.uint8)).save(folder / split / f'{i}.JPEG')
            lines.append(f'{i}.JPEG {(131 * i) % 1000}\n')
        (folder / 'meta' / f'{split}.txt').write_text(''.join(lines))
    return folder


def cifar100(folder, count=4):
    """Files as CIFAR-100's; mmpretrain checks their hash, so a test has to switch that off."""
    files = folder / 'cifar-100-python'
    files.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    for split in ('train', 'test'):
        data = random.randint(0, 256, (count, 3072)).astype(np.uint8)
        (files / split).write_bytes(pickle.dumps(dict(data=data, fine_labels=list(range(count)))))
    return folder


def imagenet_classes(folder):
    """JPEG files in a folder for each of ImageNet's 1000 classes, one in each, of training and validation."""
    image = np.random.RandomState(0).randint(0, 256, (8, 8, 3)).repeat(8, 0).repeat(10, 1)
    for split in ('train', 'val'):
        for number in range(1000):
            name = folder / split / f'n{number:08d}'
            name.mkdir(parents=True)
            Image.fromarray(image.astype(np.uint8)).save(name / f'n{number:08d}_1.JPEG')
    return folder


def class_folders(root, size=32, **counts):
    """Images in a folder for each class."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.RandomState(i).randint(0, 256, (size, size, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f'{i}.jpg')
    return root
