#!/usr/bin/env bash
# Guess: MulticlassAccuracy of torchmetrics, whose default is the mean over the classes (average='macro'), leaves out classes of which there is no
# image, as scikit-learn's balanced_accuracy_score does, and as it does itself if nothing is predicted as them.
# Behaviour: an absent class counts, with accuracy 0, as soon as one image is taken for it. The same number of mistakes gives another accuracy,
# depending on how many different classes the mistakes name: of a network of 1000 classes, tested on images of 200 of them (so many have
# ImageNet-A, ImageNet-R and other subsets), 0.20 is reported where the mean over the 200 is 0.84. With top_k=2 or more, absent classes are left
# out, so this 0.20 stands beside a top-5 of 0.95. No warning. The mean of average=None over the classes that occur is right, and, where these
# have equally many images, average='micro'. Why it matters: a network that spreads its mistakes seems far worse than one that makes as many
# into few classes, and the value falls as the test set grows: accuracies of a student and a teacher, or of two subsets, cannot be compared.
# Packages: torchmetrics 1.9.0, scikit-learn 1.9.1, torch 2.14.1.
# Seen on 2026-11-30:
#   mistakes in many classes: macro 0.201, top_k=5 0.952; micro 0.840; mean over the classes that occur 0.840; scikit-learn's balanced accuracy 0.840
#   the same number, in few: macro 0.836, top_k=5 0.952; micro 0.840; mean over the classes that occur 0.840; scikit-learn's balanced accuracy 0.840
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchmetrics==1.9.0 scikit-learn==1.9.1
cat > "$folder/look.py" <<'END'
import sys

import torch
from sklearn.metrics import balanced_accuracy_score
from torchmetrics.classification import MulticlassAccuracy

CLASSES, PRESENT, IMAGES = 1000, 200, 10_000
torch.manual_seed(0)
present, absent = torch.randperm(CLASSES).split([PRESENT, CLASSES - PRESENT])
labels = present[torch.arange(IMAGES) % PRESENT]
signal = 4.3 * torch.nn.functional.one_hot(labels, CLASSES)
spread = torch.randn(IMAGES, CLASSES) + signal
# the same logits, but what was highest in one of the absent classes is moved to the first of these
wrong = torch.isin(spread.argmax(1), absent).nonzero()[:, 0]
gathered = spread.clone()
top, best = gathered[wrong].max(1)
gathered[wrong, best], gathered[wrong, absent[0]] = gathered[wrong, absent[0]], top


def accuracy(logits, **settings):
    return MulticlassAccuracy(CLASSES, **settings)(logits, labels)


found = {}
for title, logits in (('mistakes in many classes', spread), ('the same number, in few', gathered)):
    macro, top5 = (accuracy(logits, top_k=k).item() for k in (1, 5))
    micro = accuracy(logits, average='micro').item()
    by_hand = accuracy(logits, average=None)[present].mean().item()
    balanced = balanced_accuracy_score(labels, logits.argmax(1))
    found[title] = macro, by_hand, balanced, micro, top5
    print(
        f"{title}: macro {macro:.3f}, top_k=5 {top5:.3f}; micro {micro:.3f}; mean over the classes that occur {by_hand:.3f}; "
        f'scikit-learn\'s balanced accuracy {balanced:.3f}'
    )
(many, *others_many), (few, *others_few) = found.values()
agree = all(abs(one - others_many[0]) < 1e-3 for one in (*others_many[:3], *others_few[:3]))
if not agree or many > others_many[0] - 0.2 or few < others_few[0] - 0.05 or others_many[3] < others_many[0]:
    sys.exit('changed: absent classes count otherwise now in the mean over the classes')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
