#!/usr/bin/env bash
# Guess: SparseTopKCategoricalAccuracy(k=5) of Keras takes five classes of each image; of classes with equal scores it takes some. A network that
# says the same of 1,000 classes is right on about 1 of 200 images, and one that says NaN on none.
# Behaviour: a class counts as among the five if fewer than five are larger, so that all equal ones count together. Outputs of zeros (a
# head that begins with zeros, a dead network) have an accuracy of 1. So has a float16 softmax that is sure: the other classes underflow to
# 0, are equal, and all count. On JAX, NaN counts as right as well, on torch and numpy as wrong; SparseCategoricalAccuracy does neither. No warning.
# TopKCategoricalAccuracy is alike. Sort the logits instead, or measure in float32. Why it matters: under mixed_float16 the better a network
# gets, the nearer its top-5 accuracy is to 1; and a callback that keeps the best epoch by it keeps the first one, or the one that diverged.
# Packages: keras 3.15.1, jax 0.10.2, numpy 2.4.6. (On torch 2.14.1, seen apart, as on numpy.)
# Seen on 2026-11-30, 2,000 images of 1,000 classes; the softmax is of a network that is right on 60% of them:
#   jax    float32 softmax  k=1 0.620, k=5 0.622  by sorting: 0.620, 0.622
#   jax    float16 softmax  k=1 0.620, k=5 1.000  by sorting: 0.620, 0.622
#   jax    zeros            k=1 1.000, k=5 1.000  by sorting: 0.002, 0.005
#   jax    NaN              k=1 1.000, k=5 1.000  by sorting: 0.002, 0.005
#   numpy  float32 softmax  k=1 0.620, k=5 0.622  by sorting: 0.620, 0.622
#   numpy  float16 softmax  k=1 0.620, k=5 1.000  by sorting: 0.620, 0.622
#   numpy  zeros            k=1 1.000, k=5 1.000  by sorting: 0.002, 0.005
#   numpy  NaN              k=1 0.000, k=5 0.000  by sorting: 0.002, 0.005
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 jax==0.10.2 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import keras
import numpy

CLASSES, IMAGES = 1000, 2000
random = numpy.random.default_rng(0)
labels = random.integers(CLASSES, size=IMAGES)
named = numpy.where(random.random(IMAGES) < 0.6, labels, random.integers(CLASSES, size=IMAGES))


def sure():
    """Return the softmax of a network that is very sure, and right on 60% of the images."""
    logits = random.normal(size=(IMAGES, CLASSES))
    logits[numpy.arange(IMAGES), named] += 40
    powers = numpy.exp(logits - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).astype(numpy.float32)


def by_keras(outputs, k):
    metric = keras.metrics.SparseTopKCategoricalAccuracy(k)
    metric.update_state(labels, outputs)
    return float(metric.result())


def by_sorting(outputs, k):
    return float((numpy.argsort(-outputs, 1, kind='stable')[:, :k] == labels[:, None]).any(1).mean())


backend = keras.backend.backend()
probabilities = sure()
cases = {
    'float32 softmax': probabilities,
    'float16 softmax': probabilities.astype(numpy.float16),
    'zeros': numpy.zeros((IMAGES, CLASSES), numpy.float32),
    'NaN': numpy.full((IMAGES, CLASSES), numpy.nan, numpy.float32),
}
changed = []
for name, outputs in cases.items():
    mine, sorted_ = ([by(outputs, k) for k in (1, 5)] for by in (by_keras, by_sorting))
    print(f'{backend:5}  {name:15}  k=1 {mine[0]:.3f}, k=5 {mine[1]:.3f}  by sorting: {sorted_[0]:.3f}, {sorted_[1]:.3f}')
    expected = {'float32 softmax': sorted_[1], 'NaN': float(backend == 'jax')}.get(name, 1.0)
    if abs(mine[1] - expected) > 0.001:
        changed.append(name)
if changed:
    sys.exit(f'changed: the top-5 accuracy is another one now with {backend} ({", ".join(changed)})')
END
for backend in jax numpy; do
    KERAS_BACKEND=$backend "$folder/venv/bin/python" -W ignore "$folder/look.py"
done
