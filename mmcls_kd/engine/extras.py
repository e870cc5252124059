"""Optional libraries: each is an extra of this package, and an error names it."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import need_library

#: Libraries of mmengine's visualizer backends.
BACKENDS = {'TensorboardVisBackend': 'tensorboard', 'WandbVisBackend': 'wandb', 'MLflowVisBackend': 'mlflow'}


def check_backends(cfg: Mapping) -> None:
    """Refuse a config whose visualizer has a backend without its library; the error names the extra."""
    backends = (cfg.get('visualizer') or {}).get('vis_backends') or []
    for backend in [backends] if isinstance(backends, Mapping) else backends:
        kind = str(backend.get('type')).rpartition('.')[-1]  # a scope may stand before it
        if kind in BACKENDS:
            need_library(BACKENDS[kind], kind)
