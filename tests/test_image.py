"""The container image, where a docker daemon runs."""

import shutil
import subprocess

import pytest

from mmcls_kd.files.paths import TOOLBOX


def docker(*words, **keywords):
    return subprocess.run(['docker', *words], cwd=TOOLBOX, capture_output=True, text=True, check=True, **keywords).stdout


@pytest.fixture(scope='module')
def image():
    if not shutil.which('docker') or subprocess.run(['docker', 'info'], capture_output=True).returncode:
        pytest.skip('no docker daemon runs here')
    name = 'mmcls_kd:of-a-test'
    docker('build', '-t', name, '.')
    yield name
    docker('image', 'rm', name)


@pytest.mark.slow
def test_the_image_runs_the_command(image):
    assert 'usage: mmcls-kd train' in docker('run', '--rm', image, 'train', '--help')


def test_what_the_build_reads_is_there():
    lines = (TOOLBOX / 'Dockerfile').read_text().splitlines()
    assert 'ENTRYPOINT ["mmcls-kd"]' in lines
    ignored = (TOOLBOX / '.dockerignore').read_text().split()
    for needed in ('setup.py', 'requirements.txt', 'README.md', 'LICENSE', 'configs', 'tools', 'mmcls_kd'):
        assert (TOOLBOX / needed).exists()
        assert needed not in ignored
