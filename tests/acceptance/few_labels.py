"""Ten labels a class, and the other images unlabelled: ``python tests/acceptance/few_labels.py DATA_FOLDER``.

The teacher is the demo's, as shipped; it takes images of the same normalisation. A student learns from 100 labelled images
of Fashion-MNIST: from their labels, from labels and teacher, and from both with the other 59,900 images, which the teacher
alone labels. Initial weights and number of steps are the same.
"""

import copy
import sys
from pathlib import Path

import torch
from mmpretrain.registry import MODELS
from ten_lines import accuracy, augmented, network, read
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from mmcls_kd import Distiller
from mmcls_kd.configs import read_config
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.loading import load_strictly

A_CLASS, STEPS, LABELLED, UNLABELLED, RATE = 10, 600, 50, 100, 0.1


def shipped_teacher() -> nn.Module:
    """Build the demo's teacher, with its weights."""
    teacher = MODELS.build(read_config('configs/fashion_mnist/resnet18-w16_9e.py').model)
    load_strictly(teacher, str(TOOLBOX / 'configs' / 'fashion_mnist' / 'teacher.pth'), 'teacher')
    return teacher


def divided(data: TensorDataset, seed: int) -> tuple[TensorDataset, torch.Tensor]:
    """Return some images of each class with their labels, and the other images."""
    images, labels = data.tensors
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = torch.cat([order[labels[order] == label][:A_CLASS] for label in range(10)])
    others = torch.ones(len(labels), dtype=torch.bool)
    others[chosen] = False
    return TensorDataset(images[chosen], labels[chosen]), images[others]


def train(learner: nn.Module, step, labelled: TensorDataset, unlabelled: torch.Tensor | None, seed: int) -> None:
    """Train by SGD with a cosine schedule; an unlabelled image has the label -1."""
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(learner.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    learner.train()
    for _ in range(STEPS):
        images, labels = labelled[torch.randperm(len(labelled))[:LABELLED]]
        if unlabelled is not None:
            more = unlabelled[torch.randint(len(unlabelled), (UNLABELLED,))]
            images, labels = torch.cat([images, more]), torch.cat([labels, torch.full((UNLABELLED,), -1)])
        step(augmented(images), labels).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def compare(folder: Path, seed: int = 0) -> dict[str, float]:
    """Train the three students; return their accuracies and the teacher's on the test images."""
    train_set, test_set = read(folder, 'train'), read(folder, 't10k')
    labelled, unlabelled = divided(train_set, seed)
    teacher = shipped_teacher()
    torch.manual_seed(seed)
    first = network(8)
    found = {'teacher': accuracy(teacher, test_set)}
    alone = copy.deepcopy(first)
    train(alone, lambda images, labels: cross_entropy(alone(images), labels), labelled, None, seed)
    found['alone'] = accuracy(alone, test_set)
    for name, others in (('distilled, labelled images', None), ('distilled, all images', unlabelled)):
        distiller = Distiller(copy.deepcopy(first), teacher, losses='kd')
        train(distiller, lambda images, labels, it=distiller: it(images, labels)['loss'], labelled, others, seed)
        found[name] = accuracy(distiller.student, test_set)
    return found


if __name__ == '__main__':
    for number in range(5):
        print(number, compare(Path(sys.argv[1]), number), flush=True)
