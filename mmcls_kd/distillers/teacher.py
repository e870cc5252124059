"""The teacher: built, loaded strictly, frozen, and run for the tensors that the losses ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.logging import print_log
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..checkpoint import load_strictly
from ..configs import find_network
from ..errors import refusals_named
from ..networks.classes import Names, class_index, class_names, index_by_name, names_in
from ..networks.pixels import READERS, PixelAdapter, Pixels, changed, preprocessed, size_is_said, wanted_pixels
from ..networks.sources import Source, brings_weights
from ..networks.trial import UnclearError
from ..networks.weights import refuse_partial
from .default_taps import default_taps, own_head
from .fast_network import PRECISIONS, FastNetwork, run
from .forms import Read
from .survey import MISFITS, Survey, evaluating, survey
from .taps import Tap, given_taps, shapes_of

MODES = ('eval', 'train')


@dataclass
class TeacherSettings:
    """What a config says of one teacher.

    Attributes:
        cfg: The network: what :func:`~mmcls_kd.configs.find_network` takes.
        pretrained: File, folder or address of its weights; True for those that come with the network; False for random
            weights, on purpose.
        classes: For each class of the student its own class, by index or name; None if they are the same.
        pixels: Settings of its images in the place of what its config or library says, see
            :func:`~mmcls_kd.networks.pixels.changed`.
        weight: Its weight in the mean of several.
    """

    cfg: str | Mapping | None
    pretrained: str | bool | None = None
    classes: Sequence[int | str] | None = None
    pixels: Mapping[str, Any] | None = None
    weight: float = 1.0


@dataclass
class Student:
    """What a teacher has to know of the student.

    Attributes:
        pixels: The images that it gets, of which the teacher's are made.
        num_classes: How many classes it tells apart.
        rgb_images: Whether the data set gives red, green, blue, or blue, green, red; None if nothing says it, and it is
            taken to be as for the teacher's.
        names: What the data call its classes, in one or more ways; empty if that is not known.
        size: Height and width of its images in training, if they are known.
        unclear: What is not known of its images (``to_rgb``, ``mean``, ``std``), each with the reason and what to set.
    """

    pixels: Pixels
    num_classes: int
    rgb_images: bool | None = None
    names: Sequence[Names] = ()
    size: tuple[int, int] | None = None
    unclear: Mapping[str, str] = field(default_factory=dict)


#: What to set where the student's images are not clear.
TO_SET = {
    'to_rgb': 'set model.rgb_images=True if they come red, green, blue, or False',
    'mean': 'say by model.pipeline_pixels=dict(mean=..., std=...) what the training pipeline makes of values from 0 to 255 '
    '(0 and 1 for nothing), and by model.rgb_images in which order colours come; or leave it to data_preprocessor to '
    'normalise',
}


def student_images(
    preprocessor: Any, rgb_images: bool | None, pipeline_pixels: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What is known of the images that a student gets: settings of :class:`Student`.

    Args:
        preprocessor: Its data preprocessor.
        rgb_images: See :class:`.classification.ClassificationDistiller`.
        pipeline_pixels: Likewise.

    Raises:
        ValueError: If a setting is unknown, or pipeline and preprocessor do not fit together.
    """
    given = dict(pipeline_pixels or {})
    unclear = {key: reason for key, reason in (given.pop('unclear', None) or {}).items() if key in TO_SET}
    if unknown := sorted(set(given) - {'mean', 'std', 'size'}):
        raise ValueError(f'pipeline_pixels has no {unknown[0]!r}; it takes mean, std and size')
    if rgb_images is not None:
        unclear.pop('to_rgb', None)
    values = changed(Pixels(), given)
    try:
        pixels = preprocessed(preprocessor, bool(rgb_images), dict(mean=values.mean, std=values.std))
    except UnclearError as error:
        pixels, unclear = Pixels(), unclear | dict(mean=str(error))
    told = {key: f'{reason}: {TO_SET[key]}' for key, reason in unclear.items()}
    return dict(pixels=pixels, rgb_images=rgb_images, size=values.size, unclear=told)


class Teacher:
    """A frozen classifier, deliberately no ``nn.Module``.

    So the distiller that holds it does not register it: it is in no parameter list, optimizer, state dict, DDP wrapper or
    EMA copy, and neither ``train()`` nor ``init_weights()`` of the distiller reaches it. A deep copy of the distiller (EMA
    makes one) shares it.

    Args:
        settings: Its network, weights, classes and images.
        student: Whom it teaches.
        taps: Where its tensors are, in the place of the defaults, see :func:`.taps.given_taps`.
        mode: ``'eval'``, or ``'train'`` for batch statistics and drop path in the teacher, as in the original's runs.
        precision: ``'bf16'`` or ``'fp16'`` to compute in it; None for float32, or autocast's under mixed precision.
        compile_options: Keywords of ``torch.compile``; None not to compile.

    Attributes:
        network: The network as loaded.
        usual_size: Height and width of the images that its library gives to such networks, where nothing says for which
            size its weights were trained and it gets images as they come; else None.
        shapes: The shape of each tensor that it offers, by name, for two images.
        num_classes: How many classes its logits tell apart: the student's, where ``classes`` are given or found by name.
        by_name: Which of its classes are the student's, where nothing but their names says so; else None.

    Raises:
        ValueError: If a setting does not fit, or config or weights are not given; names what to set.
        FileNotFoundError: If config or weights are missing.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        student: Student,
        taps: Mapping[str, Any] | None = None,
        mode: str = 'eval',
        precision: str | None = None,
        compile_options: Mapping[str, Any] | None = None,
    ) -> None:
        check_run(mode, precision)
        self.pretrained = settings.pretrained
        self.network, pixels, names, published, self.usual_size = load_network(settings, student)
        self.network.requires_grad_(False).train(mode == 'train')
        if pixels != student.pixels:
            print_log(f'the teacher gets {pixels}', 'current')
        self.survey = survey(self.network, 'teacher', pixels.size or student.size)
        self.adapt = PixelAdapter(student.pixels, pixels, self.survey.channels)
        self.taps = default_taps(self.network, self.survey) | given_taps(taps or {}, '_t', self.survey)
        self.fast = FastNetwork(self.network, precision, compile_options)
        self.num_classes = count = self.survey.num_classes
        self._index: Tensor | None = None
        self.by_name: list[int] | None = None
        known = (names, class_names(self.network, count), published)
        names = next((given for given in known if given and len(given) == count), None)
        if settings.classes is None:
            index = self.by_name = index_by_name(student.names, names, count, student.num_classes)
        else:
            index = class_index(settings.classes, names, count, student.num_classes)
        if index is not None:
            self._index = torch.tensor(index)
            self.num_classes = student.num_classes
        self.shapes = shapes_of(self.taps, self.survey)
        self.shapes['logit'] = (2, self.num_classes)

    @property
    def networks(self) -> list[nn.Module]:
        """The network, as the only one."""
        return [self.network]

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    def _students(self, logit: Tensor) -> Tensor:
        """Of the class scores those of the student's classes, in its order."""
        if self._index is None:
            return logit
        self._index = self._index.to(logit.device)
        return logit[:, self._index]

    @cached_property
    def head(self) -> Head | None:
        """What makes logits of features of the last stage, (N, C_t, H, W), gradients flowing to the features.

        None where other layers lie between that stage and the classifier, or it reads something else (a class token).
        """
        found = find_head(self.network, self.survey, self.taps)
        return None if found is None else Head(found, self._index)

    @property
    def linear_weight(self) -> Tensor | None:
        """The rows of the last linear layer, (C, D), of the student's classes; None where the logits come otherwise."""
        if self.survey.linear_path is None:
            return None
        weight = self.network.get_submodule(self.survey.linear_path).weight.detach().flatten(1)  # type: ignore[operator]
        return weight if self._index is None else weight[self._index.to(weight.device)]

    @property
    def facts(self) -> dict[str, Callable[[], Any]]:
        """What losses may want to be built with, by name."""
        return {'teacher_weight': lambda: self.linear_weight, 'teacher_head': lambda: self.head}

    @torch.no_grad()
    def __call__(
        self,
        inputs: Tensor,
        data_samples: Sequence[DataSample],  # noqa: ARG002
        names: Iterable[str],
    ) -> dict[str, Read]:
        """Run the teacher as far as what is asked for needs it, in eval mode by :class:`.fast_network.FastNetwork`.

        Args:
            inputs: Images as the student sees them, (N, C, H, W).
            data_samples: Their samples; only a stored teacher looks at them.
            names: Which of its taps to read.

        Returns:
            The tensors by name, without gradient.
        """
        taps = {name: self.taps[name] for name in names}
        inputs = self.adapt(inputs)
        tensors = run(self.network, inputs, taps, stop=False) if self.network.training else self.fast(inputs, taps)
        if 'logit' in tensors:
            tensors['logit'] = self._students(tensors['logit'])
        return tensors


def check_run(mode: str, precision: str | None) -> None:
    """Refuse a way to run a teacher that there is not.

    Raises:
        ValueError: Names the choices.
    """
    if mode not in MODES:
        raise ValueError(f'teacher_mode={mode!r}: choose one of {", ".join(map(repr, MODES))}')
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f'teacher_precision={precision!r}: choose one of {", ".join(map(repr, PRECISIONS))}, or None')
    if precision is not None and mode == 'train':
        raise ValueError("teacher_precision is for teacher_mode='eval': statistics of a batch need float32")


def load_network(
    settings: TeacherSettings, student: Student
) -> tuple[nn.Module, Pixels, list[str] | None, list[str] | None, tuple[int, int] | None]:
    """A teacher's network with its weights, and what is known of it.

    Args:
        settings: The teacher's.
        student: Whom it teaches.

    Returns:
        The network; the images that it wants; the names of its classes if its weights say them; those of the data set in
        its config; :attr:`Teacher.usual_size`.

    Raises:
        ValueError: If config or weights are not given or do not fit; names what to set.
        FileNotFoundError: If config or weights are missing.
    """
    if settings.cfg is None:
        raise ValueError('the chosen methods need a teacher: set model.teacher_cfg')
    with refusals_named('model.teacher_cfg'):
        source = find_network(settings.cfg)
    cfg, weights = source.with_weights(settings.pretrained, 'teacher')
    if not weights and settings.pretrained is not False and not brings_weights(cfg):
        raise ValueError(
            'the teacher has no weights: set model.teacher_pretrained to a file or an address (to True for the weights that '
            'come with a network of a library, or to False, to distil from random weights on purpose)'
        )
    # so a run with a stored teacher, which draws none, starts alike
    with torch.random.fork_rng(devices=[]), refusals_named('model.teacher_cfg'):
        network = MODELS.build(cfg).float()  # some libraries keep the half precision of their files
    if settings.pretrained is not False and not weights and cfg.get('pretrained'):
        refuse_partial(network, 'teacher')
    if settings.pretrained is False:  # drawn at random: the first process's, for nothing else brings them together
        for tensor in network.state_dict().values():
            broadcast(tensor)
    names = names_in(load_strictly(network, weights, 'teacher')) if weights else None
    given = settings.pixels or {}
    pixels = changed(network_pixels(network, source, student, given), given)
    usual = pixels.size
    if not weights or 'size' in given or usual is None or size_is_said(network, cfg):
        return network, pixels, names, source.class_names, None
    print_log(
        f'nothing says for which size of images the weights {weights} were trained: the teacher gets the student’s. Its '
        f'library gives {usual[0]} × {usual[1]} to such networks; model.teacher_pixels=dict(size=...) can say it',
        'current',
    )
    return network, replace(pixels, size=None), names, source.class_names, usual


def network_pixels(
    network: nn.Module, source: Source, student: Student | None = None, given: Mapping[str, Any] | None = None
) -> Pixels:
    """The images that a network was made for, as its config or its library says; those of the student else.

    Args:
        network: A classifier.
        source: Where it comes from.
        student: Whom it teaches; None for nobody.
        given: Settings that a config gives, of which nothing has to be known.

    Raises:
        ValueError: If it is not known which images it or the student gets; names what to set.
    """
    given, student = given or {}, student or Student(Pixels(), 0)
    refuse_unclear(source.unclear, given)
    own = source.cfg.get('data_preprocessor') if 'mean' not in source.pixels else None
    relative = student.rgb_images is None and 'mean' not in source.pixels and not student.unclear
    said = {key: value for key, value in source.pixels.items() if key != 'to_rgb' or not relative}
    order_known = isinstance(network, tuple(READERS)) or 'to_rgb' in {**said, **given}
    for key, reason in student.unclear.items():  # of which the teacher's are made, unless they are the same
        if order_known or (own and key != 'to_rgb') or key in given:
            raise ValueError(f'the teacher takes other images than the student, and the student’s are not clear: {reason}')
    try:
        return changed(wanted_pixels(network, student.pixels, own, bool(student.rgb_images), source.cfg), said)
    except UnclearError as error:
        refuse_unclear(dict.fromkeys(('mean', 'std', 'to_rgb', 'size'), str(error)), given)
        return student.pixels


def refuse_unclear(unclear: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Refuse a teacher whose images are not clear.

    Args:
        unclear: The settings that are not known, each with the reason.
        given: Those that the config gives.

    Raises:
        ValueError: Names what is missing.
    """
    if missing := [key for key in unclear if key not in given]:
        settings = ', '.join(f'{key}=...' for key in missing)
        raise ValueError(
            f'which images the teacher takes is not clear: {unclear[missing[0]]}. Say it by model.teacher_pixels=dict('
            f'{settings})'
        )


class Head(nn.Module):
    """What makes logits of the last stage's map.

    Args:
        network: What makes class scores of it.
        index: Which of the scores are those of the student's classes; None for all.
    """

    index: Tensor | None

    def __init__(self, network: nn.Module, index: Tensor | None = None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer('index', index)

    def forward(self, feat: Tensor) -> Tensor:
        """The logits of the student's classes, (N, C), of maps, (N, C_t, H, W)."""
        scores = self.network(feat)
        return scores if self.index is None else scores[:, self.index.to(scores.device)]


def find_head(network: nn.Module, found: Survey, taps: Mapping[str, Tap]) -> nn.Module | None:
    """What makes class scores of the map that ``feat`` reads: tried, and kept only if it gives the network's own.

    Args:
        network: A classifier.
        found: Its survey.
        taps: Its taps.
    """
    if 'feat' not in taps:
        return None
    candidates: list[nn.Module | None] = [own_head(network)]
    behind = modules_behind(network, found, taps['feat'].modules[-1])
    for module in (behind, *map(network.get_submodule, found.logit_paths)):
        candidates += [module, Pooled(module)]
    parameter = next(network.parameters())
    with torch.random.fork_rng(devices=[]), evaluating(network), torch.no_grad():
        images = torch.randn(2, found.channels, *found.size).to(parameter)
        tensors = run(network, images, {name: taps[name] for name in ('feat', 'logit')})
        first, second = wanted = tensors['logit']
        for head in filter(None, candidates):
            with suppress(*MISFITS):  # it takes features of another form
                logit = head(tensors['feat'])
                # in units of what images change; where they change nothing, as with weights of 0, nothing is proved
                if logit.shape == wanted.shape and (logit - wanted).abs().max() < 1e-3 * (first - second).abs().max():
                    return head
    return None


def modules_behind(network: nn.Module, found: Survey, path: str) -> nn.Sequential:
    """The modules that run behind one, in that order; of those inside of one another the outermost."""
    order = list(found.outputs)
    later = [other for other in order[order.index(path) + 1 :] if not path.startswith(f'{other}.')]
    outermost = [p for p in later if not any(p.startswith(f'{other}.') for other in later)]
    return nn.Sequential(*map(network.get_submodule, outermost))


class Pooled(nn.Module):
    """A classifier that takes pooled features, made to take feature maps, (N, C, H, W)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, feat: Tensor) -> Tensor:
        """Class scores."""
        return self.classifier(feat.mean(dim=(2, 3)))


class TeacherGroup:
    r"""Several teachers as one: the logarithm of the weighted mean of their probabilities.

    .. math:: z = \log \sum_k w_k \, softmax(z_k), \quad \sum_k w_k = 1

    Args:
        teachers: The teachers.
        weights: Their weights w_k, in units of their sum.

    Attributes:
        shapes: That of the logits alone: features of several networks have no mean.
        num_classes: How many classes they all tell apart.

    Raises:
        ValueError: If a weight is not positive, or they tell apart different numbers of classes.
    """

    head = None
    facts: Mapping[str, Any] = {}

    def __init__(self, teachers: Sequence[Teacher], weights: Sequence[float]) -> None:
        if not all(isinstance(weight, (int, float)) and 0 < weight < math.inf for weight in weights):
            raise ValueError(f'teacher_weights={list(weights)}: each has to be a number above 0')
        counts = [teacher.num_classes for teacher in teachers]
        if len(set(counts)) > 1:
            raise ValueError(f'the teachers tell apart {counts} classes: set model.teacher_classes of those that differ')
        self.teachers, self.num_classes = list(teachers), counts[0]
        self.log_weights = [math.log(weight / sum(weights)) for weight in weights]
        self.shapes = {'logit': (2, self.num_classes)}

    @property
    def networks(self) -> list[nn.Module]:
        """The networks of all."""
        return [teacher.network for teacher in self.teachers]

    def __deepcopy__(self, memo: dict[int, Any]) -> TeacherGroup:
        return self

    def __call__(self, inputs: Tensor, data_samples: Sequence[DataSample], names: Iterable[str]) -> dict[str, Tensor]:
        """The joint logits, (N, C), or nothing; see :class:`Teacher`."""
        if 'logit' not in names:
            return {}
        logits = [teacher(inputs, data_samples, ['logit'])['logit'] for teacher in self.teachers]
        logits = [z.float() if z.dtype in PRECISIONS.values() else z for z in logits]  # what autocast may have left
        parts = [z.log_softmax(dim=1) + weight for z, weight in zip(logits, self.log_weights, strict=True)]
        return {'logit': torch.stack(parts).logsumexp(dim=0)}
