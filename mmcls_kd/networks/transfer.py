"""Transfer: the student of a distiller's checkpoint as a checkpoint of its own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..errors import listed
from ..files.atomic import save_atomically
from ..files.checkpoint import plain, read_checkpoint
from .weights import AVERAGES, _distillation_only, about_contents, find_weights, refuse_infinite, student_weights, weights_of


@dataclass
class Transfer:
    """The result of :func:`transfer`."""

    kept: list[str]  # the student's weights in the output
    dropped: list[str]  # the student's weights that only distillation needed
    left_out: list[str] = field(default_factory=list)  # the other parts of the checkpoint that are not in the output
    ema: bool = False  # the weights are the moving average's
    deit3: bool = False  # the student is a DeiT-III
    simkd: bool = False  # the teacher's head predicts, on features of the student


def _is_deit3(weights: Mapping[str, Tensor]) -> bool:
    """Check for a DeiT-III: its position embedding has no row for the class token, so its number of rows is a square."""
    if not {'backbone.cls_token', 'backbone.pos_embed', 'backbone.layers.0.ln1.weight'} <= weights.keys():
        return False
    rows = weights['backbone.pos_embed'].shape[1]
    return math.isqrt(rows) ** 2 == rows


def transfer(dis_path: str | Path, output_path: str | Path, trust: bool | None = None) -> Transfer:
    """Write the student of a distiller's checkpoint as a checkpoint of its own, for the plain mmpretrain config.

    ``meta`` (classes, data set, epoch) is kept. Optimizer, log history, teacher, losses and the layers that only
    distillation needed are left out. If the run kept a moving average, mmengine stores it under ``state_dict``, so it is
    taken.

    Args:
        dis_path: A checkpoint of ours or of the original toolbox.
        output_path: The file to write, atomically.
        trust: See :func:`read_checkpoint`.

    Raises:
        ValueError: If there is no student in it, or one with NaN or infinite weights; or if ``output_path`` is the
            checkpoint itself, a folder, or named as a file of safetensors.
    """
    checkpoint = read_checkpoint(dis_path, trust)
    if Path(output_path).is_dir():
        raise ValueError(f'{output_path} is a folder: name a file in it')
    if Path(output_path).suffix == '.safetensors':  # no program could read it under this name
        raise ValueError(f'{output_path}: a checkpoint of PyTorch is written: let the name end in .pth')
    if Path(output_path).exists() and Path(output_path).samefile(dis_path):
        raise ValueError(f'{output_path} is the checkpoint itself, from which no run could resume then: name another file')
    weights = weights_of(checkpoint)
    student = student_weights(weights)
    if not weights:
        raise ValueError(f'checkpoint {dis_path} {about_contents(checkpoint)}')
    if not student:
        raise ValueError(
            f'checkpoint {dis_path} has no student weights (names that start with "student."), but '
            f'{listed(list(weights), 3)}; give a checkpoint that a distiller wrote in training'
        )
    refuse_infinite(student, f'the student of checkpoint {dis_path} holds')
    dropped = _distillation_only(student)
    kept = OrderedDict((k, v) for k, v in student.items() if k not in dropped)
    place, _ = find_weights(checkpoint)
    others = {k for k, part in checkpoint.items() if not isinstance(part, Tensor)} - {place or 'state_dict', 'meta'}
    parts = {k.split('.', 1)[0] for k in weights} - {'student'} | others
    save_atomically({'meta': plain(checkpoint.get('meta', {})), 'state_dict': kept}, Path(output_path))
    simkd = any(k.startswith('predictor.') for k in kept)
    return Transfer(
        list(kept), dropped, sorted(parts), place in AVERAGES or 'ema_state_dict' in checkpoint, _is_deit3(kept), simkd
    )
