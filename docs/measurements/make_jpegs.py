"""Make the images that loading was measured on: crops of two photographs, as JPEG files in ImageNet's layout.

pip install scikit-learn
python docs/measurements/make_jpegs.py FOLDER
"""

import random
import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

random.seed(0)
photographs = [Image.fromarray(array) for array in load_sample_images().images]
root = Path(sys.argv[1])
(root / 'meta').mkdir(parents=True)
for split, count in (('train', 512), ('val', 16)):
    (root / split).mkdir()
    for i in range(count):
        x, y = random.randint(0, 140), random.randint(0, 52)
        photographs[i % 2].crop((x, y, x + 500, y + 375)).save(root / split / f'{i}.JPEG', quality=90)
    (root / 'meta' / f'{split}.txt').write_text(''.join(f'{i}.JPEG {i}\n' for i in range(count)))
