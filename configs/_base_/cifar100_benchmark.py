"""The protocol of the CIFAR-100 distillation benchmark (RepDistiller's), for one device: docs/cifar100_benchmark.md.

The last epoch's accuracy is the benchmark's; mdistiller's papers have the best epoch's, which is saved too. The settings of
mmpretrain's runtime are written out: a study reads these files hundreds of times.
"""

_base_ = ['datasets/cifar100_benchmark.py', 'schedules/cifar100_benchmark_240e.py']
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmcls_kd'], allow_failed_imports=False)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=10, max_keep_ckpts=1, save_best='accuracy/top1'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, diff_rank_seed=True)
