"""ClassificationDistiller: one training step of a student under a frozen teacher."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.heads import ClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..checkpoint import load_strictly
from ..configs import find_network
from ..engine.checkpointing import without_reentry
from ..errors import refusals_named
from ..networks.classes import compare_order, data_names, names_in
from ..networks.sources import Source, brings_weights
from ..networks.weights import left_random, listed
from ..teacher_store import TeacherStore
from .assembly import (
    ALIASES,
    GT_LABEL,
    SAMPLE_IDX,
    TEACHER_HEAD,
    Method,
    build_teacher,
    check_asked,
    check_classes,
    chosen_methods,
    parameters_of,
    preprocessor_cfg,
    refuse_narrow,
    teacher_settings,
)
from .default_taps import default_taps, drop_unread_outputs
from .fast_network import compile_parts
from .stored_teacher import StoredTeacher
from .survey import Survey, survey
from .taps import Tap, check_names, given_taps, record, shapes_of
from .teacher import Student, Teacher, student_images
from .wrappers import CurriculumTemperature


def batch_label(data_samples: Sequence[DataSample]) -> Tensor:
    """The labels of a batch: scores (N, C) where the samples have them (mixup, CutMix), else class indices (N,)."""
    if 'gt_score' in data_samples[0]:
        return torch.stack([sample.gt_score for sample in data_samples])
    return torch.cat([sample.gt_label for sample in data_samples])


def sample_indices(data_samples: Sequence[DataSample]) -> Tensor:
    """The index of each sample in the training set, (N,).

    Raises:
        ValueError: If the samples do not have it.
    """
    indices = [sample.get('sample_idx') for sample in data_samples]
    if None in indices:
        raise ValueError("the samples have no 'sample_idx': let PackInputs in the train pipeline keep it (meta_keys)")
    return torch.tensor(indices)


def build_student(source: Source, pretrained: str | bool | None) -> tuple[nn.Module, Survey]:
    """The student and its survey; where it has weights to start from, the runner's ``init_weights`` leaves it alone.

    Weights for another number of classes fill all of it but the classifier.

    Args:
        source: Its network.
        pretrained: File, folder or address of its weights; True for those that come with it.

    Raises:
        ValueError: If the weights do not fit.
        FileNotFoundError: If they are missing.
    """
    cfg, weights = source.with_weights(pretrained, 'student')
    with refusals_named('model.student_cfg'):
        student = MODELS.build(cfg).float()  # some libraries keep the half precision of their files
    found = survey(student, 'student', source.pixels.get('size'))
    if weights:
        known = names_in(load_strictly(student, weights, 'student', found.num_classes)) or []
        compare_order(known if len(known) == found.num_classes else None, data_names(), weights, refuse=False)
    elif brings_weights(cfg) and (random := left_random(student)):
        print_log(f'the weights that come with the student do not fill it: {listed(random)} starts afresh', 'current')
    if weights or brings_weights(cfg):
        student.is_init = True
    return student, found


def students_own_names(distiller: ClassificationDistiller, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Put the student into a state dict as it would save itself, in place.

    Some classifiers save their weights under other names than their modules have; torch heeds that only for a network
    that is saved by itself, and loads the one from the other.
    """
    start = f'{prefix}student.'
    names = dict(
        zip(
            [key for key in state if key.startswith(start)],
            [start + key for key in distiller.student.state_dict()],
            strict=True,
        )
    )
    if any(key != name for key, name in names.items()):
        items = [(names.get(key, key), value) for key, value in state.items()]
        state.clear()
        state.update(items)


@MODELS.register_module()
class ClassificationDistiller(BaseClassifier):
    """A student classifier that learns from labels and from distillation losses.

    A loss asks for what it needs by the names of its ``forward``'s parameters: ``gt_label``, ``sample_idx`` (the place of
    each image in the data set), ``teacher_head`` (features to teacher logits), and the tensors of
    :mod:`~mmcls_kd.distillers.taps` with ``_s`` (student) or ``_t`` (teacher) behind; ``feat_mid`` alone is the student's.
    What no loss asks for is not computed; if none asks for the teacher, there is none.

    A loss that has a method ``predict_logit`` makes the predictions, in the place of the student's own head: of the
    student's tensors that are its parameters.

    State dict: ``student.*`` and ``distill_losses.<name>.*``. The teacher is no part of the module tree, see
    :class:`~mmcls_kd.distillers.teacher.Teacher`. The modes ``'tensor'`` and ``'predict'`` are the student's.

    Args:
        teacher_cfg: The teacher: the path of a config, a name with or without its library before it, a whole config, or a
            ``model`` dict, whose ``type`` may be the import path of any module that gives class scores; see
            :func:`~mmcls_kd.networks.sources.read_source`. A list of these for several teachers. None if no loss needs one.
        student_cfg: The student, likewise.
        is_vit: Accepted from the original's configs; changes nothing.
        use_logit: Likewise.
        sd: Likewise.
        distill_cfg: The methods: a list of ``dict(methods=[dict(type, name, use_this, loss_weight, ...)])``. Sizes of
            tensors (``student_channels``, ``num_classes``, ...) may be left out: a dry run finds them. ``loss_weight`` may
            be a dict, see :class:`.schedules.LossWeight`; ``stages`` runs a loss of feature maps at several stages, see
            :class:`.wrappers.AtStages`; ``curriculum`` learns its temperature, see
            :class:`.wrappers.CurriculumTemperature`.
        teacher_pretrained: File, folder or address of the teacher's weights; True for those that come with a network of a
            library; False for random weights on purpose. For several teachers a list.
        train_cfg: Batch augmentation; the student's own ``train_cfg`` if None.
        data_preprocessor: Of the batch; the student's own if None.
        init_cfg: As in mmengine.
        teacher_mode: ``'eval'``, or ``'train'`` to reproduce the original's ResNet runs.
        student_pretrained: File, folder or address of weights that the student starts from; True for those that come with
            it.
        teacher_precision: ``'bf16'`` or ``'fp16'`` to run the teacher in it; None for float32, or autocast's under mixed
            precision.
        teacher_store: Folder of stored logits (tools/store_teacher.py) that take the teacher's place; then neither
            its config nor its weights are needed.
        teacher_classes: For each class of the student, in its order, the teacher's class by index or by name; None if both
            tell apart the same. For several teachers a list of such lists.
        teacher_pixels: The images that the teacher wants, as far as its config or library does not say it or says it
            otherwise: ``mean``, ``std`` (of values from 0 to 255), ``to_rgb``, ``size``, ``interpolation``, ``backend``, see
            :class:`~mmcls_kd.networks.pixels.Pixels`. For several a list.
        teacher_weights: The weights of several teachers in the mean of their probabilities; equal if None.
        rgb_images: Whether the data set gives its images red, green, blue, as mmpretrain's CIFAR does; files are read as
            blue, green, red. tools/train.py sets it; if None, the data set of the student's config decides.
        pipeline_pixels: What else the training pipeline makes of images before they come to the data preprocessor:
            ``mean`` and ``std``, where it normalises, and their ``size``. tools/train.py finds it by trying the pipeline.
        taps: Where tensors are, by name with ``_s`` or ``_t``: the path of a module, or ``dict(path, form, index, extra)``,
            see :func:`.taps.given_taps`. New names are for losses that ask for them.
        channels_last: Keep images and convolutions of the whole distiller in the channels-last memory format.
        num_samples: How many training images there are, for losses that remember each (CRD). tools/train.py sets it.
        compile: Compile the parts of the student in place, and those of the teacher's fast twin; True, or keywords of
            ``torch.compile``.

    Raises:
        ValueError: If methods, names, sizes, modes, weights or classes do not fit; names what to change.
        FileNotFoundError: If a config, weights or a store are missing.
    """

    def __init__(
        self,
        teacher_cfg: str | Mapping | Sequence | None,
        student_cfg: str | Mapping,
        is_vit: bool = False,  # noqa: ARG002
        use_logit: bool = False,  # noqa: ARG002
        sd: bool = False,  # noqa: ARG002
        distill_cfg: Sequence[Mapping] | None = None,
        teacher_pretrained: str | bool | Sequence | None = None,
        train_cfg: Mapping | None = None,
        data_preprocessor: Mapping | nn.Module | None = None,
        init_cfg: Mapping | Sequence | None = None,
        teacher_mode: str = 'eval',
        student_pretrained: str | bool | None = None,
        teacher_precision: str | None = None,
        teacher_store: str | None = None,
        teacher_classes: Sequence | None = None,
        teacher_pixels: Mapping | Sequence | None = None,
        teacher_weights: Sequence[float] | None = None,
        rgb_images: bool | None = None,
        pipeline_pixels: Mapping[str, Any] | None = None,
        taps: Mapping[str, Any] | None = None,
        channels_last: bool = False,
        num_samples: int | None = None,
        compile: bool | Mapping = False,  # noqa: A002  (as mmengine calls it)
    ) -> None:
        methods = chosen_methods(distill_cfg or [])
        taps = check_names(taps or {}, ALIASES)
        with refusals_named('model.student_cfg'):
            source = find_network(student_cfg)
        rgb_images = source.rgb_images if rgb_images is None else rgb_images
        if not isinstance(data_preprocessor, nn.Module):
            with refusals_named('model.data_preprocessor'):
                data_preprocessor = MODELS.build(preprocessor_cfg(data_preprocessor, train_cfg, source.cfg))
        super().__init__(init_cfg=init_cfg, data_preprocessor=data_preprocessor)
        self.student, found = build_student(source, student_pretrained)
        self.student.data_preprocessor = self.data_preprocessor  # the one that is used
        self.num_classes = found.num_classes

        compile_options = dict(compile) if isinstance(compile, Mapping) else {} if compile else None
        self.teacher_holder = build_teacher(
            methods,
            teacher_settings(
                teacher_cfg,
                pretrained=teacher_pretrained,
                classes=teacher_classes,
                pixels=teacher_pixels,
                weight=teacher_weights,
            ),
            teacher_store,
            Student(
                num_classes=found.num_classes,
                names=data_names(),
                **student_images(data_preprocessor, rgb_images, pipeline_pixels),
            ),
            taps=taps,
            mode=teacher_mode,
            precision=teacher_precision,
            compile_options=compile_options,
        )
        check_classes(self.num_classes, self.teacher_holder)
        self.num_samples = num_samples
        self._connect(methods, default_taps(self.student, found) | given_taps(taps, '_s', found), found)
        self.channels_last = channels_last
        if channels_last:
            refuse_narrow(self.student)
            self.to(memory_format=torch.channels_last)
        if compile_options is not None:
            compile_parts(self.student, compile_options)
        self._register_state_dict_hook(students_own_names)

    def _connect(self, methods: Sequence[Method], taps: dict[str, Tap], found: Survey) -> None:
        """Check that the networks offer what the methods want, keep what is read of each, and build the losses."""
        teacher = self.teacher_holder
        shapes = {f'{name}_s': shape for name, shape in shapes_of(taps, found).items()}
        shapes |= {f'{name}_t': shape for name, shape in (teacher.shapes if teacher else {}).items()}
        shapes |= {alias: shapes[name] for alias, name in ALIASES.items() if name in shapes}
        self.asked = {method.name: method.asked for method in methods}
        wanted = {ALIASES.get(name, name) for names in self.asked.values() for name in names}
        check_asked(methods, [GT_LABEL, SAMPLE_IDX, *shapes, *([TEACHER_HEAD] if self.teacher_head else [])])
        self.student_taps = {n: tap for n, tap in taps.items() if f'{n}_s' in wanted}
        self.teacher_names = [n for n in (teacher.shapes if teacher else ()) if f'{n}_t' in wanted]
        drop_unread_outputs(self.student, self.student_taps.values())
        facts = {'num_samples': lambda: self.num_samples, **(teacher.facts if teacher else {})}
        with torch.random.fork_rng(devices=[]):  # the student's weights, drawn later, are the same under every method
            torch.default_generator.manual_seed(int(torch.randint(2**62, ())))  # and no loss's weights are drawn as they are
            self.distill_losses = nn.ModuleDict({method.name: method.build(shapes, facts) for method in methods})
        self.loss_weights = {method.name: method.weight for method in methods}
        predictors = [name for name, loss in self.distill_losses.items() if hasattr(loss, 'predict_logit')]
        if len(predictors) > 1:
            raise ValueError(f'{" and ".join(predictors)} both make the predictions: choose one of them')
        self.predictor = predictors[0] if predictors else None
        if self.predictor and getattr(teacher, 'by_name', None):
            raise ValueError(
                f'{self.predictor}: the student will predict by the teacher’s head, whose classes are in another order than '
                f'the data’s: set model.teacher_classes={str(teacher.by_name).replace(" ", "")}'  # type: ignore[union-attr]
            )

    @property
    def head(self) -> nn.Module:
        """What holds the student's own loss, where mmpretrain's hooks look for it to set loss, margins and the like."""
        return self.student if hasattr(self.student, 'loss_module') else self.student.head  # type: ignore[return-value]

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """Depth of a parameter, and the largest there is, for layer-wise learning rates.

        The student's are where it has them by itself; those of the losses have the full rate.

        Raises:
            NotImplementedError: If the student does not know its layers' depths.
        """
        of_student = param_name.startswith('student.')
        name = param_name.removeprefix('student.') if of_student else next(iter(self.student.state_dict()))
        try:
            depth, deepest = self.student.get_layer_depth(name)  # type: ignore[operator]
        except (AttributeError, NotImplementedError) as error:
            kind = type(getattr(self.student, 'backbone', self.student)).__name__
            raise NotImplementedError(
                f'this student ({kind}) does not say how deep its layers are (get_layer_depth), so they get no rates '
                'of their own: leave optim_wrapper.constructor out'
            ) from error
        return (depth if of_student else deepest - 1), deepest

    @property
    def teacher(self) -> nn.Module | None:
        """The network of the one teacher, as loaded; None where there is none, or several."""
        return self.teacher_holder.network if isinstance(self.teacher_holder, Teacher) else None

    @property
    def teacher_head(self) -> nn.Module | None:
        """What makes class scores of the teacher's maps, for losses that ask for it; like the teacher in no module tree."""
        asked = any(TEACHER_HEAD in names for names in self.asked.values())
        return self.teacher_holder.head if self.teacher_holder and asked else None

    @property
    def teachers(self) -> Sequence[nn.Module]:
        """The networks of all teachers, as loaded."""
        return self.teacher_holder.networks if self.teacher_holder else []

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
        if self.predictor is None:
            return self.student(inputs, data_samples, mode)
        predict_logit: Any = self.distill_losses[self.predictor].predict_logit
        logit = self._predicted_logit(inputs, predict_logit)
        return logit if mode == 'tensor' else ClsHead().predict((logit,), data_samples)

    def _predicted_logit(self, inputs: Tensor, predict_logit: Any) -> Tensor:
        """The logits that a loss makes of the student's tensors, (N, C)."""
        names = {name.removesuffix('_s'): name for name in parameters_of(predict_logit.__func__)}
        with record(self.student, {name: self.student_taps[name] for name in names}) as seen:
            self.student(inputs)
        return predict_logit(**{names[name]: tensor for name, tensor in seen.items()})

    def arrange(self, inputs: Tensor) -> Tensor:
        """Images in the memory format of the networks."""
        return inputs.contiguous(memory_format=torch.channels_last) if self.channels_last else inputs

    def extract_feat(self, inputs: Tensor, **kwargs: Any) -> Any:
        """The student's features, see mmpretrain's ``ImageClassifier.extract_feat``."""
        return self.student.extract_feat(inputs, **kwargs)  # type: ignore[operator]

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            inputs: Images, preprocessed and augmented, (N, 3, H, W).
            data_samples: Their labels.

        Returns:
            ``ori_<key>`` for each of the student's own losses, times :attr:`task_weight`, and one entry a method.
        """
        for sample in data_samples:  # integers where batch augmentation left a batch alone; the student's loss takes none
            if 'gt_score' in sample and not sample.gt_score.is_floating_point():
                sample.set_gt_score(sample.gt_score.float())
        with without_reentry(), record(self.student, self.student_taps) as seen_s:
            task_losses = self.student(inputs, data_samples, mode='loss')
        tensors: dict[str, Any] = {GT_LABEL: batch_label(data_samples)}
        if any(SAMPLE_IDX in names for names in self.asked.values()):
            tensors[SAMPLE_IDX] = sample_indices(data_samples).to(inputs.device)
        tensors |= {f'{name}_s': tensor for name, tensor in seen_s.items()}
        if self.teacher_holder:
            seen_t = self.teacher_holder(inputs, data_samples, self.teacher_names)
            tensors |= {f'{name}_t': tensor for name, tensor in seen_t.items()}
            tensors[TEACHER_HEAD] = self.teacher_head

        losses = {f'ori_{k}': v * self.task_weight if 'loss' in k else v for k, v in task_losses.items()}
        for name, loss in self.distill_losses.items():
            value = loss(**{n: tensors[ALIASES.get(n, n)] for n in self.asked[name]})
            losses[name] = self.loss_weights[name].now() * value
            if isinstance(loss, CurriculumTemperature):
                losses[f'temp_{name.replace("loss", "").strip("_")}'] = loss.temp.detach()
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum to minimise and what to log; every method counts, also one whose name lacks the word ``loss``."""
        total, log_vars = super().parse_losses(losses)
        total = total + sum(losses[name].mean() for name in self.distill_losses if 'loss' not in name)
        return total, log_vars | {'loss': total}

    def _apply(self, fn: Any, recurse: bool = True) -> ClassificationDistiller:
        """Take the teachers along to another device or type."""
        for network in self.teachers:
            network._apply(fn, recurse)
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
        if weights and isinstance(self.teacher_holder, Teacher) and self.teacher_holder.pretrained is False:
            self.teacher_holder.network.load_state_dict(weights)
        elif weights:
            print_log('The teacher inside the checkpoint is left out: model.teacher_pretrained decides', 'current')
        super()._load_from_state_dict(state_dict, prefix, *args)
