"""ClassificationDistiller: one training step of a student under a frozen teacher."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..checkpoint import load_strictly
from ..configs import close_names, network_cfg
from ..teacher_store import TeacherStore
from .assembly import (
    ALIASES,
    GT_LABEL,
    TEACHER_HEAD,
    asked_tensors,
    build_losses,
    build_teacher,
    check_classes,
    preprocessor_cfg,
)
from .fast_network import compile_parts
from .stored_teacher import StoredTeacher
from .taps import default_taps, drop_unread_outputs, record
from .teacher import Teacher


def batch_label(data_samples: Sequence[DataSample]) -> Tensor:
    """The labels of a batch: scores (N, C) where the samples have them (mixup, CutMix), else class indices (N,)."""
    if 'gt_score' in data_samples[0]:
        return torch.stack([sample.gt_score for sample in data_samples])
    return torch.cat([sample.gt_label for sample in data_samples])


@MODELS.register_module()
class ClassificationDistiller(BaseClassifier):
    """A student classifier that learns from labels and from distillation losses.

    A loss asks for what it needs by the names of its ``forward``'s parameters: ``gt_label``, ``teacher_head`` (features to
    teacher logits), and the tensors of :mod:`~mmcls_kd.distillers.taps` with ``_s`` (student) or ``_t`` (teacher) behind;
    ``feat_mid`` alone is the student's. What no loss asks for is not computed; if none asks for the teacher, there is none.

    State dict: ``student.*`` and ``distill_losses.<name>.*``. The teacher is no part of the module tree, see
    :class:`~mmcls_kd.distillers.teacher.Teacher`. The modes ``'tensor'`` and ``'predict'`` are the student's.

    Args:
        teacher_cfg: Config of the teacher: a path, a whole config or a ``model`` dict; None if no loss needs a teacher.
        student_cfg: Config of the student, likewise.
        is_vit: Accepted from the original's configs; changes nothing.
        use_logit: Likewise.
        sd: Likewise.
        distill_cfg: The methods: a list of ``dict(methods=[dict(type, name, use_this, loss_weight, ...)])``.
        teacher_pretrained: File or address of the teacher's weights; False for random weights on purpose.
        train_cfg: Batch augmentation; the student's own ``train_cfg`` if None.
        data_preprocessor: Of the batch; the student's own if None.
        init_cfg: As in mmengine.
        teacher_mode: ``'eval'``, or ``'train'`` to reproduce the original's ResNet runs.
        student_pretrained: File or address of weights that the student starts from.
        teacher_precision: ``'bf16'`` or ``'fp16'`` to run the teacher in it; None for float32, or autocast's under mixed
            precision.
        teacher_store: Folder of stored logits (tools/store_teacher.py) that take the teacher's place; then neither
            its config nor its weights are needed.
        channels_last: Keep images and convolutions of the whole distiller in the channels-last memory format.
        compile: Compile the parts of the student in place, and those of the teacher's fast twin; True, or keywords of
            ``torch.compile``.

    Raises:
        ValueError: If methods, names, modes, weights or class counts do not fit; names what to change.
        FileNotFoundError: If a config, weights or a store are missing.
    """

    def __init__(
        self,
        teacher_cfg: str | Mapping | None,
        student_cfg: str | Mapping,
        is_vit: bool = False,  # noqa: ARG002
        use_logit: bool = False,  # noqa: ARG002
        sd: bool = False,  # noqa: ARG002
        distill_cfg: Sequence[Mapping] | None = None,
        teacher_pretrained: str | bool | None = None,
        train_cfg: Mapping | None = None,
        data_preprocessor: Mapping | nn.Module | None = None,
        init_cfg: Mapping | Sequence | None = None,
        teacher_mode: str = 'eval',
        student_pretrained: str | None = None,
        teacher_precision: str | None = None,
        teacher_store: str | None = None,
        channels_last: bool = False,
        compile: bool | Mapping = False,  # noqa: A002  (as mmengine calls it)
    ) -> None:
        losses, self.loss_weights = build_losses(distill_cfg or [])
        network = network_cfg(student_cfg)
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build(preprocessor_cfg(data_preprocessor, train_cfg, network))
        super().__init__(init_cfg=init_cfg, data_preprocessor=data_preprocessor)
        self.distill_losses = losses
        self.student = MODELS.build(network)
        if student_pretrained:
            load_strictly(self.student, student_pretrained, 'student')
            self.student.is_init = True  # the runner's init_weights leaves it alone

        self.asked = {name: asked_tensors(loss) for name, loss in losses.items()}
        compile_options = dict(compile) if isinstance(compile, Mapping) else {} if compile else None
        self.teacher_holder = build_teacher(
            self.asked,
            teacher_store,
            teacher_mode,
            cfg=teacher_cfg,
            pretrained=teacher_pretrained,
            precision=teacher_precision,
            compile_options=compile_options,
        )
        self._connect({name for names in self.asked.values() for name in names})
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        if compile_options is not None:
            compile_parts(self.student, compile_options)

    def _connect(self, wanted: set[str]) -> None:
        """Check that the networks fit together and offer what the losses want; keep what is read of each."""
        taps_s = default_taps(self.student)
        tensors_t = self.teacher_holder.tensors if self.teacher_holder else ()
        offered = [GT_LABEL, *(f'{n}_s' for n in taps_s), *(f'{n}_t' for n in tensors_t)]
        offered += [alias for alias, name in ALIASES.items() if name in offered]
        offered += [TEACHER_HEAD] if self.teacher_holder and self.teacher_holder.head else []
        for loss, names in self.asked.items():
            for name in names:
                if name not in offered:
                    raise ValueError(
                        f'{loss} ({type(self.distill_losses[loss]).__name__}) asks for {name!r}, which nobody provides'
                        f'{close_names(name, offered)}; this student and teacher offer: {", ".join(offered)}'
                    )
        check_classes(self.student, self.teacher_holder)
        wanted = {ALIASES.get(name, name) for name in wanted}
        self.student_taps = {n: tap for n, tap in taps_s.items() if f'{n}_s' in wanted}
        self.teacher_names = [n for n in tensors_t if f'{n}_t' in wanted]
        drop_unread_outputs(self.student.backbone, self.student_taps.values())

    @property
    def teacher(self) -> nn.Module | None:
        """The teacher's network as loaded; None where no loss needs one."""
        return self.teacher_holder.network if isinstance(self.teacher_holder, Teacher) else None

    @property
    def store(self) -> TeacherStore | None:
        """The store that takes the teacher's place; None where there is none."""
        return self.teacher_holder.store if isinstance(self.teacher_holder, StoredTeacher) else None

    @property
    def task_weight(self) -> float:
        """The weight of the student's own loss: the product of what the losses say (KD: 1 − alpha)."""
        return math.prod(getattr(loss, 'task_weight', 1.0) for loss in self.distill_losses.values())

    def forward(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | list[DataSample] | dict[str, Tensor]:
        """The student's logits (``'tensor'``) or predictions (``'predict'``), or all losses (``'loss'``)."""
        inputs = self.arrange(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples or [])
        return self.student(inputs, data_samples, mode)

    def arrange(self, inputs: Tensor) -> Tensor:
        """Images in the memory format of the networks."""
        return inputs.contiguous(memory_format=torch.channels_last) if self.channels_last else inputs

    def extract_feat(self, inputs: Tensor, **kwargs: Any) -> Any:
        """The student's features, see mmpretrain's ``ImageClassifier.extract_feat``."""
        return self.student.extract_feat(inputs, **kwargs)

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            inputs: Images, preprocessed and augmented, (N, 3, H, W).
            data_samples: Their labels.

        Returns:
            ``ori_<key>`` for each of the student's own losses, times :attr:`task_weight`, and one entry a method.
        """
        with record(self.student, self.student_taps) as seen_s:
            task_losses = self.student(inputs, data_samples, mode='loss')
        tensors: dict[str, Any] = {GT_LABEL: batch_label(data_samples)}
        tensors |= {f'{name}_s': tensor for name, tensor in seen_s.items()}
        if self.teacher_holder:
            seen_t = self.teacher_holder(inputs, data_samples, self.teacher_names)
            tensors |= {f'{name}_t': tensor for name, tensor in seen_t.items()}
            tensors[TEACHER_HEAD] = self.teacher_holder.head

        losses = {f'ori_{k}': v * self.task_weight if 'loss' in k else v for k, v in task_losses.items()}
        for name, loss in self.distill_losses.items():
            value = loss(**{n: tensors[ALIASES.get(n, n)] for n in self.asked[name]})
            losses[name] = self.loss_weights[name] * value
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum to minimise and what to log; every method counts, also one whose name lacks the word ``loss``."""
        total, log_vars = super().parse_losses(losses)
        total = total + sum(losses[name].mean() for name in self.distill_losses if 'loss' not in name)
        return total, log_vars | {'loss': total}

    def _apply(self, fn: Any, recurse: bool = True) -> ClassificationDistiller:
        """Take the teacher along to another device or type."""
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Refuse weights without a student; take care of the teacher inside a checkpoint of the original.

        The teacher's weights are those of ``teacher_pretrained``. Only a teacher that was built without any takes them from
        the checkpoint.
        """
        if not any(key.startswith(f'{prefix}student.') for key in state_dict):
            raise ValueError(
                'the checkpoint has no student weights (`student.*`). To start the student from weights of its own, '
                'set model.student_pretrained instead of load_from'
            )
        inside = [key for key in state_dict if key.startswith(f'{prefix}teacher.')]
        weights = OrderedDict((key.removeprefix(f'{prefix}teacher.'), state_dict.pop(key)) for key in inside)
        if weights and isinstance(self.teacher_holder, Teacher) and not self.teacher_holder.pretrained:
            self.teacher_holder.network.load_state_dict(weights)
        elif weights:
            print_log('The teacher inside the checkpoint is left out: model.teacher_pretrained decides', 'current')
        super()._load_from_state_dict(state_dict, prefix, *args)
