"""Export of a classifier to ONNX and TorchScript: raw images in, logits out, checked by running the file."""

from .exporting import Exported, ExportError, check_libraries, export, targets
from .formats import FORMATS
from .network import Deployable, ImageFormat, image_format, load_classifier, metadata_of

__all__ = [
    'FORMATS',
    'Deployable',
    'ExportError',
    'Exported',
    'ImageFormat',
    'check_libraries',
    'export',
    'image_format',
    'load_classifier',
    'metadata_of',
    'targets',
]
