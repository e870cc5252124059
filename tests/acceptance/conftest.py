import pytest
from commands import tool
from folders import first_images


@pytest.fixture(scope='session')
def fashion(tmp_path_factory):
    """The folder with the first images of Fashion-MNIST: of the 60,000 every run reads all, whatever it uses."""
    whole, folder = (tmp_path_factory.mktemp(name) for name in ('whole', 'fashion_mnist'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', ['fetch_fashion_mnist.py', '--root', str(whole)])
        tool('fetch_fashion_mnist')()
    return first_images(whole, folder)
