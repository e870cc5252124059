"""Methods for a teacher and a student on CIFAR-100, as the NKD authors ran them (arXiv 2303.13005, code)."""

offered = dict(
    srrl=dict(type='SRRLLoss', alpha=1.0, beta=5.0),
    mgd=dict(type='MGDLoss', alpha_mgd=1.2e-3, lambda_mgd=0.15),
    wsld=dict(type='WSLDLoss', temp=4.0, alpha=2.25, num_classes=100),
    dkd=dict(type='DKDLoss', temp=4.0, alpha=1.0, beta=8.0),
    kd=dict(type='KDLoss', temp=3.0, alpha=0.5),
    nkd=dict(type='NKDLoss', temp=3.0, gamma=3.5),
    simkd=dict(type='SimKD', factor=2),
    # as their own authors ran them (arXiv 1910.10699, 2310.19444)
    crd=dict(type='CRDLoss', loss_weight=0.8, nce_k=16384, nce_t=0.07, nce_m=0.5),
    ofa=dict(type='OFALoss', eps=1.0, temp=1.0),
)
