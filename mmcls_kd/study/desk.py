"""What ``tools/study.py`` does: keeps the books of a study while it runs, and makes its report."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections import defaultdict
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ..checkpoint import atomic_path
from ..errors import close_names
from ..locks import alone
from .execution import Failure, Place, execute, finished_before, remaining
from .plan import Planner, Run, sweep_results
from .records import RUNNING, Record, accuracy_of, add_record, read_records, write_records
from .study_file import read_study


class Desk:
    """A study in progress: what is planned, what is known, and what the user sees of it.

    Args:
        args: The command line, see ``tools/study.py``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the study cannot be as its file says.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.study = args, read_study(args.study)
        self.console = Console(highlight=False, markup=False, emoji=False)
        folder = args.work_dir or Path('work_dirs/studies', self.study.name)
        self.place = Place(folder, args.data_root, args.threads, args.gpus or 1)
        self.planner = Planner(self.study)
        self.failures: dict[str, Failure] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.progress: Progress | None = None
        self.task = TaskID(0)

    def results_alone(self) -> AbstractContextManager[None]:
        """What :func:`.alone` gives, for the results: studies with other work directories have the same file."""
        return alone(self.study.results.parent / f'.{self.study.name}', RUNNING)

    def planned(self) -> list[Run]:
        """The runs that are known by now."""
        return self.planner.runs(sweep_results(read_records(self.study.results)))

    def todo(self) -> list[Run]:
        """The planned runs that are chosen, have no result, and have not failed just now."""
        known = {record['key'] for record in read_records(self.study.results)} | set(self.failures)
        return [run for run in self.planned() if run.key not in known and self.chosen(run)]

    def chosen(self, run: Run) -> bool:
        """Whether the command line wants a run."""
        return any(fnmatch(run.key, pattern) for pattern in self.args.only)

    def outdated(self) -> list[Record]:
        """The results of runs that are not planned, or otherwise."""
        planned = {run.key: run.digest for run in self.planned()}
        return [record for record in read_records(self.study.results) if planned.get(record['key']) != record['digest']]

    def refuse_outdated(self) -> None:
        """Do not count what is of another study.

        Raises:
            ValueError: Names the first such result.
        """
        if found := self.outdated():
            raise ValueError(
                f'{self.study.results}: {len(found)} results, {found[0]["key"]} the first, are of runs that the study file '
                'or the configs plan otherwise now; --drop-outdated drops them'
            )

    def show(self) -> None:
        """Print what there is to do."""
        for run in (runs := self.todo()):
            self.console.print(run.key, *run.methods, soft_wrap=True)
        self.console.print(f'{len(runs)} of {len(self.planned())} runs to do', soft_wrap=True)

    def drop_outdated(self) -> None:
        """Leave out the results of runs that are not planned, or otherwise."""
        gone = {record['key'] for record in self.outdated()}
        write_records(self.study.results, [r for r in read_records(self.study.results) if r['key'] not in gone])
        self.console.print(f'{len(gone)} results dropped')

    def run(self) -> None:
        """Run all that is to be run; what the sweep finds brings further runs.

        Raises:
            ValueError: If results are of another study, or no run has a name that was asked for.
            InterruptedStudyError: As :func:`.execution.execute`.
        """
        self.refuse_outdated()
        if self.args.only == ['*']:
            self.document()  # what it lacks is said before the runs, not behind them
        if not any(self.chosen(run) for run in self.planned()):
            raise ValueError(f'--only {" ".join(self.args.only)}: no planned run has such a name; --list shows them')
        columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TextColumn('{task.fields[left]}')]
        with Progress(*columns, console=self.console, transient=True) as self.progress:
            self.task = self.progress.add_task(self.study.name, total=None, left='')
            while runs := self.todo():
                self.update()
                execute(runs, self.place, self.args.jobs, self.finished, self.failed)

    def update(self) -> tuple[str, str]:
        """Show how far it is; returns that and the time left as texts."""
        chosen, left = [run for run in self.planned() if self.chosen(run)], self.todo()
        seconds = remaining(left, self.seconds, self.args.jobs)
        text = '' if seconds is None else f'{timedelta(seconds=round(seconds))} left'
        if self.progress:
            self.progress.update(self.task, total=len(chosen), completed=len(chosen) - len(left), left=text)
        return f'{len(chosen) - len(left)}/{len(chosen)}', text

    def finished(self, run: Run, record: Record, took: float) -> None:
        """Write a result down."""
        add_record(self.study.results, record)
        self.seconds[run.pair].append(took)
        count, left = self.update()
        best = f' (best {record["best"]:.2f})' if record['best'] != record['last'] else ''
        self.console.print(f'{count}  {run.key}  {accuracy_of(record)}{best}  {took:.0f} s  {left}', soft_wrap=True)

    def failed(self, failure: Failure) -> None:
        """Remember a failure for the end."""
        self.failures[failure.run.key] = failure
        self.console.print(f'{failure.run.key} failed, see {failure.log}', soft_wrap=True)

    def report(self) -> None:
        """Put the tables into the document, which is made where there is none, and draw the plots.

        Raises:
            ValueError: If results are of another study, or the document has no place for a part.
        """
        from .plots import draw  # these need libraries of the extra `study`

        self.refuse_outdated()
        text, document = self.document(), self.study.report
        files = draw(self.study, read_records(self.study.results))
        with atomic_path(document) as unfinished:
            unfinished.write_text(text, encoding='utf-8')
        for path in (document, *files):
            self.console.print(f'written: {path}', soft_wrap=True)

    def document(self) -> str:
        """The document with the tables of today's results.

        Raises:
            ValueError: If it has no place for a part.
        """
        from .report import places, put

        file = self.study.report
        text = file.read_text(encoding='utf-8') if file.is_file() else places(self.study)
        return put(text, self.study, read_records(self.study.results))

    def commands(self) -> None:
        """Write a command for each run that is to be done: for a cluster, where many go at once."""
        given = [('--gpus', self.args.gpus), ('--data-root', self.args.data_root), ('--work-dir', self.args.work_dir)]
        options = [str(word) for name, value in given if value is not None for word in (name, value)]
        devices, lines = self.place.devices, []
        for run in self.todo():
            command = shlex.join(['python', sys.argv[0], self.args.study, '--job', run.key, *options])
            if self.args.slurm:  # `exec` and B: so that Slurm's SIGTERM reaches the program
                resources = f'--nodes=1 --ntasks=1 --gres=gpu:{devices} --cpus-per-task={5 * devices} --signal=B:TERM@120'
                names = f'-p {shlex.quote(self.args.slurm)} --job-name={run.key}'
                command = f'sbatch {names} {resources} --wrap {shlex.quote(f"exec {command}")}'
            lines.append(f'{command}\n')
        with atomic_path(self.args.commands) as unfinished:
            unfinished.write_text(''.join(lines))
        self.console.print(f'{len(lines)} commands written: {self.args.commands}', soft_wrap=True)

    def job(self, key: str) -> int:
        """Do one run, whose result stays in its folder; returns the exit code.

        Raises:
            ValueError: If there is no such run, or it is in progress.
            InterruptedStudyError: As :func:`.execution.execute`.
        """
        runs = {run.key: run for run in self.planned()}
        if key not in runs:
            raise ValueError(f'--job {key}: no planned run has this name{close_names(key, runs)}; --list shows them')
        with alone(self.place.folder / 'jobs' / key, RUNNING):
            execute([runs[key]], self.place, 1, self.told, self.failed)
        return self.failures_told()

    def told(self, run: Run, record: Record, took: float) -> None:
        """Say a result."""
        self.console.print(f'{run.key}  {accuracy_of(record)}  {took:.0f} s', soft_wrap=True)

    def collect(self) -> None:
        """Take the results that jobs have left in their folders.

        Raises:
            ValueError: If results are of another study.
        """
        self.refuse_outdated()
        folder = self.place.folder
        with alone(folder, RUNNING, shared=True), alone(folder / 'jobs', RUNNING), self.results_alone():
            found = [record for run in self.todo() if (record := finished_before(run, self.place))]
            write_records(self.study.results, [*read_records(self.study.results), *found])
        self.console.print(f'{len(found)} results taken, {len(self.todo())} runs to do', soft_wrap=True)

    def hours(self) -> None:
        """Print how many GPU hours the study will take, and put that into the document where it has a place for it."""
        from .hours import estimate
        from .report import put_part, start_of

        text = estimate(self.planner, self.planned(), self.args.hours * 1e12)
        print(text)
        document = self.study.report.read_text(encoding='utf-8') if self.study.report.is_file() else ''
        if start_of(self.study, 'hours') in document:
            with atomic_path(self.study.report) as unfinished:
                unfinished.write_text(put_part(document, self.study, 'hours', text), encoding='utf-8')

    def failures_told(self) -> int:
        """Say why runs failed; returns the exit code."""
        for failure in self.failures.values():
            print(f'{failure.run.key} failed: {failure.reason}\n    {failure.log}', file=sys.stderr)
        return 1 if self.failures else 0

    def check(self, key: str) -> int:
        """Whether a run done afresh has the recorded result, see :func:`.results.agreement`; returns the exit code.

        Raises:
            ValueError: If there is no such result.
        """
        from .results import Results, agreement

        records = read_records(self.study.results)
        known = {record['key']: record for record in records}
        runs = [run for run in self.planned() if run.key == key]
        if key not in known or not runs:
            raise ValueError(f'--check {key}: {self.study.results} has no result of that name')
        folder = self.place.folder / 'checks' / time.strftime('%Y%m%d_%H%M%S')
        fresh: list[Record] = []
        place = replace(self.place, folder=folder)
        execute(runs, place, 1, lambda _run, record, _took: fresh.append(record), self.failed)
        if not fresh:
            return 1
        row = Results(self.study, records).lines.get((runs[0].pair, runs[0].row))
        agrees, how = agreement(known[key], fresh[0], row)
        told = f'{key}: recorded {accuracy_of(known[key])}, afresh {accuracy_of(fresh[0])}'
        self.console.print(f'{told}: {how}', soft_wrap=True)
        return 0 if agrees else 1


def work(desk: Desk) -> int | str:
    """What the command line asks for of a study's runs; returns the exit code, or a message.

    Args:
        desk: The study.
    """
    if desk.args.job:
        return desk.job(desk.args.job)
    if desk.args.check:
        return desk.check(desk.args.check)
    with desk.results_alone():
        if desk.args.drop_outdated:
            desk.drop_outdated()
            return 0
        desk.run()
    if desk.failures_told():
        return f'study.py: {len(desk.failures)} runs failed; the same command tries them again'
    if desk.args.only == ['*']:
        desk.report()
    return 0
