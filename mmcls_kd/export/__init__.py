"""Export of a classifier to ONNX, in float and int8, and TorchScript: raw images in, logits out, checked by running it."""

from .calibration import Images, calibration_images, measured_images
from .exporting import Exported, ExportError, check_libraries, export, targets
from .formats import FORMATS
from .int8 import ACCEPTED, CALIBRATIONS, compare, lost, quantise, table
from .network import Deployable, ImageFormat, image_format, load_classifier, metadata_of

__all__ = [
    'ACCEPTED',
    'CALIBRATIONS',
    'FORMATS',
    'Deployable',
    'ExportError',
    'Exported',
    'ImageFormat',
    'Images',
    'calibration_images',
    'check_libraries',
    'compare',
    'export',
    'image_format',
    'load_classifier',
    'lost',
    'measured_images',
    'metadata_of',
    'quantise',
    'table',
    'targets',
]
