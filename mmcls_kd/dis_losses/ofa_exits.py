"""OFA-KD with its exits: each stage of the student gets logits that learn from the teacher's (arXiv 2310.19444).

The paper describes the exits in words only (depth-wise separable convolutions for convolutional students, transformer
blocks for the others). Here each convolution leads to the next stage of the student, in width and size.

The released code (Hao840/OFAKD) has larger exits:

- Between two stages it has two separable convolutions with batch norm and ReLU behind each, the first of stride 2. Widths
  double from block to block up to the last, which leads to the larger one of the last stages of student and teacher. Here
  it is one, and the widths and sizes are the student's own.
- The exit of a CNN's last stage begins with a 1×1 convolution to that width; here the map is pooled and classified.
- Its exits of tokens have max(4 − stage, 1) blocks of four heads, merge patches down to a grid of 7 × 7 first, and read the
  class token where there is one. Here it is one block, and the mean of the patch tokens behind a layer norm.
- Students without class token whose stages are tokens, Swin's for one, get transformer blocks there. Here a student whose
  maps shrink gets convolutions, unless ``kind='attention'`` is set.
- There each exit may have its own ε.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_width, full_precision
from .ofa import ofa_logit_loss

KINDS = ('conv', 'attention')


def ofa_loss(logits_s: Sequence[Tensor], logit_t: Tensor, gt_label: Tensor, eps: float = 1.5, temp: float = 1.0) -> Tensor:
    """Sum :func:`~mmcls_kd.dis_losses.ofa.ofa_logit_loss` over several logits of the student.

    Args:
        logits_s: Logits of its exits and its head, each (N, C).
        logit_t: Teacher logits, (N, C).
        gt_label: Class indices (N,), or scores (N, C), of which the arg-max class counts.
        eps: Power of the target class.
        temp: Temperature.

    Returns:
        The loss, a scalar in nats.

    Example:
        >>> logit_s, logit_t = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]])
        >>> ofa_loss([logit_s, logit_s], logit_t, torch.tensor([0]), eps=2.0)
        tensor(3.5373)
    """
    return torch.stack([ofa_logit_loss(logit, logit_t, gt_label, eps, temp) for logit in logits_s]).sum()


class ToTokens(nn.Module):
    """Map (N, C, H, W) to tokens (N, H · W, C)."""

    def forward(self, feat: Tensor) -> Tensor:
        return feat.flatten(2).transpose(1, 2)


class MeanToken(nn.Module):
    """Mean of tokens, (N, L, C) to (N, C)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)


def separable_conv(channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Build a depth-wise 3×3 convolution, a 1×1 convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, stride=stride, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, out_channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def conv_exit(channels: Sequence[int], sizes: Sequence[int], num_classes: int) -> nn.Sequential:
    """Build an exit of convolutions: separable ones from its stage to the last, pooling, a linear layer.

    Args:
        channels: Width of each stage, from that of the exit on.
        sizes: Height of each stage's map.
        num_classes: Number of classes.
    """
    steps = zip(channels, channels[1:], sizes, sizes[1:], strict=False)
    convs = [separable_conv(width, next_width, max(round(size / after), 1)) for width, next_width, size, after in steps]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes))


def attention_exit(channels: int, num_classes: int) -> nn.Sequential:
    """Build an exit of patch tokens: a transformer block, a layer norm, the mean token, a linear layer.

    Args:
        channels: Width of the tokens; about one head for 64 channels.
        num_classes: Number of classes.
    """
    heads = math.gcd(channels, max(channels // 64, 1))
    block = nn.TransformerEncoderLayer(
        channels, heads, 4 * channels, dropout=0.0, activation='gelu', batch_first=True, norm_first=True
    )
    return nn.Sequential(ToTokens(), block, nn.LayerNorm(channels), MeanToken(), nn.Linear(channels, num_classes))


class OFALoss(DistillLoss):
    """:func:`ofa_loss` of an exit at each stage of the student, and of its own logits.

    Of the teacher only the logits are needed, so its architecture does not matter. Trainable part: ``exits``, one for each
    stage; they are dropped after training.

    Args:
        student_channels: Channels of each stage of the student, shallow to deep.
        student_sizes: Height of each stage's map.
        num_classes: Number of classes C.
        eps: Power of the target class.
        temp: Temperature.
        kind: ``'conv'`` for :func:`conv_exit`, ``'attention'`` for :func:`attention_exit`; if None, attention for a student
            whose stages all have one size (a ViT), else convolutions.
        loss_weight: Weight of this loss.

    Raises:
        ValueError: If ``kind`` is neither, widths and heights are not equally many, or stages or logits have other widths.
    """

    needs = 'softmax'
    sizes = {'student_channels': ('stages_s', 1), 'student_sizes': ('stages_s', 2), 'num_classes': ('logit_s', 1)}

    def __init__(
        self,
        student_channels: Sequence[int],
        student_sizes: Sequence[int],
        num_classes: int,
        eps: float = 1.5,
        temp: float = 1.0,
        kind: str | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if kind is not None and kind not in KINDS:
            raise ValueError(f'OFALoss(kind={kind!r}): choose one of {", ".join(map(repr, KINDS))}, or leave it out')
        if len(student_channels) != len(student_sizes):
            raise ValueError(
                f'OFALoss(student_channels={student_channels}, student_sizes={student_sizes}): give one of each for a stage'
            )
        self.student_channels = tuple(student_channels)
        self.student_sizes = tuple(student_sizes)
        self.num_classes = num_classes
        self.eps = eps
        self.temp = temp
        self.kind = kind or ('attention' if len(set(student_sizes)) == 1 < len(student_sizes) else 'conv')
        self.loss_weight = loss_weight
        self.exits = nn.ModuleList(map(self._exit, range(len(student_channels))))

    def _exit(self, stage: int) -> nn.Module:
        """Build the exit at a stage."""
        if self.kind == 'attention':
            return attention_exit(self.student_channels[stage], self.num_classes)
        return conv_exit(self.student_channels[stage:], self.student_sizes[stage:], self.num_classes)

    @full_precision
    def forward(self, stages_s: Sequence[Tensor], logit_s: Tensor, logit_t: Tensor, gt_label: Tensor) -> Tensor:
        check_width(self, 'student_channels', tuple(stage.shape[1] for stage in stages_s))
        check_width(self, 'num_classes', logit_s.shape[1])
        logits = [leave(stage) for leave, stage in zip(self.exits, stages_s, strict=True)]
        return self.loss_weight * ofa_loss([*logits, logit_s], logit_t, gt_label, self.eps, self.temp)
