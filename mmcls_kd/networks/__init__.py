"""Networks of any library as classifiers: found by name, built, with their input preprocessing and class names."""

from .classifiers import CifarClassifier, ModuleClassifier, TorchvisionClassifier
from .deit_token import DistilledDeiTClsHead
from .heads import BinaryClsHead
from .towers import BackboneNetwork, HuggingFaceTower, LinearHeadClassifier
from .zero_shot import ZeroShotClassifier

__all__ = [
    'BackboneNetwork',
    'BinaryClsHead',
    'CifarClassifier',
    'DistilledDeiTClsHead',
    'HuggingFaceTower',
    'LinearHeadClassifier',
    'ModuleClassifier',
    'TorchvisionClassifier',
    'ZeroShotClassifier',
]
