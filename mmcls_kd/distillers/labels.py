"""Labels of a batch of mmpretrain's samples: indices, scores or several a sample, and samples without one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample, label_to_onehot
from torch import Tensor, nn

from ..networks.heads import BinaryClsHead, binary_labels, is_multi_label
from ..recipe.labels import UNLABELLED


def student_labels(student: nn.Module, logits: int) -> bool:
    """Return whether the student's labels do not exclude each other.

    Args:
        student: The student.
        logits: Its number of logits.

    Raises:
        ValueError: If it has one logit under a head of another kind.
    """
    if logits == 1 and not is_multi_label(student):
        kind = type(getattr(student, 'head', student)).__name__
        raise ValueError(
            f'model.student_cfg: {kind} has one logit, whose softmax is always 1: for two classes with one logit set '
            "head=dict(type='BinaryClsHead', in_channels=...), or give it num_classes=2"
        )
    return is_multi_label(student)


def compare_heads(student: nn.Module, teachers: Sequence[nn.Module]) -> None:
    """Warn where one of student and teacher is multi-label and the other not, as far as their heads say it.

    Args:
        student: The student.
        teachers: The teachers' networks.
    """
    ours = is_multi_label(student)
    for network in teachers:
        head = getattr(network, 'head', network)
        if is_multi_label(network) != ours and hasattr(head, 'loss_module'):
            kinds, part = ('several labels', 'one label'), 'classifier' if head is network else 'head'
            print_log(
                f'the teacher’s {part} ({type(head).__name__}) is for {kinds[ours]} an image, and the student’s for '
                f'{kinds[not ours]}: are its logits to be learnt so?',
                'current',
                logging.WARNING,
            )


def without_label(sample: DataSample) -> DataSample:
    """Mark a sample as one without a label, in place; it gets 0 in the label's place, for a preprocessor to count on."""
    if 'gt_score' in sample:
        del sample.gt_score
    sample.set_gt_label(0)
    sample.set_field(True, 'unlabelled', field_type='metainfo')
    return sample


def labelled(data_samples: Sequence[DataSample]) -> list[bool]:
    """Return whether each sample has a label."""
    for sample in data_samples:
        if 'gt_label' not in sample and 'gt_score' not in sample:
            without_label(sample)
    return [not sample.get('unlabelled', False) for sample in data_samples]


def batch_label(data_samples: Sequence[DataSample], head: Any = None, num_classes: int | None = None) -> Tensor:
    """Return the labels of a batch: scores (N, C) where samples have them (mixup, CutMix), or several; else indices (N,).

    Args:
        data_samples: The samples.
        head: The student's head; one of several labels a sample gives scores.
        num_classes: Number of logits.
    """
    if isinstance(head, BinaryClsHead):
        return binary_labels(list(data_samples))
    if 'gt_score' in data_samples[0]:
        return torch.stack([sample.gt_score for sample in data_samples])
    if isinstance(head, MultiLabelClsHead):
        return torch.stack([label_to_onehot(sample.gt_label, num_classes) for sample in data_samples])
    return torch.cat([sample.gt_label for sample in data_samples])


def without_unknown(labels: Tensor, known: Sequence[bool]) -> Tensor:
    """Return labels with −1 for the samples that have none."""
    if all(known):
        return labels
    mask = torch.tensor(known, device=labels.device)
    return torch.where(mask if labels.dim() == 1 else mask[:, None], labels, UNLABELLED)


@contextmanager
def task_of_labelled(head: Any, known: Sequence[bool]) -> Iterator[None]:
    """Compute a head's loss on the samples that have a label alone, in the ``with`` block.

    Args:
        head: The module that has ``loss_module``.
        known: Whether each sample has a label; where none has, the loss is that of all, see :func:`only_labelled`.

    Raises:
        ValueError: If the head has no such module.
    """
    if all(known) or not any(known):
        yield
        return
    if not hasattr(head, 'loss_module'):
        raise ValueError(f'images without labels: the head {type(head).__name__} has no `loss_module` to leave them out of')
    rows = [i for i, one in enumerate(known) if one]

    def select(_module: nn.Module, args: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        index = torch.tensor(rows, device=args[0].device)
        chosen = tuple(value[index] if isinstance(value, Tensor) and len(value) == len(known) else value for value in args)
        return chosen, {**keywords, **({'avg_factor': len(rows)} if 'avg_factor' in keywords else {})}

    handle = head.loss_module.register_forward_pre_hook(select, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def only_labelled(losses: Mapping[str, Any], known: Sequence[bool]) -> dict[str, Any]:
    """Return a head's losses for a batch with unlabelled samples: without accuracies, and 0 where no sample has a label."""
    if all(known):
        return dict(losses)
    return {key: value * any(known) for key, value in losses.items() if 'loss' in key}
