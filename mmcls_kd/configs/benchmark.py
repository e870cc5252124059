"""The model of a pair of the CIFAR-100 distillation benchmark, for its configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..backbones.cifar_benchmark import stage_count
from ..recipe.methods import offer

#: Methods whose loss is summed over all stages in RepDistiller, and those that take the last stage's map there.
ON_ALL_STAGES, ON_LAST_STAGE = ('at', 'nst', 'vid'), ('sp',)


def benchmark_pair(
    offered: Mapping[str, Mapping],
    teacher: str,
    student: str,
    data: str = '',
    methods: Sequence[str] = ('kd',),
    **settings: Mapping,
) -> dict[str, Any]:
    """Make the ``model`` of a pair's config, in which KD is switched on.

    Losses on all maps are applied at each stage that both networks have, counted from the first, as RepDistiller does.

    Args:
        offered: Keywords of each loss by method name.
        teacher: Published name of the teacher, e.g. ``'resnet32x4'``.
        student: Published name of the student.
        data: ``'tiny_imagenet'`` for the networks of Tiny-ImageNet.
        methods: The methods to switch on.
        **settings: The pair's own keywords of a method, e.g. ``dkd=dict(beta=8.0)``.

    Raises:
        ValueError: If a network or a method is unknown.
    """
    counts = stage_count(teacher), stage_count(student)
    stages: dict[str, Any] = {name: [*range(1, min(counts) + 1)] for name in ON_ALL_STAGES}
    stages |= {name: [-1] for name in ON_LAST_STAGE}
    own = {name: {'stages': numbers, **settings.get(name, {})} for name, numbers in stages.items() if name in offered}
    folder, ending = 'configs/cifar100_benchmark', f'_{data}.py' if data else '.py'
    return dict(
        _delete_=True,
        type='ClassificationDistiller',
        teacher_cfg=f'{folder}/{teacher}{ending}',
        teacher_pretrained=None,
        student_cfg=f'{folder}/{student}{ending}',
        rgb_images=not data,  # CIFAR's files hold RGB, images of files are read as BGR
        distill_cfg=offer(offered, methods, **{**settings, **own}),
    )
