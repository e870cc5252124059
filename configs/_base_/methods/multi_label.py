"""Methods for classifiers with several labels an image, or with one logit for two classes: sigmoid KD, and those on features.

Sigmoid KD is the term on logits of L2D (arXiv 2308.06453) with its authors' weight; their cross entropy is summed over the batch,
and mmpretrain's is its mean.
"""

_base_ = ['imagenet_cnn.py']

offered = dict(
    _delete_=True,  # so that this one comes first
    sigmoid_kd=dict(type='SigmoidKDLoss', temp=1.0, reduction='sum', loss_weight=10.0),
    **{
        name: _base_.offered[name]
        for name in (
            *('srrl', 'mgd', 'rkd', 'pkt', 'cc', 'crd', 'at', 'sp', 'nst', 'vid', 'fitnet', 'wkd_feature', 'reviewkd'),
            *('ickd', 'semckd', 'afd', 'ft', 'norm'),
        )
    },
)
