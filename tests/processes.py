"""Runs a function in two processes joined over gloo."""

import functools
import multiprocessing
import os
import socket
import traceback
import warnings

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def free_port():
    """A port that nobody listens at."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def _worker(rank, size, port, function, args):
    os.environ.update(
        MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank)
    )
    torch.manual_seed(rank)  # else both would draw the same
    dist.init_process_group('gloo')
    try:
        function(rank, *args)
    finally:
        dist.destroy_process_group()


def run_in_two(function, *args):
    """Call ``function(rank, *args)`` in two forked processes; an error in either is raised here."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # in the children, as in new processes
        mp.start_processes(_worker, (2, free_port(), function, args), nprocs=2, start_method='fork')


def in_child(test):
    """Run a test in a forked child process: torch.compile starts threads, after which a process must not fork any more."""

    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                test(*args, **kwargs)
            except BaseException:
                os.write(send, traceback.format_exc()[-4000:].encode())
                os._exit(1)
            os._exit(0)
        os.close(send)
        with os.fdopen(receive) as file:
            report = file.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == 0, report

    return wrapped


class Worker:
    """A forked child process that runs tests one after another: what torch.compile sets up at first, it does there once."""

    def __init__(self):
        context = multiprocessing.get_context('fork')
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=self._serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def _serve(self, pipe):
        self.pipe.close()  # else the end of the parent would not be noticed
        while True:
            try:
                test, arguments = pipe.recv()
            except EOFError:
                return
            try:
                test(**arguments)
                pipe.send(None)
            except BaseException:
                pipe.send(traceback.format_exc()[-4000:])

    def run(self, test, arguments):
        """Run a test function, which its module has under its own name."""
        self.pipe.send((test, arguments))
        report = self.pipe.recv()
        assert report is None, report
