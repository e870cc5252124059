"""Heads whose labels do not exclude each other: how they are recognised, and one for two classes with a single logit."""

from __future__ import annotations

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.models.heads import MultiLabelClsHead, MultiLabelLinearClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn


def is_multi_label(network: nn.Module) -> bool:
    """Return whether a classifier of mmpretrain's has a head of sigmoids: several labels an image, or one logit."""
    return isinstance(getattr(network, 'head', None), MultiLabelClsHead)


def label_count(network: nn.Module, logits: int | None) -> int | None:
    """Return the number of valid labels of a classifier: of one logit two.

    Args:
        network: The classifier, or a distiller.
        logits: Its number of logits, if known.
    """
    return 2 if isinstance(getattr(network, 'head', None), BinaryClsHead) else logits


def probabilities(network: nn.Module, logit: Tensor) -> Tensor:
    """Return the probability of each class or label, (N, C), from a classifier's logits; one logit gives those of two."""
    if not is_multi_label(network):
        return logit.softmax(dim=1)
    found = logit.sigmoid()
    return torch.cat([1 - found, found], dim=1) if isinstance(network.head, BinaryClsHead) else found


@MODELS.register_module()
class BinaryClsHead(MultiLabelLinearClsHead):
    """A linear head with one logit, for images of two classes with labels 0 and 1: p = σ(z) is the probability of class 1.

    Trained by the binary cross entropy. Its predictions are those of two classes, (1 − p, p), so that metrics and class
    names of two classes apply.

    Args:
        in_channels: Number of channels of its input.
        num_classes: Number of logits; only 1.
        thr: Least p for the label (``pred_label``) to be class 1; accuracy, precision and recall of two classes go by the
            likelier one, so that another value than 0.5 is warned of.
        **keywords: Others of mmpretrain's ``MultiLabelLinearClsHead``.

    Raises:
        ValueError: If the number of logits is not 1.
    """

    def __init__(self, in_channels: int, num_classes: int = 1, thr: float = 0.5, **keywords: Any) -> None:
        if num_classes != 1:
            raise ValueError(
                f'BinaryClsHead has one logit for two classes (num_classes=1), not {num_classes}: take LinearClsHead for '
                'two logits, MultiLabelLinearClsHead for several labels an image'
            )
        if thr != 0.5:
            print_log(
                f'BinaryClsHead: thr={thr} is that of pred_label alone: accuracy, precision and recall go by the likelier '
                'class; for others compare the probability of class 1 (pred_score) with it',
                'current',
                logging.WARNING,
            )
        super().__init__(num_classes, in_channels, thr=thr, **keywords)

    def _get_loss(self, cls_score: Tensor, data_samples: list[DataSample], **keywords: Any) -> dict[str, Tensor]:
        """Return the loss, with the label, or of mixed images the score of class 1, as the target."""
        target = binary_labels(data_samples).to(cls_score.dtype)[:, None]
        return dict(loss=self.loss_module(cls_score, target, avg_factor=len(cls_score), **keywords))

    def _get_predictions(self, cls_score: Tensor, data_samples: list[DataSample] | None) -> list[DataSample]:
        """Set the scores of both classes, and the label."""
        samples = data_samples or [DataSample() for _ in cls_score]
        for sample, score in zip(samples, cls_score.sigmoid(), strict=True):
            sample.set_pred_score(torch.cat([1 - score, score])).set_pred_label((score >= self.thr).long())
        return samples


def binary_labels(data_samples: list[DataSample]) -> Tensor:
    """Return the label of each sample, (N,): 0 or 1, or the share of class 1 in its scores."""
    if 'gt_score' in data_samples[0]:
        return torch.stack([sample.gt_score for sample in data_samples])[:, -1]
    return torch.cat([sample.gt_label for sample in data_samples])
