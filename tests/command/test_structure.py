"""The structure of the package: who imports whom."""

import ast
from graphlib import TopologicalSorter

import pytest

from mmcls_kd.files.paths import PACKAGE

FILES = {'.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts): path for path in PACKAGE.rglob('*.py')}
MODULES = {name.removesuffix('.__init__'): path for name, path in FILES.items() if '.mim' not in name}
LOOSE = {'distiller', 'errors', 'patches', 'registry'}


def imported(name):
    """The modules of the package that a module imports, in its functions too."""
    package = name if MODULES[name].name == '__init__.py' else name.rpartition('.')[0]
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom):
            above = package.split('.')[: len(package.split('.')) - node.level + 1] if node.level else []
            home = '.'.join([*above, *([node.module] if node.module else [])])
            yield from (found if (found := f'{home}.{alias.name}') in MODULES else home for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def graph(part):
    """What each module imports of the others; ``part`` names the group of a module."""
    arrows = {part(name): set() for name in MODULES}
    for name in MODULES:
        arrows[part(name)] |= {part(other) for other in imported(name) if other in MODULES} - {part(name), 'mmcls_kd'}
    return arrows


@pytest.mark.parametrize(
    'part', [lambda name: name, lambda name: '.'.join(name.split('.')[:2])], ids=['modules', 'packages']
)
def test_there_is_no_circle(part):
    assert len(list(TopologicalSorter(graph(part)).static_order())) > 10  # a CycleError names the circle


def test_few_modules_stand_outside_of_a_package():
    assert {path.stem for path in PACKAGE.glob('*.py')} == LOOSE | {'__init__', '__main__'}
