"""Patches of MMEngine and mmpretrain: everything that this package replaces in foreign libraries, and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.config import config as mmengine_config
from mmengine.runner import CheckpointLoader
from mmengine.utils import apply_to
from mmengine.visualization import Visualizer
from mmpretrain.datasets import mnist
from torch import Tensor

from .files import plain_data
from .files.checkpoint import FORCE_SAFE, _allowed_globals, read_checkpoint, take_start
from .networks.loading import fetch
from .networks.weights import about_contents, say_average, weights_of


def guard_loading(trust: bool) -> None:
    """Forbid code in data files in this process, mmengine's own loading (``Pretrained``, resume) included.

    If safe loading of a checkpoint fails, mmengine reads it anew and lets it run code; and it builds the objects named in
    YAML files and pickled annotation lists.

    Args:
        trust: Allow it after all.
    """
    plain_data.guard_files(trust)
    if trust:
        os.environ.pop(FORCE_SAFE, None)
    else:
        os.environ[FORCE_SAFE] = '1'  # for every torch.load, whoever calls it
        torch.serialization.add_safe_globals(_allowed_globals())
    CheckpointLoader.register_scheme('', _load_from_local, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), _load_from_http, force=True)


def _load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a local file for mmengine."""
    path = Path(filename).expanduser()
    content = take_start(path) or read_checkpoint(path)
    weights = weights_of(content)
    if not weights:
        raise ValueError(f'checkpoint {filename} {about_contents(content)}')
    say_average(content, f'weights {filename}')
    held = content.get('state_dict', content)
    if weights.keys() != {key for key, value in held.items() if isinstance(value, Tensor)}:
        content = {**content, 'state_dict': weights}  # where mmengine looks for them
    return content if map_location is None else apply_to(content, lambda x: isinstance(x, Tensor), _mover(map_location))


def _load_from_http(filename: str, map_location: Any = None, **_: Any) -> dict[str, Any]:
    """Download a file for mmengine, and read it."""
    return _load_from_local(str(fetch(filename, 'pretrained')), map_location)


def _mover(map_location: Any) -> Callable[[Tensor], Tensor]:
    return (lambda x: x) if callable(map_location) else (lambda x: x.to(map_location))


_path_by_index, _read_labels = mmengine_config._get_external_cfg_path, mnist.read_label_file
_make_figure, _set_image = Visualizer._initialize_fig, Visualizer.set_image


def start_faster() -> None:
    """Leave out work of mmengine and mmpretrain that a run does not need: of mmengine 0.10 and mmpretrain 1.2, a second."""
    mmengine_config._get_external_cfg_path = _path_by_name
    mnist.read_label_file = _label_array
    Visualizer._initialize_fig, Visualizer.set_image = _no_figure, _set_first_image
    np.empty(31 << 20, np.uint8)  # freed at once: glibc keeps the memory of smaller tensors from then on (a fifth of a step)


def _path_by_name(package: str, name: str) -> str:
    """Return the file of ``mmpretrain::NAME``; mmengine reads the 85 metafiles of mmpretrain before it looks there."""
    path = Path(package, '.mim', 'configs', name)
    return str(path) if path.is_file() else _path_by_index(package, name)


def _label_array(path: str) -> np.ndarray:
    """Read the labels of a data set like MNIST as one array; of a tensor mmpretrain makes 60,000, and an array of each."""
    return _read_labels(path).numpy()


def _no_figure(self: Visualizer, _cfg: dict) -> tuple[None, SimpleNamespace, None]:  # noqa: ARG001
    """Make no figure yet; for it mmengine imports matplotlib in every run, though few draw an image."""
    return None, SimpleNamespace(get_dpi=lambda: None), None


def _set_first_image(self: Visualizer, image: Any) -> None:
    """Set the image to draw on; make the figure where there is none."""
    if self.ax_save is None:
        self.fig_save_canvas, self.fig_save, self.ax_save = _make_figure(self, self.fig_save_cfg)
        self.dpi = self.fig_save.get_dpi()
    _set_image(self, image)
