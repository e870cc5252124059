#!/usr/bin/env bash
# Guess: LogitsDistillationLoss(temperature=4) of NVIDIA's Model Optimizer is the divergence of an image's classes from the teacher's, averaged
# over the images, times 16, so that StaticLossBalancer(kd_loss_weight=0.5) makes it count about as much as the task loss.
# Behaviour: its default reduction, 'mean', divides by the number of classes as well: of 1,000 classes a thousandth of the divergence is left,
# and by weights of one half each the task loss pulls nearly a thousand times as hard. No weight between 0 and 1, which is all that the balancer
# takes, makes up for it, short of 0.999. reduction='batchmean' gives what its reference (arXiv:1503.02531) has. torch's kl_div warns once of its
# 'mean' in general, of a keyword that the user has not given. Why it matters: a distillation that runs, logs a small loss and is a
# training without a teacher; "distillation does not help", the less the more classes there are.
# Packages: nvidia-modelopt 0.47.0, torch 2.14.1 (and requests and huggingface_hub, which the first imports without asking for them).
# Seen on 2026-11-30, temperature 4, shares of the divergence per image, and lengths of the gradient as shares of the cross entropy's:
#     10 classes  loss of the divergence per image: 0.1000, batchmean 1.0000  gradient of the cross entropy's: 0.3059, batchmean 3.06
#    100 classes  loss of the divergence per image: 0.0100, batchmean 1.0000  gradient of the cross entropy's: 0.0226, batchmean 2.26
#   1000 classes  loss of the divergence per image: 0.0010, batchmean 1.0000  gradient of the cross entropy's: 0.0012, batchmean 1.20
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 nvidia-modelopt==0.47.0 requests huggingface_hub==2.4.0
cat > "$folder/look.py" <<'END'
import sys
import warnings

import modelopt.torch.distill as distill
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div

IMAGES, TEMPERATURE = 64, 4
torch.manual_seed(0)


class Student(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(32, classes)

    def forward(self, images):
        return self.head(images)


def gradient(loss, network):
    return torch.autograd.grad(loss, network.head.weight, retain_graph=True)[0].norm().item()


def look(classes, warned):
    """Return the loss as a share of the divergence per image, and its gradient as one of the cross entropy's, also by batchmean."""
    teacher, student = Student(classes), Student(classes)
    with torch.no_grad():
        teacher.head.weight.mul_(20)  # a teacher that is sure
    images = torch.randn(IMAGES, 32)
    labels = teacher(images).argmax(1)
    shares = []
    for settings in (dict(), dict(reduction='batchmean')):
        criterion = distill.LogitsDistillationLoss(temperature=TEMPERATURE, **settings)
        config = dict(teacher_model=teacher, criterion=criterion, loss_balancer=distill.StaticLossBalancer(0.5))
        network = distill.convert(Student(classes), mode=[('kd_loss', config)])
        network.train()
        network.load_state_dict(student.state_dict())
        logits = network(images)
        task = cross_entropy(logits, labels)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            loss = 2 * network.compute_kd_loss(student_loss=task) - task
        warned.update(str(one.message).split('.')[0] for one in caught)
        with torch.no_grad():
            target = torch.softmax(teacher(images) / TEMPERATURE, 1)
        divergence = TEMPERATURE**2 * kl_div(torch.log_softmax(logits / TEMPERATURE, 1), target, reduction='batchmean')
        shares.append(((loss / divergence).item(), gradient(loss, network) / gradient(task, network)))
    return shares


changed, warned = [], set()
for classes in (10, 100, 1000):
    (share, by_default), (whole, by_batch) = look(classes, warned)
    print(
        f'{classes:4} classes  loss of the divergence per image: {share:.4f}, batchmean {whole:.4f}  '
        f"gradient of the cross entropy's: {by_default:.4f}, batchmean {by_batch:.2f}"
    )
    if abs(share * classes - 1) > 0.01 or abs(whole - 1) > 0.01:
        changed.append(classes)
print('warned:', *warned, sep='\n  ')
if changed:
    sys.exit(f'changed: the default loss of logits is another share of the divergence now ({changed} classes)')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
