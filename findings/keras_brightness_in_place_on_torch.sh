#!/usr/bin/env bash
# Guess: an augmentation layer of Keras returns another tensor and leaves its input alone, and computes the same on each of its backends.
# Behaviour: on the backend of torch, RandomBrightness adds to the tensor that it is given (images += delta, which JAX's arrays make a new array
# of). A batch of float32 images that is augmented for the student is brightened, beyond 0 and 255, for the teacher, too. RandomColorJitter
# does so by its brightness. RandAugment computes all of its eleven operations and chooses among the results; the one for brightness
# has by then changed what the later ones and the unchosen get: each image is brightened or darkened whatever is chosen, by up to the full factor,
# and values leave the range. No warning. Giving the layer a copy (images + 0) helps against the first, against the second nothing from outside does.
# Why it matters: the same recipe trains on other images than on JAX, and stronger ones than its factor says; a teacher or
# a second view gets a batch that was changed behind its back.
# Packages: keras 3.15.1, torch 2.14.1, jax 0.10.2, numpy 2.4.6.
# Seen on 2026-11-30 (RandAugment with its default factor, 0.5):
#   torch  RandomBrightness   the input, afterwards: changed by 65 of 255; the output: by 54
#   torch  RandomColorJitter  the input, afterwards: changed by 66 of 255; the output: by 54
#   torch  RandomContrast     the input, afterwards: changed by 0 of 255; the output: by 12
#   torch  RandAugment of 1   batches with values above 255: 5 of 12; mean change of brightness 54
#   torch  RandAugment of 2   batches with values above 255: 4 of 12; mean change of brightness 69
#   jax    RandomBrightness   the input, afterwards: changed by 0 of 255; the output: by 55
#   jax    RandomColorJitter  the input, afterwards: changed by 0 of 255; the output: by 56
#   jax    RandomContrast     the input, afterwards: changed by 0 of 255; the output: by 12
#   jax    RandAugment of 1   batches with values above 255: 0 of 12; mean change of brightness 12
#   jax    RandAugment of 2   batches with values above 255: 0 of 12; mean change of brightness 8
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 keras==3.15.1 jax==0.10.2 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import keras
import numpy as np
from keras import layers

BATCHES = 12
backend = keras.backend.backend()
keras.utils.set_random_seed(0)
draws = np.random.RandomState(0)
wrong = {}


def pixels(images):
    return keras.ops.convert_to_numpy(images)


def batch(shape=(16, 16, 16, 3)):
    return keras.ops.convert_to_tensor(draws.randint(0, 256, shape).astype('float32'))


for name, layer in dict(
    RandomBrightness=layers.RandomBrightness(0.5),
    RandomColorJitter=layers.RandomColorJitter(value_range=(0, 255), brightness_factor=0.5),
    RandomContrast=layers.RandomContrast(0.5),
).items():
    images = batch()
    before = pixels(images).copy()
    outputs = pixels(layer(images, training=True))
    moved = np.abs(pixels(images) - before).mean()
    wrong[name] = bool(moved > 1)
    away = np.abs(outputs - before).mean()
    print(f'{backend:6} {name:18} the input, afterwards: changed by {moved:.0f} of 255; the output: by {away:.0f}')
for ops in (1, 2):
    layer = layers.RandAugment(num_ops=ops)
    above, shifts = 0, []
    for _ in range(BATCHES):
        images = batch()
        outputs = pixels(layer(images, training=True))
        above += outputs.max() > 256
        shifts.append(np.abs(outputs.mean((1, 2, 3)) - pixels(images).mean((1, 2, 3))).mean())
    wrong[f'RandAugment {ops}'] = bool(above > 0)
    print(f'{backend:6} RandAugment of {ops}   batches with values above 255: {above} of {BATCHES}; mean change of brightness {np.mean(shifts):.0f}')
expected = {name: backend == 'torch' and name != 'RandomContrast' for name in wrong}
if wrong != expected:
    sys.exit(f'changed: the layers change their input otherwise now ({backend}: {wrong})')
END
for backend in torch jax; do
    KERAS_HOME="$folder/keras" KERAS_BACKEND=$backend "$folder/venv/bin/python" -W ignore "$folder/look.py" 2> "$folder/errors" ||
        { cat "$folder/errors"; exit 1; }
done
