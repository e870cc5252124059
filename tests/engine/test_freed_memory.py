"""A run on a CPU keeps the memory of freed tensors for the next ones, unless its user has set the C library otherwise."""

import ctypes
import resource
import sys

import pytest
import torch
from processes import in_child

from mmcls_kd.engine.runtime import MALLOC, keep_memory

pytestmark = pytest.mark.skipif(
    sys.platform != 'linux' or not hasattr(ctypes.CDLL(None), 'mallopt'), reason='for glibc, on Linux'
)
#: More than glibc keeps by itself; filling it takes 16,384 pages of 4 KiB.
BYTES = 64 * 2**20


def pages_of_a_further_tensor():
    """The least number of pages that Linux gives for one of six tensors, each after the one before was freed.

    Each is smaller than that one by 1 MiB: small blocks, and the library's alignment, may take a part of its place.
    """
    taken = []
    for number in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(BYTES - number * 2**20, dtype=torch.uint8).fill_(1)
        taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(taken)


@in_child
def test_a_freed_tensor_is_the_place_of_the_next(monkeypatch):
    for name in MALLOC:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    keep_memory()
    assert pages_of_a_further_tensor() < 1000


@pytest.mark.parametrize('said', [*MALLOC, 'CUDA'])
def test_who_set_the_library_and_gpus_are_left_alone(said, monkeypatch):
    class Library:
        mallopt = staticmethod(lambda *_: pytest.fail('it was set'))

    for name in MALLOC:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ctypes, 'CDLL', lambda _: Library)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: said == 'CUDA')
    if said != 'CUDA':
        monkeypatch.setenv(said, '1')
    keep_memory()
