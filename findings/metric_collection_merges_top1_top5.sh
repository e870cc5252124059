#!/usr/bin/env bash
# Guess: a MetricCollection of torchmetrics with a top-1 and a top-5 accuracy gives what the two give alone. compute_groups, on by default,
# lets metrics share their counts where the settings make these equal, such as precision and recall.
# Behaviour: metrics are put together if their counts are equal after the very first batch, whatever their settings. Top-1 and top-5 of
# MulticlassAccuracy have equal counts when no image of that batch has its class at ranks 2 to 5: usual for an untrained network with
# many classes (a sanity validation), and for a sure one with few mistakes. From then on, reset() or not, only the first of them is
# updated, and top-5 says what top-1 says. So do two thresholds, or ignore_index and none, if the first batch has no score between them,
# or no ignored label (Lightning-AI/torchmetrics#2916). average='micro' counts top-5 otherwise and stays apart; compute_groups=False helps.
# Packages: torchmetrics 1.9.0, torch 2.14.1.
# Seen on 2026-11-29 (1,000 classes, batches of 32; random logits, then, after reset(), each class once, with a signal):
#   one group after a batch of random logits: 28 of 30 collections; average='micro': 0 of 30
#   then in a collection: top-1 0.436, top-5 0.436; apart: top-1 0.436, top-5 0.669; compute_groups=False: top-1 0.436, top-5 0.669
#   F1 at thresholds 0.8 and 0.2 after a first batch of scores 0 and 1: in a collection 0.755 and 0.755, apart 0.574 and 0.755
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchmetrics==1.9.0
cat > "$folder/look.py" <<'END'
import sys

import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MultilabelF1Score

CLASSES = 1000


def accuracies(**keywords):
    return {f'top-{k}': MulticlassAccuracy(CLASSES, top_k=k, **keywords) for k in (1, 5)}


def batch(labels, signal):
    logits = torch.randn(len(labels), CLASSES)
    logits[torch.arange(len(labels)), labels] += signal
    return logits, labels


def untrained():
    return batch(torch.randint(CLASSES, (32,)), signal=0)


def merged(seed, **keywords):
    torch.manual_seed(seed)
    collection = MetricCollection(accuracies(**keywords))
    collection.update(*untrained())
    return len(collection.compute_groups) == 1


def values(metrics, first, batches, reset):
    """Return the values of the metrics over the batches, which come after the first one and, with reset, without it."""
    collection = isinstance(metrics, MetricCollection)
    for metric in [metrics] if collection else metrics.values():
        metric.update(*first)
        if reset:
            metric.reset()
        for one in batches:
            metric.update(*one)
    found = metrics.compute() if collection else {name: metric.compute() for name, metric in metrics.items()}
    return [round(value.item(), 3) for value in found.values()]


counts = [sum(merged(seed, **keywords) for seed in range(30)) for keywords in ({}, dict(average='micro'))]
print(f"one group after a batch of random logits: {counts[0]} of 30 collections; average='micro': {counts[1]} of 30")
torch.manual_seed(0)
first = untrained()
later = [batch(labels, signal=3) for labels in torch.randperm(CLASSES).split(32)]
together, apart, off = (
    values(metrics, first, later, reset=True)
    for metrics in (MetricCollection(accuracies()), accuracies(), MetricCollection(accuracies(), compute_groups=False))
)
says = 'top-1 {:.3f}, top-5 {:.3f}'.format
print(f'then in a collection: {says(*together)}; apart: {says(*apart)}; compute_groups=False: {says(*off)}')


def by_threshold():
    return {f'F1 at {percent}%': MultilabelF1Score(3, threshold=percent / 100) for percent in (80, 20)}


scores = torch.rand(160, 3)
labels = (torch.rand(160, 3) < scores).long()
sure = (scores[:32] > 0.5).float(), labels[:32]
unsure = [(scores[32:], labels[32:])]
same, other = (values(metrics, sure, unsure, reset=False) for metrics in (MetricCollection(by_threshold()), by_threshold()))
print(
    'F1 at thresholds 0.8 and 0.2 after a first batch of scores 0 and 1: '
    'in a collection {:.3f} and {:.3f}, apart {:.3f} and {:.3f}'.format(*same, *other)
)
shared = together[0] == together[1] and same[0] == same[1]
if counts[0] < 20 or counts[1] > 0 or not shared or apart[1] < together[1] + 0.1 or off != apart or other[0] == other[1]:
    sys.exit('changed: a collection puts metrics together otherwise now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
