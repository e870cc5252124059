"""The distillation losses: one method, one file; a pure function and the thin registered module around it."""

from .dist import DISTLoss, dist_loss
from .dkd import DKDLoss, dkd_loss
from .kd import KDLoss, kd_loss
from .lskd import LSKDLoss, lskd_loss
from .mgd import MGDLoss, mgd_loss
from .nkd import NKDLoss, nkd_loss
from .ofa import OFALogitLoss, ofa_logit_loss
from .srrl import SRRLLoss, srrl_loss
from .tfnkd import TFNKDLoss, tfnkd_loss
from .ttm import TTMLoss, WTTMLoss, ttm_loss, wttm_loss
from .uskd import USKDLoss, uskd_loss
from .vitkd import ViTKDLoss, vitkd_loss
from .wkd_logit import WKDLogitLoss, wkd_logit_loss
from .wsld import WSLDLoss, wsld_loss

__all__ = [
    'DISTLoss',
    'DKDLoss',
    'KDLoss',
    'LSKDLoss',
    'MGDLoss',
    'NKDLoss',
    'OFALogitLoss',
    'SRRLLoss',
    'TFNKDLoss',
    'TTMLoss',
    'USKDLoss',
    'ViTKDLoss',
    'WKDLogitLoss',
    'WSLDLoss',
    'WTTMLoss',
    'dist_loss',
    'dkd_loss',
    'kd_loss',
    'lskd_loss',
    'mgd_loss',
    'nkd_loss',
    'ofa_logit_loss',
    'srrl_loss',
    'tfnkd_loss',
    'ttm_loss',
    'uskd_loss',
    'vitkd_loss',
    'wkd_logit_loss',
    'wsld_loss',
    'wttm_loss',
]
