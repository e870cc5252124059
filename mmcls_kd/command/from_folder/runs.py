"""Trainings on a folder of images, for ``train --data`` and for :func:`mmcls_kd.distill`."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import listed
from ..arguments import command_line
from ..exits import RESUMES, ended_in_order, ended_when_asked, errors_in_one_line
from ..loading import load_libraries

if TYPE_CHECKING:
    from .making import Made, Order
    from .summary import Result

Context = Callable[[], AbstractContextManager]


def train_on_folder(args: argparse.Namespace) -> None:
    """Train on a folder by the command line's options; print the table and the next commands."""
    from ...files.showing import show
    from .making import chosen, make
    from .summary import COLUMNS, TESTED, table_rows

    with errors_in_one_line():
        made = make(order_of(args))
    for note in made.notes:
        print(f'note: {note}')
    main_config = next(iter(made.configs.values()))
    print(f'{chosen(made.images, made.choices)}; classes: {listed(made.images.classes)}')
    print(f'config: {main_config}', flush=True)
    if args.config_only:
        print('train it by:', *(f'  {shlex.join(command)}' for command in training_commands(made)), sep='\n')
        return
    with ended_when_asked(RESUMES):
        result = run(made, args, errors_in_one_line, ended_in_order)
    count = len(made.images.test)
    columns = [*COLUMNS, TESTED] if count else [*COLUMNS]
    tested = f' and {count:,} test' if count else ''
    show(f'{len(made.images.val):,} validation{tested} images', columns, table_rows(result.rows))
    print(f'curves: {result.figure}\nstudent: {result.student_file}\nNext:')
    for command in next_commands(made, result, args.cfg_options):
        print(f'  {shlex.join(command)}')
    if made.lacks_classes:
        print('The student has no classes. A head for it (or --then finetune, which trains all of it):')
        print(f'  {args.command} --then linear --resume')


def training_commands(made: Made) -> list[list[str]]:
    """Return the commands that train the made configs, one after the other: of a student with a head, both stages."""
    first = next(iter(made.configs))
    commands = [command_line('train', 'train.py', str(made.configs[first]))]
    if made.final != first:
        last = str(made.run_folder(first) / f'epoch_{made.choices.epochs}.pth')
        backbone = str(made.backbone)
        commands.append(command_line('transfer', 'pth_transfer.py', '--dis_path', last, '--output_path', backbone))
        commands.append(command_line('train', 'train.py', str(made.configs[made.final])))
    return commands


def order_of(args: argparse.Namespace) -> Order:
    """Return the order of a command line."""
    from .making import Order

    return Order(
        data=args.data,
        student=args.student,
        teachers=args.teacher or (),
        teacher_weights=args.teacher_weights or (),
        student_weights=args.student_weights,
        methods=args.methods or (),
        epochs=args.epochs,
        then=args.then,
        then_epochs=args.then_epochs,
        size=args.size,
        val_fraction=0.2 if args.val_fraction is None else args.val_fraction,
        seed=args.seed or 0,
        baseline=args.baseline,
        work_dir=args.work_dir,
        command=args.command,
    )


def run(made: Made, args: argparse.Namespace, building: Context = nullcontext, going: Context = nullcontext) -> Result:
    """Run made trainings one after the other, as ``train CONFIG`` does; write the student's file and the figure.

    What is measured after a training is checked before it, and the student's file is written before that is measured.

    Args:
        made: The trainings.
        args: Arguments of the training parser, without config.
        building: Context of the checks before a training.
        going: Context of a training.
    """
    from ...analysis.runs import read_run
    from .summary import Result, check_measured, draw_curves, measure

    rows: dict[str, Any] = {}
    tested, student = bool(made.images.test), made.folder / 'student.pth'
    for name, config in made.configs.items():
        own = argparse.Namespace(**{**vars(args), 'config': str(config), 'work_dir': str(made.run_folder(name))})
        own.methods = None  # they are in the config
        with ExitStack() as held:
            with building():
                runner = _prepared(own, held)
                check_measured(runner, tested)
            with going():
                runner.train()
            if name != 'alone':
                with building():
                    log = read_run(made.run_folder(name), name)
                    last = log.checkpoints[log.last]
                    write_student(last, student if name == made.final else made.backbone)  # a head starts from that
            with going():
                rows |= measure(runner, name, tested)
    figure, row = made.folder / 'curves.png', rows[made.final]
    with building():
        runs = {name: read_run(made.run_folder(name), name) for name in made.configs}
        draw_curves(runs, rows, figure)
    curves = {name: one.accuracies() for name, one in runs.items()}
    return Result(row.top1, student, made.configs[made.final], figure, curves, rows, row.test)


def _prepared(args: argparse.Namespace, held: ExitStack) -> Any:
    """Return the runner of a made config; errors name the config, where their remedies are keys of it."""
    from ..training import prepare

    try:
        return prepare(args, held)
    except ValueError as error:
        if 'model.' not in str(error):
            raise
        raise ValueError(f'{error} (the keys are in {args.config}; train that after the change)') from error


def write_student(checkpoint: Path, path: Path) -> Path:
    """Write the student of a checkpoint as a file of its own: a distiller's transferred, else the weights; return it."""
    from ...files.atomic import save_atomically
    from ...files.checkpoint import plain, read_checkpoint
    from ...networks.transfer import transfer
    from ...networks.weights import student_weights, weights_of

    content = read_checkpoint(checkpoint)
    if student_weights(weights_of(content)):
        transfer(checkpoint, path)
    else:
        save_atomically({'meta': plain(content.get('meta', {})), 'state_dict': weights_of(content)}, path)
    return path


def next_commands(made: Made, result: Result, options: Mapping[str, Any] | None) -> list[list[str]]:
    """Return the commands that come next: classify, export, test; the latter two with the options, which no config has."""
    config, student = str(result.config), str(result.student_file)
    given = ['--cfg-options', *(f'{key}={value}' for key, value in options.items())] if options else []
    image = str(made.images.root / made.images.val[0][0])
    if made.lacks_classes:
        return [command_line('test', 'test.py', config, student, *given)]
    return [
        command_line('predict', 'predict.py', student, image),
        command_line('export', 'export_student.py', config, student, *given),
        command_line('test', 'test.py', config, student, *given),
    ]


def distill(
    student: str | Path | Mapping,
    teacher: str | Path | Mapping | Sequence[str | Path | Mapping] | None,
    data: str | Path,
    method: str | Sequence[str] | None = None,
    epochs: int | None = None,
    *,
    then: str | None = None,
    then_epochs: int | None = None,
    teacher_weights: str | Path | Sequence[str | Path] | None = None,
    student_weights: str | Path | None = None,
    size: int | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    baseline: bool = False,
    work_dir: str | Path | None = None,
    resume: bool = False,
    options: Mapping[str, Any] | None = None,
) -> tuple[Any, Result]:
    """Distil a teacher into a student on a folder of images, as ``python -m mmcls_kd train --data`` does.

    Args:
        student: ``timm:NAME``, ``torchvision:NAME``, ``hf:NAME``, a name of mmpretrain's zoo, a config or its path.
        teacher: The same, or several; None to train the student alone.
        data: Class folders, below ``train``, ``val`` and ``test`` or to be split.
        method: A method, or several; None for ``dist``, or ``embedding`` if the teacher has no classes.
        epochs: Number of epochs; None to choose it by the number of images.
        then: ``'linear'`` to put a linear classifier on the trained student of a teacher without classes, ``'finetune'`` to
            train all of it too; None to return the student without classes.
        then_epochs: Number of epochs of that; None for that of the distillation.
        teacher_weights: File, folder or address of the teacher's weights, one for each teacher; None for those that are
            published with it.
        student_weights: The same of the student, ``'pretrained'`` for the published ones; None for random weights.
        size: Size of the images; None to choose it by the images.
        val_fraction: Share of images for validation, if the folder has none.
        seed: Seed of the split and of the training.
        baseline: Train the student alone too, on the same budget.
        work_dir: Folder of the results; None for ``work_dirs/FOLDER-STUDENT``.
        resume: Resume what is in that folder.
        options: Changes of the config by key, as ``--cfg-options``.

    Returns:
        The student, the module of its own library in eval mode, for images as its config's ``data_preprocessor`` makes them
        (:class:`mmcls_kd.Predictor` takes files); and the :class:`~mmcls_kd.command.from_folder.summary.Result`.

    Raises:
        FileNotFoundError: If the folder or a file is missing.
        ValueError: If an argument is unknown, or folder and networks do not fit.
    """
    load_libraries()
    from ..training import parser
    from .making import Order, make
    from .predictor import Predictor

    def text(value: Any) -> Any:
        return str(value) if isinstance(value, os.PathLike) else value

    def as_list(value: Any) -> list:
        return [] if value is None else [*map(text, value)] if isinstance(value, (list, tuple)) else [text(value)]

    order = Order(
        data=str(data),
        student=text(student),
        teachers=as_list(teacher),
        teacher_weights=as_list(teacher_weights),
        student_weights=text(student_weights),
        methods=as_list(method),
        epochs=epochs,
        then=then,
        then_epochs=then_epochs,
        size=size,
        val_fraction=val_fraction,
        seed=seed,
        baseline=baseline,
        work_dir=None if work_dir is None else str(work_dir),
    )
    args = parser().parse_args([])
    args.resume, args.cfg_options = ('auto' if resume else None), dict(options or {}) or None
    with kept_environment():
        made = make(order)
        result = run(made, args)
        classifier = Predictor(result.student_file).classifier
    return getattr(classifier, 'model', classifier), result


@contextmanager
def kept_environment() -> Iterator[None]:
    """Restore the environment variables at the end: those of a training, such as for safe loading, are not the session's."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
