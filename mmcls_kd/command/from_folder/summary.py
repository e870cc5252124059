"""The results of a training on a folder: accuracy and cost of each network, and a figure of the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.runner import Runner
from mmpretrain.evaluation import Accuracy
from torch import Tensor, nn

from ...analysis.figures import new_figure, save
from ...analysis.outputs import TeacherReader, collect
from ...analysis.runs import Run
from ...checks.training import check_batches, check_data
from ...engine.knn_hook import KNNHook
from ...engine.models import unwrapped
from ...errors import listed
from ...features.dry_run import evaluating
from ...files.drawing import drawing
from ...networks.cost import count_flops, count_parameters, milliseconds
from ...teachers.several import each_teacher

COLUMNS = ('network', 'top-1 (%)', 'parameters', 'MACs', 'ms/image')
#: The column of accuracies on test images.
TESTED = 'test top-1 (%)'
LABELS = dict(
    distilled='student, distilled', alone='student alone', student='student', teacher='teacher',
    linear='student, linear head', finetune='student, fine-tuned',
)  # fmt: skip
COLOURS = dict(
    distilled='#0b62a4', student='#0b62a4', alone='#888888', teacher='#c2410c', linear='#15803d', finetune='#15803d'
)


@dataclass(frozen=True)
class Row:
    """Accuracy and cost of a network.

    Attributes:
        top1: Top-1 accuracy on the validation images, in percent; of a student, after the last epoch.
        parameters: Number of parameters.
        macs: Multiply-adds of one image.
        milliseconds: Shortest time of one image, in ms, on the device of the training.
        knn: Whether the accuracy is that of nearest neighbours, of a network without classes.
        test: The same accuracy on the test images; None without any.
    """

    top1: float
    parameters: int
    macs: int
    milliseconds: float
    knn: bool = False
    test: float | None = None

    @property
    def accuracy(self) -> str:
        """The accuracy in words of a table."""
        return self._shown(self.top1)

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        tested = () if self.test is None else (self._shown(self.test),)
        return self.accuracy, f'{self.parameters:,}', _short(self.macs), f'{self.milliseconds:.2f}', *tested

    def _shown(self, accuracy: float) -> str:
        return f'{accuracy:.2f}{" (kNN)" if self.knn else ""}'


def _short(count: int) -> str:
    return f'{count / 1e9:.2f} G' if count >= 1e9 else f'{count / 1e6:.2f} M'


@dataclass(frozen=True)
class Result:
    """The result of a training on a folder.

    Attributes:
        top1: Top-1 accuracy of the student on the validation images after the last epoch, in percent; that of nearest
            neighbours if the student has no classes.
        student_file: Its weights.
        config: The config that was made.
        figure: The figure of the curves.
        curves: Validation accuracy by epoch, for ``'distilled'`` or ``'student'``, ``'linear'`` or ``'finetune'``, and
            ``'alone'``.
        rows: Accuracy and cost of each network, by the same names and ``'teacher'``.
        test_top1: As ``top1``, on the images of the folder's ``test``; None without that folder.
    """

    top1: float
    student_file: Path
    config: Path
    figure: Path
    curves: dict[str, list[tuple[int, float]]]
    rows: dict[str, Row]
    test_top1: float | None = None


class Predicting(nn.Module):
    """A distiller's student with the loss that predicts (SimKD), as ``student.pth`` holds both.

    Args:
        distiller: The distiller.
    """

    def __init__(self, distiller: Any) -> None:
        super().__init__()
        self.student, self.loss = distiller.student, distiller.distill_losses[distiller.predictor]
        self._predict = distiller.predicted_logit

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Tensor:  # noqa: ARG002
        """Return the logits, (N, C)."""
        return self._predict(inputs)


def check_measured(runner: Runner, test: bool = False) -> None:
    """Refuse a training whose networks could not be measured at its end.

    Args:
        runner: Of the training, with all else checked.
        test: Whether there are test images.

    Raises:
        ValueError: If a metric of the table is missing, or the test images have a fault.
    """
    _check_metric(runner, 'val_loop')
    if test:
        loaders = {'test_dataloader': runner.test_dataloader}
        check_data(runner, loaders)
        check_batches(runner, loaders)
        _check_metric(runner, 'test_loop')


def _check_metric(runner: Runner, name: str) -> None:
    """Refuse a loop that does not measure the accuracy of the table."""
    loop: Any = getattr(runner, name)
    found = loop.evaluator.metrics if loop else []
    if loop and knn_hook(runner):
        return
    if any(isinstance(one, Accuracy) and 1 in one.topk and len(one.thrs) == 1 and one.prefix == 'accuracy' for one in found):
        return
    key = name.replace('loop', 'evaluator')
    given = listed([type(one).__name__ for one in found]) if found else 'none'
    raise ValueError(
        f'{key}: the table after a training on a folder needs accuracy/top1, and the metrics are {given}: leave {key} as it '
        f"is (dict(type='Accuracy', topk=(1,))), or train {runner.cfg.filename} with your change, without --data and table"
    )


def knn_hook(runner: Runner) -> KNNHook | None:
    """Return the hook by which embeddings are measured, if there is one."""
    return next((hook for hook in runner.hooks if isinstance(hook, KNNHook)), None)


def measure(runner: Runner, name: str, test: bool = False) -> dict[str, Row]:
    """Measure the networks of a finished training: the student under its name, and the teacher unless it is a stored one.

    Args:
        runner: Of the training.
        name: Name of the student.
        test: Whether there are test images, to measure the networks on them too.
    """
    model = unwrapped(runner)
    batch = model.data_preprocessor(next(iter(runner.val_dataloader)), False)
    image = batch['inputs'][:1]
    hook = knn_hook(runner)
    metric = 'knn/top1' if hook else 'accuracy/top1'
    top1 = float(runner.message_hub.get_scalar(f'val/{metric}').current())
    tested = float(runner.test()[metric]) if test else None
    student = Predicting(model) if getattr(model, 'predictor', None) else getattr(model, 'student', model)
    with evaluating(student):
        rows = {name: Row(top1, *_cost([(student, image)]), knn=hook is not None, test=tested)}
    teacher = getattr(model, 'teacher_holder', None)
    if teacher is None:
        return rows
    if not teacher.networks:
        runner.logger.info('the table has no row of the teacher: a stored one knows the training images alone')
        return rows
    parts = ('val_dataloader', 'test_dataloader')[: 1 + test]
    accuracies = [hook.teacher_top1(runner, part) if hook else teacher_accuracy(runner, model, part) for part in parts]
    with evaluating(nn.ModuleList(teacher.networks)):
        pairs = [(one.network, one.adapt(image)) for one in each_teacher(teacher)]
        row = Row(accuracies[0], *_cost(pairs), knn=hook is not None, test=accuracies[1] if test else None)
    return {'teacher': row, **rows}


def teacher_accuracy(runner: Runner, model: Any, part: str = 'val_dataloader') -> float:
    """Measure the top-1 accuracy of a distiller's teacher on the images of a dataloader, in percent."""
    outputs = collect({'teacher': TeacherReader(model)}, getattr(runner, part), model.data_preprocessor, runner.logger.info)
    found = outputs['teacher']
    return 100 * (found.logit.argmax(1) == found.label).float().mean().item()


def _cost(pairs: Sequence[tuple[nn.Module, Tensor]]) -> tuple[int, int, float]:
    """Return parameters, multiply-adds and ms for an image of networks that run one after the other."""
    return (
        sum(count_parameters(network) for network, _ in pairs),
        sum(count_flops(network, image) // 2 for network, image in pairs),
        sum(milliseconds(network, image) for network, image in pairs),
    )


def draw_curves(runs: Mapping[str, Run], rows: Mapping[str, Row], path: Path) -> None:
    """Draw validation accuracy and loss terms over the epochs."""
    with drawing():
        figure = new_figure(6.4)
        above, below = figure.subplots(2, 1)
        for name, run in runs.items():
            epochs, values = zip(*run.accuracies(), strict=True)
            label = f'{LABELS[name]} ({values[-1]:.2f}{" kNN" if rows[name].knn else ""})'
            above.plot(epochs, values, color=COLOURS[name], marker='o', markersize=4, label=label)
        if 'teacher' in rows:
            top1, kind = rows['teacher'].top1, ' kNN' if rows['teacher'].knn else ''
            above.axhline(top1, color=COLOURS['teacher'], linestyle='--', label=f'teacher ({top1:.2f}{kind})')
        above.set(xlabel='epoch', ylabel='validation top-1 (%)')
        first = next(iter(runs.values()))
        for term, points in first.terms().items():
            below.plot(*zip(*points, strict=True), label=term)
        below.set(xlabel='epoch', ylabel=f'loss terms, {LABELS[first.name]}')
        for axes in (above, below):
            axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), fontsize=9.5)
        save(figure, path)


def table_rows(rows: Mapping[str, Row]) -> list[tuple[Any, ...]]:
    """Return the rows of the table: teacher, student alone, student, student with a head."""
    order = [name for name in ('teacher', 'alone', 'distilled', 'student', 'linear', 'finetune') if name in rows]
    return [(LABELS[name], *rows[name].cells()) for name in order]
