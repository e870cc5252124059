"""Teachers of a config: networks by name, built, loaded strictly, with class map and input preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.logging import print_log
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from .. import teachers
from ..errors import refusals_named
from ..features.dry_run import DryRun
from ..networks.classes import Names, class_index, class_names, index_by_name, names_in
from ..networks.loading import load_strictly
from ..networks.pixels import READERS, output_spec, size_is_said, wanted_pixels
from ..networks.sources import Source, brings_weights, check_to_be_had
from ..networks.towers import find_teacher
from ..networks.trial import UnclearError
from ..networks.weights import refuse_partial
from ..teachers.frozen import FrozenTeacher, check_run
from ..teachers.inputs import InputSpec, changed


@dataclass
class TeacherSettings:
    """A config's settings of one teacher.

    Attributes:
        cfg: The network, see :func:`~mmcls_kd.networks.sources.find_network`.
        pretrained: File, folder or address of its weights; True for the pretrained weights of a library; False for random
            weights, on purpose.
        classes: Class map: its class, by index or name, for each class of the student; None if the label spaces are
            identical.
        pixels: Overrides of its input preprocessing, see :func:`~mmcls_kd.teachers.inputs.changed`.
        weight: Its weight in the mean of several teachers.
    """

    cfg: str | Mapping | None
    pretrained: str | bool | None = None
    classes: Sequence[int | str] | None = None
    pixels: Mapping[str, Any] | None = None
    weight: float = 1.0


@dataclass
class StudentSpec:
    """The student, as far as a teacher depends on it.

    Attributes:
        pixels: Its input preprocessing.
        num_classes: Its number of classes.
        rgb_images: Whether the data set's images are RGB or BGR; None if unknown: then they are taken to be as the
            teacher's.
        names: Names of its classes in the data, in one or more forms; empty if they have none, None if no data are known.
        size: Height and width of its images in training, if known.
        unclear: Unknown settings of its input preprocessing (``to_rgb``, ``mean``, ``std``), each with the reason and the
            remedy.
    """

    pixels: InputSpec
    num_classes: int
    rgb_images: bool | None = None
    names: Sequence[Names] | None = None
    size: tuple[int, int] | None = None
    unclear: Mapping[str, str] = field(default_factory=dict)


Student = StudentSpec  # its name in earlier versions
#: The key to set for each unknown setting of the student's input preprocessing.
TO_SET = {
    'to_rgb': 'set model.rgb_images=True if they come red, green, blue, or False',
    'mean': 'say by model.pipeline_pixels=dict(mean=..., std=...) what the training pipeline makes of values from 0 to 255 '
    '(0 and 1 for nothing), and by model.rgb_images in which order colours come; or leave it to data_preprocessor to '
    'normalise',
}


def student_images(
    preprocessor: Any, rgb_images: bool | None, pipeline_pixels: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Find the student's input preprocessing: settings of :class:`StudentSpec`.

    Args:
        preprocessor: Its data preprocessor.
        rgb_images: See :class:`.classification.ClassificationDistiller`.
        pipeline_pixels: See :class:`.classification.ClassificationDistiller`.

    Raises:
        ValueError: If a setting is unknown, or pipeline and preprocessor contradict each other.
    """
    given = dict(pipeline_pixels or {})
    unclear = {key: reason for key, reason in (given.pop('unclear', None) or {}).items() if key in TO_SET}
    if unknown := sorted(set(given) - {'mean', 'std', 'size'}):
        raise ValueError(f'pipeline_pixels has no {unknown[0]!r}; it takes mean, std and size')
    if rgb_images is not None:
        unclear.pop('to_rgb', None)
    values = changed(InputSpec(), given)
    try:
        pixels = output_spec(preprocessor, bool(rgb_images), dict(mean=values.mean, std=values.std))
    except UnclearError as error:
        pixels, unclear = InputSpec(), unclear | dict(mean=str(error))
    told = {key: f'{reason}: {TO_SET[key]}' for key, reason in unclear.items()}
    return dict(pixels=pixels, rgb_images=rgb_images, size=values.size, unclear=told)


class Teacher(FrozenTeacher):
    """A frozen classifier, by its settings in a config.

    Args:
        settings: Its network, weights, class map and input preprocessing.
        student: The student.
        taps: Taps that replace or extend the defaults, see :func:`mmcls_kd.features.taps.given_taps`.
        mode: ``'eval'``, or ``'train'`` for batch statistics and drop path in the teacher, as in the original's runs.
        precision: ``'bf16'`` or ``'fp16'``; None for float32, or that of autocast.
        compile_options: Keywords of ``torch.compile``; None for no compilation.

    Attributes:
        pixels: Its input preprocessing.
        usual_size: Height and width of its library's images for such networks, if no source states the size of its training
            and it gets images as they come; else None.
        by_name: Class map found by names alone; else None.

    Raises:
        ValueError: If a setting does not fit, or config or weights are missing; names the key to set.
        FileNotFoundError: If config or weights are missing.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        student: StudentSpec,
        taps: Mapping[str, Any] | None = None,
        mode: str = 'eval',
        precision: str | None = None,
        compile_options: Mapping[str, Any] | None = None,
    ) -> None:
        check_run(mode, precision)
        self.pretrained = settings.pretrained
        network, self.pixels, names, published, self.usual_size = load_network(settings, student)
        super().__init__(network, student.pixels, self.pixels, None, taps, mode, precision, compile_options, student.size)
        count = self.num_classes
        known = (names, class_names(network, count), published)
        names = next((given for given in known if given and len(given) == count), None)
        self.by_name = None
        if not count:
            if settings.classes is not None:
                raise ValueError('teacher_classes: the teacher has no classes: leave it out')
            return
        if settings.classes is None:
            class_map = self.by_name = index_by_name(student.names, names, count, student.num_classes)
        else:
            class_map = class_index(settings.classes, names, count, student.num_classes)
        self.map_classes(class_map)

    @property
    def survey(self) -> DryRun:
        """The dry run of its network, under its name in earlier versions."""
        return self.dry_run


class StoredTeacher(teachers.StoredTeacher):
    """Teacher that reads precomputed logits and features from disk, for samples of mmpretrain's."""

    def check_views(self) -> None:
        """Leave it to :func:`mmcls_kd.engine.views.check_store`, which knows the run."""

    def views(self, samples: Sequence[DataSample]) -> list[tuple[int, int]]:
        """Return the view of each sample.

        Raises:
            ValueError: If the samples lack it.
        """
        views = [sample.get('view') for sample in samples]
        if None in views:
            raise ValueError(
                'teacher_store: samples lack the `view` field (epoch, index); train with '
                '`python -m mmcls_kd train`, whose data loading does (a dataloader of your own needs '
                'mmcls_kd.engine.reproducible around its config)'
            )
        return views

    def name_of(self, samples: Sequence[DataSample], number: int) -> str:
        """Name the image of a sample."""
        return str(samples[number].get('img_path'))


def load_network(
    settings: TeacherSettings, student: StudentSpec
) -> tuple[nn.Module, InputSpec, list[str] | None, list[str] | None, tuple[int, int] | None]:
    """Build a teacher's network with its weights, and collect the known facts about it.

    Args:
        settings: Settings of the teacher.
        student: The student.

    Returns:
        The network; its input preprocessing; the names of its classes, if its weights have them; those of the data set in
        its config; :attr:`Teacher.usual_size`.

    Raises:
        ValueError: If config or weights are missing or do not fit; names the key to set.
        FileNotFoundError: If config or weights are missing.
    """
    if settings.cfg is None:
        raise ValueError('the chosen methods need a teacher: set model.teacher_cfg')
    with refusals_named('model.teacher_cfg'):
        source = find_teacher(settings.cfg)
    cfg, weights = source.with_weights(settings.pretrained, 'teacher')
    if not weights and settings.pretrained is not False and not brings_weights(cfg):
        raise ValueError(
            'the teacher has no weights: set model.teacher_pretrained to a file or an address (to True for the weights that '
            'come with a network of a library, or to False, to distil from random weights on purpose)'
        )
    # so a run with a stored teacher, which draws none, starts alike
    with torch.random.fork_rng(devices=[]), refusals_named('model.teacher_cfg'):
        check_to_be_had(cfg)
        network = MODELS.build(cfg).float()  # some libraries keep the half precision of their files
    if settings.pretrained is not False and not weights and cfg.get('pretrained'):
        refuse_partial(network, 'teacher')
    if settings.pretrained is False:  # drawn at random: the first process's, for nothing else brings them together
        for tensor in network.state_dict().values():
            broadcast(tensor)
    meta = load_strictly(network, weights, 'teacher') if weights else {}
    source = source.as_trained(meta, str(weights))
    given = settings.pixels or {}
    pixels = changed(network_pixels(network, source, student, given), given)
    usual = pixels.size
    names = names_in(meta)
    if not weights or 'size' in {**source.pixels, **given} or usual is None or size_is_said(network, cfg):
        return network, pixels, names, source.class_names, None
    print_log(
        f'nothing says for which size of images the weights {weights} were trained: the teacher gets the student’s. Its '
        f'library gives {usual[0]} × {usual[1]} to such networks; model.teacher_pixels=dict(size=...) can say it',
        'current',
    )
    return network, replace(pixels, size=None), names, source.class_names, usual


def network_pixels(
    network: nn.Module, source: Source, student: StudentSpec | None = None, given: Mapping[str, Any] | None = None
) -> InputSpec:
    """Find a network's input preprocessing in its config or library; else that of the student.

    Args:
        network: A classifier.
        source: Source of the network.
        student: The student; None for none.
        given: Overrides in a config, which need not be known.

    Raises:
        ValueError: If its input preprocessing or the student's is unknown; names the key to set.
    """
    given, student = given or {}, student or StudentSpec(InputSpec(), 0)
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
    """Refuse a teacher whose input preprocessing is unknown.

    Args:
        unclear: The unknown settings, each with the reason.
        given: Settings that the config gives.

    Raises:
        ValueError: Names the missing setting.
    """
    if missing := [key for key in unclear if key not in given]:
        settings = ', '.join(f'{key}=...' for key in missing)
        raise ValueError(
            f'which images the teacher takes is not clear: {unclear[missing[0]]}. Say it by model.teacher_pixels=dict('
            f'{settings})'
        )
