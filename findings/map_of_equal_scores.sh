#!/usr/bin/env bash
# Guess: the average precision of a label does not depend on the order of the images; where all images have the same score, it is the share
# of those that have the label, as in scikit-learn.
# Behaviour: mmpretrain's AveragePrecision sorts by score and counts images of equal scores one after the other, in whatever order they come:
# a network that says nothing gets an mAP of 100 if the images with the label come first, and the least if they come last. (AP for a label
# that no image has is 0, and lowers the mean.) Why it matters: float32's sigmoid is 1 from a logit of 17 on, so sure networks have many equal
# scores; and data sets are often sorted by label. Metrics on logits have no such ties.
# Packages: onedl-mmpretrain 1.3.6, onedl-mmengine 0.10.12, onedl-mmcv 2.3.6, torch 2.14.1, scikit-learn 1.9.1.
# Seen on 2026-11-29:
#   ten images with equal scores, two with the label, first: mAP 100.0; last: 15.6; scikit-learn: 20.0 and 20.0
#   the same with logits of 18 to 27, by their sigmoid: first 100.0, last 15.6; by the logits themselves: 15.6 and 15.6
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmpretrain==1.3.6 \
    scikit-learn==1.9.1
cat > "$folder/look.py" <<'END'
import sys

import torch
from mmpretrain.evaluation import AveragePrecision
from sklearn.metrics import average_precision_score

first = torch.tensor([1.0, 1.0, *[0.0] * 8])  # of ten images the first two have the label
last = first.flip(0)


def ours(scores, labels):
    return round(AveragePrecision.calculate(scores[:, None], labels[:, None]).item(), 1)


def theirs(scores, labels):
    return round(100 * float(average_precision_score(labels, scores)), 1)


equal = torch.full((10,), 0.7)
found = [ours(equal, first), ours(equal, last)]
other = [theirs(equal, first), theirs(equal, last)]
print(f'ten images with equal scores, two with the label, first: mAP {found[0]}; last: {found[1]}; scikit-learn: {other[0]} and {other[1]}')
logits = torch.arange(18.0, 28.0)  # those with the label have the smallest, in both orders
by_sigmoid = [ours(logits.sigmoid(), first), ours(logits.flip(0).sigmoid(), last)]
by_logit = [ours(logits, first), ours(logits.flip(0), last)]
print(
    f'the same with logits of 18 to 27, by their sigmoid: first {by_sigmoid[0]}, last {by_sigmoid[1]}; by the logits themselves: '
    f'{by_logit[0]} and {by_logit[1]}'
)
if (found, other, by_sigmoid, by_logit) != ([100.0, 15.6], [20.0, 20.0], [100.0, 15.6], [15.6, 15.6]):
    sys.exit('changed: the mAP of equal scores is another one')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
