#!/usr/bin/env bash
# Guess: CalibratedClassifierCV(method='temperature') of scikit-learn on a network that gives probabilities (predict_proba) finds about the same
# temperature for float16 as for float32, which differ in the fourth digit; and an image's result does not depend on its batch.
# Behaviour: it does not ask which method the numbers came from. It takes them for probabilities, and their logarithm, if all of them are within
# 0 and 1 and each row of the batch sums to 1 up to 0.00001; else for logits as they are. Rows of float16, or of probabilities that were stored
# with four digits, miss this. So the fitted factor multiplies the probabilities, which is no temperature scaling: the likelihood gets worse
# than without any. It decides anew for each batch that it predicts: some images that come alone pass the test, and get the logarithm with a
# factor that was fitted without it. No warning; the accuracy stays. Divide each row by its sum in float64 in predict_proba, or give
# logits by decision_function. Why it matters: outputs of half precision and stored ones are calibrated so. The tool for honest confidences
# spoils them, and a server that takes single images answers otherwise than the evaluation in batches.
# Packages: scikit-learn 1.9.1, scipy 1.17.1, numpy 2.4.6.
# Seen on 2026-11-30, 5,000 images of 100 classes to fit, 5,000 to test; negative log-likelihood and calibration error, before and after:
#   float32           factor  1.43  likelihood 0.702 to 0.634  error 0.102 to 0.012  other if alone: 0.0%
#   float16           factor 12.48  likelihood 0.702 to 0.936  error 0.102 to 0.066  other if alone: 3.2%
#   four digits       factor 12.48  likelihood 0.702 to 0.936  error 0.102 to 0.066  other if alone: 5.2%
#   float16, divided  factor  1.43  likelihood 0.702 to 0.634  error 0.102 to 0.011  other if alone: 0.0%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import numpy
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

CLASSES = 100
random = numpy.random.default_rng(0)


def images(number):
    """Return the logits of a network that is too sure, and the labels."""
    labels = random.integers(CLASSES, size=number)
    logits = random.normal(size=(number, CLASSES))
    logits[numpy.arange(number), labels] += 3.5
    return (logits * 2.5).astype(numpy.float32), labels


STORED = {
    'float32': lambda values: values,
    'float16': lambda values: values.astype(numpy.float16),
    'four digits': lambda values: values.round(4),
    'float16, divided': lambda values: (rows := values.astype(numpy.float16).astype(float)) / rows.sum(1, keepdims=True),
}


class Network(ClassifierMixin, BaseEstimator):
    """A trained network, whose images are given as their logits already."""

    def __init__(self, stored='float32'):
        self.stored = stored

    def fit(self, images, labels):
        self.classes_ = numpy.arange(CLASSES)
        return self

    def predict_proba(self, images):
        powers = numpy.exp(images - images.max(1, keepdims=True))
        return STORED[self.stored](powers / powers.sum(1, keepdims=True))

    def predict(self, images):
        return images.argmax(1)


fitted, (tested, labels) = images(5000), images(5000)


def likelihood(values):
    """Return the mean negative log-likelihood of the labels."""
    return float(-numpy.log(numpy.maximum(values[numpy.arange(len(labels)), labels].astype(float), 1e-6)).mean())


def error(values):
    """Return the calibration error of the named classes over 15 bins."""
    sure, right = values.max(1).astype(float), values.argmax(1) == labels
    bins = numpy.minimum((sure * 15).astype(int), 14)
    return float(sum(abs(sure[bins == one].sum() - right[bins == one].sum()) for one in range(15)) / len(labels))


seen = {}
for stored in STORED:
    network = Network(stored).fit(*fitted)
    calibrated = CalibratedClassifierCV(FrozenEstimator(network), method='temperature').fit(*fitted)
    before, after = network.predict_proba(tested), calibrated.predict_proba(tested)
    alone = numpy.concatenate([calibrated.predict_proba(tested[one : one + 1]) for one in range(1000)])
    other = float((abs(alone - after[:1000]).max(1) > 0.01).mean())
    factor = float(calibrated.calibrated_classifiers_[0].calibrators[0].beta_)
    seen[stored] = factor, likelihood(after) - likelihood(before), other
    print(f'{stored:16}  factor {factor:5.2f}  likelihood {likelihood(before):.3f} to {likelihood(after):.3f}'
          f'  error {error(before):.3f} to {error(after):.3f}  other if alone: {other:.1%}')
changed = []
for stored, (factor, worse, other) in seen.items():
    wrong = stored in ('float16', 'four digits')
    if (factor > 5) != wrong or (worse > 0) != wrong or (other > 0) != wrong:
        changed.append(stored)
if changed:
    sys.exit(f'changed: temperature scaling treats these probabilities otherwise now ({", ".join(changed)})')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
