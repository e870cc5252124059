"""The wheel: what is in it; and installed, far from the checkout, what mmengine and mim make of it."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from commands import DISTILLER, accuracy, data_options

import mmcls_kd
from mmcls_kd.files.paths import TOOLBOX

#: What a build reads.
SOURCES = ('configs', 'mmcls_kd', 'tools', 'LICENSE', 'MANIFEST.in', 'README.md', 'model-index.yml', 'nkd.md', 'vitkd.md')
SOURCES += ('pth_transfer.py', 'pyproject.toml', 'requirements.txt', 'setup.py')
INFO = f'mmcls_kd-{mmcls_kd.__version__}.dist-info'
NAME = Path(DISTILLER).name


def call(*words, cwd, python=sys.executable):
    """Run a Python that sees nothing of the checkout; returns what it printed."""
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    command = [str(python), '-W', 'ignore', *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env={**env, 'PYTHONWARNINGS': 'ignore'}, capture_output=True, text=True)
    assert done.returncode == 0, f'{command} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}'
    return done.stdout + done.stderr


def build(kind, source):
    """A wheel or an sdist from a source tree."""
    call('-c', f"from setuptools import build_meta; build_meta.build_{kind}('dist')", cwd=source)
    (path,) = (source / 'dist').glob(dict(wheel='*.whl', sdist='*.tar.gz')[kind])
    return path


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of the tree, with what an earlier build may have left behind."""
    folder = tmp_path_factory.mktemp('tree')
    for name in SOURCES:
        copy = shutil.copytree if (TOOLBOX / name).is_dir() else shutil.copy2
        copy(TOOLBOX / name, folder / name, **(dict(symlinks=True) if copy is shutil.copytree else {}))
    stale = folder / 'build' / 'lib' / 'mmcls_kd' / '.mim' / 'configs' / 'gone.py'
    stale.parent.mkdir(parents=True)
    stale.touch()
    return folder


@pytest.fixture(scope='module')
def wheel(source):
    return build('wheel', source)


def names(wheel):
    return sorted(zipfile.ZipFile(wheel).namelist())


def files(folder):
    """Every file below a folder, by its path from there."""
    found = [path for path in folder.rglob('*') if path.is_file() and '__pycache__' not in path.parts]
    return {str(path.relative_to(folder)) for path in found}


class TestContent:
    def test_the_package_and_twice_the_toolbox_and_nothing_else(self, wheel):
        package = {f'mmcls_kd/{name}' for name in files(TOOLBOX / 'mmcls_kd') if not name.startswith('.mim')}
        toolbox = {f'{part}/{name}' for part in ('configs', 'tools') for name in files(TOOLBOX / part)}
        toolbox = {name for name in toolbox if not name.startswith('tools/benchmark/')}
        toolbox |= {'model-index.yml', 'tools/pth_transfer.py'}
        assert {'configs/fashion_mnist/teacher.pth', 'tools/dist_train.sh', 'tools/train.py'} < toolbox
        info = {
            f'{INFO}/{name}'
            for name in ('METADATA', 'RECORD', 'WHEEL', 'entry_points.txt', 'licenses/LICENSE', 'top_level.txt')
        }
        for_mmengine = {f'mmcls_kd/.mim/{name}' for name in toolbox}
        for_onedl_mim = {f'+mmcls_kd/{name}' for name in toolbox if not name.endswith('.pth')}
        assert names(wheel) == sorted(package | for_mmengine | for_onedl_mim | info)

    def test_onedl_mim_takes_the_folder_of_the_first_file(self, wheel):
        assert min(*names(wheel), '../../../bin/mmcls-kd').startswith('+mmcls_kd/')

    def test_a_source_distribution_gives_the_same_wheel(self, source, wheel, tmp_path):
        with tarfile.open(build('sdist', source)) as archive:
            archive.extractall(tmp_path, filter='data')
        (unpacked,) = tmp_path.iterdir()
        again = build('wheel', unpacked)
        content, expected = zipfile.ZipFile(again), zipfile.ZipFile(wheel)
        assert names(again) == names(wheel)
        for name in names(wheel):
            assert name.startswith(INFO) or content.read(name) == expected.read(name)

    def test_an_index_takes_both_distributions(self, source, wheel):
        said = call('-m', 'twine', 'check', '--strict', wheel, build('sdist', source), cwd=source)
        assert said.count('PASSED') == 2, said

    def test_its_metadata(self, wheel):
        metadata = message_from_bytes(zipfile.ZipFile(wheel).read(f'{INFO}/METADATA'))
        assert (metadata['Name'], metadata['Version']) == ('mmcls_kd', mmcls_kd.__version__)
        required = [text for text in metadata.get_all('Requires-Dist') if 'extra ==' not in text]
        assert required == (TOOLBOX / 'requirements.txt').read_text().split()
        assert {'dev', 'mim', 'mlflow', 'study', 'tensorboard', 'wandb'} <= set(metadata.get_all('Provides-Extra'))


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory):
    """The interpreter of an environment that has the wheel, and beside it the libraries of the running one."""
    env = tmp_path_factory.mktemp('env')
    call('-m', 'venv', '--without-pip', env, cwd=env)
    (site,) = env.glob('lib/python*/site-packages')
    libraries = [path for path in sys.path if Path(path).name in ('site-packages', 'dist-packages')]
    (site / 'libraries.pth').write_text('\n'.join(libraries))  # no .pth file in them is read: not that of the checkout
    python = env / 'bin' / 'python'
    options = ('-q', '--no-deps', '--no-index', '--ignore-installed')
    call('-m', 'pip', 'install', *options, wheel, cwd=env, python=python)
    assert (site / 'mmcls_kd').is_dir()
    return python


@pytest.fixture
def mim(python, tmp_path):
    """Runs mim in an empty folder."""
    return lambda *words: call('-m', 'mim', *words, cwd=tmp_path, python=python)


@pytest.mark.slow
def test_its_script_runs_a_verb(python, tmp_path):
    """And does not come before the folder for mim among the installed files."""
    (record,) = python.parents[1].glob('lib/python*/site-packages/mmcls_kd-*.dist-info/RECORD')
    files = record.read_text().splitlines()
    assert files[0].startswith('+mmcls_kd/')
    assert any(line.startswith('../../../bin/mmcls-kd,') for line in files)
    shown = call(python.with_name('mmcls-kd'), 'transfer', '--help', cwd=tmp_path, python=python)
    assert 'usage: mmcls-kd transfer ' in shown


READS = f"""
import mmcls_kd
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS

assert type(MODELS.build(Config.fromfile('mine.py').model)).__name__ == 'ClassificationDistiller'
print(mmcls_kd.__file__, get_config('mmcls_kd::{DISTILLER[8:]}').filename, sep='\\n')
"""


@pytest.mark.slow
def test_mmengine_reads_its_configs(python, tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = 'mmcls_kd::{DISTILLER[8:]}'\n")
    *_, package, config = call('-c', READS, cwd=tmp_path, python=python).splitlines()
    environment = str(python.parents[1])
    assert package.startswith(environment)
    assert config.startswith(environment)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 14), reason='onedl-mim wants a pandas that has no wheel for this Python')
class TestMim:
    def test_trains_and_tests_a_config_of_ones_own(self, mim, data, tmp_path):
        (tmp_path / 'mine.py').write_text(f"_base_ = 'mmcls_kd::{DISTILLER[8:]}'\nmethods = ['kd', 'mgd']\n")
        options = ['--cfg-options', *data_options(data)]
        trained = mim('train', 'mmcls_kd', 'mine.py', *options)
        assert 'loss_kd' in trained
        assert 'loss_mgd' in trained
        checkpoint = 'work_dirs/mine/epoch_1.pth'
        tested = mim('test', 'mmcls_kd', 'mine.py', '--checkpoint', checkpoint, *options)
        assert accuracy(tested) == accuracy(trained)
        mim('run', 'mmcls_kd', 'pth_transfer', '--dis_path', checkpoint, '--output_path', 'student.pth')
        assert {path.name for path in tmp_path.iterdir()} == {'mine.py', 'student.pth', 'work_dirs'}

    def test_trains_a_config_by_its_name(self, mim, data, tmp_path):
        options = ['--work-dir', 'run', '--cfg-options', *data_options(data)]
        assert 'loss_nkd' in mim('train', 'mmcls_kd', NAME, *options)
        assert (tmp_path / 'run' / 'epoch_1.pth').is_file()

    def test_finds_the_models(self, mim):
        found = mim('search', 'mmcls_kd', '--model', 'nkd', '--field', 'imagenet-1k/top_1_accuracy')
        assert 'res34_distill_res18_img' in found
        assert '71.96' in found
        assert 'deit-s3_distill_deit-t_img' in mim('search', 'mmcls_kd', '--model', 'vitkd')
