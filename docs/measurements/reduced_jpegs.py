"""Measure decoding at reduced scale (`reduce_to` of `LoadAndCrop`): change of the pixels, and accuracy of a small network.

The classes are eight photographs, cut into JPEG files of 160 × 120; the network is trained on parts of their left sides by
crops of 72 × 72 (as large a share as 224 of 500), and tested on parts of their right sides, which are decoded whole.

pip install scikit-image scikit-learn
python docs/measurements/reduced_jpegs.py FOLDER
"""

import random
import sys
from pathlib import Path

import numpy as np
import skimage
import torch
from mmpretrain.datasets.transforms import RandomResizedCrop
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn import functional as F

from mmcls_kd.engine.fast_transforms import LoadAndCrop

SIZE, OUTPUT, PARTS, TESTED, EPOCHS, BATCH, SEEDS = (160, 120), 72, 64, 40, 8, 32, 3
SKIMAGE = ('astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg', 'hubble_deep_field.jpg', 'motorcycle_left.png')


def photographs():
    """Return the photographs."""
    folder = Path(skimage.__file__).parent / 'data'
    files = [Image.open(folder / name).convert('RGB') for name in SKIMAGE]
    return [*map(Image.fromarray, load_sample_images().images), *files]


def write(root):
    """Write the files; return paths and labels of the training, images and labels of the test."""
    found, test = [], []
    for label, photograph in enumerate(photographs()):
        for k in range(PARTS + TESTED):
            zoom = random.uniform(1, 1.4)
            width, height = (int(n * zoom) for n in SIZE)
            left, right = (0, int(photograph.width * 0.6)) if k < PARTS else (int(photograph.width * 0.6), photograph.width)
            x = random.randint(left, max(left, right - width))
            y = random.randint(0, photograph.height - height)
            part = photograph.crop(
                (min(x, photograph.width - width), y, min(x, photograph.width - width) + width, y + height)
            )
            part = part.resize(SIZE, Image.Resampling.LANCZOS)
            if k < PARTS:
                part.save(path := root / f'{label}_{k}.jpg', quality=90)
                found.append((str(path), label))
            else:
                test.append((np.asarray(part.resize((96, OUTPUT)))[:, 12:84, ::-1].copy(), label))
    return found, test


def network():
    """Return a small network."""
    layers = []
    for before, after in ((3, 24), (24, 48), (48, 64), (64, 96)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 2 + len(SKIMAGE)))


def normalised(images):
    """Return a batch of images as the network takes it."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 64 - 2


def accuracy(found, test, reduce_to, seed):
    """Train and test; return the top-1 accuracy in percent."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    load, net = LoadAndCrop(crop=RandomResizedCrop(OUTPUT), reduce_to=reduce_to), network()
    optimizer = torch.optim.SGD(net.parameters(), 0.05, 0.9, weight_decay=1e-3)
    steps = EPOCHS * len(found) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        random.shuffle(found)
        for start in range(0, len(found), BATCH):
            paths, labels = zip(*found[start : start + BATCH], strict=True)
            images = normalised([load(dict(img_path=path))['img'] for path in paths])
            loss = F.cross_entropy(net(images), torch.tensor(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    images, labels = zip(*test, strict=True)
    with torch.no_grad():
        return 100 * (net.eval()(normalised(images)).argmax(1) == torch.tensor(labels)).float().mean().item()


def change(found, reduce_to):
    """Return the mean change of the views' values, of 0 to 255, and the share of the views that change."""
    changes = []
    for number, (path, _) in enumerate(found):
        pair = []
        for value in (None, reduce_to):
            np.random.seed(number)
            pair.append(LoadAndCrop(crop=RandomResizedCrop(OUTPUT), reduce_to=value)(dict(img_path=path))['img'].astype(int))
        changes.append(np.abs(pair[0] - pair[1]))
    return np.mean(changes), np.mean([one.any() for one in changes])


def main():
    """Print the changes and accuracies."""
    random.seed(0)
    root = Path(sys.argv[1])
    root.mkdir(parents=True)
    found, test = write(root)
    for reduce_to in (1, 0.5, 0.25):
        mean, share = change(found, reduce_to)
        print(f'reduce_to={reduce_to}: mean change {mean:.2f} of 255, in {share:.0%} of the views', flush=True)
    for seed in range(SEEDS):
        for reduce_to in (None, 0.5, 0.25):
            print(f'seed {seed}, reduce_to={reduce_to}: {accuracy(found, test, reduce_to, seed):.1f}', flush=True)


if __name__ == '__main__':
    main()
