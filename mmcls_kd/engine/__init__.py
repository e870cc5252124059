"""The engine: loops, data, checkpoints and hooks that make a training robust, besides mmengine's own."""

from .amp import CPUAmpOptimWrapper
from .checkpoint_hook import ResumableCheckpointHook, last_whole_checkpoint
from .console import ConsoleRunner
from .data import PlacedSampler, SeededDataset, reproducible
from .dot import DOT, DOTWrapper
from .drawing import DrawingHook
from .knn_hook import KNNAgreementHook, KNNHook
from .live import LiveProgressHook
from .loops import ResumableEpochLoop, ResumableIterLoop
from .quantisation import FakeQuantHook
from .termination import BroadcastBuffersHook, TerminationError, TerminationHook
from .two_views import StrongAugment, TwoViews
from .unlabelled import MixedDataset, UnlabelledImages, WithoutLabels

__all__ = [
    'DOT',
    'BroadcastBuffersHook',
    'CPUAmpOptimWrapper',
    'ConsoleRunner',
    'DOTWrapper',
    'DrawingHook',
    'FakeQuantHook',
    'KNNAgreementHook',
    'KNNHook',
    'LiveProgressHook',
    'MixedDataset',
    'PlacedSampler',
    'ResumableCheckpointHook',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'SeededDataset',
    'StrongAugment',
    'TerminationError',
    'TerminationHook',
    'TwoViews',
    'UnlabelledImages',
    'WithoutLabels',
    'last_whole_checkpoint',
    'reproducible',
]
