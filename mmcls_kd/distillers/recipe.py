"""The recipe of a distillation: the ``model`` of a distiller's config, read and completed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..errors import MissingLibraryError, refusals_named
from ..files.checkpoint import read_checkpoint
from ..files.paths import absolute, find_file
from ..networks.classes import compare_order, data_names
from ..networks.sources import Source, find_network
from ..networks.trial import Found, pipeline_images
from ..recipe.methods import Method, MethodList, check_several, loss_class, needs_teacher
from ..teachers.several import TeacherGroup
from .teacher import StoredTeacher, StudentSpec, Teacher, TeacherSettings

TeacherHolder = Teacher | TeacherGroup | StoredTeacher
#: The key of each field of a teacher's settings.
TEACHER_KEYS = dict(
    pretrained='teacher_pretrained', classes='teacher_classes', pixels='teacher_pixels', weight='teacher_weights'
)


def is_distiller(model: Mapping | None) -> bool:
    """Check whether a ``model`` config is a distiller's, or that of a derived class."""
    return 'student_cfg' in (model or {})


class Recipe:
    """The recipe of a distillation.

    Args:
        model: The config of a distiller, which some methods change in place.

    Raises:
        ValueError: As :class:`~mmcls_kd.recipe.methods.MethodList`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.methods = MethodList(model.get('distill_cfg'))

    @classmethod
    def of(cls, cfg: Config) -> Recipe | None:
        """Return the recipe of a run's config; None if it trains no distiller."""
        return cls(cfg.model) if is_distiller(cfg.get('model')) else None

    @cached_property
    def student(self) -> Source:
        """The student's network.

        Raises:
            ValueError: If none is named, or there is no such network.
            FileNotFoundError: If its config is missing.
        """
        if self.model.get('student_cfg') is None:
            raise ValueError('model.student_cfg is missing: name a network of a library, or give a config or its path')
        with refusals_named('model.student_cfg'):
            return find_network(self.model['student_cfg'])

    def of_each_teacher(self, key: str) -> list[Any]:
        """Return the value of a key for each teacher."""
        value = self.model.get(key)
        return list(value) if isinstance(value, (list, tuple)) else [value]

    @property
    def teachers(self) -> list[TeacherSettings]:
        """The settings of each teacher.

        For several, each key holds a list of values, one each, or True or False for all; None for the default.

        Raises:
            ValueError: If a list is not as long as ``teacher_cfg``.
        """
        cfg = self.model.get('teacher_cfg')
        given = {field: self.model.get(key) for field, key in TEACHER_KEYS.items()}
        if cfg is None:  # a store takes the teacher's place, whatever else is still said of it
            return [TeacherSettings(None)]
        if not isinstance(cfg, (list, tuple)):
            for field in ('pretrained', 'pixels', 'weight'):
                if isinstance(given[field], (list, tuple)):
                    raise ValueError(
                        f'{TEACHER_KEYS[field]} is a list, but teacher_cfg is one teacher: give a list of teachers, or one '
                        'value'
                    )
            return [TeacherSettings(cfg, **{field: value for field, value in given.items() if value is not None})]
        if not cfg:
            raise ValueError('teacher_cfg is an empty list: name at least one teacher')
        rows: list[dict[str, Any]] = [{} for _ in cfg]
        for field, value in given.items():
            values = [value] * len(cfg) if value is None or isinstance(value, bool) else value
            if not isinstance(values, (list, tuple)) or len(values) != len(cfg):
                raise ValueError(
                    f'{TEACHER_KEYS[field]} has to be a list with one entry for each of the {len(cfg)} teachers, but is '
                    f'{value!r}'
                )
            for row, one in zip(rows, values, strict=True):
                if one is not None:
                    row[field] = one
        return [TeacherSettings(one, **row) for one, row in zip(cfg, rows, strict=True)]

    def preprocessor(self, given: Mapping | None = None) -> dict[str, Any]:
        """Return the config of the data preprocessor, with mixup and CutMix.

        Args:
            given: That of the run's config, for a distiller without one of its own; the student's is the last choice.
        """
        own = self.student.cfg
        cfg = {
            'type': 'ClsDataPreprocessor',
            **(self.model.get('data_preprocessor') or given or own.get('data_preprocessor') or {}),
        }
        cfg.setdefault('batch_augments', self.model.get('train_cfg') or own.get('train_cfg'))
        return cfg

    def build_teacher(self, methods: list[Method], student: StudentSpec, **keywords: Any) -> TeacherHolder | None:
        """Build the teacher, several as one, or a stored one; None if no method needs it.

        Args:
            methods: The methods.
            student: The student.
            **keywords: ``taps`` and ``compile_options`` of :class:`.teacher.Teacher`.

        Raises:
            ValueError: As :class:`.teacher.Teacher`; or if a method needs more than a store or several teachers can give,
                or the mode is one whose logits are not stored.
            FileNotFoundError: If config, weights or store are missing.
        """
        settings = self.teachers
        if not any(needs_teacher(name) for method in methods for name in method.inputs):
            return None
        mode, store = self.model.get('teacher_mode', 'eval'), self.model.get('teacher_store')
        if store and mode == 'train':
            raise ValueError("a teacher_store holds logits of teacher_mode='eval'; leave one of the two out")
        if store:
            return StoredTeacher(store)
        if len(settings) > 1:
            check_several(methods)
        keywords |= dict(mode=mode, precision=self.model.get('teacher_precision'))
        teachers = [Teacher(one, student, **keywords) for one in settings]
        for teacher in teachers:
            if teacher.pixels != student.pixels:
                print_log(f'the teacher gets {teacher.pixels}', 'current')
        return teachers[0] if len(teachers) == 1 else TeacherGroup(teachers, [one.weight for one in settings])

    def deployed(self) -> ConfigDict:
        """Return the config of the network that predicts after training: the student, or what a method makes of it."""
        for entry in self.methods.active:
            if hasattr(kind := loss_class(entry), 'deployed'):
                networks = {key: find_network(self.model[f'{key}_cfg']).in_full for key in ('student', 'teacher')}
                others = {key: self.model[key] for key in ('teacher_classes', 'taps') if self.model.get(key)}
                return ConfigDict(**kind.deployed(entry), **networks, **others)
        return self.student.cfg

    def inline_networks(self) -> None:
        """Replace student and teachers by their whole configs, in place.

        A missing config stays a path, which the distiller refuses if it needs it.
        """
        for key in ('student_cfg', 'teacher_cfg'):
            with refusals_named(f'model.{key}'):
                self._replace(key, _in_full)

    def _replace(self, key: str, change: Callable[[Any], Any]) -> None:
        """Change the value of a key, or each in its list, in place."""
        value = self.model.get(key)
        if value is not None:
            self.model[key] = [change(one) for one in value] if isinstance(value, (list, tuple)) else change(value)

    def complete(self, dataset: Mapping) -> None:
        """Make the config independent of other files and of the working directory, in place.

        Networks become whole configs, paths of existing files absolute; the facts about the training images are set, unless
        the config has them.

        Args:
            dataset: Config of the training data set.
        """
        if 'pipeline_pixels' not in self.model:
            self._take_images(pipeline_images(dataset))
        self.inline_networks()
        for entry in self.methods.entries:
            for keyword in getattr(loss_class(entry), 'files', {}):
                if keyword in entry:
                    entry[keyword] = absolute(entry[keyword])
        for key in ('student_pretrained', 'teacher_pretrained'):
            self._replace(key, absolute)

    def _take_images(self, found: Found) -> None:
        """Set the facts about the training images."""
        if 'to_rgb' in found.pixels:
            self.model.setdefault('rgb_images', found.pixels['to_rgb'])
        said = {key: list(found.pixels[key]) for key in ('mean', 'std') if set(found.pixels.get(key, ())) - {0.0, 1.0}}
        if 'size' in found.pixels:
            said['size'] = list(found.pixels['size'])
        if said or found.unclear:
            self.model['pipeline_pixels'] = {**said, **({'unclear': found.unclear} if found.unclear else {})}

    def keep_teacher_alone(self) -> None:
        """Change the config to one whose teacher runs in eval mode whatever the methods are, in place."""
        self.model.update(
            distill_cfg=[dict(methods=[dict(type='KDLoss', name='loss_kd')])], teacher_mode='eval', teacher_store=None
        )

    def teacher_record(self) -> dict[str, Any]:
        """Return the settings that determine the teachers' logits; a missing config is ignored."""
        if self.model.get('teacher_cfg') is None:
            return {}
        keys = ('teacher_classes', 'teacher_pixels', 'teacher_weights', 'rgb_images')
        record: dict[str, Any] = {key: self.model.get(key) or None for key in keys}
        given = self.model.get('pipeline_pixels') or {}
        if made := {key: given[key] for key in ('mean', 'std') if key in given}:
            record['pipeline_pixels'] = made
        record['own_weights'] = [one is True for one in self.of_each_teacher('teacher_pretrained')]
        with suppress(FileNotFoundError, MissingLibraryError):  # a training from a store needs neither
            networks = [dict(find_network(one).in_full) for one in self.of_each_teacher('teacher_cfg')]
            record['network'] = networks[0] if len(networks) == 1 else networks
        return record

    def record(self) -> dict[str, Any]:
        """Return the config as a checkpoint's fingerprint has it: networks without their data, active methods by name."""
        record = {key: value for key, value in self.model.items() if key != 'distill_cfg'}
        for key in ('student_cfg', 'teacher_cfg'):
            if isinstance(whole := record.get(key), dict):
                record[key] = whole.get('model', whole)
        if self.methods.entries:
            active = self.methods.active
            record['methods'] = {e['name']: {k: v for k, v in e.items() if k != 'use_this'} for e in active}
        return record


def _in_full(network: str | dict) -> str | dict:
    """Return a network's whole config for its path or name, or that itself if config or library are missing."""
    try:
        return find_network(network).in_full
    except (FileNotFoundError, MissingLibraryError):
        return network


def read_files(methods: list[Method]) -> list[Method]:
    """Read the values that methods give as the path of a file, in place.

    Args:
        methods: The methods; the class of a loss lists in ``files`` the keywords that may be a path.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not hold the value, or was made for another order of classes than the data's.
    """
    for method in methods:
        for keyword, key in getattr(method.kind, 'files', {}).items():
            if isinstance(path := method.keywords.get(keyword), (str, os.PathLike)):
                with refusals_named(method.name):
                    method.keywords[keyword] = _read_value(os.fspath(path), key)
    return methods


def _read_value(path: str, key: str) -> Any:
    content = read_checkpoint(find_file(path))
    if key not in content:
        raise ValueError(f'{path} holds no `{key}`: it is no file that `python -m mmcls_kd class-cost` wrote')
    compare_order(content.get('classes'), data_names(), path, refuse=True)
    return content[key]
