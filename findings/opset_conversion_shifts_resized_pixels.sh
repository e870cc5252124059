#!/usr/bin/env bash
# Guess: version_converter of onnx, which writes a network of an old opset as one of a new opset, keeps its results, or raises an error if it
# has no way to do so.
# Behaviour: a Resize of opset 10 and an Upsample of opset 9 take pixel x from x / scale ("asymmetric", the only way then). From opset 11 on, an
# attribute chooses, and its default is another: pixel centres ("half_pixel"). The converter does not write the attribute, so a linear Resize
# gives other pixels, without a warning; the shapes fit and the checker is content. OpenVINO reads both files as onnxruntime does.
# Downwards, a Softmax of opset 13 over an axis that is not the last becomes one over all axes from it on: other numbers, and again no word.
# Why it matters: old classifiers with a resize of the images or features inside are converted, because quantisers and runtimes want opset 13 or
# more; their other accuracy is then ascribed to quantisation. Write coordinate_transformation_mode='asymmetric' into each converted
# linear Resize. (The Resize is known to onnx as issue 8480 since September 2026.)
# Packages: onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6.
# Seen on 2026-11-30, opset 10 (Upsample 9) to 17, 2,000 images of 10 classes, network fitted to the old opset's features:
#   Resize   by   2  accuracy 0.733 to 0.403  other class 0.560, with the attribute 0.000
#   Resize   by 1.5  accuracy 0.925 to 0.909  other class 0.073, with the attribute 0.000
#   Resize   by 0.5  accuracy 0.995 to 1.000  other class 0.005, with the attribute 0.000
#   Upsample by   2  accuracy 0.733 to 0.403  other class 0.560, with the attribute 0.000
#   Softmax over 2 branches of 32 channels, sum of the branches: opset 13 1.000, opset 12 0.031
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter
from onnxruntime import InferenceSession

random = numpy.random.default_rng(0)
kernel, shift = random.normal(size=(64, 1, 5, 5)), random.normal(size=64)


def images(number):
    """Return noisy waves of ten directions, and the number of the direction."""
    labels, place = random.integers(10, size=number), numpy.arange(32)
    angle, phase = labels[:, None, None] * numpy.pi / 10, random.uniform(0, 2 * numpy.pi, (number, 1, 1))
    waves = numpy.sin((numpy.cos(angle) * place[:, None] + numpy.sin(angle) * place) / 2 + phase)
    return (waves + random.normal(size=waves.shape) * 0.7)[:, None].astype(numpy.float32), labels


def model(opset, nodes, shape, weights):
    """Return a model of these nodes from 'image' to 'logits'."""
    tensors = [numpy_helper.from_array(numpy.asarray(value, numpy.float32), name) for name, value in weights.items()]
    ends = [helper.make_tensor_value_info(*end) for end in (('image', TensorProto.FLOAT, shape), ('logits', TensorProto.FLOAT, None))]
    graph = helper.make_graph(nodes, 'classifier', ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=8)


def network(resize, scale, head=None):
    """Return a network that resizes, and then classifies by `head`; without it, the network of the features."""
    weights = {'scales': [1, 1, scale, scale], 'kernel': kernel, 'shift': shift}
    nodes = [
        helper.make_node(resize, ['image', 'scales'], ['resized'], mode='linear'),
        helper.make_node('Conv', ['resized', 'kernel', 'shift'], ['map']),
        helper.make_node('Relu', ['map'], ['positive']),
        helper.make_node('GlobalAveragePool', ['positive'], ['pooled']),
        helper.make_node('Flatten', ['pooled'], ['logits' if head is None else 'feature']),
    ]
    if head is not None:
        weights |= {'head': head[:-1], 'bias': head[-1]}
        nodes.append(helper.make_node('Gemm', ['feature', 'head', 'bias'], ['logits']))
    return model(9 if resize == 'Upsample' else 10, nodes, ['n', 1, 32, 32], weights)


def run(network, images):
    return InferenceSession(network.SerializeToString(), providers=['CPUExecutionProvider']).run(None, {'image': images})[0]


def fit(feature, labels):
    """Return the linear classifier of least squares on standardised features, bias last."""
    mean, deviation = feature.mean(0, dtype=float), feature.std(0, dtype=float) + 1e-6
    extended = numpy.c_[(feature - mean) / deviation, numpy.ones(len(feature))]
    head = numpy.linalg.lstsq(extended, numpy.eye(10)[labels], rcond=None)[0]
    return numpy.r_[head[:-1] / deviation[:, None], [head[-1] - (mean / deviation) @ head[:-1]]]


(trained, labels), (tested, right) = images(6000), images(2000)
seen = []
for resize, scale in (('Resize', 2), ('Resize', 1.5), ('Resize', 0.5), ('Upsample', 2)):
    old = network(resize, scale, fit(run(network(resize, scale), trained), labels))
    new = version_converter.convert_version(old, 17)
    onnx.checker.check_model(new, full_check=True)
    before, after = run(old, tested).argmax(1), run(new, tested).argmax(1)
    next(node for node in new.graph.node if node.op_type == 'Resize').attribute.append(
        helper.make_attribute('coordinate_transformation_mode', 'asymmetric')
    )
    mended = run(new, tested).argmax(1)
    seen.append(((before != after).mean(), (before != mended).mean()))
    print(f'{resize:8} by {scale:3}  accuracy {(before == right).mean():.3f} to {(after == right).mean():.3f}'
          f'  other class {seen[-1][0]:.3f}, with the attribute {seen[-1][1]:.3f}')
old = model(13, [helper.make_node('Softmax', ['image'], ['logits'], axis=1)], [1, 2, 32], {})
sums = [float(run(one, tested[:1, 0, :2]).sum(1).mean()) for one in (old, version_converter.convert_version(old, 12))]
print(f'Softmax over 2 branches of 32 channels, sum of the branches: opset 13 {sums[0]:.3f}, opset 12 {sums[1]:.3f}')
if seen[0][0] < 0.1 or seen[3][0] < 0.1 or max(mended for _, mended in seen) > 0.001 or abs(sums[1] - 1 / 32) > 0.001:
    sys.exit('changed: the converter keeps the results of Resize or Softmax now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
