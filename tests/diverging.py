"""A loss for tests that becomes NaN when it is told to: registered by ``custom_imports``."""

import torch
from mmengine.dist import get_rank
from mmpretrain.registry import MODELS
from torch import nn


@MODELS.register_module()
class DivergingLoss(nn.Module):
    """The mean of the student's logits, times a factor of its own; NaN at some of its calls in one process.

    Args:
        calls: At which calls, from 0; the first is the look at one batch before training.
        rank: In which process.
    """

    def __init__(self, calls=(), rank=0):
        super().__init__()
        self.calls, self.rank, self.count = calls, rank, 0
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, logit_s):
        call, self.count = self.count, self.count + 1
        value = self.factor * logit_s.mean()
        return value * float('nan') if call in self.calls and get_rank() == self.rank else value
