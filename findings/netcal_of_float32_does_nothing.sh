#!/usr/bin/env bash
# Guess: TemperatureScaling of netcal, fitted on the probabilities of a network and the labels, finds the temperature that makes the labels most
# likely, up to rounding the same for float32, in which torch gives probabilities, as for float64; and its attribute `temperature` is this number.
# Behaviour: fitted on float32, the temperature is always 1. TemperatureScaling and LogisticCalibration give the probabilities back as they
# came, and BetaCalibration stops so early that it makes them worse. Their optimizer takes differences over steps of 0.00000001, which float32
# rounds away, so that the slope seems to be 0 and the start the best. No error, no warning. It is so with the default method ('mle'), for two
# classes and for many. probabilities.astype('float64') before fit() and transform() helps. (Reported without its cause, as calibration
# without an effect: EFS-OpenSource/calibration-framework#48 and #61.) Besides, `temperature` is the factor of the logits, 1/T: 0.35 for a
# network that is far too sure, whose temperature is 2.8; the docstring divides by T.
# Why it matters: "temperature scaling does not help this network" is reported of one that it would mend; and who takes `temperature` to soften a
# teacher, or to scale logits on a device, sharpens them.
# Packages: netcal 1.4.0, torch 2.14.1, scipy 1.17.1, numpy 2.4.6, scikit-learn 1.9.1, pyro-ppl 1.9.2, gpytorch 1.15.2.
# Seen on 2026-12-01, a network of noisy digits, 600 images to fit and 597 to test:
#   accuracy 0.799; calibration error and negative log-likelihood
#     uncalibrated                0.133 0.955
#     temperature by hand         0.049 0.599  temperature 2.82
#     float32 TemperatureScaling  0.133 0.953  temperature 1.00
#     float32 LogisticCalibration 0.133 0.953
#     float32 BetaCalibration     0.166 1.486
#     float64 TemperatureScaling  0.049 0.599  temperature 0.35
#     float64 LogisticCalibration 0.046 0.593
#     float64 BetaCalibration     0.042 0.595
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 netcal==1.4.0 scipy==1.17.1 numpy==2.4.6 scikit-learn==1.9.1 pyro-ppl==1.9.2 gpytorch==1.15.2
cat > "$folder/look.py" <<'END'
import sys

import numpy
import torch
from netcal.metrics import ECE
from netcal.scaling import BetaCalibration, LogisticCalibration, TemperatureScaling
from sklearn.datasets import load_digits
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
pixels, labels = (torch.as_tensor(one) for one in load_digits(return_X_y=True))
images = pixels.float() / 16 + 0.35 * torch.randn(pixels.shape)
trained, fitted, tested = torch.randperm(len(images)).split([600, 600, len(images) - 1200])
network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for _ in range(60):
    for part in trained[torch.randperm(len(trained))].split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[part]), labels[part]).backward()
        optimizer.step()
with torch.no_grad():
    logits = network(images)


def measure(probabilities):
    """Return the calibration error and the negative log-likelihood of the test images."""
    likelihood = probabilities[numpy.arange(len(tested)), labels[tested]].astype('float64')
    return float(ECE(bins=15).measure(probabilities, labels[tested].numpy())), float(-numpy.log(likelihood).mean())


def by_hand(temperature):
    return nn.functional.cross_entropy(logits[fitted] / temperature, labels[fitted]).item()


best = min((step / 100 for step in range(50, 1000)), key=by_hand)
before, after = (measure((logits[tested] / one).softmax(1).numpy()) for one in (1, best))
print(f'accuracy {(logits[tested].argmax(1) == labels[tested]).float().mean():.3f}; calibration error and negative log-likelihood')
print(f'  {"uncalibrated":27} {before[0]:.3f} {before[1]:.3f}')
print(f'  {"temperature by hand":27} {after[0]:.3f} {after[1]:.3f}  temperature {best:.2f}')
seen = {}
for kind in ('float32', 'float64'):
    probabilities = logits.softmax(1).numpy().astype(kind)
    for method in (TemperatureScaling, LogisticCalibration, BetaCalibration):
        calibrator = method()
        calibrator.fit(probabilities[fitted], labels[fitted].numpy())
        error, loss = seen[kind, method] = measure(calibrator.transform(probabilities[tested]))
        words = f'  {kind} {method.__name__:19} {error:.3f} {loss:.3f}'
        if method is TemperatureScaling:
            factor = seen[kind] = float(calibrator.temperature[0])
            words += f'  temperature {factor:.2f}'
        print(words)


def same(one, other):
    return abs(one[0] - other[0]) < 0.001 and abs(one[1] - other[1]) < 0.01


as_seen = (
    seen['float32'] == 1
    and all(same(seen['float32', method], before) for method in (TemperatureScaling, LogisticCalibration))
    and seen['float32', BetaCalibration][1] > before[1]
    and all(seen['float64', method][1] < after[1] + 0.02 for method in (TemperatureScaling, LogisticCalibration, BetaCalibration))
    and abs(seen['float64'] * best - 1) < 0.02
)
if not as_seen:
    sys.exit('changed: netcal fits float32 probabilities, or names its temperature, otherwise now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
