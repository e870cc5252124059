#!/usr/bin/env bash
# Guess: CalibMaxIntermediateOutputs=32 of onnxruntime's quantize_static makes it merge the ranges of every 32 calibration batches, to save memory,
# and the result is that of all batches at once. Its documentation says exactly this.
# Behaviour: when 32 batches are there, it deletes them without having looked at them. The ranges come from what is left at the end: of 130
# batches the last two, of 33 one. If the limit divides their number, nothing is left, and it raises "No data is collected", though it had all
# of them; then the reader seems to be at fault. No warning otherwise. It concerns MinMax, the default method; Percentile ignores the option.
# Why it matters: the option is for those with large networks or many images. Their int8 network is calibrated on a few images (of one class, if
# these come by class), clips the rest, and loses accuracy, which they will ascribe to int8.
# Packages: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6.
# Seen on 2026-11-30, 130 calibration images, their contrast falling from 4 to 0.1; 2,000 test images, share of the float network's classes:
#   limit none  range of the input  24.05  same class as float: 0.991
#   limit 200   range of the input  24.05  same class as float: 0.991
#   limit 32    range of the input   0.64  same class as float: 0.543
#   limit 13    ValueError: No data is collected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import logging
import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, quantize_static

folder = sys.argv[1]
logging.disable()  # it advises to optimise the network first, which changes nothing here
random = numpy.random.default_rng(0)
weights = {
    'kernel': random.normal(size=(16, 3, 3, 3)),
    'bias': random.normal(size=16) - 2,
    'head': random.normal(size=(16, 10)) / 4,
}
graph = helper.make_graph(
    [
        helper.make_node('Conv', ['image', 'kernel', 'bias'], ['map'], name='conv'),
        helper.make_node('Relu', ['map'], ['positive'], name='relu'),
        helper.make_node('GlobalAveragePool', ['positive'], ['pooled'], name='pool'),
        helper.make_node('Flatten', ['pooled'], ['feature'], name='flatten'),
        helper.make_node('MatMul', ['feature', 'head'], ['logits'], name='matmul'),
    ],
    'classifier',
    [helper.make_tensor_value_info('image', TensorProto.FLOAT, ['n', 3, 8, 8])],
    [helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['n', 10])],
    [numpy_helper.from_array(value.astype(numpy.float32), name) for name, value in weights.items()],
)
network = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=10)
onnx.save(network, f'{folder}/float.onnx')


def images(contrasts):
    """Return one image for each contrast."""
    return (random.normal(size=(len(contrasts), 3, 8, 8)) * contrasts[:, None, None, None]).astype(numpy.float32)


calibration = images(numpy.linspace(4, 0.1, 130))
tested = images(random.uniform(0.1, 4, 2000))


class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = iter(calibration)

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {'image': image[None]}


def classes(path):
    return InferenceSession(path, providers=['CPUExecutionProvider']).run(None, {'image': tested})[0].argmax(1)


def look(limit):
    """Return the width of the input's range and the share of classes that stayed, or the error."""
    path = f'{folder}/int8.onnx'
    options = {'CalibMaxIntermediateOutputs': limit} if limit else {}
    try:
        quantize_static(f'{folder}/float.onnx', path, Reader(), extra_options=options)
    except ValueError as error:
        return f'{type(error).__name__}: {error}'
    scale = next(numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer if value.name == 'image_scale')
    return float(scale) * 255, float((classes(path) == classes(f'{folder}/float.onnx')).mean())


seen = {}
for limit in (None, 200, 32, 13):
    seen[limit] = look(limit)
    if isinstance(seen[limit], str):
        print(f'limit {limit!s:4}  {seen[limit]}')
    else:
        width, share = seen[limit]
        print(f'limit {(limit or "none")!s:4}  range of the input {width:6.2f}  same class as float: {share:.3f}')
whole = seen[None]
if seen[200] != whole or isinstance(seen[32], str) or seen[32][0] > whole[0] / 10 or 'No data' not in str(seen[13]):
    sys.exit('changed: CalibMaxIntermediateOutputs deals otherwise with the calibration data now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
