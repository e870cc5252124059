"""One thread a process: several test processes run side by side, and threads of theirs would only wait for each other."""

import os
import sys
from unittest import mock

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported, and for the programs that tests start

import folders
import pytest
import torch
from commands import tool
from mmengine.fileio.handlers import file_handlers
from processes import Worker, in_child

from mmcls_kd.files.checkpoint import FORCE_SAFE
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.files.plain_data import MMENGINES
from mmcls_kd.patches import start_faster

sys.path.append(str(TOOLBOX / 'tools'))  # for the benchmark, which stands there
ALLOWED = list(torch.serialization.get_safe_globals())
WORKER = pytest.StashKey()


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """What a tool that ran in this process set, allowed or forbade, also in the environment, is over with the test."""
    monkeypatch.setenv(FORCE_SAFE, '0')
    monkeypatch.setattr('mmcls_kd.files.plain_data.trusted', False)
    torch.serialization.clear_safe_globals()  # of fixtures that came before, too
    torch.serialization.add_safe_globals(ALLOWED)
    with mock.patch.dict(os.environ):
        yield
    file_handlers.update(MMENGINES)
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(ALLOWED)


@pytest.fixture(scope='session', autouse=True)
def _started_faster():
    """Start runs as the programs do."""
    start_faster()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test that is marked so in a child process: one of its own, or one for all such tests of its module."""
    if (mark := pyfuncitem.get_closest_marker('own_process')) is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if mark.kwargs.get('shared'):
        module = pyfuncitem.getparent(pytest.Module)
        module.stash.setdefault(WORKER, None)
        module.stash[WORKER] = module.stash[WORKER] or Worker()
        module.stash[WORKER].run(pyfuncitem.obj, arguments)
    else:
        in_child(pyfuncitem.obj)(**arguments)
    return True


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """A folder with a few images in the files of Fashion-MNIST."""
    return folders.fashion_mnist(tmp_path_factory.mktemp('data') / 'fashion_mnist')


@pytest.fixture(scope='session')
def fashion(tmp_path_factory):
    """The folder with the first images of the real Fashion-MNIST: a run would read all 60,000, whatever it uses."""
    whole, folder = (tmp_path_factory.mktemp(name) for name in ('whole', 'fashion_mnist'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', ['fetch_fashion_mnist.py', '--root', str(whole)])
        tool('fetch_fashion_mnist')()
    return folders.first_images(whole, folder)


@pytest.fixture(scope='session')
def fashion_mnist():
    """The folder of the whole data set."""
    folder = TOOLBOX / 'data' / 'fashion_mnist'
    if not folder.is_dir():
        pytest.skip(f'{folder} is not there: python tools/fetch_fashion_mnist.py fetches it')
    return folder
