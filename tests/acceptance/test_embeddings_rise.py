"""Students without labels learn the embeddings of towers trained on Fashion-MNIST: the accuracy of neighbours rises."""

import pytest
import timm
import torch
import torch.nn.functional as F
from real_teachers import read_split
from torch import nn
from towers import SIZES, made

from mmcls_kd import Distiller, knn_accuracy, linear_probe_accuracy
from mmcls_kd.distiller import load_network

TOWERS = ('dinov2', 'dinov3', 'clip', 'siglip')
STUDENTS = {
    'cnn': lambda: timm.create_model('test_resnet', num_classes=0),
    'vit': lambda: timm.create_model('test_vit', num_classes=0, img_size=32, patch_size=8),
}


def data(folder, split, count):
    """Images (N, 3, 32, 32), padded from 28 × 28, and labels."""
    images, labels = read_split(folder, split, count)
    values = F.pad(torch.from_numpy(images.copy()).float() / 255, (2, 2, 2, 2)) - 0.5
    return values[:, None].expand(-1, 3, -1, -1).contiguous() * 4, labels


def steps(count, epochs, batch=64):
    for _ in range(epochs):
        yield from torch.randperm(count)[: count // batch * batch].split(batch)


def trained(name, folder, images, labels, epochs):
    """Train a tower by a linear classifier on its embedding, and save the whole model as its library does."""
    sizes = {**SIZES, 'hidden_size': 64, 'num_attention_heads': 4, 'intermediate_size': 128}
    model = made(name, **sizes)
    model.save_pretrained(folder)
    tower = load_network(f'hf:{folder}').train()
    head = nn.Linear(tower(images[:2]).shape[1], 10)
    optimizer = torch.optim.AdamW([*tower.parameters(), *head.parameters()], 1e-3)
    for index in steps(len(images), epochs):
        loss = F.cross_entropy(head(tower(images[index])), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tower.eval().model.save_pretrained(folder)
    return load_network(f'hf:{folder}').eval()


def measures(network, train, test):
    """The accuracies of neighbours and of a linear probe, in per cent."""
    network.eval()
    with torch.no_grad():
        vectors = [torch.cat([network(part) for part in images.split(256)]) for images, _ in (train, test)]
    given = vectors[0], train[1], vectors[1], test[1]
    return 100 * knn_accuracy(*given), 100 * linear_probe_accuracy(*given)


def rise(teacher, student, train, test, epochs):
    """The measures of a student before training, and after each epoch, without labels."""
    torch.manual_seed(0)
    network = STUDENTS[student]()
    distiller = Distiller(
        network, teacher, dict(embedding=dict(type='embedding', kind='both'), queue='queue'), input_size=32
    )
    optimizer = torch.optim.AdamW(distiller.parameters(), 2e-3)
    found = [measures(network, train, test)]
    for _ in range(epochs):
        distiller.train()
        for index in steps(len(train[0]), 1):
            optimizer.zero_grad()
            distiller(train[0][index])['loss'].backward()
            optimizer.step()
        found.append(measures(network, train, test))
    return found


@pytest.mark.acceptance
@pytest.mark.parametrize('name', TOWERS)
def test_the_accuracy_of_neighbours_rises(fashion_mnist, name, tmp_path, capsys):
    torch.manual_seed(0)
    train, test = data(fashion_mnist, 'train', 2000), data(fashion_mnist, 't10k', 1000)
    teacher = trained(name, tmp_path, *train, epochs=6)
    own = measures(teacher, train, test)
    for student in STUDENTS:
        found = rise(teacher, student, train, test, epochs=4)
        with capsys.disabled():
            rows = ', '.join(f'{knn:.1f} ({linear:.1f})' for knn, linear in found)
            print(f'\n{name} {own[0]:.1f} ({own[1]:.1f}) → {student}: {rows}')
        assert found[-1][0] >= found[0][0] + 3
        assert found[-1][0] > found[1][0] - 1
