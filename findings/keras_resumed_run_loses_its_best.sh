#!/usr/bin/env bash
# Guess: BackupAndRestore of Keras, which recovers an interrupted fit, recovers what the callbacks beside it know: ModelCheckpoint with
# save_best_only=True overwrites its file only by a better network than it holds, and EarlyStopping goes on counting, as in a run without interruption.
# Behaviour: weights, optimizer and the number of the epoch come back, the callbacks begin anew. ModelCheckpoint knows of no metric, so the first
# epoch after the restart is the best so far, however bad it is, and is written over the best network, which is lost. EarlyStopping forgets the
# best value, its weights and the epochs that it has waited: it stops later, and restore_best_weights gives the best since the restart. No warning.
# Why it matters: the best network is the one that is kept, published, or taught from; on machines that are taken away every few hours, the only
# thing left of the first part of the run is gone by the first epoch of the next. Put the metric into the file's name, or give the
# best value so far as initial_value_threshold (of no use to EarlyStopping).
# Packages: keras 3.15.0, jax 0.10.2, numpy 2.4.6.
# Seen on 2026-11-30, 40 epochs on labels of which 40% are wrong, EarlyStopping(patience=25), interrupted before epoch 20:
#   whole      not interrupted       epochs  0 to 25  best file 0.957  restored at the end 0.957
#   resumed    best before it 0.957  epochs 20 to 39  best file 0.836  restored at the end 0.836
#   threshold  best before it 0.957  epochs 20 to 39  best file 0.957  restored at the end 0.836
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.0 jax==0.10.2 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import keras
import numpy

random = numpy.random.default_rng(0)
centres = random.normal(size=(10, 20))


def images(number, wrong):
    """Return features of images, and their labels, a share of them wrong."""
    labels = random.integers(10, size=number)
    features = (centres[labels] + random.normal(size=(number, 20))).astype(numpy.float32)
    labels[: int(number * wrong)] = random.integers(10, size=int(number * wrong))
    return features, labels


trained, tested = images(1000, 0.4), images(4000, 0)


class Interruption(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 20:
            raise KeyboardInterrupt


def fit(name, extra, threshold=None):
    """Train, from the start or resumed; return the history (None if interrupted) and the accuracy at the end (of the best so far)."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((20,)), keras.layers.Dense(256, activation='relu'), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.002), loss=loss, metrics=['accuracy'])
    seen = {'monitor': 'val_accuracy', 'mode': 'max'}
    callbacks = [
        *extra,
        keras.callbacks.BackupAndRestore(f'{sys.argv[1]}/{name}'),
        keras.callbacks.ModelCheckpoint(f'{sys.argv[1]}/{name}.keras', save_best_only=True, initial_value_threshold=threshold, **seen),
        keras.callbacks.EarlyStopping(patience=25, restore_best_weights=True, **seen),
    ]
    try:
        history = network.fit(*trained, validation_data=tested, epochs=40, verbose=0, callbacks=callbacks)
    except KeyboardInterrupt:
        return None, best(name)
    return history, network.evaluate(*tested, verbose=0)[1]


def best(name):
    """Return the accuracy of the network in the file of the best."""
    return keras.models.load_model(f'{sys.argv[1]}/{name}.keras').evaluate(*tested, verbose=0)[1]


seen = {}
for name in ('whole', 'resumed', 'threshold'):
    kept = None
    if name != 'whole':
        kept = fit(name, [Interruption()])[1]
    history, end = fit(name, [], kept if name == 'threshold' else None)
    seen[name] = best(name), end
    before = 'not interrupted     ' if kept is None else f'best before it {kept:.3f}'
    print(f'{name:9}  {before}  epochs {history.epoch[0]:2} to {history.epoch[-1]}  best file {seen[name][0]:.3f}  restored at the end {end:.3f}')
whole = seen['whole'][0]
if max(seen['resumed']) > whole - 0.02 or min(seen['threshold'][0], seen['whole'][1]) < whole - 0.01:
    sys.exit('changed: a resumed run of Keras keeps its best now')
END
KERAS_BACKEND=jax JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
