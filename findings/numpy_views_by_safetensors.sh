#!/usr/bin/env bash
# Guess: safetensors.numpy.save_file writes the values of an array, also of a transposed or sliced one, as np.save does, or refuses it, as
# safetensors.torch does for tensors that are not contiguous.
# Behaviour: 0.8.0 writes the memory from the array's first value on, in the order in which it lies there, under the array's shape. Names,
# shapes and types of the file are right, the weights are scrambled, and nothing is said. 0.7.0 wrote them right
# (safetensors/safetensors#825). Why it matters: kernels of TensorFlow and JAX (height, width, in, out) become PyTorch's by a transpose,
# dense weights by .T, and a head for some of the classes by a slice: all of these are views, and every strict load takes the file.
# np.ascontiguousarray before the call helps.
# Packages: safetensors 0.8.0 and 0.7.0, numpy 2.4.6.
# Seen on 2026-11-29 (share of values that come back):
#   safetensors 0.7.0: as it is 1.000, kernel transposed 1.000, dense .T 1.000, ten of the classes 1.000, transposed and made contiguous 1.000
#   safetensors 0.8.0: as it is 1.000, kernel transposed 0.000, dense .T 0.003, ten of the classes 0.031, transposed and made contiguous 1.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

random = np.random.default_rng(0)
kernel, dense = (random.standard_normal(shape, dtype=np.float32) for shape in ((3, 3, 16, 32), (32, 20)))
arrays = {
    'as it is': kernel,
    'kernel transposed': kernel.transpose(3, 2, 0, 1),
    'dense .T': dense.T,
    'ten of the classes': dense[:, :10],
    'transposed and made contiguous': np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)),
}
save_file(arrays, f'{sys.argv[1]}/a.safetensors')
found = load_file(f'{sys.argv[1]}/a.safetensors')
shares = {name: float((found[name] == array).mean()) for name, array in arrays.items()}
assert all(found[name].shape == array.shape and found[name].dtype == array.dtype for name, array in arrays.items())
print(f'safetensors {safetensors.__version__}: ' + ', '.join(f'{name} {share:.3f}' for name, share in shares.items()))
right = [share == 1 for share in shares.values()]
if right != [True, *[safetensors.__version__ == '0.7.0'] * 3, True]:
    sys.exit('changed: arrays that are views are written otherwise now')
END
for version in 0.7.0 0.8.0; do
    "$folder/venv/bin/pip" install -q safetensors==$version
    "$folder/venv/bin/python" "$folder/look.py" "$folder"
done
