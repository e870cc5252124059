"""The documents: the site builds without a warning, and the code that two of them show is one."""

import os
import re
import subprocess
import sys

import pytest

from mmcls_kd.configs import TOOLBOX


def test_the_site_builds_strictly(tmp_path):
    """Every link, anchor and name in the reference exists."""
    pytest.importorskip('mkdocstrings')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', str(tmp_path / 'site')]
    env = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    done = subprocess.run(command, cwd=TOOLBOX, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ('index.html', 'teachers/index.html', 'nkd/index.html', 'reference/losses/index.html'):
        assert (tmp_path / 'site' / page).is_file()


@pytest.mark.parametrize('page', ['own_images.md'])
def test_the_code_of_readme_is_that_of_its_page(page):
    """Readme's is run (tests/tools/test_first_hour.py)."""
    block = re.search(r'<!-- own images -->\n(```python\n.*?```)', (TOOLBOX / 'README.md').read_text(), re.DOTALL)[1]
    assert block in (TOOLBOX / 'docs' / page).read_text()
