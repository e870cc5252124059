"""ClassificationDistiller: one training step of a student under a frozen teacher."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import MessageHub, print_log
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.heads import ClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..distiller import BaseDistiller
from ..errors import listed, refusals_named
from ..features.dry_run import DryRun, dry_run
from ..features.families import default_taps, drop_unread_outputs
from ..features.taps import check_names, given_taps, record
from ..networks.classes import compare_order, data_names, names_in
from ..networks.loading import load_strictly
from ..networks.sources import Source, brings_weights, check_to_be_had
from ..networks.towers import with_embedding
from ..networks.weights import left_random, rename_to_own
from ..patches import note_of_left_out, without_reentry
from ..recipe.labels import check_classes, check_unlabelled
from ..recipe.methods import ALIASES, GT_LABEL, SAMPLE_IDX
from ..recipe.schedules import Progress
from ..teachers.fast import compile_parts
from ..teachers.store import TeacherStore
from .labels import (
    batch_label,
    compare_heads,
    labelled,
    only_labelled,
    student_labels,
    task_of_labelled,
    without_unknown,
)
from .recipe import Recipe, read_files
from .teacher import StoredTeacher, StudentSpec, Teacher, student_images
from .views import PIPELINE, take_pairs


def sample_indices(data_samples: Sequence[DataSample]) -> Tensor:
    """Return the index of each sample in the training set, (N,).

    Raises:
        ValueError: If the samples do not have it.
    """
    indices = [sample.get('sample_idx') for sample in data_samples]
    if None in indices:
        raise ValueError("the samples have no 'sample_idx': let PackInputs in the train pipeline keep it (meta_keys)")
    return torch.tensor(indices)


def build_student(source: Source, pretrained: str | bool | None) -> tuple[nn.Module, DryRun]:
    """Build the student and its dry run. If it has weights, ``init_weights`` of the runner leaves it alone.

    Weights for another number of classes fill all of it but the classifier.

    Args:
        source: Its network.
        pretrained: File, folder or address of its weights; True for the pretrained weights of a library.

    Raises:
        ValueError: If the weights do not fit.
        FileNotFoundError: If they are missing.
    """
    cfg, weights = source.with_weights(pretrained, 'student')
    with refusals_named('model.student_cfg'):
        check_to_be_had(cfg)
        student = MODELS.build(cfg).float()  # some libraries keep the half precision of their files
    found = dry_run(student, 'student', source.pixels.get('size'))
    if note := note_of_left_out(student):
        print_log(note, 'current', logging.WARNING)
    if weights:
        known = names_in(load_strictly(student, weights, 'student', found.num_classes)) or []
        compare_order(known if len(known) == found.num_classes else None, data_names(), weights, refuse=False)
    elif brings_weights(cfg) and (random := left_random(student)):
        print_log(f'the weights that come with the student do not fill it: {listed(random)} starts afresh', 'current')
    if weights or brings_weights(cfg):
        student.is_init = True
    return student, found


def students_own_names(distiller: ClassificationDistiller, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the student in a state dict to its own names, in place."""
    rename_to_own(state, f'{prefix}student.', distiller.student)


def refuse_narrow(network: nn.Module) -> None:
    """Refuse a network whose training in channels-last would damage memory on this processor.

    torch 2.14.1 writes past its memory in the backward pass of a 1 × 1 convolution that has a stride and fewer channels than
    a vector of the processor has numbers: 8 with AVX2, 16 with AVX-512.

    Args:
        network: The network to train.

    Raises:
        ValueError: Names such a convolution.
    """
    least = dict(AVX2=8, AVX512=16).get(torch.backends.cpu.get_cpu_capability(), 0)
    if torch.cuda.is_available():
        return
    for name, conv in network.named_modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1) and max(conv.stride) > 1 and conv.in_channels < least:
            raise ValueError(
                f'channels_last: torch would damage memory on this processor in the backward pass of {name}, a 1 × 1 '
                f'convolution with a stride and {conv.in_channels} channels (fewer than {least}); leave it out'
            )


class RunnerProgress(Progress):
    """Place in the training of mmengine's runner."""

    def done(self, by_epoch: bool = True) -> int:
        """Return the number of finished epochs, or iterations; 0 outside of training."""
        return MessageHub.get_current_instance().get_info('epoch' if by_epoch else 'iter', 0)


@MODELS.register_module()
class ClassificationDistiller(BaseDistiller, BaseClassifier):
    """A student classifier that learns from labels and from distillation losses.

    The parameters of a loss's ``forward`` name its inputs: ``gt_label``, ``sample_idx`` (index of each image in the data
    set), ``teacher_head`` (features to teacher logits), and the features of :mod:`~mmcls_kd.features.taps` with ``_s``
    (student) or ``_t`` (teacher) appended; ``feat_mid`` is the student's only. Only inputs that a loss reads are computed.
    If no loss reads the teacher, none is built. A teacher, or a student, may have no classes: then ``vector`` is its
    embedding, losses of logits are refused, and such a student has no task loss and reads no labels.

    A loss with a method ``predict_logit`` makes the predictions instead of the student's classifier; its parameters are
    features of the student.

    State dict: ``student.*`` and ``distill_losses.<name>.*``. The teacher is not in the module tree, see
    :class:`~mmcls_kd.distillers.teacher.Teacher`. The modes ``'tensor'`` and ``'predict'`` are the student's.

    Args:
        teacher_cfg: The teacher: the path of a config, a name with or without its library, a whole config, or a ``model``
            dict, whose ``type`` may be the import path of any classifier; see
            :func:`~mmcls_kd.networks.sources.find_network`. A list for several teachers. None if no loss needs one.
        student_cfg: The student, in one of these forms.
        is_vit: Accepted from the original's configs; without effect.
        use_logit: Accepted from the original's configs; without effect.
        sd: Accepted from the original's configs; without effect.
        distill_cfg: The methods: a list of ``dict(methods=[dict(type, name, use_this, loss_weight, ...)])``. Sizes of
            tensors (``student_channels``, ``num_classes``, ...) may be left out: a dry run finds them. ``loss_weight`` may
            be a dict, see :class:`~mmcls_kd.recipe.schedules.LossWeight`; ``stages`` runs a loss at several stages, see
            :class:`~mmcls_kd.recipe.wrappers.AtStages`; ``curriculum`` learns its temperature, see
            :class:`~mmcls_kd.recipe.wrappers.CurriculumTemperature`.
        teacher_pretrained: File, folder or address of the teacher's weights; True for the pretrained weights of a library;
            False for random weights on purpose. A list for several teachers.
        train_cfg: Batch augmentation; the student's own ``train_cfg`` if None.
        data_preprocessor: Data preprocessor of the batch; the student's own if None.
        init_cfg: As in mmengine.
        teacher_mode: ``'eval'``, or ``'train'`` to reproduce the original's ResNet runs.
        student_pretrained: File, folder or address of weights that the student starts from; True for the pretrained weights
            of a library.
        teacher_precision: ``'bf16'`` or ``'fp16'``; None for float32, or autocast's under mixed precision.
        teacher_store: Folder of stored logits and features (``mmcls_kd store``) that replace the teacher; its config and
            weights are not needed then.
        teacher_classes: Class map: the teacher's class, by index or name, for each class of the student; None if the label
            spaces are identical. A list of class maps for several teachers.
        teacher_pixels: Overrides of the teacher's input preprocessing: ``mean``, ``std`` (of values from 0 to 255),
            ``to_rgb``, ``size``, ``interpolation``, ``backend``, see :class:`~mmcls_kd.teachers.inputs.InputSpec`. A list
            for several teachers.
        teacher_weights: The weights of several teachers in the mean of their probabilities; equal if None.
        rgb_images: Whether the data set's images are RGB, as mmpretrain's CIFAR's are; image files are read as BGR.
            ``mmcls_kd train`` sets it; if None, the data set of the student's config decides.
        pipeline_pixels: Preprocessing of the training pipeline before the data preprocessor: ``mean`` and ``std``, if it
            normalises, and ``size``. ``mmcls_kd train`` finds it by running the pipeline.
        taps: Taps by name with ``_s`` or ``_t``: the path of a module, or ``dict(path, form, index, extra)``, see
            :func:`~mmcls_kd.features.taps.given_taps`. New names define inputs of users' losses.
        channels_last: Keep images and convolutions of the whole distiller in the channels-last memory format.
        num_samples: Number of training images, for losses that remember each (CRD). ``mmcls_kd train`` sets it.
        batch_size: Number of images of a batch of one process, for losses with a layer of that width (SemCKD). ``mmcls_kd
            train`` sets it.
        label: ``'teacher'`` to give methods that need a label the teacher's class where an image has none; None to refuse
            such images with those methods.
        compile: Compile the parts of the student in place, and those of the teacher's fast twin; True, or keywords of
            ``torch.compile``.

    Raises:
        ValueError: If methods, names, sizes, modes, weights or classes do not fit; names the key to change.
        FileNotFoundError: If a config, weights or a store are missing.
    """

    second_view = PIPELINE

    def __init__(
        self,
        teacher_cfg: str | Mapping | Sequence | None = None,
        student_cfg: str | Mapping | None = None,
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
        label: str | None = None,
        batch_size: int | None = None,
        compile: bool | Mapping = False,  # noqa: A002  (as mmengine calls it)
    ) -> None:
        recipe = Recipe(
            dict(
                student_cfg=student_cfg,
                distill_cfg=distill_cfg,
                train_cfg=train_cfg,
                data_preprocessor=data_preprocessor,
                teacher_cfg=teacher_cfg,
                teacher_pretrained=teacher_pretrained,
                teacher_classes=teacher_classes,
                teacher_pixels=teacher_pixels,
                teacher_weights=teacher_weights,
                teacher_mode=teacher_mode,
                teacher_precision=teacher_precision,
                teacher_store=teacher_store,
            )
        )
        methods = read_files(recipe.methods.parsed())
        taps = check_names(taps or {}, ALIASES)
        source = recipe.student
        if not isinstance(data_preprocessor, nn.Module):
            with refusals_named('model.data_preprocessor'):
                data_preprocessor = MODELS.build(recipe.preprocessor())
        super().__init__(init_cfg=init_cfg, data_preprocessor=data_preprocessor)
        self.student, found = build_student(source, student_pretrained)
        self.student.data_preprocessor = self.data_preprocessor  # the one that is used
        take_pairs(self.data_preprocessor)  # type: ignore[arg-type]
        self.num_classes, self.label = found.num_classes, label
        self.multi_label = student_labels(self.student, found.num_classes)

        compile_options = dict(compile) if isinstance(compile, Mapping) else {} if compile else None
        student = StudentSpec(
            num_classes=self.num_classes,
            names=data_names(),
            **student_images(data_preprocessor, source.rgb_images if rgb_images is None else rgb_images, pipeline_pixels),
        )
        self.teacher_holder = recipe.build_teacher(methods, student, taps=taps, compile_options=compile_options)
        if self.teacher_holder:
            remedy = 'set model.student_cfg and model.teacher_cfg (head.num_classes) to the same data, or say by '
            check_classes(self.num_classes, self.teacher_holder.num_classes, f'{remedy}model.teacher_classes')
        compare_heads(self.student, self.teachers)
        self.num_samples, self.batch_size, self.progress = num_samples, batch_size, RunnerProgress()
        self.connect(methods, default_taps(self.student, found) | given_taps(taps, '_s', found), found)
        drop_unread_outputs(self.student, self.student_taps.values())
        if self.predictor and getattr(self.teacher_holder, 'by_name', None):
            raise ValueError(
                f'{self.predictor}: the student will predict by the teacher’s head, whose classes are in another order than '
                f'the data’s: set model.teacher_classes={str(self.teacher_holder.by_name).replace(" ", "")}'  # type: ignore
            )
        self.channels_last = channels_last
        if channels_last:
            refuse_narrow(self.student)
            self.to(memory_format=torch.channels_last)
        if compile_options is not None:
            compile_parts(self.student, compile_options)
        self._register_state_dict_hook(students_own_names)

    @property
    def head(self) -> nn.Module:
        """The student's head, in which mmpretrain's hooks set the loss, margins and the like."""
        return self.student if hasattr(self.student, 'loss_module') else self.student.head  # type: ignore[return-value]

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """Return a parameter's depth and the largest depth, for layer-wise learning rates.

        Depths in the student are its own; parameters of the losses get the full rate.

        Raises:
            NotImplementedError: If the student does not define its layers' depths.
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
        """The network of the only teacher, as loaded; None without one, or with several."""
        return self.teacher_holder.network if isinstance(self.teacher_holder, Teacher) else None

    @property
    def store(self) -> TeacherStore | None:
        """The store that replaces the teacher; None without one."""
        return self.teacher_holder.store if isinstance(self.teacher_holder, StoredTeacher) else None

    def forward(
        self, inputs: Tensor | Sequence[Tensor], data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | list[DataSample] | dict[str, Tensor]:
        """Return the student's logits (``'tensor'``) or predictions (``'predict'``), or all losses (``'loss'``).

        A student without classes gives embeddings instead of both. Of two views, (weak, strong), the losses read both.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples or [])
        inputs = self.arrange(inputs if isinstance(inputs, Tensor) else inputs[0])
        if mode == 'predict' and not self.num_classes:
            return with_embedding(self.student(inputs), data_samples)
        if self.predictor is None:
            return self.student(inputs, data_samples, mode)
        logit = self.predicted_logit(inputs)
        return logit if mode == 'tensor' else ClsHead().predict((logit,), data_samples)

    def arrange(self, inputs: Tensor) -> Tensor:
        """Convert images to the memory format of the networks."""
        return inputs.contiguous(memory_format=torch.channels_last) if self.channels_last else inputs

    def extract_feat(self, inputs: Tensor, **kwargs: Any) -> Any:
        """Return the student's features, see mmpretrain's ``ImageClassifier.extract_feat``."""
        return self.student.extract_feat(inputs, **kwargs)  # type: ignore[operator]

    def loss(self, inputs: Tensor | Sequence[Tensor], data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Compute the losses of one training step.

        Args:
            inputs: Images, preprocessed and augmented, (N, 3, H, W); or two views of them, (weak, strong). Each network runs
                once a view, the weak one first: batch norms in training mode use the statistics of each view.
            data_samples: Their labels.

        Returns:
            ``ori_<key>`` for each of the student's own losses, times :attr:`task_weight`, and one entry a method.
        """
        for sample in data_samples:  # integers where batch augmentation left a batch alone; the student's loss takes none
            if 'gt_score' in sample and not sample.gt_score.is_floating_point():
                sample.set_gt_score(sample.gt_score.float())
        if not all(known := labelled(data_samples)):
            check_unlabelled(self.inputs, self.label)
        head = getattr(self, 'head', None)  # a classifier of the user's own need not have one
        views = {view: self.arrange(images) for view, images in self.views_of(inputs).items()}
        with task_of_labelled(head, known), without_reentry():
            task_losses, features = self._run_student(views, data_samples)
        given: dict[str, Any] = {}
        if self.num_classes:
            given[GT_LABEL] = without_unknown(batch_label(data_samples, head, self.num_classes), known)
        # a student without classes learns from the teacher alone
        task_losses = only_labelled(task_losses, known) if self.num_classes else {}
        if any(SAMPLE_IDX in names for names in self.inputs.values()):
            given[SAMPLE_IDX] = sample_indices(data_samples).to(views['weak'].device)
        distill_losses = self.distill(views, data_samples, features, given)
        temperatures = self.temperatures()
        losses = {f'ori_{k}': v * self.task_weight if 'loss' in k else v for k, v in task_losses.items()}
        for name, value in distill_losses.items():
            losses[name] = value
            if name in temperatures:
                losses[f'temp_{name.replace("loss", "").strip("_")}'] = temperatures[name]
        return losses

    def _run_student(
        self, views: Mapping[str, Tensor], data_samples: list[DataSample]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Run the student once a view; returns its own losses, added over views, and the features of each view."""
        losses: dict[str, Tensor] = {}
        features: dict[str, Any] = {}
        for view, images in views.items():
            with_task = self.num_classes and view in self.task_views
            with record(self.student, self.student_taps) as features[view]:
                found = self.student(images, data_samples, mode='loss' if with_task else 'tensor')
            for key, value in found.items() if with_task else ():
                losses[key] = losses[key] + value if key in losses and 'loss' in key else losses.get(key, value)
        return losses, features

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise and the values to log; methods without the word ``loss`` in their name count too."""
        total, log_vars = super().parse_losses(losses)
        total = total + sum(losses[name].mean() for name in self.distill_losses if 'loss' not in name)
        return total, log_vars | {'loss': total}

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Refuse weights without a student, and handle a teacher in a checkpoint of the original.

        The teacher's weights are those of ``teacher_pretrained``. Only a teacher built without any takes them from the
        checkpoint.
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
