#!/usr/bin/env bash
# Guess: Distiller of Keras is fitted like any model: class_weight and sample_weight of fit() weight the student's loss of the labels, and the
# penalties of the student's layers (kernel_regularizer=L2) are added to its loss. With student_loss_weight=1, which leaves the
# distillation out, the student is trained as by its own fit().
# Behaviour: all of them are dropped. The Distiller's loss is made of the labels' loss without weights and of the distillation losses, and nothing
# else: the student becomes bit for bit the one of a training without weights and penalties. fit() takes them without a word; only the
# docstring of compute_loss, which fit() calls, says that sample weights are unused.
# Why it matters: a rare class that a network of its own would learn by its weight is ignored by the distilled one; images of weight 0,
# masked as unlabelled or padding, are learned with their labels; and a student seems to get worse by distillation, or to need no penalty.
# Packages: keras 3.15.1, jax 0.10.2, numpy 2.4.6.
# Seen on 2026-11-30, one image of 50 of the rare class; share of it that is found, and length of the student's first kernel:
#   own fit()       plain          found 0.507  length  6.75
#                   class_weight   found 0.709  length  6.71  the same weights as plain: False
#                   sample_weight  found 0.411  length  6.72  the same weights as plain: False
#                   L2 penalty     found 0.519  length  0.71  the same weights as plain: False
#   Distiller, 1    plain          found 0.507  length  6.75
#                   class_weight   found 0.507  length  6.75  the same weights as plain: True
#                   sample_weight  found 0.507  length  6.75  the same weights as plain: True
#                   L2 penalty     found 0.507  length  6.75  the same weights as plain: True
#   Distiller, 0.5  the same, found 0.520, length 6.70
#   own fit() and Distiller of 1 without any of them: the same weights True
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

random = numpy.random.default_rng(0)
pattern = random.normal(size=(2, 64))


def images(number, rare):
    """Return noisy images, of which about a share `rare` is of class 1, and their labels."""
    labels = (random.random(number) < rare).astype(int)
    return (pattern[labels] + random.normal(size=(number, 64)) * 4).astype('float32'), labels


def network(penalty=0.0):
    keras.utils.set_random_seed(1)
    image = layers.Input((64,))
    hidden = layers.Dense(32, 'relu', kernel_regularizer=keras.regularizers.L2(penalty) if penalty else None)(image)
    return keras.Model(image, layers.Dense(2)(hidden))


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.003), loss=loss)
    return model


train, labels = images(4000, 0.02)
test, right = images(4000, 0.5)
teacher = compiled(network())
teacher.fit(*images(4000, 0.5), epochs=5, verbose=0)


def trained(share, penalty=0.0, **weights):
    """Return a student that was trained by a Distiller, or by its own fit() if `share` is None."""
    student = network(penalty)
    if share is None:
        model = student
    else:
        model = Distiller(teacher, student, LogitsDistillation(temperature=2.0), student_loss_weight=share)
    keras.utils.set_random_seed(2)
    compiled(model).fit(train, labels, epochs=5, verbose=0, **weights)
    return student


def look(student):
    """Return the share of the rare class that is found, and the length of the first kernel."""
    found = (student.predict(test, verbose=0).argmax(1) == 1)[right == 1].mean()
    return float(found), float(numpy.linalg.norm(student.layers[1].get_weights()[0]))


def same(one, other):
    return all(numpy.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


labelled = numpy.where(numpy.arange(4000) % 2, 1.0, 0.0)
SETTINGS = {
    'class_weight': dict(class_weight={0: 1.0, 1: 50.0}),
    'sample_weight': dict(sample_weight=labelled),
    'L2 penalty': dict(penalty=0.05),
}
changed, plains = [], {}
for name, share in {'own fit()': None, 'Distiller, 1': 1.0, 'Distiller, 0.5': 0.5}.items():
    plain = plains[share] = trained(share)
    print(f'{name:15} plain          found {look(plain)[0]:.3f}  length {look(plain)[1]:5.2f}')
    for setting, options in SETTINGS.items():
        student = trained(share, **options)
        found, length = look(student)
        print(f'{"":15} {setting:14} found {found:.3f}  length {length:5.2f}  the same weights as plain: {same(student, plain)}')
        if same(student, plain) != (share is not None):
            changed.append(f'{name} with {setting}')
alike = same(plains[None], plains[1.0])
print(f'own fit() and Distiller of 1 without any of them: the same weights {alike}')
if not alike:
    changed.append('Distiller without weights and penalties')
if changed:
    sys.exit(f'changed: {", ".join(changed)}')
END
KERAS_BACKEND=jax "$folder/venv/bin/python" -W ignore "$folder/look.py"
