"""Methods that read a weak and a strong view of each image, with the settings of their authors for CIFAR-100.

The train pipeline has to give both, see docs/two_views.md. The task loss is that of both views.
"""

offered = dict(
    mlkd=dict(type='MLKDLoss', temps=(4.0, 3.0, 5.0, 2.0, 6.0), task_weight=0.1, loss_weight=0.9),
    crld=dict(type='CRLDLoss', temp=4.0, within_weight=2.0, cross_weight=0.5, tau_weak=0.9, tau_strong=0.2),
)
