"""Raw results of a study: a JSON line for each finished run, each run once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import atomic_path

Record = dict[str, Any]
#: Result of a run in its folder; the raw results of a study are a line for each.
RESULT = 'result.json'
#: Reason for refusing a second study, see :func:`~mmcls_kd.files.locks.locked`.
RUNNING = 'this study is running already'
#: Required keys of a line.
KEYS = (
    *('key', 'kind', 'pair', 'row', 'seed', 'digest', 'methods', 'changed', 'factor'),
    *('last', 'best', 'best_epoch', 'held_out', 'held_out_accuracy', 'diverged', 'seconds'),
)


def is_of_study(source: Path) -> bool:
    """Return whether a path is a study's raw results (``.jsonl``) or the folder of its runs."""
    return source.suffix == '.jsonl' or any(True for _ in source.glob(f'*/*/seed*/{RESULT}'))


def read_records(path: Path) -> list[Record]:
    """Read the results in a file, if there is one; refuse a line that is no result, and a second one of a run."""
    records: dict[str, Record] = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines() if path.is_file() else (), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f'{path}, line {number} is no JSON: {error}') from error
        missing = [key for key in KEYS if not isinstance(record, dict) or key not in record]
        if missing:
            raise ValueError(f'{path}, line {number} is no result of a run: it has no {missing[0]!r}')
        if record['key'] in records:
            raise ValueError(f'{path}, line {number}: {record["key"]} stands there twice; leave one of the lines out')
        records[record['key']] = record
    return list(records.values())


def accuracy_of(record: Record) -> str:
    """Return the result as text: accuracy after the last epoch, in percent, or ``diverged``."""
    return 'diverged' if record['diverged'] else f'{record["last"]:.2f}'


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write all results; whatever happens, the file is the new or the old one as a whole."""
    with atomic_path(path) as unfinished:
        unfinished.write_text(''.join(f'{json.dumps(record)}\n' for record in records), encoding='utf-8')


def add_record(path: Path, record: Record) -> None:
    """Add a result; refuse a second one of a run."""
    records = read_records(path)
    if any(one['key'] == record['key'] for one in records):
        raise ValueError(f'{path} has {record["key"]} already')
    write_records(path, [*records, record])
