"""Warning signs before a training, and remedies: rules of thumb, each with its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .gradients import Term
from .measures import entropy
from .teacher_entropy import Softened

#: A term's gradient in units of the task loss's, below and above which its weight looks off.
LOW, HIGH = 0.1, 10.0
#: The teacher's entropy in units of that of equal probabilities, below and above which its logits add little.
ONE_HOT, UNIFORM = 0.02, 0.95
#: Target entropy of a higher temperature, in the same unit, and the temperatures to try.
SOFT, TEMPS = 0.1, (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0)
#: A cosine below which a term pulls against the task loss.
AGAINST = -0.3
#: Caveat about weights.
AT_THE_START = 'Weights: measured at the first step, and some published ones are meant to be weak or strong there.'
#: Number of standard errors that count as a difference.
ERRORS = 3.0


@dataclass(frozen=True)
class Advice:
    """A warning sign about a method or network: measurement, remedy, and a caveat about all advice of this kind."""

    about: str
    finding: str
    suggestion: str
    note: str = ''


def two_digits(value: float) -> str:
    """Format a number with two significant digits, without an exponent where possible.

    Example:
        >>> two_digits(0.03456), two_digits(1234.0), two_digits(8.0)
        ('0.035', '1200', '8')
    """
    return f'{float(f"{value:.2g}"):g}'


def on_terms(terms: Iterable[Term]) -> Iterator[Advice]:
    """Give advice about the weights of the terms, the task loss's among them."""
    for term in terms:
        if not math.isfinite(term.norm) or not math.isfinite(term.value):
            yield Advice(term.name, 'its value or gradient is not finite', 'lower its weight or look for the cause')
        elif term.weight is None:  # the task loss
            continue
        elif term.norm == 0:
            asked = 'does it read what is trained, does it teach later (FTLoss), and is there something left to learn?'
            mend = asked if term.weight else 'set it above 0'
            yield Advice(
                term.name, 'its gradient does not reach the student', f'loss_weight={two_digits(term.weight)}: {mend}'
            )
        elif term.ratio is not None:
            yield from _on_weight(term.name, term.weight, term.ratio)
            if term.cosine is not None and term.cosine < AGAINST:
                yield Advice(
                    term.name,
                    f'it pulls against the task loss (cosine {term.cosine:.2f})',
                    "do teacher and labels mean the same classes (model.teacher_classes), and is the loss's sign right?",
                )


def _on_weight(name: str, weight: float, ratio: float) -> Iterator[Advice]:
    if LOW <= ratio <= HIGH:
        return
    felt = 'hardly felt' if ratio < LOW else 'all that is felt'
    factor, product = two_digits(1 / ratio), two_digits(weight / ratio)
    yield Advice(
        name,
        f'its gradient is {two_digits(ratio)} times that of the task loss: it is {felt}',
        f'multiply its loss_weight by {factor} (loss_weight={product}) for as strong a pull as the labels have',
        AT_THE_START,
    )


def on_accuracy(teacher: float, student: float, classes: int, images: int) -> Iterator[Advice]:
    """Give advice about a teacher that does not know the data, by its accuracy and that of the untrained student."""
    chance = 1 / classes
    error = ERRORS * math.sqrt(chance * (1 - chance) / images)
    if teacher <= chance + error:
        yield Advice(
            'teacher',
            f'its accuracy is {teacher:.2%}, and guessing gives {chance:.2%}',
            'are model.teacher_pretrained, model.teacher_classes (its class for each of the student’s) and '
            'model.teacher_pixels (mean, std, order of colours, size) right?',
        )
    elif student - teacher > ERRORS * math.sqrt(student * (1 - student) / images):
        yield Advice(
            'teacher',
            f'its accuracy is {teacher:.2%}, below the student’s {student:.2%}',
            'take a better teacher; or model.teacher_pixels or model.teacher_classes are wrong',
        )


def on_size(accuracy: float, others: Mapping[tuple[int, int], float], images: int) -> Iterator[Advice]:
    """Give advice about the size of the teacher's images, if that of its training is unknown.

    ``others`` has its accuracy on the same images in other sizes, by (height, width).
    """
    best = max(others, key=others.__getitem__, default=None)
    if best and others[best] - accuracy > ERRORS * math.sqrt(others[best] * (1 - others[best]) / images):
        height, width = best
        yield Advice(
            'teacher',
            f'its accuracy is {accuracy:.2%} on images as they come and {others[best]:.2%} on {height} × {width}',
            f'set model.teacher_pixels=dict(size=({height}, {width}))',
        )


def on_softness(logit_t: Tensor, softened: Mapping[str, Softened]) -> Iterator[Advice]:
    """Give advice about a teacher whose probabilities are nearly one-hot or uniform.

    ``softened`` are its logits (N, C) as each method uses them, see :func:`.teacher_entropy.softened`.
    """
    most = math.log(logit_t.shape[1])
    for name, of in softened.items():
        found = of.entropy()
        if found < ONE_HOT * most:
            higher = next((t for t in TEMPS if t > of.temp and of.entropy(t) >= SOFT * most), TEMPS[-1])
            yield Advice(
                name,
                f'at temperature {of.temp:g} the teacher is nearly one-hot: entropy {found:.3f} of {most:.2f} nats, so it '
                'says little more than the labels',
                f'raise temp: at {higher:g} the entropy is {of.entropy(higher):.2f} nats',
            )
    if (found := entropy(logit_t)) > UNIFORM * most:
        yield Advice(
            'teacher',
            f'its probabilities are nearly equal: entropy {found:.2f} of {most:.2f} nats at temperature 1',
            'are model.teacher_pretrained and model.teacher_pixels right? If its accuracy is, lower temp',
        )


def advise(
    terms: Iterable[Term],
    teacher: float | None,
    student: float,
    logit_t: Tensor | None,
    softened: Mapping[str, Softened],
) -> Sequence[Advice]:
    """Collect all advice, with the accuracies of both networks and the teacher's logits (N, C)."""
    found = list(on_terms(terms))
    if teacher is not None and logit_t is not None:
        images, classes = logit_t.shape
        found += [*on_accuracy(teacher, student, classes, images), *on_softness(logit_t, softened)]
    return found
