"""The head of a DeiT with a distillation token, for training."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.heads import DeiTClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor


@MODELS.register_module()
class DistilledDeiTClsHead(DeiTClsHead):
    """mmpretrain's ``DeiTClsHead``, which can be trained: the logits of both tokens in training, their mean in testing.

    The task loss is that of the class token's logits. Those of the distillation token are the tap ``logit_token``, which
    ``DeiTTokenLoss`` reads. Weights have the names of mmpretrain's head.

    Args:
        *args: As in mmpretrain's head.
        **kwargs: As in mmpretrain's head.
    """

    def forward(self, feats: tuple) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits of class and distillation token, (N, C) each, in training, else their mean."""
        cls_token, dist_token = self.pre_logits(feats)
        both = self.layers.head(cls_token), self.layers.head_dist(dist_token)
        return both if self.training else (both[0] + both[1]) / 2

    def loss(self, feats: tuple, data_samples: list[DataSample], **kwargs: Any) -> dict[str, Tensor]:
        """Compute the loss of the class token's logits; in eval mode, of the mean."""
        found = self(feats)
        return self._get_loss(found[0] if isinstance(found, tuple) else found, data_samples, **kwargs)
