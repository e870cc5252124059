"""ViTKD: mimic a vision transformer's shallow layers, generate its deep ones (Yang et al., arXiv 2209.02432)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DistillLoss
from .common import check_width, full_precision, resize_tokens
from .mgd import generation_block


def vitkd_loss(
    low_s: Tensor,
    low_t: Tensor,
    generated: Tensor,
    high_t: Tensor,
    masked: Tensor,
    alpha: float = 3e-5,
    beta: float = 3e-6,
    mask_ratio: float = 0.5,
) -> Tensor:
    r"""Compute the ViTKD loss: mimicking of the first two blocks and generation of the last one.

    .. math:: \frac{\alpha}{N} \sum_{l=0,1} \| low_s^l - low_t^l \|^2
        + \frac{\beta}{\lambda N} \| masked \odot (generated - high_t) \|^2

    Args:
        low_s: Student tokens after the first two blocks, aligned to the teacher's width, (N, 2, L, D).
        low_t: Teacher tokens after the first two blocks, (N, 2, L, D).
        generated: Tokens generated from the student's masked last ones, (N, L, D).
        high_t: Teacher tokens after the last block and the final norm, (N, L, D).
        masked: 1 for a token that was masked, 0 for one that stayed, (N, L).
        alpha: Weight of the mimicking term.
        beta: Weight of the generation term.
        mask_ratio: λ, the share of masked tokens.

    Returns:
        The loss, a scalar in squared units of the teacher's tokens.

    Example:
        >>> zeros, ones = torch.zeros(1, 2, 4, 3), torch.ones(1, 2, 4, 3)
        >>> vitkd_loss(zeros, ones, zeros[:, 0], ones[:, 0], torch.tensor([[1.0, 1.0, 0.0, 0.0]]), alpha=1.0, beta=1.0)
        tensor(36.)
    """
    low_term = F.mse_loss(low_s, low_t, reduction='sum')
    high_term = (masked[..., None] * (generated - high_t)).square().sum()
    return (alpha * low_term + beta / mask_ratio * high_term) / len(high_t)


class ViTKDLoss(DistillLoss):
    """:func:`vitkd_loss` on patch tokens, the student's aligned, masked and generated.

    Trainable parts: ``align2.0``, ``align2.1`` and ``align``, linear layers, where the widths differ; ``mask_token``;
    ``generation``, see :func:`~mmcls_kd.dis_losses.mgd.generation_block`. One uniform draw of shape (N, L) a call: per
    sample the int(L(1 − λ)) tokens with the smallest draws stay, the others become ``mask_token``. Where the student has
    another number of patch tokens than the teacher, its grid is interpolated first (the paper's pairs have the same).

    Args:
        student_dims: Width of the student's tokens.
        teacher_dims: Width of the teacher's tokens.
        alpha_vitkd: Weight α of the mimicking term.
        beta_vitkd: Weight β of the generation term.
        lambda_vitkd: Share λ of tokens that are masked.

    Raises:
        ValueError: If λ is not in (0, 1], or the tokens have other widths, or their number is not a square.
    """

    sizes = {'student_dims': ('tokens_high_s', 2), 'teacher_dims': ('tokens_high_t', 2)}

    def __init__(
        self,
        student_dims: int,
        teacher_dims: int,
        alpha_vitkd: float = 3e-5,
        beta_vitkd: float = 3e-6,
        lambda_vitkd: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 < lambda_vitkd <= 1:
            raise ValueError(f'ViTKDLoss(lambda_vitkd={lambda_vitkd}): choose a share above 0 and up to 1')
        self.student_dims = student_dims
        self.teacher_dims = teacher_dims
        self.alpha_vitkd = alpha_vitkd
        self.beta_vitkd = beta_vitkd
        self.lambda_vitkd = lambda_vitkd
        self.align2: nn.ModuleList | None = None
        self.align: nn.Linear | None = None
        if student_dims != teacher_dims:
            self.align2 = nn.ModuleList(nn.Linear(student_dims, teacher_dims) for _ in range(2))
            self.align = nn.Linear(student_dims, teacher_dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, teacher_dims))
        self.generation = generation_block(teacher_dims)

    @full_precision
    def forward(self, tokens_low_s: Tensor, tokens_low_t: Tensor, tokens_high_s: Tensor, tokens_high_t: Tensor) -> Tensor:
        check_width(self, 'student_dims', tokens_high_s.shape[2])
        check_width(self, 'teacher_dims', tokens_high_t.shape[2])
        blocks = [resize_tokens(tokens, tokens_low_t.shape[2]) for tokens in tokens_low_s.unbind(dim=1)]
        if self.align2 is not None:
            blocks = [align(tokens) for align, tokens in zip(self.align2, blocks, strict=True)]
        generated, masked = self._generate(resize_tokens(tokens_high_s, tokens_high_t.shape[1]))
        return vitkd_loss(
            torch.stack(blocks, dim=1),
            tokens_low_t,
            generated,
            tokens_high_t,
            masked,
            self.alpha_vitkd,
            self.beta_vitkd,
            self.lambda_vitkd,
        )

    def _generate(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mask the student's last tokens and fill them in; returns them (N, L, D_t) and the mask (N, L)."""
        aligned = tokens if self.align is None else self.align(tokens)
        n, length, _ = aligned.shape
        side = round(length**0.5)
        if side**2 != length:
            raise ValueError(f'ViTKDLoss lays the patch tokens on a square grid, but there are {length} of them')
        stay = torch.rand(n, length, device=aligned.device).argsort(dim=1)[:, : int(length * (1 - self.lambda_vitkd))]
        masked = torch.ones(n, length, dtype=aligned.dtype, device=aligned.device).scatter(1, stay, 0)
        visible = torch.where(masked[..., None] == 1, self.mask_token, aligned)
        grid = visible.transpose(1, 2).unflatten(2, (side, side))
        return self.generation(grid).flatten(2).transpose(1, 2), masked
