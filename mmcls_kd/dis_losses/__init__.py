"""The distillation losses, one method a file: a pure function and the thin registered module around it."""

from .ab import ABLoss, ab_loss
from .abkd import ABKDLoss, abkd_loss
from .afd import AFDLoss, afd_loss
from .at import ATLoss, at_loss
from .base import DistillLoss
from .catkd import CATKDLoss, cat_loss
from .cc import CCLoss, cc_loss
from .crd import CRDLoss, nce_loss
from .crld import CRLDLoss, crld_loss
from .deit_token import DeiTTokenLoss, deit_token_loss
from .dist import DISTLoss, dist_loss
from .dkd import DKDLoss, dkd_loss
from .embedding import EmbeddingLoss, embedding_loss
from .fitnet import FitNetLoss, fitnet_loss
from .fsp import FSPLoss, fsp_loss
from .ft import FTLoss, ft_loss
from .ickd import ICKDLoss, ickd_loss
from .kd import KDLoss, kd_loss
from .lskd import LSKDLoss, lskd_loss
from .luminet import LumiNetLoss, luminet_loss
from .mgd import MGDLoss, mgd_loss
from .mlkd import MLKDLoss, mlkd_loss
from .nkd import NKDLoss, nkd_loss
from .norm import NORMLoss, norm_loss
from .normkd import NormDKDLoss, NormKDLoss, normdkd_loss, normkd_loss
from .nst import NSTLoss, nst_loss
from .ofa import OFALogitLoss, ofa_logit_loss
from .ofa_exits import OFALoss, ofa_loss
from .ofd import OFDLoss, ofd_loss, ofd_margin
from .pefd import PEFDLoss, pefd_loss
from .pkt import PKTLoss, pkt_loss
from .queue import QueueLoss, queue_loss
from .reviewkd import ReviewKDLoss, hcl_loss
from .rkd import RKDLoss, rkd_loss
from .rld import RLDLoss, rld_loss
from .scalekd import ScaleKDLoss, dual_view_loss
from .sdd import SDDLoss
from .semckd import SemCKDLoss, semckd_loss
from .sigmoid_kd import SigmoidKDLoss, sigmoid_kd_loss
from .simkd import SimKD, simkd_loss
from .sp import SPLoss, sp_loss
from .srd import SRDCorrelationLoss, SRDLoss, srd_correlation_loss, srd_loss
from .srrl import SRRLLoss, srrl_loss
from .tfnkd import TFNKDLoss, tfnkd_loss
from .ttm import TTMLoss, WTTMLoss, ttm_loss, wttm_loss
from .uskd import USKDLoss, uskd_loss
from .vid import VIDLoss, vid_loss
from .vitkd import ViTKDLoss, vitkd_loss
from .vkd import VkDLoss, vkd_loss
from .wkd_feature import WKDFeatureLoss, wkd_feature_loss
from .wkd_logit import WKDLogitLoss, wkd_logit_loss
from .wsld import WSLDLoss, wsld_loss

__all__ = [
    'ABKDLoss',
    'ABLoss',
    'AFDLoss',
    'ATLoss',
    'CATKDLoss',
    'CCLoss',
    'CRDLoss',
    'CRLDLoss',
    'DISTLoss',
    'DKDLoss',
    'DeiTTokenLoss',
    'DistillLoss',
    'EmbeddingLoss',
    'FSPLoss',
    'FTLoss',
    'FitNetLoss',
    'ICKDLoss',
    'KDLoss',
    'LSKDLoss',
    'LumiNetLoss',
    'MGDLoss',
    'MLKDLoss',
    'NKDLoss',
    'NORMLoss',
    'NSTLoss',
    'NormDKDLoss',
    'NormKDLoss',
    'OFALogitLoss',
    'OFALoss',
    'OFDLoss',
    'PEFDLoss',
    'PKTLoss',
    'QueueLoss',
    'RKDLoss',
    'RLDLoss',
    'ReviewKDLoss',
    'SDDLoss',
    'SPLoss',
    'SRDCorrelationLoss',
    'SRDLoss',
    'SRRLLoss',
    'ScaleKDLoss',
    'SemCKDLoss',
    'SigmoidKDLoss',
    'SimKD',
    'TFNKDLoss',
    'TTMLoss',
    'USKDLoss',
    'VIDLoss',
    'ViTKDLoss',
    'VkDLoss',
    'WKDFeatureLoss',
    'WKDLogitLoss',
    'WSLDLoss',
    'WTTMLoss',
    'ab_loss',
    'abkd_loss',
    'afd_loss',
    'at_loss',
    'cat_loss',
    'cc_loss',
    'crld_loss',
    'deit_token_loss',
    'dist_loss',
    'dkd_loss',
    'dual_view_loss',
    'embedding_loss',
    'fitnet_loss',
    'fsp_loss',
    'ft_loss',
    'hcl_loss',
    'ickd_loss',
    'kd_loss',
    'lskd_loss',
    'luminet_loss',
    'mgd_loss',
    'mlkd_loss',
    'nce_loss',
    'nkd_loss',
    'norm_loss',
    'normdkd_loss',
    'normkd_loss',
    'nst_loss',
    'ofa_logit_loss',
    'ofa_loss',
    'ofd_loss',
    'ofd_margin',
    'pefd_loss',
    'pkt_loss',
    'queue_loss',
    'rkd_loss',
    'rld_loss',
    'semckd_loss',
    'sigmoid_kd_loss',
    'simkd_loss',
    'sp_loss',
    'srd_correlation_loss',
    'srd_loss',
    'srrl_loss',
    'tfnkd_loss',
    'ttm_loss',
    'uskd_loss',
    'vid_loss',
    'vitkd_loss',
    'vkd_loss',
    'wkd_feature_loss',
    'wkd_logit_loss',
    'wsld_loss',
    'wttm_loss',
]

#: Each loss of the toolbox by the name of its class, which is its ``type`` in a config.
LOSSES: dict[str, type[DistillLoss]] = {
    name: value for name in __all__ if isinstance(value := globals()[name], type) and value is not DistillLoss
}
