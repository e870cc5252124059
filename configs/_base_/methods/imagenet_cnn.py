"""Methods for a convolutional teacher and student on ImageNet.

The first six as the NKD authors ran them (arXiv 2303.13005, code), the others as their own authors did.
"""

_base_ = ['any_pair.py', 'maps.py']

offered = dict(
    _delete_=True,  # so that these come first
    srrl=dict(type='SRRLLoss', alpha=1.0, beta=1.0),
    mgd=dict(type='MGDLoss', alpha_mgd=7e-5, lambda_mgd=0.15),
    wsld=dict(type='WSLDLoss', temp=2.0, alpha=2.5, num_classes=1000),
    dkd=dict(type='DKDLoss', temp=1.0, alpha=1.0, beta=0.5),
    kd=dict(type='KDLoss', temp=1.0, alpha=0.5),
    nkd=dict(type='NKDLoss', temp=1.0, gamma=1.5),
    **_base_.offered,
    **_base_.on_maps,
    **_base_.on_pooled_maps,
)
