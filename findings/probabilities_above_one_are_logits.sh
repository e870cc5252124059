#!/usr/bin/env bash
# Guess: a metric of torchmetrics that takes probabilities takes those of averaged views or networks, also where float32 rounds one of them to
# 1.0000001; and it tells logits by negative numbers, or by rows that do not sum to 1.
# Behaviour: one value above 1, by however little, makes logits of the whole batch, and softmax is applied to what is a softmax already: of ten
# classes the surest confidence becomes 0.23. The sum of ten times a tenth does it (ten crops, ten networks, ten folds: total += p / 10), and so do
# 11, 14, 18, 20 and other numbers; 2 to 9 parts never. It needs sure predictions, and goes by batch. No warning. Accuracy stays, as softmax
# keeps the order. clamp(max=1), or one division of the summed probabilities at the end, helps. Why it matters: the calibration error of
# an ensemble that is to teach is reported as eight times what it is, just where its networks are sure and agree.
# Packages: torchmetrics 1.9.0, torch 2.14.1.
# Seen on 2026-11-30, mean of n softmaxes as the sum of p / n, 2,048 images of 10 classes; calibration error in batches of 2048 and of 16:
#   n=5   margin 20  largest 1.0000000  batches of 2048: 0.082  of 16: 0.082  clamped: 0.082  accuracy 0.918, clamped 0.918
#   n=10  margin  8  largest 0.9984059  batches of 2048: 0.074  of 16: 0.074  clamped: 0.074  accuracy 0.918, clamped 0.918
#   n=10  margin 20  largest 1.0000001  batches of 2048: 0.686  of 16: 0.686  clamped: 0.082  accuracy 0.918, clamped 0.918
#   n=20  margin 20  largest 1.0000001  batches of 2048: 0.686  of 16: 0.686  clamped: 0.082  accuracy 0.918, clamped 0.918
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchmetrics==1.9.0
cat > "$folder/look.py" <<'END'
import sys

import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

CLASSES, IMAGES = 10, 2048
torch.manual_seed(0)
labels = torch.randint(CLASSES, (IMAGES,))
# what all networks say, right or wrong
named = torch.where(torch.rand(IMAGES) < 0.9, labels, torch.randint(CLASSES, (IMAGES,)))


def probabilities(margin):
    """Return the softmax of a network whose logit of the class that it names stands out by the margin."""
    return torch.softmax(torch.randn(IMAGES, CLASSES) + margin * torch.nn.functional.one_hot(named, CLASSES), 1)


def mean(networks, margin):
    total = torch.zeros(IMAGES, CLASSES)
    for _ in range(networks):
        total += probabilities(margin) / networks
    return total


def measured(metric, values, batch):
    for some, their in zip(values.split(batch), labels.split(batch)):
        metric.update(some, their)
    return metric.compute().item()


def look(networks, margin):
    values = mean(networks, margin)
    errors = [
        measured(MulticlassCalibrationError(CLASSES), some, batch)
        for some, batch in ((values, IMAGES), (values, 16), (values.clamp(max=1), IMAGES))
    ]
    accuracies = [measured(MulticlassAccuracy(CLASSES), some, IMAGES) for some in (values, values.clamp(max=1))]
    print(
        f'n={networks:<2}  margin {margin:2}  largest {values.max().item():.7f}  batches of {IMAGES}: {errors[0]:.3f}  '
        f'of 16: {errors[1]:.3f}  clamped: {errors[2]:.3f}  accuracy {accuracies[0]:.3f}, clamped {accuracies[1]:.3f}'
    )
    return values.max().item() > 1, errors, accuracies


changed = []
for networks, margin, expected in ((5, 20, False), (10, 8, False), (10, 20, True), (20, 20, True)):
    above, errors, accuracies = look(networks, margin)
    wrong = errors[0] > 3 * errors[2]
    if (above, wrong) != (expected, expected) or accuracies[0] != accuracies[1]:
        changed.append(f'{networks} of margin {margin}')
if changed:
    sys.exit(f'changed: probabilities above 1 are dealt with otherwise now ({", ".join(changed)})')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
