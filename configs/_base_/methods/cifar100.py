"""Methods for a teacher and a student on CIFAR-100.

The first six as the NKD authors ran them (arXiv 2303.13005, code), the others as their own authors did.
"""

_base_ = ['any_pair.py', 'maps.py']

offered = dict(
    _delete_=True,  # so that these come first
    srrl=dict(type='SRRLLoss', alpha=1.0, beta=5.0),
    mgd=dict(type='MGDLoss', alpha_mgd=1.2e-3, lambda_mgd=0.15),
    wsld=dict(type='WSLDLoss', temp=4.0, alpha=2.25, num_classes=100),
    dkd=dict(type='DKDLoss', temp=4.0, alpha=1.0, beta=8.0),
    kd=dict(type='KDLoss', temp=3.0, alpha=0.5),
    nkd=dict(type='NKDLoss', temp=3.0, gamma=3.5),
    **_base_.offered,
    **_base_.on_maps,
    **_base_.on_pooled_maps,
    **_base_.on_equal_maps,
    **_base_.on_preact_maps,
)
offered['dist'] = dict(type='DISTLoss', temp=4.0, beta=1.0, gamma=1.0, loss_weight=2.0)
offered['ofa_logit'] = dict(type='OFALogitLoss', eps=1.0, temp=1.0)
offered['ofa'] = dict(type='OFALoss', eps=1.0, temp=1.0)
offered['reviewkd'] = dict(type='ReviewKDLoss', loss_weight=dict(value=1.0, warmup=20))
offered['semckd'] = dict(type='SemCKDLoss', loss_weight=400.0)
offered['ofd'] = dict(type='OFDLoss', loss_weight=1e-3)
offered['sdd'] = dict(
    type='SDDLoss',
    loss=dict(type='DKDLoss', temp=4.0, alpha=1.0, beta=8.0),
    scales=[1, 2, 4],
    loss_weight=dict(value=1.0, warmup=20),
)
offered['normkd'] = dict(type='NormKDLoss', temp=2.0, loss_weight=9.0)
offered['rld'] = dict(_base_.offered['rld'], loss_weight=dict(value=1.0, warmup=20))
