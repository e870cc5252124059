"""Data that are fetched: what is there and is not as published is said, and stays as it is."""

import gzip
import hashlib

import folders
import pytest
from commands import tool
from mmengine.config import Config

from mmcls_kd.engine.folders import check_data_folders


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """The tool, its main function's names, and the folder; the published files are small ones, at hand packed."""
    packed = folders.fashion_mnist(tmp_path / 'packed', train=20, test=20)
    main = tool('fetch_fashion_mnist')
    published = {path.name: path.read_bytes() for path in packed.iterdir()}
    files = {name: hashlib.md5(content).hexdigest() for name, content in published.items()}
    for name, content in published.items():
        (packed / f'{name}.gz').write_bytes(gzip.compress(content))
    monkeypatch.setitem(main.__globals__, 'FILES', files)
    monkeypatch.setitem(main.__globals__, 'installed', lambda: list(packed.iterdir()))
    monkeypatch.setattr('sys.argv', ['fetch_fashion_mnist.py', '--root', str(tmp_path / 'data')])
    return main, published, tmp_path / 'data'


class TestFashionMNIST:
    def test_fetched_and_found_again(self, fetch, capsys):
        main, published, root = fetch
        main()
        assert {path.name: path.read_bytes() for path in root.iterdir()} == published
        main()
        assert capsys.readouterr().out.endswith(f'Fashion-MNIST is in {root}\n')

    def test_what_is_missing_is_added(self, fetch):
        main, published, root = fetch
        main()
        name = next(iter(published))
        (root / name).unlink()
        main()
        assert (root / name).read_bytes() == published[name]

    @pytest.mark.parametrize('others', [0, 3])
    def test_another_file_is_never_overwritten(self, fetch, others):
        main, published, root = fetch
        first, *rest = sorted(published)
        root.mkdir()
        for name in rest[:others]:
            (root / name).write_bytes(published[name])
        (root / first).write_bytes(b'mine')
        with pytest.raises(SystemExit, match=rf'error: {root / first}: there, but by MD5 not as published, and left so'):
            main()
        assert (root / first).read_bytes() == b'mine'
        assert len(list(root.iterdir())) == 1 + others


def config(kind, root):
    return Config(dict(train_dataloader=dict(dataset=dict(type=kind, data_root=str(root)))))


@pytest.mark.parametrize(
    ('kind', 'name'), [('CIFAR100', 'cifar-100-python/train'), ('CIFAR10', 'cifar-10-batches-py/test_batch')]
)
def test_cifar_that_is_not_the_published(kind, name, tmp_path):
    check_data_folders(config(kind, tmp_path), ('train_dataloader',))  # nothing there: mmpretrain fetches it
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(b'mine')
    with pytest.raises(ValueError, match=rf'{path}: there, but by MD5 not as published; mmpretrain would fetch .*overwrite'):
        check_data_folders(config(kind, tmp_path), ('train_dataloader',))
    assert path.read_bytes() == b'mine'


def test_a_part_of_mnist(tmp_path):
    folders.fashion_mnist(tmp_path, train=20, test=20)
    check_data_folders(config('MNIST', tmp_path), ('train_dataloader',))
    (tmp_path / 't10k-labels-idx1-ubyte').unlink()
    with pytest.raises(ValueError, match=r't10k-labels-idx1-ubyte: no such file, but others are there; mmpretrain would'):
        check_data_folders(config('MNIST', tmp_path), ('train_dataloader',))
