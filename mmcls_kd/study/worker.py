"""A process with all libraries imported, which runs each step of a study in a fork: the import costs five seconds."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

#: Lets torch count CUDA's devices without using CUDA, which its forks could not use then.
COUNT = 'PYTORCH_NVML_BASED_CUDA_CHECK'
#: The first answer: what Python prints before it, by a start-up module, is none.
READY = 'ready'


def end_with_parent() -> None:
    """Let Linux kill this process when its parent ends: a study that was killed leaves no step behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main(load: Callable[[], None]) -> None:
    """Import the libraries by ``load``, then run the steps that the lines of the input describe, one after another.

    The answers are :data:`READY`, then of each step the process at its start, and its status and processor time at its end.
    """
    end_with_parent()
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # the text that a library prints is no answer
    print(READY, file=answers)
    os.environ[COUNT] = '1'
    load()
    torch = sys.modules.get('torch')
    has_devices = torch is not None and torch.cuda.is_available()
    del os.environ[COUNT]
    for line in sys.stdin:
        if (step := os.fork()) == 0:
            become(**json.loads(line), has_devices=has_devices)
        print(step, file=answers)
        _, status, used = os.wait4(step, 0)
        print(status, used.ru_utime + used.ru_stime, file=answers)


def become(words: list[str], log: str, has_devices: bool) -> NoReturn:
    """Turn a fork into a Python program, with a session and a log of its own."""
    end_with_parent()
    os.setsid()
    with Path(log).open('a') as output, Path(os.devnull).open() as nothing:
        for stream, number in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(stream.fileno(), number)
    if has_devices and sys.modules['torch'].cuda._is_in_bad_fork():  # an import has used CUDA
        os.execv(sys.executable, [sys.executable, *words])
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    code = run(words[0])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # Python's own end would clear all modules, in a third of a second


def run(program: str) -> int:
    """Run a Python program; return its exit code."""
    try:
        runpy.run_path(program, run_name='__main__')
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
