"""Methods for any teacher and student, with the settings of their own authors or, where it is the accepted one, RepDistiller's.

Those whose authors have others for CIFAR-100 are set again in cifar100.py. The papers are in README's table.
"""

offered = dict(
    dist=dict(type='DISTLoss', temp=1.0, beta=1.0, gamma=1.0, loss_weight=2.0),
    lskd=dict(type='LSKDLoss', temp=2.0, loss_weight=9.0),
    ttm=dict(type='TTMLoss', gamma=0.1, loss_weight=45.0),  # of VGG-13 and VGG-8 on CIFAR-100
    wttm=dict(type='WTTMLoss', gamma=0.1),  # its loss_weight is set by pair
    ctkd=dict(type='KDLoss', alpha=0.9, divergence=True, curriculum=dict(start=1.0, range=20.0, epochs=10)),
    ofa_logit=dict(type='OFALogitLoss', eps=1.5, temp=1.0),
    ofa=dict(type='OFALoss', eps=1.5, temp=1.0),
    wkd_logit=dict(type='WKDLogitLoss', temp=2.0, gamma=30.0),  # of ResNet-34 and ResNet-18
    rkd=dict(type='RKDLoss', distance_weight=25.0, angle_weight=50.0),
    pkt=dict(type='PKTLoss', loss_weight=30000.0),
    cc=dict(type='CCLoss', loss_weight=0.02),
    normkd=dict(type='NormKDLoss', temp=1.0),
    normdkd=dict(type='NormDKDLoss', temp=2.0, alpha=1.0, beta=8.0, loss_weight=dict(value=1.0, warmup=20)),
    rld=dict(type='RLDLoss', temp=4.0, tau_alpha=1.0, alpha=1.0, beta=8.0, loss_weight=dict(value=1.0, warmup=1)),
    abkd=dict(type='ABKDLoss', alpha=0.8, beta=0.3, temp=4.0, loss_weight=64.0),  # of ResNet-56 and ResNet-20 on CIFAR-100
    # the smallest of the authors' alphas, 33 to 75 by pair, beside a task loss of weight 2
    luminet=dict(type='LumiNetLoss', temp=4.0, alpha=33.0, loss_weight=dict(value=0.5, warmup=20)),
    srd=dict(type='SRDLoss', exponent=4.0, temp=1.0),
    srd_correlation=dict(type='SRDCorrelationLoss'),
    pefd=dict(type='PEFDLoss', num_projectors=3, loss_weight=25.0),
    vkd=dict(type='VkDLoss'),
    crd=dict(type='CRDLoss', nce_k=16384, nce_t=0.07, nce_m=0.5, loss_weight=0.8),
)
