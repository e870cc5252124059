"""The protocol of the CIFAR-100 distillation benchmark (RepDistiller's), for one device: docs/cifar100_benchmark.md.

The last epoch's accuracy is the benchmark's; mdistiller's papers have the best epoch's, which is saved too.
"""

_base_ = [
    'mmpretrain::_base_/default_runtime.py',
    'datasets/cifar100_benchmark.py',
    'schedules/cifar100_benchmark_240e.py',
]
custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
randomness = dict(seed=0, diff_rank_seed=True)
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=1, save_best='accuracy/top1'))
