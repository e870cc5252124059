"""Methods for vision transformers on ImageNet.

The first five as the ViTKD and NKD authors ran them (arXiv 2209.02432, 2303.13005, code), the others as their own authors did,
with CNNs as a rule.
"""

offered = dict(
    vitkd=dict(type='ViTKDLoss', alpha_vitkd=3e-5, beta_vitkd=3e-6, lambda_vitkd=0.5),
    wsld=dict(type='WSLDLoss', temp=2.0, alpha=2.5, num_classes=1000),
    dkd=dict(type='DKDLoss', temp=1.0, alpha=1.0, beta=0.5),
    nkd=dict(type='NKDLoss', temp=1.0, gamma=1.0),
    kd=dict(type='KDLoss', temp=1.0, alpha=0.5),
    dist=dict(type='DISTLoss', temp=1.0, beta=1.0, gamma=1.0, loss_weight=2.0),
    lskd=dict(type='LSKDLoss', temp=2.0, loss_weight=9.0),
    ttm=dict(type='TTMLoss', gamma=0.1, loss_weight=45.0),  # of VGG-13 and VGG-8 on CIFAR-100
    wttm=dict(type='WTTMLoss', gamma=0.1),  # its loss_weight is set by pair
    ofa_logit=dict(type='OFALogitLoss', eps=1.5, temp=1.0),
    wkd_logit=dict(type='WKDLogitLoss', temp=2.0, gamma=1.0, loss_weight=30.0),  # of ResNet-34 and ResNet-18
)
