"""Methods on feature maps, with the settings of their own authors or RepDistiller's.

Where a network has a grid of tokens in the place of a map, it is taken as one.
"""

on_maps = dict(
    at=dict(type='ATLoss', stages=[1, 2, 3, 4], loss_weight=1000.0),
    sp=dict(type='SPLoss', loss_weight=3000.0),
    nst=dict(type='NSTLoss', loss_weight=50.0),
    vid=dict(type='VIDLoss', stages=[1, 2, 3, 4], init_pred_var=5.0),
    fitnet=dict(type='FitNetLoss', stages=[2], norm_act=True, loss_weight=100.0),
    wkd_feature=dict(type='WKDFeatureLoss', grid=1),  # its loss_weight is set by pair
    scalekd=dict(type='ScaleKDLoss'),
    reviewkd=dict(type='ReviewKDLoss', loss_weight=dict(value=1.0, warmup=1)),
    norm=dict(type='NORMLoss', parts=8),
    ickd=dict(type='ICKDLoss', loss_weight=4.0),
    semckd=dict(type='SemCKDLoss', loss_weight=50.0),  # beside KD of weight 1
    afd=dict(type='AFDLoss', qk_dim=128, loss_weight=200.0),
    ft=dict(type='FTLoss', rate=0.5, p1=2, p2=1, loss_weight=200.0),
)
# the same for networks whose stages end with a ReLU
on_preact_maps = dict(
    ab=dict(type='ABLoss', margin=1.0),
    ofd=dict(type='OFDLoss', loss_weight=1e-4),
)
# the same for networks whose stages have the same channels
on_equal_maps = dict(fsp=dict(type='FSPLoss', loss_weight=50.0))
# the same for networks whose class scores are made of the pooled map, as a CNN's are
on_pooled_maps = dict(
    simkd=dict(type='SimKD', factor=2),
    catkd=dict(type='CATKDLoss', resolution=2, normalize=True),  # its loss_weight is set by pair
    # around DKD as on ImageNet; its authors take KD and NKD, too
    sdd=dict(type='SDDLoss', loss=dict(type='DKDLoss', temp=1.0, alpha=1.0, beta=0.5), scales=[1, 2, 4]),
)
