"""The network that SimKD trains: the student, a projector, and the teacher's head."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.heads import ClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from ..dis_losses.simkd import NO_HEAD, ReusedHead
from ..features.dry_run import dry_run
from ..features.families import default_taps
from ..features.taps import check_names, given_taps, record, shapes_of
from ..networks.sources import find_network
from ..recipe.methods import ALIASES
from ..teachers.inputs import InputSpec
from .teacher import StudentSpec, Teacher, TeacherSettings


@MODELS.register_module()
class SimKDClassifier(BaseClassifier):
    """A classifier whose features pass through a projector into another network's head.

    State dict: ``student.*``, ``predictor.projector.*`` and ``predictor.head.*``, as written by ``mmcls_kd transfer`` after
    training with SimKD. Of the teacher only the head is built.

    Args:
        student: The student's network, as in ``student_cfg`` of a distiller.
        teacher: The teacher's network, as in ``teacher_cfg``; its weights are not needed.
        factor: As in :class:`~mmcls_kd.dis_losses.simkd.SimKD`.
        teacher_classes: As in the distiller.
        taps: As in the distiller; only ``feat_s`` and ``feat_t`` are used.
        data_preprocessor: Data preprocessor of the batch; the student's own if None.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If the teacher has no head that reads its last feature map.
    """

    def __init__(
        self,
        student: str | Mapping,
        teacher: str | Mapping,
        factor: int = 2,
        teacher_classes: Any = None,
        taps: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        source, given = find_network(student), check_names(taps or {}, ALIASES)
        own = data_preprocessor or source.cfg.get('data_preprocessor')
        super().__init__(init_cfg=init_cfg, data_preprocessor={'type': 'mmpretrain.ClsDataPreprocessor', **(own or {})})
        self.student = MODELS.build(source.cfg)
        found = dry_run(self.student, 'student', source.pixels.get('size'))
        offered = default_taps(self.student, found) | given_taps(given, '_s', found)
        self._taps = {name: tap for name, tap in offered.items() if name == 'feat'}
        settings = TeacherSettings(teacher, pretrained=False, classes=teacher_classes)
        known = Teacher(settings, StudentSpec(InputSpec(), found.num_classes), given)
        if not self._taps or known.head is None:
            raise ValueError(NO_HEAD)
        self.predictor = ReusedHead(
            shapes_of(self._taps, found)['feat'][1], known.shapes['feat'][1], factor, deepcopy(known.head)
        )

    def forward(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | list[DataSample]:
        """Return logits, (N, C), for ``'tensor'``, samples with predictions for ``'predict'``.

        Raises:
            ValueError: For ``'loss'``: SimKD trains in a distiller.
        """
        if mode not in ('tensor', 'predict'):
            raise ValueError(f"mode={mode!r}: choose 'tensor' or 'predict'; a ClassificationDistiller trains such a network")
        with record(self.student, self._taps) as seen:
            self.student(inputs)
        logit = self.predictor(seen['feat'])
        return logit if mode == 'tensor' else ClsHead().predict((logit,), data_samples)
