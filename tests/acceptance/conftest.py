from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def fashion_mnist():
    """The folder of the whole data set."""
    folder = Path(__file__).resolve().parents[2] / 'data' / 'fashion_mnist'
    if not folder.is_dir():
        pytest.skip(f'{folder} is not there: python tools/fetch_fashion_mnist.py fetches it')
    return folder
