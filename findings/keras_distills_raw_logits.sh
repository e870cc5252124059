#!/usr/bin/env bash
# Guess: LogitsDistillation() of keras.distillation, whose loss is 'kl_divergence' by default, is the divergence of the two softmaxes at its
# temperature, times the temperature's square, as LogitsDistillation(loss=KLDivergence()) is.
# Behaviour: only an instance of the class KLDivergence brings softmax and square with it. The name becomes the function kl_divergence, so that the
# default takes the divergence of the raw logits by the temperature, each clipped to the range of probabilities, 0 to 1. It becomes negative; it
# is least if the student gives large logits to every class, and a logit above the temperature or below 0 gets no gradient. No warning.
# Pass loss=keras.losses.KLDivergence(). Why it matters: a student that learns from the teacher alone learns nearly nothing, while its loss falls as
# it should. With labels in the loss the accuracy looks right, and is that of the labels: "distillation does not help", or does by chance.
# Packages: keras 3.15.1, jax 0.10.2.
# Seen on 2026-11-30, temperature 2, six classes; loss of a student that says 5 to each class, and of trained ones:
#   teacher: accuracy 0.961
#   default          loss of equal logits: -0.162  distilled without labels: loss -0.149, accuracy 0.262  with labels: -0.171, 0.959
#   'kl_divergence'  loss of equal logits: -0.162  distilled without labels: loss -0.149, accuracy 0.262  with labels: -0.171, 0.959
#   KLDivergence()   loss of equal logits:  5.856  distilled without labels: loss  0.036, accuracy 0.960  with labels:  0.041, 0.959
#   by hand          loss of equal logits:  5.856
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 jax==0.10.2 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import keras
import numpy
from keras import layers
from keras.distillation import Distiller, LogitsDistillation
from keras.losses import KLDivergence, SparseCategoricalCrossentropy

CLASSES = 6


def softmax(logits):
    powers = numpy.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def by_hand(teacher, student, temperature):
    """Return the mean divergence of the student's softmax from the teacher's, times the squared temperature."""
    theirs, mine = softmax(teacher / temperature), softmax(student / temperature)
    return float((theirs * numpy.log(theirs / mine)).sum(1).mean() * temperature**2)


random = numpy.random.default_rng(0)
centres = random.normal(size=(CLASSES, 32))


def images(number):
    labels = random.integers(CLASSES, size=number)
    return (centres[labels] + 1.5 * random.normal(size=(number, 32))).astype(numpy.float32), labels


def network(width):
    keras.utils.set_random_seed(0)
    return keras.Sequential([layers.Input((32,)), layers.Dense(width, activation='relu'), layers.Dense(CLASSES)])


def compiled(model):
    loss = SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.003), loss=loss, metrics=['accuracy'])
    return model


def distilled(loss, share):
    """Return the last distillation loss and the accuracy of a student with this share of the loss of the labels."""
    model = Distiller(teacher=teacher, student=network(16), distillation_losses=loss, student_loss_weight=share)
    history = compiled(model).fit(*trained, epochs=20, verbose=0).history['distillation_loss']
    return history[-1], float((model.predict(tested[0], verbose=0).argmax(1) == tested[1]).mean())


trained, tested = images(2000), images(2000)
teacher = compiled(network(128))
teacher.fit(*trained, epochs=5, verbose=0)
print(f'teacher: accuracy {teacher.evaluate(*tested, verbose=0)[1]:.3f}')
logits, flat = teacher.predict(tested[0], verbose=0), numpy.full((2000, CLASSES), 5, numpy.float32)
seen = {}
for name, loss in (
    ('default', LogitsDistillation(temperature=2.0)),
    ("'kl_divergence'", LogitsDistillation(temperature=2.0, loss='kl_divergence')),
    ('KLDivergence()', LogitsDistillation(temperature=2.0, loss=KLDivergence())),
):
    value = float(loss.compute_loss(logits, flat))
    ends, accuracies = zip(*(distilled(loss, share) for share in (0.0, 0.5)))
    seen[name] = value, accuracies
    print(
        f'{name:15}  loss of equal logits: {value:6.3f}  distilled without labels: loss {ends[0]:6.3f}, '
        f'accuracy {accuracies[0]:.3f}  with labels: {ends[1]:6.3f}, {accuracies[1]:.3f}'
    )
true = by_hand(logits, flat, 2.0)
print(f'{"by hand":15}  loss of equal logits: {true:6.3f}')
right = seen['KLDivergence()']
for name in ('default', "'kl_divergence'"):
    value, accuracies = seen[name]
    if value > 0 or accuracies[0] > right[1][0] - 0.3:
        sys.exit(f'changed: LogitsDistillation, {name}, takes another divergence of the logits now')
if abs(right[0] - true) > 0.01:
    sys.exit('changed: KLDivergence() is not the divergence of the softmaxes either')
END
KERAS_BACKEND=jax "$folder/venv/bin/python" -W ignore "$folder/look.py"
