"""The base class of the distillation losses: a loss's inputs, and the settings that a distiller has to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class DistillLoss(nn.Module):
    r"""Base class of a distillation loss.

    The parameters of :meth:`forward` without a default are its **inputs**: a distiller passes them by name. ``gt_label`` is
    the label, ``sample_idx`` the index of each sample in the training set, ``teacher_head`` the teacher's classifier of
    feature maps, ``student_weight``, ``student_bias``, ``teacher_weight`` and ``teacher_bias`` the parameters of the linear
    classifiers behind the pooled ``feat``; the other names are features of :mod:`mmcls_kd.features.taps` with ``_s``
    (student) or ``_t`` (teacher) appended, such as ``logit_s`` and ``feat_t``. With ``_strong``
    appended, too (``logit_s_strong``), they are those of the strong view of each image. All class attributes below are
    optional.
    A module without any of them is a loss, too.

    Attributes:
        sizes: Constructor keywords that are the size of an input, each as (input, dimension); a dry run of the networks
            fills in those that are not given, and checks those that are.
        facts: Constructor keywords that a distiller knows, each as the name of the fact, or as (name, function of its
            value): ``num_samples``, ``batch_size``, ``teacher_weight`` (weight of the teacher's linear classifier),
            ``teacher_head``.
        needed_facts: Those of them that the loss requires, each with the error message.
        files: Constructor keywords that may be the path of a file, each with the key of the value in that file.
        task_weight: Factor of the task loss.
        task_views: Views of the task loss, ``'weak'``, ``'strong'`` or both; the losses of both views are added.
        needs: ``'softmax'`` for a loss that compares or predicts probabilities of classes that exclude each other: a student
            with several labels an image, or with one logit, refuses it. None for a loss that fits all.
        memories: Names of buffers that remember samples; a moving average of the model shares them.
        several_teachers: Whether ``vector_t`` may be a tuple, one embedding for each of several teachers.
        first_phase: Number of steps at the start of a training in which the student learns nothing from the loss.
        masks_target: Whether the temperature softens the classes other than the target alone.
        temp: Temperature; only losses that have one have this attribute, and only they can learn it (``curriculum``).

    A loss whose keywords decide on inputs gives those a default in ``forward``. Its static method ``further_inputs`` takes
    the keywords that are given, as a dict, and returns the names of these inputs that it reads.

    A loss that has a method ``predict_logit`` makes the predictions instead of the student's classifier; its parameters are
    features of the student. Its static method ``deployed`` returns the settings of the network that predicts so without a
    teacher.

    Example:
        >>> import torch
        >>> class CosineLoss(DistillLoss):
        ...     def forward(self, vector_s, vector_t):
        ...         return 1 - torch.cosine_similarity(vector_s, vector_t).mean()
        >>> CosineLoss()(vector_s=torch.ones(2, 4), vector_t=2 * torch.ones(2, 4))
        tensor(0.)
    """

    sizes: Mapping[str, tuple[str, int]] = {}
    facts: Mapping[str, str | tuple[str, Callable[[Any], Any]]] = {}
    needed_facts: Mapping[str, str] = {}
    files: Mapping[str, str] = {}
    task_weight: float = 1.0
    task_views: Sequence[str] = ('weak',)
    needs: str | None = None
    memories: tuple[str, ...] = ()
    first_phase: int = 0
    masks_target: bool = False
    several_teachers: bool = False

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Compute the loss, a scalar."""
        raise NotImplementedError
