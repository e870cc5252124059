"""Run a study and keep its records; list, check, collect and report results."""

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

from ..errors import close_names
from ..files.atomic import atomic_path
from ..files.locks import locked
from .execution import Failure, Place, execute, finished_before, remaining
from .plan import Planner, Run, sweep_results
from .records import RUNNING, Record, accuracy_of, add_record, read_records, write_records
from .sharing import remove_stores
from .study_file import read_study


class StudyRunner:
    """A study in progress, as its command line demands (:mod:`mmcls_kd.command.study`)."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.study = args, read_study(args.study)
        folder = args.work_dir or Path('work_dirs/studies', self.study.name)
        self.place = Place(folder, args.data_root, args.threads, args.gpus or 1, args.trust)
        self.planner = Planner(self.study)
        self.failures: dict[str, Failure] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)

    # ---- plans and results

    def records(self) -> list[Record]:
        """Read the results."""
        return read_records(self.study.results)

    def planned(self) -> list[Run]:
        """Return the runs that are known by now."""
        return self.planner.runs(sweep_results(self.records()))

    def selected(self) -> list[Run]:
        """Return the planned runs that ``--only`` selects; refuse names of which there are none."""
        if not (runs := [run for run in self.planned() if self.is_selected(run.key)]):
            raise ValueError(f'--only {" ".join(self.args.only)}: no planned run has such a name; --list shows them')
        return runs

    def is_selected(self, key: str) -> bool:
        """Return whether ``--only`` selects a name."""
        return any(fnmatch(key, pattern) for pattern in self.args.only)

    def pending(self) -> list[Run]:
        """Return the selected runs without a result that have not failed just now."""
        known = {record['key'] for record in self.records()} | set(self.failures)
        return [run for run in self.selected() if run.key not in known]

    def outdated(self) -> list[Record]:
        """Return the results whose run is not planned, or has other settings now."""
        planned = {run.key: run.digest for run in self.planned()}
        return [record for record in self.records() if planned.get(record['key']) != record['digest']]

    def refuse_outdated(self) -> None:
        """Refuse results of other settings; name the first."""
        if found := self.outdated():
            raise ValueError(
                f'{self.study.results}: {len(found)} results, {found[0]["key"]} the first, are of runs that the study file '
                'or the configs plan otherwise now; --drop-outdated drops them'
            )

    def results_alone(self) -> AbstractContextManager[None]:
        """Lock the results: studies with other work directories write the same file."""
        return locked(self.study.results.parent / f'.{self.study.name}', RUNNING)

    # ---- runs

    def run(self) -> int | str:
        """Execute the runs that the command line asks for; return the exit code, or a message."""
        if self.args.job:
            return self.run_job(self.args.job)
        if self.args.check:
            return self.check(self.args.check)
        with self.results_alone():
            if self.args.drop_outdated:
                return self.drop_outdated()
            self.run_pending()
        if self.print_failures():
            return f'{len(self.failures)} runs failed; the same command tries them again'
        if self.args.only == ['*']:
            self.report()
        return 0

    def run_pending(self) -> None:
        """Execute all pending runs, and those that the sweep's results add."""
        self.refuse_outdated()
        if self.args.only == ['*']:
            self.document()  # a missing place is an error before the runs
        if runs := self.pending():
            print(f'{len(runs)} of {len(self.selected())} runs to do', flush=True)
        while runs := self.pending():
            execute(runs, self.place, self.args.jobs, self.finished, self.failed)

    def finished(self, run: Run, record: Record, took: float) -> None:
        """Keep a result, and tell it with the progress."""
        add_record(self.study.results, record)
        self.remove_stores()
        self.seconds[run.pair].append(took)
        total, runs = len(self.selected()), self.pending()
        left = timedelta(seconds=round(remaining(runs, self.seconds, self.args.jobs)))
        best = f' (best {record["best"]:.2f})' if record['best'] != record['last'] else ''
        print(f'{total - len(runs)}/{total}  {run.key}  {accuracy_of(record)}{best}  {took:.0f} s  {left} left', flush=True)

    def remove_stores(self) -> None:
        """Remove each shared teacher after its last run."""
        if self.study.shared_teacher:
            known = {record['key'] for record in self.records()}
            unfinished = [run for run in self.planned() if run.key not in known and not finished_before(run, self.place)]
            remove_stores(self.place.folder, {run.store_name for run in unfinished})

    def failed(self, failure: Failure) -> None:
        """Keep a failure for the end."""
        self.failures[failure.run.key] = failure
        print(f'{failure.run.key} failed, see {failure.log}', flush=True)

    def print_failures(self) -> int:
        """Print the reasons of failures, one of several runs once; return the exit code."""
        keys: dict[tuple[str, Path], list[str]] = defaultdict(list)
        for key, failure in self.failures.items():
            keys[failure.reason, failure.log].append(key)
        for (reason, log), failed in keys.items():
            print(f'{", ".join(failed)} failed: {reason}\n    {log}', file=sys.stderr)
        return 1 if self.failures else 0

    def run_job(self, key: str) -> int:
        """Execute one run, whose result stays in its folder; return the exit code."""
        runs = {run.key: run for run in self.planned()}
        if key not in runs:
            raise ValueError(f'--job {key}: no planned run has this name{close_names(key, runs)}; --list shows them')

        def finished(run: Run, record: Record, took: float) -> None:
            print(f'{run.key}  {accuracy_of(record)}  {took:.0f} s')
            self.remove_stores()

        with locked(self.place.folder / 'jobs' / key, RUNNING):
            execute([runs[key]], self.place, 1, finished, self.failed)
        return self.print_failures()

    def check(self, key: str) -> int:
        """Repeat a run and compare it with its result, see :func:`.results.agreement`; return the exit code."""
        from .results import Results, agreement

        records = self.records()
        known = {record['key']: record for record in records}
        runs = [run for run in self.planned() if run.key == key]
        if key not in known or not runs:
            raise ValueError(f'--check {key}: {self.study.results} has no result of that name')
        place = replace(self.place, folder=self.place.folder / 'checks' / time.strftime('%Y%m%d_%H%M%S'))
        fresh: list[Record] = []
        execute(runs, place, 1, lambda _run, record, _took: fresh.append(record), self.failed)
        remove_stores(place.folder, ())
        if not fresh:
            return 1
        row = Results(self.study, records).lines.get((runs[0].pair, runs[0].row))
        agrees, reason = agreement(known[key], fresh[0], row)
        print(f'{key}: recorded {accuracy_of(known[key])}, afresh {accuracy_of(fresh[0])}: {reason}')
        return 0 if agrees else 1

    # ---- without runs

    def list_pending(self) -> None:
        """Print the pending runs."""
        for run in (runs := self.pending()):
            print(run.key, *run.methods)
        print(f'{len(runs)} of {len(self.selected())} runs to do')

    def drop_outdated(self) -> int:
        """Remove the results of other settings that ``--only`` selects."""
        gone = {record['key'] for record in self.outdated() if self.is_selected(record['key'])}
        write_records(self.study.results, [record for record in self.records() if record['key'] not in gone])
        print(f'{len(gone)} results dropped')
        return 0

    def write_commands(self) -> None:
        """Write a command for each pending run, for a cluster."""
        given = [('--gpus', self.args.gpus), ('--data-root', self.args.data_root), ('--work-dir', self.args.work_dir)]
        options = [str(word) for name, value in given if value is not None for word in (name, value)]
        options += ['--trust'] * self.args.trust
        devices, lines = self.place.devices, []
        for run in self.pending():
            command = shlex.join([*self.args.start, '--job', run.key, *options])
            if self.args.slurm:  # `exec` and B: so that Slurm's SIGTERM reaches the program
                resources = f'--nodes=1 --ntasks=1 --gres=gpu:{devices} --cpus-per-task={5 * devices} --signal=B:TERM@120'
                names = f'-p {shlex.quote(self.args.slurm)} --job-name={run.key}'
                command = f'sbatch {names} {resources} --wrap {shlex.quote(f"exec {command}")}'
            lines.append(f'{command}\n')
        with atomic_path(self.args.commands) as unfinished:
            unfinished.write_text(''.join(lines))
        print(f'{len(lines)} commands written: {self.args.commands}')

    def collect(self) -> None:
        """Take the results that jobs have left in their folders."""
        self.refuse_outdated()
        folder = self.place.folder
        with locked(folder, RUNNING, shared=True), locked(folder / 'jobs', RUNNING), self.results_alone():
            found = [record for run in self.pending() if (record := finished_before(run, self.place))]
            write_records(self.study.results, [*self.records(), *found])
        print(f'{len(found)} results taken, {len(self.pending())} runs to do')

    def document(self) -> str:
        """Return the document with tables of the current results; refuse one without a place for a part."""
        from .report import places, put

        file = self.study.report
        text = file.read_text(encoding='utf-8') if file.is_file() else places(self.study)
        return put(text, self.study, self.records())

    def report(self) -> None:
        """Write tables and plots of the results into the document, which is made if it does not exist."""
        from .plots import draw

        self.refuse_outdated()
        text, document = self.document(), self.study.report
        files = draw(self.study, self.records())
        with atomic_path(document) as unfinished:
            unfinished.write_text(text, encoding='utf-8')
        for path in (document, *files):
            print(f'written: {path}')

    def estimate(self) -> None:
        """Print the estimated GPU hours, and write them into the document if it has a place for them."""
        from .flops import estimate
        from .report import put_part, start_of

        text = estimate(self.planner, self.planned(), self.args.hours * 1e12)
        print(text)
        document = self.study.report.read_text(encoding='utf-8') if self.study.report.is_file() else ''
        if start_of(self.study, 'hours') in document:
            with atomic_path(self.study.report) as unfinished:
                unfinished.write_text(put_part(document, self.study, 'hours', text), encoding='utf-8')
