"""SGD with Nesterov momentum, one cycle over the whole training."""

epochs = 8
iterations = 469  # an epoch: 30,000 images in batches of 64
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(
    type='OneCycleLR', eta_max=0.1, div_factor=5, pct_start=0.2, total_steps=epochs * iterations, by_epoch=False
)
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
