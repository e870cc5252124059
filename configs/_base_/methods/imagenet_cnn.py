"""Methods for a convolutional teacher and student on ImageNet.

The first six as the NKD authors ran them (arXiv 2303.13005, code), the others as their own authors did.
"""

_base_ = 'maps.py'

offered = dict(
    srrl=dict(type='SRRLLoss', alpha=1.0, beta=1.0),
    mgd=dict(type='MGDLoss', alpha_mgd=7e-5, lambda_mgd=0.15),
    wsld=dict(type='WSLDLoss', temp=2.0, alpha=2.5, num_classes=1000),
    dkd=dict(type='DKDLoss', temp=1.0, alpha=1.0, beta=0.5),
    kd=dict(type='KDLoss', temp=1.0, alpha=0.5),
    nkd=dict(type='NKDLoss', temp=1.0, gamma=1.5),
    # those below as their own authors weigh them, or RepDistiller does (arXiv 1910.10699, code)
    rkd=dict(type='RKDLoss', distance_weight=25.0, angle_weight=50.0),
    pkt=dict(type='PKTLoss', loss_weight=30000.0),
    cc=dict(type='CCLoss', loss_weight=0.02),
    at=dict(type='ATLoss', stages=[1, 2, 3, 4], loss_weight=1000.0),
    sp=dict(type='SPLoss', loss_weight=3000.0),
    nst=dict(type='NSTLoss', loss_weight=50.0),
    vid=dict(type='VIDLoss', stages=[1, 2, 3, 4], init_pred_var=5.0),
    fitnet=dict(type='FitNetLoss', stages=[2], loss_weight=100.0),
    wkd_feature=dict(type='WKDFeatureLoss', grid=1),
    reviewkd=dict(type='ReviewKDLoss', loss_weight=dict(value=1.0, warmup=1)),
)
