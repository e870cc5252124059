"""Methods on the CIFAR-100 distillation benchmark, with RepDistiller's weights, or those of the method's own authors.

A pair adds its own weights, and the stages of losses on all maps: those of its networks.
"""

_base_ = 'cifar100.py'
offered = dict(
    kd=dict(temp=4.0, alpha=0.9, divergence=True),
    dkd=dict(temp=4.0, alpha=1.0, beta=8.0, loss_weight=dict(value=1.0, warmup=20)),
    normkd=dict(temp=2.0, task_weight=0.1, loss_weight=0.9),
    norm=dict(task_weight=0.1),  # 1.0 beside kd, which has it
)
