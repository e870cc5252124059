"""The distiller: a student, a frozen teacher, and the losses between them, in plain PyTorch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .dis_losses.common import at_least_float32
from .features.classifier import linear_classifier, weight_and_bias
from .features.dry_run import DryRun, dry_run, evaluating, scores
from .features.families import default_taps
from .features.taps import Shape, Tap, check_names, given_taps, lays_tokens, record, shapes_of
from .patches import note_of_left_out, without_reentry
from .recipe.labels import (
    as_labels,
    check_classes,
    check_range,
    check_scores,
    check_stored,
    check_stored_inputs,
    check_stored_views,
    check_substitute,
    check_unlabelled,
    filled,
    is_labelled,
    task_loss,
    unlabelled,
)
from .recipe.methods import (
    ALIASES,
    GT_LABEL,
    SAMPLE_IDX,
    STUDENT_LINEAR,
    TEACHER_HEAD,
    TEACHER_LINEAR,
    VIEWS,
    Method,
    check_class_scores,
    check_inputs,
    check_several,
    method_of,
    needs_teacher,
    parameters_of,
    weak_name,
)
from .recipe.own_losses import stray_parts, value_of_loss
from .recipe.schedules import LossWeights, Progress
from .recipe.wrappers import CurriculumTemperature
from .teachers.frozen import FrozenTeacher, check_run
from .teachers.libraries import load_network
from .teachers.several import TeacherGroup, each_teacher
from .teachers.specs import TeacherLike, TeacherSpec, build_teacher, check_plain
from .teachers.stored import StoredTeacher
from .teachers.towers import of_the_last_batch

logger = logging.getLogger(__name__)
__all__ = ['BaseDistiller', 'Distiller', 'TeacherLike', 'TeacherSpec', 'load_network']


class BaseDistiller(nn.Module):
    """The shared part of all distillers: losses, connected with the features of a student and a teacher.

    Attributes:
        student: The student.
        distill_losses: The losses by name.
        loss_weights: Their weights by name; one may be set to a number in a training.
        inputs: The names of their inputs, by the name of the loss.
        student_taps: Taps of the student that some loss reads.
        teacher_names: Names of the teacher's taps that some loss reads.
        classifier_path: Path of the student's linear classifier, if some loss reads its parameters; None else.
        task_views: Views of the task loss, of :data:`~mmcls_kd.recipe.methods.VIEWS`.
        student_views: Views that the student sees.
        teacher_views: Views that the teacher sees.
        predictor: The name of the loss that makes the predictions; None for the student's classifier.
        progress: Place in the training, for schedules.
        num_samples: Number of training samples; None if unknown.
        batch_size: Number of samples of a batch of one process; None if unknown.
        multi_label: Whether the student's labels do not exclude each other (sigmoid instead of softmax).
        label: ``'teacher'`` where the teacher's class takes the place of a missing label; None for nothing.
    """

    multi_label = False
    label: str | None = None
    student: nn.Module
    progress: Progress
    num_samples: int | None
    batch_size: int | None
    teacher_holder: TeacherLike | None
    #: How to give a second view of each image.
    second_view = 'give two, distiller((weak, strong), labels)'
    _told_of_view = False

    def connect(self, methods: Sequence[Method], taps: Mapping[str, Tap], found: DryRun) -> None:
        """Check that the networks have the inputs of the methods, select the features to read, and build the losses.

        Args:
            methods: The methods.
            taps: Taps of the student, by name.
            found: Its dry run.

        Raises:
            ValueError: If an input is unknown, a size does not fit, or two losses make the predictions.
        """
        self._built_as = id(self)  # that of a deep copy is another
        self._learned: set[str] = set()  # losses that have had a gradient
        teacher = self.teacher_holder
        if self.teachers:
            found.check_images_stay('student')
        if getattr(self, 'task_loss', None) is None:  # one of the user's may be of probabilities
            found.check_logits('student')
        shapes = {f'{name}_s': shape for name, shape in shapes_of(taps, found).items()}
        shapes |= {f'{name}_t': shape for name, shape in (teacher.shapes if teacher else {}).items()}
        shapes |= {alias: shapes[name] for alias, name in ALIASES.items() if name in shapes}
        self.inputs = {method.name: method.inputs for method in methods}
        self._fit_labels(methods)
        read = {ALIASES.get(name, name) for names in self.inputs.values() for name in names}
        read |= {'logit_t'} if self.label and GT_LABEL in read else set()
        wanted = set(map(weak_name, read))
        self.classifier_path = linear_classifier(self.student, found, taps) if wanted & {*STUDENT_LINEAR} else None
        heads = [TEACHER_HEAD] if self.teacher_head else []
        available = [GT_LABEL, SAMPLE_IDX, *shapes, *heads, *self.linear_classifiers]
        several = isinstance(teacher, TeacherGroup) or isinstance(shapes.get('vector_t', (2,))[0], tuple)
        if several and 'vector_t' in wanted:
            check_several(methods)
        check_class_scores(methods, available, found.num_classes, teacher.num_classes if teacher else None)
        check_stored_inputs(teacher, methods)
        check_inputs(methods, available)
        self.student_taps = {n: tap for n, tap in taps.items() if f'{n}_s' in wanted}
        self.teacher_names = [n for n in (teacher.shapes if teacher else ()) if f'{n}_t' in wanted]
        for one in each_teacher(teacher) if 'logit' in self.teacher_names else ():
            if isinstance(one, FrozenTeacher):
                one.dry_run.check_logits('teacher')
        self._build_losses(methods, shapes | {f'{name}{VIEWS["strong"]}': shape for name, shape in shapes.items()})
        self._check_two_classes(found.num_classes)
        self._weigh_task(methods)
        self._find_views(methods, read)
        predictors = [name for name, loss in self.distill_losses.items() if hasattr(loss, 'predict_logit')]
        if len(predictors) > 1:
            raise ValueError(f'{" and ".join(predictors)} both make the predictions: choose one of them')
        self.predictor = predictors[0] if predictors else None

    def _build_losses(self, methods: Sequence[Method], shapes: Mapping[str, Shape]) -> None:
        """Build the losses, from the shapes of their inputs, and their weights."""
        teacher = self.teacher_holder
        facts = {
            'num_samples': lambda: self.num_samples,
            'batch_size': lambda: self.batch_size,
            **(teacher.facts if teacher else {}),
        }
        with torch.random.fork_rng(devices=[]):  # the student's weights, drawn later, are the same under every method
            torch.default_generator.manual_seed(int(torch.randint(2**62, ())))  # and no loss's weights are drawn as they are
            self.distill_losses = nn.ModuleDict({m.name: m.build(shapes, facts, self.progress) for m in methods})
        for name, loss in self.distill_losses.items():
            for note in stray_parts(name, loss):
                logger.warning(note)
        self.loss_weights = LossWeights({method.name: method.weight for method in methods})

    def _check_two_classes(self, count: int) -> None:
        """Refuse losses of standardised logits with two classes."""
        for name, loss in self.distill_losses.items() if count == 2 else ():
            if any(getattr(part, 'standardize', False) for part in loss.modules()):
                raise ValueError(
                    f'{name}: standardised logits of two classes are always the same but for their sign, so nothing would '
                    'be learned: choose another method, or standardize=False'
                )

    def _weigh_task(self, methods: Sequence[Method]) -> None:
        """Set the factor and the views of the task loss by the settings of the methods, else by their losses."""
        given = {method.name: method.task_weight for method in methods if method.task_weight is not None}
        self._task_weights = given
        if self.task_weight < 0:
            raise ValueError(
                f'the task loss has the weight {self.task_weight:g} (1 - alpha of KDLoss), and would be maximised: give an '
                'alpha from 0 to 1, or the weight of the task loss by task_weight'
            )
        chosen = [
            method.task_views or getattr(self.distill_losses[method.name], 'task_views', ('weak',)) for method in methods
        ]
        self.task_views = [view for view in VIEWS if any(view in views for views in chosen or [('weak',)])]

    def _find_views(self, methods: Sequence[Method], read: set[str]) -> None:
        """Find the views that each network sees, and the reason why there have to be two.

        The weak view is seen by the student in any case.
        """
        strong = {name for name in read if weak_name(name) != name}
        self.teacher_views = [
            view for view, names in (('weak', read - strong), ('strong', strong)) if any(map(needs_teacher, names))
        ]
        reasons = [f'{m.name} reads {name}' for m in methods for name in m.inputs if name in strong]
        if 'strong' in self.teacher_views:
            check_stored_views(self.teacher_holder, reasons[0])
        if 'strong' in self.task_views and self.num_classes:
            reasons.append('the task loss is that of both views (task_views)')
        self.needs_strong = reasons[0] if reasons else None

    def views_of(self, inputs: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the images of each view that the student sees, by the name of the view.

        Args:
            inputs: Images, (N, C, H, W), or a pair of them.

        Raises:
            ValueError: If a second view is needed, and there is none; or if there are more than two.
        """
        given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if other := {type(one).__name__ for one in given if not isinstance(one, Tensor)}:
            raise ValueError(f'images: give a tensor, or two of them, (weak, strong), not {", ".join(sorted(other))}')
        if len(given) > len(VIEWS):
            raise ValueError(f'{len(given)} views of each image: there are two, the weak one and the strong one')
        if self.needs_strong and len(given) < len(VIEWS):
            raise ValueError(f'{self.needs_strong}, and there is one view of each image: {self.second_view}')
        if not self.needs_strong and len(given) == len(VIEWS):
            if not self._told_of_view:
                logger.warning('no loss reads the strong view of the images (no input ends in _strong): it is not used')
            self._told_of_view = True
            given = given[:1]
        return dict(zip(VIEWS, given))  # noqa: B905  (the weak one alone, if there is one)

    def _fit_labels(self, methods: Sequence[Method]) -> None:
        """Refuse methods and teachers that do not fit the kind of labels, and tell several teachers their mean."""
        if self.multi_label:
            check_scores(methods)
        check_substitute(self.label, [m.name for m in methods if GT_LABEL in m.inputs], self.teacher_holder is not None)
        check_stored(self.teacher_holder, self.multi_label)
        if isinstance(self.teacher_holder, TeacherGroup):
            self.teacher_holder.multi_label = self.multi_label

    @property
    def teacher_head(self) -> nn.Module | None:
        """The teacher's classifier of feature maps, if a loss reads it; like the teacher, it is not in the module tree."""
        asked = any(TEACHER_HEAD in names for names in self.inputs.values())
        return self.teacher_holder.head if self.teacher_holder and asked else None

    @property
    def linear_classifiers(self) -> dict[str, Tensor]:
        """The weight, (C, D), and bias, (C,), of the linear classifiers that losses read, by the names of these inputs.

        They are the live parameters: a loss's gradient flows to the student's.
        """
        found: dict[str, Tensor] = {}
        if self.classifier_path is not None:
            linear = self.student.get_submodule(self.classifier_path)
            found |= zip(STUDENT_LINEAR, weight_and_bias(linear), strict=True)
        asked = any(name in names for names in self.inputs.values() for name in TEACHER_LINEAR)
        if self.teacher_holder and asked and (classifier := self.teacher_holder.classifier):
            device = next(self.student.parameters()).device  # a stored one comes from a file
            found |= zip(TEACHER_LINEAR, (part.to(device) for part in classifier), strict=True)
        return found

    @property
    def teachers(self) -> Sequence[nn.Module]:
        """The networks of all teachers, as given."""
        return self.teacher_holder.networks if self.teacher_holder else []

    @property
    def task_weight(self) -> float:
        """Weight of the task loss: the product of the losses' factors (KD: 1 − alpha)."""
        own = {name: getattr(loss, 'task_weight', 1.0) for name, loss in self.distill_losses.items()}
        return math.prod({**own, **self._task_weights}.values())

    def distill(
        self,
        views: Mapping[str, Tensor],
        samples: Any,
        features: Mapping[str, Mapping[str, Any]],
        given: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        """Run the teacher, once for each view that a loss reads, and compute each loss, times its weight.

        Args:
            views: Images of each view, (N, C, H, W).
            samples: Their samples, for a stored teacher.
            features: Features of the student by name, of each view.
            given: The other inputs by name.

        Returns:
            The losses by name.
        """
        tensors = dict(given)
        for view, seen in features.items():
            tensors |= {f'{name}_s{VIEWS[view]}': tensor for name, tensor in seen.items()}
        teacher = self.teacher_holder if self.teacher_names else None
        for view in self.teacher_views if teacher else ():
            other = [view] if view != 'weak' else []  # a derived teacher need not know of views
            seen = teacher(views[view], samples, self.teacher_names, *other)  # type: ignore[misc]
            tensors |= {f'{name}_t{VIEWS[view]}': tensor for name, tensor in seen.items()}
        tensors |= {TEACHER_HEAD: self.teacher_head, **self.linear_classifiers}
        if self.label and 'logit_t' in tensors:
            tensors[GT_LABEL] = filled(tensors[GT_LABEL], tensors['logit_t'], self.multi_label)
        losses = {}
        for name, loss in self.distill_losses.items():
            inputs = {n: tensors[ALIASES.get(n, n)] for n in self.inputs[name]}
            if torch.compiler.is_compiling():
                value = loss(**inputs)
            else:
                value = value_of_loss(name, loss, inputs, learns=name not in self._learned)
                self._learned |= {name} if value.requires_grad else set()
            losses[name] = self.loss_weights[name].now(self.progress) * value
        return losses

    def temperatures(self) -> dict[str, Tensor]:
        """Return the learnt temperature of each loss, by name."""
        learning = ((name, loss) for name, loss in self.distill_losses.items() if isinstance(loss, CurriculumTemperature))
        return {name: loss.temp.detach() for name, loss in learning}

    def predicted_logit(self, inputs: Tensor) -> Tensor:
        """Return the logits, (N, C), of :attr:`predictor` for the student's features."""
        predict_logit: Any = self.distill_losses[str(self.predictor)].predict_logit
        names = {name.removesuffix('_s'): name for name in parameters_of(predict_logit.__func__)}
        with record(self.student, {name: self.student_taps[name] for name in names}) as seen:
            self.student(inputs)
        return predict_logit(**{names[name]: at_least_float32(tensor) for name, tensor in seen.items()})

    def _apply(self, fn: Any, recurse: bool = True) -> BaseDistiller:
        """Move the teachers along to another device or type; the losses stay in float32 at least, in which they compute.

        A deep copy, such as a moving average on the CPU, takes a teacher of its own: the original's stays where that is.
        """
        if self._built_as != id(self) and any(_changes(fn, network) for network in self.teachers):
            self.teacher_holder, self._built_as = self.teacher_holder.apart(), id(self)  # type: ignore[union-attr]
            for loss in self.distill_losses.modules():
                if getattr(loss, '_tail', ()):
                    loss._tail = (self.teacher_holder.tail,)  # type: ignore[union-attr, assignment]
        for network in self.teachers:
            network._apply(fn, recurse)
        super()._apply(fn, recurse)
        self.distill_losses._apply(at_least_float32)
        return self


class Distiller(BaseDistiller):
    """A student that learns from labels and from a frozen teacher.

    Given modules are used as they are, never copied: after training, the given student holds the weights. ``parameters()``
    are those of the student and the losses; the teacher is in no parameter list, state dict or DDP wrapper, but follows
    ``to(device)``. Features that no loss reads are not computed. State dict: ``student.*`` and ``distill_losses.NAME.*``.

    Args:
        student: A classifier: it takes images, (N, C, H, W), and returns logits, (N, classes), or an object with ``logits``.
            A network without classes (timm's with ``num_classes=0``, :class:`~mmcls_kd.EmbeddingNetwork`) learns from the
            losses alone.
        teacher: A classifier or a network without classes, its name (see :func:`load_network`), a :class:`TeacherSpec`, a
            :class:`~mmcls_kd.teachers.StoredTeacher`, or a list of teachers, whose probabilities are averaged. None where
            no loss needs one.
        losses: The losses by name, or in a list. Each is a loss itself; its class, or its name (``'nkd'``, ``'NKDLoss'``),
            whose sizes a dry run of the networks fills in; or a dict of ``type`` and keywords, with ``loss_weight``,
            ``stages`` and ``curriculum`` as in a config.
        taps: Taps by name with ``_s`` (student) or ``_t`` (teacher), which replace or extend the defaults: the path of a
            module, or ``dict(path, form, index, extra)``, see :func:`mmcls_kd.features.taps.given_taps`.
        task_loss: Loss of logits, (N, C), and labels, for samples that have one; cross entropy if None, of several labels
            the sum of their binary cross entropies. One that returns each sample's loss, (N,), needs no waiting for the
            labels on a GPU where some are missing.
        inputs: Input preprocessing of the images, as in :class:`TeacherSpec`; needed where a teacher's is given.
        input_size: Height and width of the images (or one number for both); found by trying if None.
        num_samples: Number of training samples, for losses that remember each (CRD).
        batch_size: Number of samples of a batch of one process, for losses with a layer of that width (SemCKD).
        teacher_mode: ``'eval'``, or ``'train'`` for batch statistics and drop path in the teacher.
        teacher_precision: ``'bf16'`` or ``'fp16'``; None for float32, or that of autocast.
        multi_label: Whether labels do not exclude each other: sigmoids instead of softmax. Labels are then multi-hot scores,
            (N, classes). So it is always of networks with one logit, for two classes; their labels are 0 or 1, (N,).
        label: ``'teacher'`` to give methods that need a label the teacher's class where a sample has none; None to refuse
            such samples with those methods.

    Raises:
        ValueError: If a loss, name, size or tap does not fit; names the remedy.

    Example:
        >>> from mmcls_kd import Distiller, losses
        >>> def network(width):
        ...     return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
        >>> student = network(4)
        >>> distiller = Distiller(student, teacher=network(8), losses=dict(nkd=losses.NKDLoss(), dist='dist'))
        >>> optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
        >>> out = distiller(torch.randn(8, 3, 32, 32), torch.arange(8))
        >>> out['loss'].backward(); optimizer.step(); optimizer.zero_grad()
        >>> sorted(out), distiller.student is student
        (['dist', 'loss', 'nkd', 'task'], True)
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Any = None,
        losses: Any = (),
        *,
        taps: Mapping[str, Any] | None = None,
        task_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        inputs: Mapping[str, Any] | None = None,
        input_size: int | tuple[int, int] | None = None,
        num_samples: int | None = None,
        batch_size: int | None = None,
        teacher_mode: str = 'eval',
        teacher_precision: str | None = None,
        multi_label: bool = False,
        label: str | None = None,
    ) -> None:
        super().__init__()
        check_plain('student', student)
        check_run(teacher_mode, teacher_precision)
        methods = _methods(losses)
        if teacher is not None and not methods:
            raise ValueError("losses: none is given, so the teacher would teach nothing: choose one, such as losses='dist'")
        given = check_names(taps or {}, ALIASES)
        size = (input_size, input_size) if isinstance(input_size, int) else input_size
        self.student, self.task_loss = student, task_loss
        self.num_samples, self.batch_size, self.progress = num_samples, batch_size, Progress()
        self._seen_batch = self._told_of_eval = self._missing = self._knows_epoch = self._knows_iteration = False
        self._first_counts: dict[str, int] | None = {}
        found = dry_run(student, 'student', size, whole=True)
        self.num_classes, self.label = found.num_classes, label
        self.multi_label = multi_label or found.num_classes == 1
        if not any(parameter.requires_grad for parameter in student.parameters()):
            raise ValueError('student: no parameter is trainable (a former teacher?): call student.requires_grad_(True)')
        if norms := of_the_last_batch(student):
            logger.warning(
                f'{len(norms)} batch norms of the student have a momentum of {norms[0].momentum}, which is the weight of '
                'the last batch in torch: the trained student would go by that batch alone. Set their `momentum` to 0.1'
            )
        if note := note_of_left_out(student):
            logger.warning(note)
        if not found.num_classes and not methods:
            raise ValueError("losses: the student has no classes, so nothing teaches it: choose one, such as 'embedding'")
        if teacher is None and (needing := [m.name for m in methods if any(map(needs_teacher, m.inputs))]):
            raise ValueError(f'{", ".join(needing)}: a teacher is needed: Distiller(student, teacher=...)')
        self.teacher_holder = None
        if teacher is not None:
            keywords = dict(taps=given, mode=teacher_mode, precision=teacher_precision, size=found.size)
            self.teacher_holder = build_teacher(teacher, student, inputs, keywords)
            remedy = 'give both the same classes, or say by TeacherSpec(network, class_map=[...])'
            check_classes(self.num_classes, self.teacher_holder.num_classes, remedy)
        self.connect(methods, default_taps(student, found) | given_taps(given, '_s', found), found)
        read = [*self.student_taps.values(), *self._teacher_taps()]
        self._ratio = found.size if any(lays_tokens(tap) for tap in read) else None
        parameter = next(student.parameters())
        self.distill_losses.to(parameter.device, torch.promote_types(parameter.dtype, torch.float32))
        for network in self.teachers:
            network.to(parameter.device)

    @property
    def teacher(self) -> TeacherLike | None:
        """The teacher; None where there is none."""
        return self.teacher_holder

    def set_epoch(self, epoch: int, iteration: int | None = None) -> None:
        """Set the place in the training, for losses whose weight or temperature has a schedule.

        Args:
            epoch: Number of finished epochs.
            iteration: Number of finished iterations, for schedules with ``by_epoch=False``; None to leave it.
        """
        self.progress.epoch, self._knows_epoch = epoch, True
        if iteration is not None:
            self.progress.iteration, self._knows_iteration = iteration, True

    def forward(
        self, images: Tensor | Sequence[Tensor], labels: Tensor | None = None, indices: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses of one training step.

        Args:
            images: Images, (N, C, H, W); or two views of them, (weak, strong), for losses that read both. Each network runs
                once a view, the weak one first: batch norms in training mode use the statistics of each view.
            labels: Class indices, (N,), of any type of integers, or scores, (N, classes); −1 of a sample that has none, None
                if all have none. The task loss is the mean over the samples that have one. Not read by a student without
                classes.
            indices: Index of each sample in the training set, (N,): for stored teachers, and losses that remember samples.

        Returns:
            ``'loss'``, the sum to minimise; its terms: ``'task'``, of :attr:`task_views`, times :attr:`task_weight`, and
            each loss by name.

        Raises:
            ValueError: If ``indices``, labels or a strong view are needed and not given, or images or labels are of another
                shape.
        """
        views = self.views_of(images)
        weak = views['weak']
        for one in views.values():
            self._check_images(one, len(weak))
        if absent := labels is None:
            labels = unlabelled(len(weak), self.num_classes, self.multi_label and self.num_classes > 1, weak.device)
        elif self.num_classes:
            labels = as_labels(labels, len(weak), self.num_classes, weak.device)
        self._check_batch(labels if self.num_classes else None)
        places = None
        if indices is not None:
            indices = _as_indices(indices, len(weak), weak.device)
            places = [(self.progress.epoch, place) for place in indices.tolist()]
        elif self._reads_indices:
            raise ValueError('the index of each sample is needed: distiller(images, labels, indices)')
        features, tasks = {}, []
        for view, seen_images in views.items():
            with without_reentry(), record(self.student, self.student_taps) as features[view]:
                logit = scores(self.student(seen_images))
            if self.num_classes and view in self.task_views:
                tasks.append(self._task(at_least_float32(logit), None if absent else labels))
        terms = {'task': self.task_weight * sum(tasks[1:], tasks[0])} if tasks else {}
        terms |= self.distill(views, places, features, {GT_LABEL: labels, SAMPLE_IDX: indices})
        return {'loss': torch.stack([term.mean() for term in terms.values()]).sum(), **terms}

    def _task(self, logit: Tensor, labels: Tensor | None) -> Tensor:
        """Return the task loss of one view's logits; 0 without labels."""
        if labels is None:
            return 0 * logit.sum()
        return task_loss(logit, labels, self.multi_label, self.task_loss, self._missing)

    def _check_images(self, images: Tensor, count: int) -> None:
        """Refuse anything but a batch of images, and another aspect ratio than that for which tokens were laid out."""
        if images.dim() != 4 or not len(images) or len(images) != count:
            raise ValueError(
                f'images of shape {tuple(images.shape)}: give a batch of at least one image, (N, C, H, W), and two views of '
                'the same images'
            )
        height, width = images.shape[2:]
        if self._ratio and height * self._ratio[1] != width * self._ratio[0]:
            raise ValueError(
                f'the images are {height} × {width}, and tokens were laid out for {self._ratio[0]} × {self._ratio[1]}: '
                f'Distiller(..., input_size=({height}, {width}))'
            )

    def _check_batch(self, labels: Tensor | None) -> None:
        """Refuse labels outside of the classes (on a GPU in the first batch alone); warn once of forgotten calls."""
        if torch.compiler.is_compiling():
            return
        if labels is not None and len(labels) and (labels.device.type == 'cpu' or not self._seen_batch):
            check_range(labels, self.num_classes, self.multi_label, shares=self.task_loss is None)
            if not is_labelled(labels).all():
                self._missing = True
                check_unlabelled(self.inputs, self.label)
        learns = torch.is_grad_enabled() and self.student.training
        if torch.is_grad_enabled() and not self.student.training and not self._told_of_eval:
            self._told_of_eval = True
            logger.warning('the student is in eval mode: call distiller.train() before each epoch of training')
        if learns and not self._knows_epoch:
            self._knows_epoch = True
            curricula = {name for name, loss in self.distill_losses.items() if hasattr(loss, 'progress')}
            by_epoch = {name for name, weight in self.loss_weights.items() if weight.by_epoch and not weight.fixed}
            if names := [name for name in self.loss_weights if name in by_epoch | curricula]:
                logger.warning(
                    f'{", ".join(names)}: the schedule of the weight or of the temperature stands at its beginning: call '
                    'distiller.set_epoch(epoch) at the start of each epoch'
                )
        if learns and not self._knows_iteration:
            self._knows_iteration = True
            if names := [name for name, weight in self.loss_weights.items() if not (weight.fixed or weight.by_epoch)]:
                logger.warning(
                    f'{", ".join(names)}: the schedule of the weight counts iterations (by_epoch=False) and stands at its '
                    'beginning: call distiller.set_epoch(epoch, iteration) before each step'
                )
        if learns and self._first_counts is not None:
            self._watch_optimizer(self._first_counts)
        self._seen_batch = True

    def _watch_optimizer(self, first: dict[str, int]) -> None:
        """Warn once, after the student's first step, of losses whose parameters the optimizer lacks."""
        if any(hasattr(module, 'unshard') for module in self.modules()):  # of fully_shard: a pass sees copies, which stay
            self._first_counts = None
            return
        parts = {'': self.student, **self.distill_losses}
        learning = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
        counts = {name: sum(p._version for p in parameters) for name, parameters in learning.items()}
        if not first:
            first.update(counts)
            self._first_sizes = {name: len(parameters) for name, parameters in learning.items()}
        elif counts[''] != first['']:
            self._first_counts = None
            if late := [name for name, parameters in learning.items() if len(parameters) > self._first_sizes[name]]:
                logger.warning(
                    f'{", ".join(late)}: parameters that are made in forward are unknown to an optimizer from before: make '
                    'them in __init__, whose sizes a dry run fills in (`sizes` of the loss)'
                )
            if still := [name for name, parameters in learning.items() if parameters and counts[name] == first.get(name)]:
                logger.warning(
                    f'{", ".join(still)}: parameters of the loss stay as they are while the student learns: give '
                    'distiller.parameters() to the optimizer, not student.parameters()'
                )

    def _teacher_taps(self) -> list[Tap]:
        """Return the taps of the teacher's features that some loss reads, where it is given the student's images."""
        teacher = self.teacher_holder
        if not isinstance(teacher, FrozenTeacher) or teacher.adapt.wanted.size:
            return []
        return [teacher.taps[name] for name in self.teacher_names]

    @property
    def _reads_indices(self) -> bool:
        """Whether a stored teacher or a loss needs the index of each sample."""
        stored = any(isinstance(teacher, StoredTeacher) for teacher in each_teacher(self.teacher_holder))
        return (stored and bool(self.teacher_names)) or any(SAMPLE_IDX in names for names in self.inputs.values())

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the logits, (N, classes), in eval mode, of the student or of the loss that predicts (SimKD).

        A student without classes returns its embeddings, (N, D).
        """
        with evaluating(self):
            return scores(self.student(images)) if self.predictor is None else self.predicted_logit(images)


def _as_indices(indices: Any, count: int, device: torch.device) -> Tensor:
    """Return the index of each sample, (N,), on a device; refuse anything but integers of that shape."""
    indices = torch.as_tensor(indices, device=device)
    if indices.shape != (count,) or indices.dtype == torch.bool or indices.is_floating_point():
        raise ValueError(
            f'indices of shape {tuple(indices.shape)} in {indices.dtype} for {count} images: give the index of each sample '
            f'in the training set, ({count},), as integers'
        )
    return indices


def _changes(fn: Callable[[Tensor], Tensor], network: nn.Module) -> bool:
    """Check whether a function of ``nn.Module._apply`` changes device or type of a network's parameters."""
    before = [parameter.data.new_empty(0) for parameter in network.parameters()]
    return any((old.device, old.dtype) != (new.device, new.dtype) for old, new in zip(before, map(fn, before), strict=True))


def _methods(losses: Any) -> list[Method]:
    """Parse a distiller's losses."""
    if isinstance(losses, nn.Module | str | type) or (isinstance(losses, Mapping) and isinstance(losses.get('type'), str)):
        losses = [losses]
    if not isinstance(losses, Mapping | list | tuple):
        raise ValueError(f'losses: give a loss, a list of losses, or a dict of losses by name, not {losses!r}')
    named = losses.items() if isinstance(losses, Mapping) else ((None, loss) for loss in losses)
    active = [(name, loss) for name, loss in named if not isinstance(loss, Mapping) or loss.get('use_this', True)]
    methods = [method_of(loss, name) for name, loss in active]
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1 or name in ('loss', 'task'):
            raise ValueError(f'losses: the name {name!r} is taken; give each loss its own, as in losses=dict(NAME=...)')
    return methods
