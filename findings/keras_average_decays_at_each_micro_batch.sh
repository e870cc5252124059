#!/usr/bin/env bash
# Guess: an optimizer of Keras with use_ema=True and gradient_accumulation_steps=4 on batches of 16 trains as without accumulation on batches of
# 64, and so does its average: it decays once per update. The documentation says that with accumulation, model and optimizer variables
# change at every fourth step only, and that the EMA's frequency counts the accumulated steps.
# Behaviour: the average is updated after each micro-batch, also after those that change no weight. With 4 micro-batches it takes in the
# same weights four times: ema_momentum=0.99 acts as 0.99 ** 4 = 0.961, with 16 as 0.851. The weights that are trained are the same as
# without accumulation. No warning. Take the root of the momentum: 0.99 ** (1 / 4).
# Why it matters: fit() replaces the weights by the average at its end, so the network that is kept depends on how a batch is divided to
# fit into memory. With 16 micro-batches, the average spans 6 updates instead of 100 and loses about a third of what it gains here.
# Packages: keras 3.15.1, jax 0.10.2, numpy 2.4.6.
# Seen on 2026-11-30, batches of 64 over 10 epochs, ema_momentum 0.99; accuracy on 20,000 images; difference of the weights to one batch of 64:
#   weights   1 of 64  accuracy 0.651  difference 0.000
#   weights   4 of 16  accuracy 0.651  difference 0.000
#   weights  16 of  4  accuracy 0.651  difference 0.000
#   average   1 of 64  accuracy 0.700  difference 0.000
#   average   4 of 16  accuracy 0.698  difference 0.060
#   average  16 of  4  accuracy 0.684  difference 0.165
#   average  16 of  4, momentum 0.99 ** (1 / 16)  accuracy 0.700  difference 0.003
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 jax==0.10.2 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import keras
import numpy

random = numpy.random.default_rng(0)
patterns = random.normal(size=(10, 20))


def images(number):
    """Return noisy vectors of the classes' patterns, and their labels."""
    labels = random.integers(10, size=number)
    return (patterns[labels] + random.normal(size=(number, 20)) * 2).astype(numpy.float32), labels


trained, tested = images(6400), images(20000)


def train(parts, momentum=None):
    """Train on batches of 64 in this many parts; return the weights that fit() leaves, and their accuracy."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.layers.Input((20,)), keras.layers.Dense(10)])
    average = dict(use_ema=True, ema_momentum=momentum) if momentum else {}
    optimizer = keras.optimizers.SGD(1.0, gradient_accumulation_steps=parts if parts > 1 else None, **average)
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])
    network.fit(*trained, batch_size=64 // parts, epochs=10, shuffle=False, verbose=0)
    return network.get_weights()[0], network.evaluate(*tested, verbose=0)[1]


seen = {}
for momentum in (None, 0.99):
    whole, _ = train(1, momentum)
    for parts in (1, 4, 16):
        weights, accuracy = train(parts, momentum)
        difference = float(abs(weights - whole).max())
        seen[momentum, parts] = accuracy, difference
        print(f'{"average" if momentum else "weights"}  {parts:2} of {64 // parts:2}  accuracy {accuracy:.3f}  difference {difference:.3f}')
weights, accuracy = train(16, 0.99 ** (1 / 16))
difference = float(abs(weights - train(1, 0.99)[0]).max())
print(f'average  16 of  4, momentum 0.99 ** (1 / 16)  accuracy {accuracy:.3f}  difference {difference:.3f}')
same = all(seen[None, parts][1] < 1e-4 for parts in (4, 16))
if not same or seen[0.99, 4][1] < 0.02 or seen[0.99, 16][1] < 0.05 or difference > 0.05:
    sys.exit("changed: Keras's average weights with gradient accumulation are other ones now")
END
KERAS_BACKEND=jax "$folder/venv/bin/python" -W ignore "$folder/look.py"
