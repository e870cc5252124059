"""How a command ends: with one line and an exit code, which a launcher hears of too; importing it takes no torch."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from ..errors import EXIT_CODE, LOST_CONTACT, OUT_OF_MEMORY, TerminationError, TrainingError, in_one_line, on_sigterm
from .arguments import program

#: Where the environment names a folder, a run leaves there how it ended; launchers pass neither message nor code on.
STATUS = 'MMCLS_KD_STATUS'
#: How an interrupted training goes on, whether or not it has saved a checkpoint.
RESUMES = 'the same command with --resume resumes'
#: Exit code after Ctrl-C: 128 and the number of SIGINT.
INTERRUPTED = 130
#: Exit code where nobody reads the output any more: 128 and the number of SIGPIPE.
UNREAD = 141


def _is_distributed() -> bool:
    """Return whether several processes are joined; where torch is not loaded, none are."""
    distributed = sys.modules.get('torch.distributed')
    return bool(distributed and distributed.is_available() and distributed.is_initialized())


def _end(message: str, final: bool = True, code: int = 1) -> None:
    """End the program with ``PROGRAM: error: MESSAGE`` and an exit code; tell the launcher both.

    An error that is not ``final`` may not happen again: where there are several processes, the program ends at once, without
    Python's clean-up, which takes seconds where the machine is busy.
    """
    text = f'{program()}: error: {message}'
    if status := os.environ.get(STATUS):
        with suppress(OSError):
            if final or not Path(status, 'error').exists():  # a lost contact only follows from another's error
                Path(status, 'error').write_text(f'{text}\n')
                Path(status, 'code').write_text(f'{code}\n')
            if final:
                Path(status, 'final').touch()
    if not final or _is_distributed():
        _end_at_once(text, code=code)
    if code == 1:
        sys.exit(text)
    print(text, file=sys.stderr, flush=True)
    sys.exit(code)


def _end_at_once(*lines: str, code: int) -> NoReturn:
    """End the program without waiting for anything, after some lines for the user."""
    for worker in multiprocessing.active_children():  # which would be left behind
        worker.kill()  # SIGTERM they leave to this process
    with suppress(RuntimeError):  # a signal that came while something was written
        sys.stdout.flush()
        for line in lines:
            print(line, file=sys.stderr, flush=True)
    os._exit(code)


def _end_interrupted(then: str) -> NoReturn:
    """End the program after Ctrl-C, with one line and the exit code that shells give to such an end."""
    text = f'{program()}: interrupted; {then}'
    if _is_distributed():
        _end_at_once(text, code=INTERRUPTED)
    print(text, file=sys.stderr, flush=True)
    sys.exit(INTERRUPTED)


def _end_if_unread(error: Exception) -> None:
    """End the program without a word, with the code that shells give, if nobody reads its output any more (``| head``)."""
    output = select.poll()
    output.register(1, 0)
    if isinstance(error, BrokenPipeError) and output.poll(0):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python has not written yet
        _end_at_once(code=UNREAD) if _is_distributed() else sys.exit(UNREAD)


def _note_termination() -> None:
    """Tell the launcher that the run was asked to end."""
    if status := os.environ.get(STATUS):
        Path(status, 'terminated').touch()


@contextmanager
def ended_when_asked(again: str) -> Iterator[None]:
    """End the program on SIGTERM in the ``with`` block, with one line and the exit code that says "try again".

    A training takes over the signal while its loop runs, see :class:`~mmcls_kd.engine.termination.TerminationHook`. Ctrl-C
    ends it with one line, too. ``again`` says how it resumes.
    """

    def end() -> None:
        _note_termination()
        _end_at_once(f'{program()}: asked to end; {again}', code=EXIT_CODE)

    before = on_sigterm(end)
    try:
        yield
    except KeyboardInterrupt:
        _end_interrupted(again)
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def errors_in_one_line(interrupted: str = 'the same command starts again') -> Iterator[None]:
    """End the program with ``PROGRAM: error: MESSAGE`` and exit code 1 on errors that bad input causes.

    After Ctrl-C it ends with the message ``interrupted``, and without one if nobody reads its output any more.
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        _end_interrupted(interrupted)
    except (OSError, ValueError, TypeError, LookupError, ImportError, AssertionError, TrainingError) as error:
        _end_if_unread(error)
        _end(in_one_line(error))
    except AttributeError as error:
        if 'ConfigDict' not in str(error):
            raise
        _end(f'the config lacks something: {in_one_line(error)}')
    except RuntimeError as error:
        _end_if_known(error, 'by the same command')
        raise


def _end_if_known(error: RuntimeError, again: str) -> None:
    """End the program if an error says that memory is short or another process does not answer."""
    first = str(error).partition('\n')[0]
    if OUT_OF_MEMORY.search(first):
        _end(f'the memory does not suffice ({first}): lower train_dataloader.batch_size and go on {again}')
    if _is_distributed() and LOST_CONTACT.search(str(error)):
        _end(f'contact with another process is lost ({first}); start all again {again}', final=False)


@contextmanager
def ended_in_order(again: str = 'with --resume') -> Iterator[None]:
    """End the program with one line and a telling exit code where a training cannot, or should not, go on.

    Exit code 1 for an error, that of :class:`~mmcls_kd.errors.DivergenceError` for a loss that became NaN or infinite,
    :data:`~mmcls_kd.errors.EXIT_CODE` for a run that saved its state because it was asked to end, :data:`INTERRUPTED` after
    Ctrl-C. Errors that are a fault of the toolbox's or the user's code keep their traceback. Where all went well, several
    processes take leave of one another, and the program ends here: while Python cleans up, a thread of gloo that is left may
    abort the process. ``again`` says how it resumes from what is saved.
    """
    try:
        yield
        if _is_distributed():
            from torch import distributed

            with suppress(RuntimeError):  # another one may be gone already
                distributed.barrier()
            distributed.destroy_process_group()
            _end_at_once(code=0)
    except KeyboardInterrupt:
        _end_interrupted(RESUMES if '--resume' in again else 'the same command resumes')
    except TerminationError as ended:
        print(f'{program()}: {ended}', file=sys.stderr, flush=True)
        _note_termination()
        os._exit(EXIT_CODE) if _is_distributed() else sys.exit(EXIT_CODE)  # no waiting for the other processes
    except TrainingError as error:
        message = str(error).splitlines()[-1].removeprefix(f'{type(error).__module__}.{type(error).__name__}: ')
        _end(message, code=error.exit_code)
    except OSError as error:
        _end_if_unread(error)
        _end(f'{error}; what is saved stays as it is: see to the cause and go on {again}')
    except RuntimeError as error:
        _end_if_known(error, again)
        raise
