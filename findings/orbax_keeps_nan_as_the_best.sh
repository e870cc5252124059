#!/usr/bin/env bash
# Guess: CheckpointManager of orbax with best_fn and max_to_keep keeps the checkpoints with the best metric. A step whose metric is NaN is none of
# them, as for the callbacks of Keras and Lightning that keep the best: it counts as the worst, or is refused.
# Behaviour: it sorts by the metric and keeps the end of the list. NaN is neither smaller nor larger than any number, so the newest step,
# which stands last, stays last: NaN beats every number, with best_mode='max' as with 'min', and best_step() returns it. The best checkpoint
# is deleted. The next step beats NaN in turn, however bad it is. A run that diverges loses all its good checkpoints in max_to_keep steps. A new
# manager on the same folder agrees, and preservation_policy=BestN(...) is alike. No warning.
# Why it matters: such a run is what the best checkpoint is kept for; and a metric may be NaN for once (an average over no images, a
# float16 loss that overflows) without any fault of the weights. Return -inf for NaN from best_fn (inf for 'min').
# Packages: orbax-checkpoint 0.12.8, jax 0.10.2, numpy 2.4.6.
# Seen on 2026-11-30, metrics of the steps in this order, and what is left at the end:
#   max, keep 1                0.5, 0.9, 0.6                            left: 0.9            best: 0.9, new manager: 0.9
#   max, keep 1, one NaN       0.5, 0.9, nan                            left: nan            best: nan, new manager: nan
#   max, keep 1, NaN and on    0.5, 0.9, nan, 0.6                       left: 0.6            best: 0.6, new manager: 0.6
#   min, keep 1, NaN and on    0.5, 0.2, nan, 0.4                       left: 0.4            best: 0.4, new manager: 0.4
#   max, keep 3, diverged      0.5, 0.9, 0.8, 0.7, nan, nan, nan        left: nan, nan, nan  best: nan, new manager: nan
#   BestN, keep 1, NaN and on  0.5, 0.9, nan, 0.6                       left: 0.6            best: 0.6, new manager: 0.6
#   -inf for NaN, keep 1       0.5, 0.9, nan, 0.6                       left: 0.9            best: 0.9, new manager: 0.9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q orbax-checkpoint==0.12.8 jax==0.10.2 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import logging
import math
import sys
import tempfile

import numpy
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

NAN = math.nan
logging.disable()  # it reports each save


def metric(metrics):
    return metrics['metric']


def no_nan(metrics):
    return -math.inf if math.isnan(metrics['metric']) else metrics['metric']


def best(keep, mode='max', function=metric):
    return ocp.CheckpointManagerOptions(max_to_keep=keep, best_fn=function, best_mode=mode)


def by_policy(keep):
    return ocp.CheckpointManagerOptions(preservation_policy=preservation_policy.BestN(get_metric_fn=metric, n=keep))


RUNS = {
    'max, keep 1': (best(1), (0.5, 0.9, 0.6)),
    'max, keep 1, one NaN': (best(1), (0.5, 0.9, NAN)),
    'max, keep 1, NaN and on': (best(1), (0.5, 0.9, NAN, 0.6)),
    'min, keep 1, NaN and on': (best(1, 'min'), (0.5, 0.2, NAN, 0.4)),
    'max, keep 3, diverged': (best(3), (0.5, 0.9, 0.8, 0.7, NAN, NAN, NAN)),
    'BestN, keep 1, NaN and on': (by_policy(1), (0.5, 0.9, NAN, 0.6)),
    '-inf for NaN, keep 1': (best(1, function=no_nan), (0.5, 0.9, NAN, 0.6)),
}
EXPECTED = '[0.9] [nan] [0.6] [0.4] [nan, nan, nan] [0.6] [0.9]'


def look(options, metrics):
    """Save a step with each metric; return those of the steps that are left, and of the best by this and by a new manager."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
        with ocp.CheckpointManager(folder, options=options) as manager:
            for step, value in enumerate(metrics):
                weights = {'weights': numpy.full(3, step, numpy.float32)}
                manager.save(step, args=ocp.args.StandardSave(weights), metrics={'metric': value})
            manager.wait_until_finished()
            left, steps = manager.all_steps(), [manager.best_step()]
        with ocp.CheckpointManager(folder, options=options) as manager:
            steps.append(manager.best_step())
    return [metrics[step] for step in left], [metrics[step] for step in steps]


seen = []
for name, (options, metrics) in RUNS.items():
    left, steps = look(options, metrics)
    seen.append(str(left))
    print(f'{name:25}  {", ".join(map(str, metrics)):39}  left: {", ".join(map(str, left)):13}  best: {steps[0]}, new manager: {steps[1]}')
if ' '.join(seen) != EXPECTED:
    sys.exit('changed: orbax keeps other checkpoints by best_fn now')
END
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
