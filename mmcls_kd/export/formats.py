"""The formats of an export: functions that write a file, and functions that run it.

The tensors are called ``images`` (N, C, H, W) and ``logits`` (N, classes), or ``embedding`` (N, D) of a network without
classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: From torch 2.9 on, torch.export is the default of its ONNX exporter; before, tracing is.
BY_TORCH_EXPORT = tuple(int(part) for part in torch.__version__.split('.')[:2]) >= (2, 9)


def _onnx_model(network: nn.Module, example: Tensor, dynamic: bool, path: Path, opset: int) -> Any:
    """Convert a network to onnx's ModelProto; the file may be written on the way."""
    import onnx

    output = getattr(network, 'output', 'logits')
    options: dict[str, Any] = dict(input_names=['images'], output_names=[output], opset_version=opset)
    if BY_TORCH_EXPORT:
        shapes = ({0: torch.export.Dim('batch')},) if dynamic else None
        program: Any = torch.onnx.export(network, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False, **options)
        return program.model_proto
    axes = {name: {0: 'batch'} for name in ('images', output)}
    torch.onnx.export(network, (example,), str(path), dynamic_axes=axes if dynamic else None, **options)
    return onnx.load(str(path))


def write_onnx(network: nn.Module, example: Tensor, dynamic: bool, metadata: Mapping, path: Path, opset: int) -> None:
    """Write a network, from ``images`` to ``logits`` or ``embedding``, as an ONNX file; metadata are values in JSON.

    It takes any batch size if ``dynamic``, else the example's. Where torch writes another opset, it is refused.
    """
    import onnx

    model = _onnx_model(network, example, dynamic, path, opset)
    written = next(entry.version for entry in model.opset_import if entry.domain in ('', 'ai.onnx'))
    if written != opset:
        raise ValueError(f'torch {torch.__version__} writes this network in opset {written} and not in {opset}')
    for node in model.graph.node:
        node.ClearField('metadata_props')  # the exporter's stack traces: a third of a small file, and paths of this machine
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    path.write_bytes(model.SerializeToString())


def open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Check an ONNX file by onnx's checker, and load it into onnxruntime, as a function of images."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(None, {'images': images.numpy()})[0])


class FixedShape(nn.Module):
    """A network that refuses images of another shape than (N, C, H, W), with −1 for any batch size.

    It does so also when traced, because a trace may compute wrong results for them.
    """

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        super().__init__()
        self.network, self.shape = network, tuple(shape)

    def forward(self, images: Tensor) -> Tensor:
        """Run the network."""
        return self.network(images.expand(self.shape))  # changes nothing, and fails at another shape


def write_torchscript(network: nn.Module, example: Tensor, dynamic: bool, metadata: Mapping, path: Path, _: int) -> None:
    """Write a network as a TorchScript file; the arguments are those of :func:`write_onnx`.

    The metadata is the extra file ``metadata.json``.
    """
    shape = (-1 if dynamic else len(example), *example.shape[1:])
    traced = torch.jit.trace(FixedShape(network, shape), example, check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={'metadata.json': json.dumps(metadata)})


def open_torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    """Load a TorchScript file, as a function of images."""
    return torch.jit.load(str(path), map_location='cpu')


class Format(NamedTuple):
    """A format of files: suffix, function that writes it, function that opens it, and library that runs it."""

    suffix: str
    write: Callable[..., None]
    open: Callable[[Path], Callable[[Tensor], Tensor]]
    runtime: str


FORMATS = dict(
    onnx=Format('.onnx', write_onnx, open_onnx, 'onnxruntime'),
    torchscript=Format('.pt', write_torchscript, open_torchscript, 'torch.jit'),
)
