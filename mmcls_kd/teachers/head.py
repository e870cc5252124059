"""The teacher's head: the part of a network that maps the last stage's map to logits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from ..features.dry_run import MISFITS, DryRun, evaluating
from ..features.families import own_head
from ..features.taps import Tap
from .fast import run


class Head(nn.Module):
    """Map from features of the last stage to logits, of the student's classes if their indices are given."""

    index: Tensor | None

    def __init__(self, network: nn.Module, index: Tensor | None = None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer('index', index)

    def forward(self, feat: Tensor) -> Tensor:
        """Return the logits of the student's classes, (N, C), of maps, (N, C_t, H, W)."""
        parameter = next(self.network.parameters(), feat)
        scores = self.network(feat.to(parameter.dtype)).to(feat.dtype)  # a loss computes in float32, a teacher maybe not
        return scores if self.index is None else scores[:, self.index.to(scores.device)]


def find_head(network: nn.Module, found: DryRun, taps: Mapping[str, Tap]) -> nn.Module | None:
    """Find the head behind ``feat``: candidates are tried, and one is kept only if it reproduces the network's logits."""
    if 'feat' not in taps or 'logit' not in taps:
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


def modules_behind(network: nn.Module, found: DryRun, path: str) -> nn.Sequential:
    """Return the modules that run behind one, in that order, without those inside of another."""
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
        """Return the logits of pooled features."""
        return self.classifier(feat.mean(dim=(2, 3)))
