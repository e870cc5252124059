"""Methods for a teacher and a student on CIFAR-100.

The first six as the NKD authors ran them (arXiv 2303.13005, code), the others as their own authors did.
"""

offered = dict(
    srrl=dict(type='SRRLLoss', alpha=1.0, beta=5.0),
    mgd=dict(type='MGDLoss', alpha_mgd=1.2e-3, lambda_mgd=0.15),
    wsld=dict(type='WSLDLoss', temp=4.0, alpha=2.25, num_classes=100),
    dkd=dict(type='DKDLoss', temp=4.0, alpha=1.0, beta=8.0),
    kd=dict(type='KDLoss', temp=3.0, alpha=0.5),
    nkd=dict(type='NKDLoss', temp=3.0, gamma=3.5),
    dist=dict(type='DISTLoss', temp=4.0, beta=1.0, gamma=1.0, loss_weight=2.0),
    lskd=dict(type='LSKDLoss', temp=2.0, loss_weight=9.0),
    ttm=dict(type='TTMLoss', gamma=0.1, loss_weight=45.0),  # of VGG-13 and VGG-8 on CIFAR-100
    wttm=dict(type='WTTMLoss', gamma=0.1),  # its loss_weight is set by pair
    ofa_logit=dict(type='OFALogitLoss', eps=1.0, temp=1.0),
    wkd_logit=dict(type='WKDLogitLoss', temp=2.0, gamma=1.0, loss_weight=30.0),  # of ResNet-34 and ResNet-18 on ImageNet
)
