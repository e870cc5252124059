"""Export to int8: an ONNX file quantised by onnxruntime; its accuracy, size and time beside those of the file in float."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..files.atomic import atomic_path
from .calibration import Images
from .exporting import ExportError, failures_named

#: Methods of calibration: names of onnxruntime's. Its entropy method gives the ranges of ``minmax`` as it is called by
#: ``quantize_static``: its histogram has as many bins as quantised ones, so nothing is left to choose.
CALIBRATIONS = dict(minmax='MinMax', percentile='Percentile')
#: Operators in 8 bits. Normalisation of layers, softmax and gating functions stay in float.
OPERATORS = (
    *('Conv', 'Gemm', 'MatMul', 'Add', 'Mul', 'Relu', 'Clip', 'LeakyRelu', 'Concat', 'Pad', 'Resize'),
    *('MaxPool', 'AveragePool', 'GlobalAveragePool'),
    *('Reshape', 'Flatten', 'Transpose', 'Squeeze', 'Unsqueeze', 'Slice', 'Split'),
)
#: Accepted loss of accuracy, in points.
ACCEPTED = 1.0
#: Images in a batch of measurement, single images that are timed, and images whose activations are held at a time.
BATCH, TIMED, RANGE = 32, 100, 16


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep back what onnxruntime's quantisation prints and logs through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def filled(batch: np.ndarray, size: int) -> np.ndarray:
    """Fill a batch up to a fixed size: the images of a smaller one are repeated.

    Example:
        >>> filled(np.array([3, 4]), 5)
        array([3, 4, 3, 4, 3])
    """
    return np.resize(batch, (size, *batch.shape[1:]))


class Reader:
    """Reader of calibration data, of the kind that onnxruntime asks for: full batches, in ranges one after another.

    The last batch is filled up, so that every image is read.

    Args:
        images: The images.
        size: Images in a batch.
    """

    def __init__(self, images: Images, size: int) -> None:
        self.batches, self.size = images.batches(size), size
        self.left = self.count = -(-images.count // size)

    def __len__(self) -> int:
        return self.count

    def set_range(self, start_index: int, end_index: int) -> None:
        """Begin the next range."""
        self.left = end_index - start_index

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch of the range; None at its end."""
        if self.left == 0:
            return None
        self.left -= 1
        return {'images': filled(next(self.batches)[0], self.size)}


def _batch_of(path: Path) -> int | None:
    """Return the batch size that a file is pinned to; None for any."""
    import onnx

    size = onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim[0]
    return size.dim_value or None


def quantise(path: Path, target: Path, images: Images, method: str = 'minmax', symmetric: bool = False) -> int:
    """Quantise an ONNX file: 8-bit weights, a scale for each output channel, and 8-bit activations, as Q/DQ nodes.

    Args:
        path: The exported file.
        target: The file to write.
        images: Calibration images.
        method: A key of :data:`CALIBRATIONS`.
        symmetric: Use the zero point 0 for activations too, as TensorRT does.

    Returns:
        The number of layers in 8 bits.

    Raises:
        ExportError: If onnxruntime cannot quantise it, or nothing in it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    form = dict(per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, quant_format=QuantFormat.QDQ)
    options: dict[str, Any] = dict(ActivationSymmetric=symmetric, WeightSymmetric=True)
    reader = Reader(images, _batch_of(path) or 1)
    if method == 'percentile':  # it holds all activations of a range, which by default is all images
        options['CalibStridedMinMax'] = next(part for part in range(RANGE, 0, -1) if len(reader) % part == 0)
    with atomic_path(target) as unfinished, TemporaryDirectory() as folder, _silent():
        with failures_named('onnxruntime cannot quantise this network'):
            quant_pre_process(str(path), f'{folder}/prepared.onnx')
            quantize_static(
                f'{folder}/prepared.onnx',
                str(unfinished),
                reader,
                op_types_to_quantize=list(OPERATORS),
                calibrate_method=getattr(CalibrationMethod, CALIBRATIONS[method]),
                extra_options=options,
                **form,
            )
            model = onnx.load(str(unfinished))
        if not (layers := layers_in_8_bits(model)):
            raise ExportError(f'{target} is not written: onnxruntime finds no convolution or matrix product to quantise')
        about = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
        facts = dict(images=images.count, source=images.source, method=method, symmetric=symmetric)
        about |= dict(precision=json.dumps('int8'), calibration=json.dumps(facts))
        onnx.helper.set_model_props(model, about)
        unfinished.write_bytes(model.SerializeToString())
    return layers


def layers_in_8_bits(model: Any) -> int:
    """Count the convolutions and matrix products of an ONNX model whose input and weight are quantised."""
    dequantised = {name for node in model.graph.node if node.op_type == 'DequantizeLinear' for name in node.output}
    kinds = ('Conv', 'Gemm', 'MatMul')
    return sum(n.op_type in kinds and all(name in dequantised for name in n.input[:2]) for n in model.graph.node)


def session(path: Path) -> Any:
    """Open an ONNX file in onnxruntime, on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


@dataclass(frozen=True)
class Row:
    """Measurements of one file.

    Attributes:
        name: ``'float'`` or ``'int8'``.
        top1: Accuracy in percent; None without labels or classes, and with several labels an image.
        agreement: Share of images, in percent, with the class, or with all the labels, that the file in float predicts; of
            embeddings the mean cosine similarity to those in float, in percent.
        size: Size of the file in bytes.
        milliseconds: Time of one image.
    """

    name: str
    top1: float | None
    agreement: float
    size: int
    milliseconds: float


def compare(files: Mapping[str, Path], images: Images, sigmoid: bool = False) -> list[Row]:
    """Run files over images, and time them on single ones, or on a batch of the size that they are pinned to.

    Args:
        files: Paths by name, the file in float first.
        images: The images, with labels or without.
        sigmoid: Whether each logit is a label of its own, predicted above 0: several labels an image, or one logit.

    Raises:
        ExportError: If a file gives logits that are no numbers.
    """
    sessions = {name: session(path) for name, path in files.items()}
    pinned, output = _batch_of(next(iter(files.values()))), next(iter(sessions.values())).get_outputs()[0].name
    hits, same, first, total = dict.fromkeys(files, 0), dict.fromkeys(files, 0.0), None, 0
    for batch, labels in images.batches(pinned or BATCH):
        given = filled(batch, pinned or len(batch))
        first = given if first is None else first
        outputs = {name: opened.run(None, {'images': given})[0][: len(batch)] for name, opened in sessions.items()}
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                raise ExportError(f'{files[name]} gives {output} that are no numbers')
        reference = outputs[next(iter(files))]
        total += len(batch)
        for name, values in outputs.items():
            if output == 'logits':
                predicted = predictions(values, sigmoid)
                hits[name] += int((predicted == labels[:, None]).all(1).sum())
                same[name] += int((predicted == predictions(reference, sigmoid)).all(1).sum())
            else:
                same[name] += similarity(values, reference)
    assert first is not None
    one_class = output == 'logits' and not (sigmoid and reference.shape[1] > 1)
    times = _milliseconds(sessions, first[: pinned or 1])
    return [
        Row(
            name,
            100 * hits[name] / total if images.labelled and one_class else None,
            100 * same[name] / total,
            path.stat().st_size,
            times[name],
        )
        for name, path in files.items()
    ]


def predictions(logits: np.ndarray, sigmoid: bool) -> np.ndarray:
    """Return the class of each image, (N, 1), or whether each of its labels is predicted, (N, labels)."""
    return logits > 0 if sigmoid else logits.argmax(1, keepdims=True)


def similarity(values: np.ndarray, reference: np.ndarray) -> float:
    """Return the sum of the cosine similarities of embeddings."""
    lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(reference, axis=1)
    return float(((values * reference).sum(1) / lengths.clip(1e-12)).sum())


def _milliseconds(sessions: Mapping[str, Any], batch: np.ndarray) -> dict[str, float]:
    """Return the median time of an image, in turns, after a few runs that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(TIMED + 10):
        for name, opened in sessions.items():
            start = time.perf_counter()
            opened.run(None, {'images': batch})
            if turn >= 10:
                taken[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(values)) / len(batch) for name, values in taken.items()}


def table(rows: Sequence[Row]) -> str:
    """Return the measurements as a table."""
    lines = [f'{"":<7}{"top-1 (%)":>10}{"as float (%)":>14}{"size (kB)":>12}{"ms/image":>10}']
    for row in rows:
        top1 = '–' if row.top1 is None else f'{row.top1:.2f}'
        lines.append(f'{row.name:<7}{top1:>10}{row.agreement:>14.2f}{row.size / 1e3:>12.1f}{row.milliseconds:>10.3f}')
    return '\n'.join(lines)


def lost(rows: Sequence[Row]) -> float:
    """Return the loss of the last file to the first in points: of accuracy, or of agreement where no image has a label."""
    first, last = rows[0], rows[-1]
    if first.top1 is None or last.top1 is None:
        return first.agreement - last.agreement
    return first.top1 - last.top1
