"""Libraries under a command: silent, quick, and optional ones only where they are used."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from mmcls_kd.command.loading import load_libraries
from mmcls_kd.patches import import_when_used

LOADING = """
import gc
import sys
from mmcls_kd.command.loading import load_libraries

load_libraries()
assert 'mmcls_kd.checks.training' in sys.modules
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000
"""


@pytest.mark.slow
def test_nothing_is_printed_and_garbage_is_collected_afterwards():
    done = subprocess.run([sys.executable, '-W', 'error::DeprecationWarning', '-c', LOADING], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ''), done.stderr


def test_what_is_loaded_is_not_loaded_again(monkeypatch):
    importlib.import_module('mmcls_kd.registry')
    monkeypatch.setattr('gc.freeze', lambda: pytest.fail('frozen'))
    load_libraries()


def test_an_optional_library_is_imported_where_it_is_used(tmp_path, monkeypatch, capsys):
    (tmp_path / 'seldom_used').mkdir()
    (tmp_path / 'seldom_used' / '__init__.py').write_text("print('imported')\nvalue = 1\n")
    (tmp_path / 'seldom_used' / 'part.py').write_text('value = 2\n')
    monkeypatch.syspath_prepend(tmp_path)
    for use in ('seldom_used.value', "importlib.import_module('seldom_used.part').value - 1"):
        import_when_used('seldom_used')
        seldom_used = importlib.import_module('seldom_used')
        assert importlib.util.find_spec('seldom_used') is not None
        assert capsys.readouterr().out == ''
        assert eval(use, dict(seldom_used=seldom_used, importlib=importlib)) == 1
        assert seldom_used.value == 1
        assert capsys.readouterr().out == 'imported\n'
        assert sys.modules['seldom_used'].value == 1
        for name in ('seldom_used', 'seldom_used.part'):
            sys.modules.pop(name, None)
    with pytest.raises(AttributeError, match='other'):
        seldom_used.other  # noqa: B018


def test_one_that_is_not_installed_stays_so():
    import_when_used('not_installed_anywhere')
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('not_installed_anywhere')
