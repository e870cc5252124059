#!/usr/bin/env bash
# Guess: Distiller.evaluate() of Keras measures the student and leaves it as it is, as evaluate() of any other model does. It computes the
# distillation loss as well, but in inference mode, as the rest of an evaluation.
# Behaviour: with a FeatureDistillation of inner layers, the student's feature comes from a second pass, always in training mode. So each
# batch of evaluate(), and of the validation in fit(), updates the moving averages of the student's batch norms, and its dropout is on for
# this loss. On images that differ from those of training, the student gets better from batch to batch, a second evaluation gives another
# accuracy, and afterwards it fails on the images that it was trained for. With LogitsDistillation alone, or a FeatureDistillation of the
# outputs, nothing changes. No warning. Evaluate distiller.student instead. (In fit(), each batch counts twice in the averages.)
# Why it matters: every validation leaks into the network, the accuracies depend on which evaluations came before, and a test on shifted
# images measures a network that has adapted to them.
# Packages: keras 3.15.1, jax 0.10.2, numpy 2.4.6.
# Seen on 2026-11-30, 6,400 test images; the bright ones are the same plus 4. Accuracy of predict(), and what evaluate() says:
#   of logits     predict: clean 0.784, bright 0.380; evaluate(bright) three times: 0.380, 0.380, 0.380
#                 predict afterwards: clean 0.784, bright 0.380; changed: nothing
#   of a feature  predict: clean 0.916, bright 0.365; evaluate(bright) three times: 0.694, 0.905, 0.916
#                 predict afterwards: clean 0.378, bright 0.916; changed: moving_mean, moving_variance
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
from keras.distillation import Distiller, FeatureDistillation, LogitsDistillation

CLASSES = 10
random = numpy.random.default_rng(0)
patterns = random.normal(size=(CLASSES, 8, 8, 3))


def images(number):
    """Return noisy images of the classes' patterns, and their labels."""
    labels = random.integers(CLASSES, size=number)
    return (patterns[labels] + random.normal(size=(number, 8, 8, 3)) * 2).astype(numpy.float32), labels


def network():
    image = layers.Input((8, 8, 3))
    feature = layers.BatchNormalization()(layers.Conv2D(16, 3)(image))
    feature = layers.Flatten(name='feature')(layers.MaxPooling2D()(layers.ReLU()(feature)))
    return keras.Model(image, layers.Dense(CLASSES)(feature))


def fit(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(), loss=loss, metrics=['accuracy'])
    model.fit(*train, epochs=3, verbose=0)


train, (clean, labels) = images(8000), images(6400)
bright = clean + 4
keras.utils.set_random_seed(0)
teacher = network()
fit(teacher)


def look(losses):
    """Return the accuracies before, of three evaluations and after, and which variables changed."""
    student = network()
    distiller = Distiller(teacher, student, losses)
    fit(distiller)

    def predicted(images):
        return float((student.predict(images, verbose=0).argmax(1) == labels).mean())

    before = student.get_weights()
    accuracies = [predicted(clean), predicted(bright)]
    accuracies += [distiller.evaluate(bright, labels, verbose=0, return_dict=True)['accuracy'] for _ in range(3)]
    accuracies += [predicted(clean), predicted(bright)]
    pairs = zip(student.weights, before, strict=True)
    return accuracies, [weight.name for weight, old in pairs if not numpy.array_equal(weight, old)]


LOSSES = {
    'of logits': LogitsDistillation(),
    'of a feature': FeatureDistillation(teacher_layer_name='feature', student_layer_name='feature'),
}
seen = {}
for name, loss in LOSSES.items():
    accuracies, changed = seen[name] = look([loss])
    clean_first, bright_first, *evaluated, clean_last, bright_last = accuracies
    print(f'{name:12}  predict: clean {clean_first:.3f}, bright {bright_first:.3f}; evaluate(bright) three times:'
          f' {", ".join(f"{value:.3f}" for value in evaluated)}')
    print(f'              predict afterwards: clean {clean_last:.3f}, bright {bright_last:.3f}; changed: {", ".join(changed) or "nothing"}')
accuracies, changed = seen['of a feature']
if seen['of logits'][1] or changed != ['moving_mean', 'moving_variance'] or accuracies[2] < accuracies[1] + 0.1:
    sys.exit("changed: the Distiller's evaluate() treats the student's batch norms otherwise now")
END
KERAS_BACKEND=jax "$folder/venv/bin/python" -W ignore "$folder/look.py"
