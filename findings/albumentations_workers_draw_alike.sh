#!/usr/bin/env bash
# Guess: albumentations draws anew for each image, in the workers of a DataLoader as without them, and in each epoch, as torchvision's
# transforms do.
# Behaviour: Compose of 2.0.8, the last release under this name, has a random generator of its own, and each worker gets a copy of it as it was
# before the training. So all workers draw the same: with four of them, four batches in a row are augmented alike, image by image; and each
# epoch, for which a DataLoader starts workers anew, draws what the first one drew. The 48 images of three epochs here see 4 augmentations, with
# a seed and without. With persistent_workers=True the epochs differ, the workers do not. Seeds of random, numpy and torch change nothing;
# a worker_init_fn that calls set_random_seed with the worker's own seed helps. No warning. (Reported and mended in AlbumentationsX, a package
# of another name and licence: albumentations-team/AlbumentationsX#266.) Why it matters: a student sees a fixed set of crops, colours and flips,
# a fraction of what the recipe says, and overfits as if the augmentation were weak.
# Packages: albumentations 2.0.8, torchvision 0.29.1, torch 2.14.1, numpy 2.4.6.
# Seen on 2026-11-30, different draws for 16 images, one a batch: in the first epoch, and in all three:
#   torchvision, 4 workers       16 and 48
#   no workers                   16 and 48
#   4 workers                     4 and  4
#   4 workers, seed=0             4 and  4
#   4 persistent workers          4 and 12
#   4 workers, each with a seed  16 and 48
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 albumentations==2.0.8 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import albumentations
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

IMAGES, EPOCHS = 16, 3
IMAGE = np.full((32, 32, 3), 128, np.uint8)


class Brightened(Dataset):
    """Equal grey images, each made brighter or darker by a random factor; an item is its brightness."""

    def __init__(self, library, seed=None):
        if library == 'albumentations':
            one = albumentations.RandomBrightnessContrast(brightness_limit=0.4, contrast_limit=0, p=1)
            self.transform = albumentations.Compose([albumentations.ToFloat(max_value=255), one], seed=seed)
        else:
            self.transform = v2.Compose(
                [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ColorJitter(brightness=0.4)]
            )
        self.library = library

    def __len__(self):
        return IMAGES

    def __getitem__(self, i):
        found = self.transform(image=IMAGE)['image'] if self.library == 'albumentations' else self.transform(IMAGE)
        return float(found[0, 0, 0])


def own_seed(_):
    worker = torch.utils.data.get_worker_info()
    worker.dataset.transform.set_random_seed(worker.seed % 2**32)


def different(library, seed=None, **settings):
    """Return the number of different draws in the first epoch, and in all of them."""
    loader = DataLoader(Brightened(library, seed), batch_size=1, **settings)
    epochs = [[round(value.item(), 6) for value in loader] for _ in range(EPOCHS)]
    return len(set(epochs[0])), len({value for values in epochs for value in values})


rows = (
    ('torchvision, 4 workers', 'torchvision', dict(num_workers=4), (16, 48)),
    ('no workers', 'albumentations', {}, (16, 48)),
    ('4 workers', 'albumentations', dict(num_workers=4), (4, 4)),
    ('4 workers, seed=0', 'albumentations', dict(num_workers=4, seed=0), (4, 4)),
    ('4 persistent workers', 'albumentations', dict(num_workers=4, persistent_workers=True), (4, 12)),
    ('4 workers, each with a seed', 'albumentations', dict(num_workers=4, worker_init_fn=own_seed), (16, 48)),
)
changed = []
for title, library, settings, expected in rows:
    found = different(library, **settings)
    print(f'{title:28} {found[0]:2} and {found[1]:2}')
    if found != expected:
        changed.append(title)
if changed:
    sys.exit(f'changed: draws in workers are otherwise now: {"; ".join(changed)}')
END
NO_ALBUMENTATIONS_UPDATE=1 "$folder/venv/bin/python" -W ignore "$folder/look.py"
