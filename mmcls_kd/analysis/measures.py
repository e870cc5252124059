"""Measures of classifiers' outputs: accuracy, calibration, agreement; of logits (N, C) and class indices (N,)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: Number of intervals of confidence, of equal width.
BINS = 15


def accuracy(logit: Tensor, label: Tensor) -> float:
    """Return the share of images whose largest logit is that of their class."""
    return agreement(logit, label)


def agreement(logit: Tensor, other: Tensor) -> float:
    """Return the share of images for which two networks predict the same class, right or wrong.

    Example:
        >>> agreement(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 2.0], [2.0, 3.0]]))
        0.5
    """
    named = other if other.dim() == 1 else other.argmax(dim=1)
    return float((logit.argmax(dim=1) == named).double().mean())


def class_accuracies(logit: Tensor, label: Tensor) -> Tensor:
    """Return the accuracy on the images of each class, (C,); NaN for a class without images."""
    right = label[logit.argmax(dim=1) == label]
    return right.bincount(minlength=logit.shape[1]).double() / label.bincount(minlength=logit.shape[1])


def divergence(logit_t: Tensor, logit_s: Tensor) -> float:
    """Return the mean Kullback-Leibler divergence from teacher to student, KL(teacher ‖ student), in nats."""
    log_t, log_s = (logit.double().log_softmax(dim=1) for logit in (logit_t, logit_s))
    return float(F.kl_div(log_s, log_t, reduction='batchmean', log_target=True))


def entropy(logit: Tensor, temp: float = 1.0) -> float:
    """Return the mean entropy of the probabilities at a temperature, in nats: 0 for one-hot ones, ln C for equal ones.

    Example:
        >>> round(entropy(torch.zeros(1, 10)), 4)
        2.3026
    """
    return float(torch.special.entr((logit.double() / temp).softmax(dim=1)).sum(dim=1).mean())


@dataclass(frozen=True)
class Calibration:
    """Calibration of a network: its accuracy as a function of its confidence, the largest probability.

    Attributes:
        error: Expected calibration error: the mean over the images of the distance between accuracy and mean confidence of
            their interval.
        confidence: Mean confidence.
        counts: Number of images in each of the intervals of confidence, from 0 to 1, (B,).
        confidences: Their mean confidence, (B,); NaN where there are none.
        accuracies: Their accuracy, (B,); NaN where there are none.
    """

    error: float
    confidence: float
    counts: Tensor
    confidences: Tensor
    accuracies: Tensor


def calibration(logit: Tensor, label: Tensor, bins: int = BINS) -> Calibration:
    """Measure the calibration by intervals of equal width, each with its lower end, the last with both."""
    confidence, named = logit.double().softmax(dim=1).max(dim=1)
    place = (confidence * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(place, minlength=bins)
    sums = torch.bincount(place, confidence, minlength=bins)
    right = torch.bincount(place, (named == label).double(), minlength=bins)
    error = float((sums - right).abs().sum() / len(label))
    return Calibration(error, float(confidence.mean()), counts, sums / counts, right / counts)


@dataclass(frozen=True)
class Summary:
    """The measures of a network: shares from 0 to 1, the error of :class:`Calibration`, and the entropy in nats.

    Accuracy and calibration error are NaN for images without labels.
    """

    accuracy: float
    confidence: float
    calibration_error: float
    entropy: float


def summary(logit: Tensor, label: Tensor) -> Summary:
    """Return the four measures of a network; a label of −1 is none.

    Example:
        >>> summary(torch.zeros(2, 4), torch.tensor([-1, -1]))
        Summary(accuracy=nan, confidence=0.25, calibration_error=nan, entropy=1.3862943611198906)
    """
    found = calibration(logit, label)
    right, error = (accuracy(logit, label), found.error) if (label >= 0).all() else (math.nan, math.nan)
    return Summary(right, found.confidence, error, entropy(logit))


def class_correlation(logit: Tensor) -> Tensor:
    """Return the correlation of the logits of two classes over at least two images, (C, C); NaN for a constant logit."""
    return torch.corrcoef(logit.double().T)


def correlation_distance(logit: Tensor, other: Tensor) -> float:
    """Return the mean distance of two networks' :func:`class_correlation` over all pairs of different classes."""
    distance = (class_correlation(logit) - class_correlation(other)).abs()
    return float(distance[~torch.eye(len(distance), dtype=torch.bool)].nanmean())
