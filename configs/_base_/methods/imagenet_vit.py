"""Methods for vision transformers on ImageNet.

The first five as the ViTKD and NKD authors ran them (arXiv 2209.02432, 2303.13005, code), the others as their own authors did,
with CNNs as a rule.
"""

_base_ = 'any_pair.py'

offered = dict(
    _delete_=True,  # so that these come first
    vitkd=dict(type='ViTKDLoss', alpha_vitkd=3e-5, beta_vitkd=3e-6, lambda_vitkd=0.5),
    wsld=dict(type='WSLDLoss', temp=2.0, alpha=2.5, num_classes=1000),
    dkd=dict(type='DKDLoss', temp=1.0, alpha=1.0, beta=0.5),
    nkd=dict(type='NKDLoss', temp=1.0, gamma=1.0),
    kd=dict(type='KDLoss', temp=1.0, alpha=0.5),
    **_base_.offered,
)
