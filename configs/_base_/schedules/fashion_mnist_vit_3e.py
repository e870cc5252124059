"""AdamW for small vision transformers, one cycle over the whole training."""

epochs = 3
iterations = 469  # an epoch: 60,000 images in batches of 128
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05), clip_grad=dict(max_norm=5.0))
param_scheduler = dict(type='OneCycleLR', eta_max=4e-3, total_steps=epochs * iterations, pct_start=0.2, by_epoch=False)
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
