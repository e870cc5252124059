#!/usr/bin/env bash
# Guess: quantize_static(calibrate_method=CalibrationMethod.Entropy) clips a lone outlier of the calibration data, as the method of the
# least KL divergence does. MinMax would spend the whole 8 bits on the range up to it.
# Behaviour: it gives the range of MinMax, outlier included. Its histogram has as many bins, 128, as there are quantised bins, so the
# whole range is the only candidate. The calibrator has a keyword for more bins (num_bins); with 2048 it clips. quantize_static does not
# pass this keyword on, so there the method has no effect (unless data come in several ranges, see CalibStridedMinMax, which extends
# histograms). Why it matters: who compares calibration methods by quantize_static finds "entropy is no better than min-max", and who turns to
# it because of outliers keeps them.
# Packages: onnxruntime 1.32.0, onnx 1.23.2.
# Seen on 2026-11-29, range of an input of 65,536 normal values, one of them set to 40:
#   quantize_static: MinMax -4.54 to 39.96, Entropy -4.54 to 39.96
#   the calibrator itself: 128 bins -4.49 to 40.00, 2048 bins -4.49 to 5.16
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2
cat > "$folder/look.py" <<'END'
import contextlib
import io
import logging
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
from onnxruntime.quantization.calibrate import create_calibrator

folder = Path(sys.argv[1])
logging.disable(logging.WARNING)
random = np.random.default_rng(0)
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ['n', 16]) for name in ('x', 'y')]
weight = numpy_helper.from_array(random.standard_normal((16, 16)).astype(np.float32), 'weight')
graph = helper.make_graph([helper.make_node('MatMul', ['x', 'weight'], ['y'])], 'one product', ends[:1], ends[1:], [weight])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10), folder / 'float.onnx')
values = random.standard_normal((4096, 16)).astype(np.float32)
values[0, 0] = 40


class Reader(CalibrationDataReader):
    def __init__(self):
        self.parts = iter(np.split(values, 64))

    def get_next(self):
        part = next(self.parts, None)
        return None if part is None else {'x': part}


def quantised(method):
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(folder / 'float.onnx', folder / 'int8.onnx', Reader(), calibrate_method=method)
    found = {i.name: numpy_helper.to_array(i) for i in onnx.load(folder / 'int8.onnx').graph.initializer}
    scale, zero = float(found['x_scale']), int(found['x_zero_point'])
    return scale * (-128 - zero), scale * (127 - zero)


def calibrated(bins):
    with contextlib.redirect_stdout(io.StringIO()):
        calibrator = create_calibrator(
            folder / 'float.onnx', None, str(folder / 'a.onnx'), CalibrationMethod.Entropy, extra_options=dict(num_bins=bins)
        )
        calibrator.collect_data(Reader())
        return tuple(float(value) for value in calibrator.compute_data()['x'].range_value)


minmax, entropy = quantised(CalibrationMethod.MinMax), quantised(CalibrationMethod.Entropy)
few, many = calibrated(128), calibrated(2048)
print('quantize_static: MinMax {:.2f} to {:.2f}, Entropy {:.2f} to {:.2f}'.format(*minmax, *entropy))
print('the calibrator itself: 128 bins {:.2f} to {:.2f}, 2048 bins {:.2f} to {:.2f}'.format(*few, *many))
if minmax != entropy or entropy[1] < 39 or few[1] < 39 or many[1] > 10:
    sys.exit('changed: the entropy method of quantize_static clips outliers now, or its bins do not matter')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
