"""One thread a process: several test processes run side by side, and threads of theirs would only wait for each other."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported, and for the programs that tests start

import folders
import pytest
import torch

from mmcls_kd.checkpoint import FORCE_SAFE


@pytest.fixture(autouse=True)
def _unguarded_afterwards(monkeypatch):
    """What a tool that ran in this process allowed or forbade ``torch.load`` is over with the test."""
    monkeypatch.setenv(FORCE_SAFE, '0')
    monkeypatch.setattr('mmcls_kd.checkpoint._trusting', False)
    allowed = list(torch.serialization.get_safe_globals())
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)


@pytest.fixture(scope='session', autouse=True)
def _unformatted_configs():
    """The text of a config is not laid out by yapf, which takes seconds for each run; it means the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """A folder with a few images in the files of Fashion-MNIST."""
    return folders.fashion_mnist(tmp_path_factory.mktemp('data') / 'fashion_mnist')
