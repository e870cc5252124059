"""The distillation losses: one method, one file; a pure function and the thin registered module around it."""

from .crd import CRDLoss, nce_loss
from .dkd import DKDLoss, dkd_loss
from .kd import KDLoss, kd_loss
from .mgd import MGDLoss, mgd_loss
from .nkd import NKDLoss, nkd_loss
from .ofa import OFALogitLoss, ofa_logit_loss
from .ofa_exits import OFALoss, ofa_loss
from .srrl import SRRLLoss, srrl_loss
from .tfnkd import TFNKDLoss, tfnkd_loss
from .uskd import USKDLoss, uskd_loss
from .vitkd import ViTKDLoss, vitkd_loss
from .wsld import WSLDLoss, wsld_loss

__all__ = [
    'CRDLoss',
    'DKDLoss',
    'KDLoss',
    'MGDLoss',
    'NKDLoss',
    'OFALogitLoss',
    'OFALoss',
    'SRRLLoss',
    'TFNKDLoss',
    'USKDLoss',
    'ViTKDLoss',
    'WSLDLoss',
    'dkd_loss',
    'kd_loss',
    'mgd_loss',
    'nce_loss',
    'nkd_loss',
    'ofa_logit_loss',
    'ofa_loss',
    'srrl_loss',
    'tfnkd_loss',
    'uskd_loss',
    'vitkd_loss',
    'wsld_loss',
]
