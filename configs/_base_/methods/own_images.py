"""Every method, for any number of classes and images: those of ImageNet's CNNs and ViTKD, sizes found by the dry run."""

_base_ = ['imagenet_cnn.py']

offered = dict(
    wsld=dict(_delete_=True, type='WSLDLoss', temp=2.0, alpha=2.5),
    crd=dict(nce_k=None),  # the authors' 16,384, or all other images where there are fewer
    **_base_.on_equal_maps,
    **_base_.on_preact_maps,
    vitkd=dict(type='ViTKDLoss', alpha_vitkd=3e-5, beta_vitkd=3e-6, lambda_vitkd=0.5),  # two vision transformers
    embedding=dict(type='EmbeddingLoss', kind='both'),
    queue=dict(type='QueueLoss', queue_size=8192, tau=0.07),
)
