#!/usr/bin/env bash
# Guess: DistillationBox of torchdistill takes a teacher and a student, and trains the student. The teacher stays as it was given, and answers as in
# an evaluation. Who wants to train it along has to ask for it.
# Behaviour: unless the settings of the teacher have requires_grad: False, its weights are in the optimizer, too, and the divergence has a gradient
# in them, so that teacher and student meet halfway; a line of INFO in the log says so. With it, the log says "Freezing the
# whole teacher model". The weights stay then, but the box never calls eval(): a teacher as its constructor returns it has dropout, normalises each
# batch by itself, and its running statistics move, without a word.
# Only both, requires_grad: False and teacher.eval() before, make a teacher of it.
# Why it matters: a teacher that is trained along forgets, and takes the student with it; a frozen one gives other answers than its accuracy
# promises, the more so the smaller the batch is on each device; and who distils a second student has another teacher.
# Packages: torchdistill 1.1.5, torch 2.14.1, torchvision 0.29.1, numpy 2.4.6, scipy 1.17.1.
# Seen on 2026-11-30, three epochs, temperature 2, a tenth of the loss by the labels; share of the teacher's answers that are those of before:
#   accuracy of the teacher before: 0.987
#   batches of 50, frozen, eval() before   teacher answers as before 1.000, accuracy 0.987, changed: nothing; accuracy of the student 0.874
#   batches of 50, frozen                  teacher answers as before 0.994, accuracy 0.987, changed: statistics; accuracy of the student 0.875
#   batches of 50, default, eval() before  teacher answers as before 1.000, accuracy 0.953, changed: weights; accuracy of the student 0.857
#   batches of 50, default                 teacher answers as before 0.995, accuracy 0.976, changed: statistics and weights; accuracy of the student 0.863
#   batches of  4, frozen, eval() before   teacher answers as before 1.000, accuracy 0.987, changed: nothing; accuracy of the student 0.957
#   batches of  4, frozen                  teacher answers as before 0.807, accuracy 0.982, changed: statistics; accuracy of the student 0.965
#   batches of  4, default, eval() before  teacher answers as before 0.453, accuracy 0.352, changed: weights; accuracy of the student 0.643
#   batches of  4, default                 teacher answers as before 0.438, accuracy 0.754, changed: statistics and weights; accuracy of the student 0.745
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 torchdistill==1.1.5 numpy==2.4.6 scipy==1.17.1
cat > "$folder/look.py" <<'END'
import copy
import logging
import sys

import torch
from torch import nn
from torch.utils.data import RandomSampler, TensorDataset
from torchdistill.core.distillation import get_distillation_box

CLASSES, EPOCHS = 10, 3
torch.set_num_threads(1)
logging.disable()
torch.manual_seed(0)
centres = torch.randn(CLASSES, 32)


def draw(count):
    labels = torch.arange(count) % CLASSES
    return centres[labels] + 1.2 * torch.randn(count, 32), labels


images, labels = draw(500)
tested, right = draw(2000)


def network(width):
    return nn.Sequential(nn.Linear(32, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, CLASSES))


def accuracy(net):
    with torch.no_grad():
        return (copy.deepcopy(net).eval()(tested).argmax(1) == right).float().mean().item()


def trained_teacher():
    torch.manual_seed(1)
    teacher = network(128)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(teacher(images), labels).backward()
        optimizer.step()
    return teacher


def config(batch_size, teacher):
    logits = {f'{one}_module_{what}': value for one in ('student', 'teacher') for what, value in (('path', '.'), ('io', 'output'))}
    criterion = {'key': 'KDLoss', 'kwargs': {**logits, 'temperature': 2, 'alpha': 0.1}}
    return {
        'num_epochs': EPOCHS,
        'train_data_loader': {
            'dataset_id': 'images',
            'sampler': {'class_or_func': RandomSampler},
            'kwargs': {'batch_size': batch_size},
        },
        'teacher': {'forward_proc': 'forward_batch_only', **teacher},
        'student': {'forward_proc': 'forward_batch_only'},
        'optimizer': {'key': 'SGD', 'kwargs': {'lr': 0.05, 'weight_decay': 0.0005}},
        'criterion': {'key': 'WeightedSumLoss', 'kwargs': {'sub_terms': {'kd': {'criterion': criterion, 'weight': 1}}}},
    }


def look(batch_size, settings, in_eval_mode):
    """Distil; return what has changed of the teacher, the share of its answers that it gave before, and the accuracies of both."""
    teacher = trained_teacher()
    before = copy.deepcopy(teacher).eval()
    teacher.train(not in_eval_mode)
    torch.manual_seed(2)
    student = network(32)
    data = {'images': TensorDataset(images, labels)}
    box = get_distillation_box(teacher, student, data, config(batch_size, settings), torch.device('cpu'), None, False, 1)
    same = []
    teacher.register_forward_hook(lambda _, batch, output: same.append(output.argmax(1) == before(batch[0]).argmax(1)))
    for epoch in range(EPOCHS):
        box.pre_epoch_process(epoch=epoch)
        for batch, target, extra in box.train_data_loader:
            box.post_forward_process(box.forward_process(batch, target, extra))
        box.post_epoch_process()
    learned = {name for name, _ in teacher.named_parameters()}
    old = before.state_dict()
    names = [name for name, value in teacher.state_dict().items() if not torch.equal(value, old[name])]
    changed = {'weights' if name in learned else 'statistics' for name in names}
    return ' and '.join(sorted(changed)) or 'nothing', torch.cat(same).float().mean().item(), accuracy(teacher), accuracy(student)


CASES = {
    'frozen, eval() before': ({'requires_grad': False}, True),
    'frozen': ({'requires_grad': False}, False),
    'default, eval() before': ({}, True),
    'default': ({}, False),
}
print(f'accuracy of the teacher before: {accuracy(trained_teacher()):.3f}')
seen = {}
for batch_size in (50, 4):
    for name, case in CASES.items():
        changed, same, by_teacher, by_student = seen[name, batch_size] = look(batch_size, *case)
        print(
            f'batches of {batch_size:2}, {name:22}  teacher answers as before {same:.3f}, accuracy {by_teacher:.3f}, changed: {changed};'
            f' accuracy of the student {by_student:.3f}'
        )
EXPECTED = dict(zip(CASES, ('nothing', 'statistics', 'weights', 'statistics and weights')))
as_seen = all(changed == EXPECTED[name] for (name, _), (changed, *_) in seen.items())
whole, frozen, pulled = (seen[name, 4] for name in ('frozen, eval() before', 'frozen', 'default, eval() before'))
if not as_seen or whole[1] < 1 or frozen[1] > 0.95 or pulled[2] > whole[2] - 0.1:
    sys.exit('changed: torchdistill sets the mode or the gradients of the teacher otherwise now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
