"""One thread a process: several test processes run side by side, and threads of theirs would only wait for each other."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported, and for the programs that tests start

import folders
import pytest


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """A folder with a few images in the files of Fashion-MNIST."""
    return folders.fashion_mnist(tmp_path_factory.mktemp('data') / 'fashion_mnist')
