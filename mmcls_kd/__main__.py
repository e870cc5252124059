"""Run a command of the toolbox from any folder: ``python -m mmcls_kd VERB ...``."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .command.exits import errors_in_one_line

VERBS = (
    'train',
    'test',
    'predict',
    'transfer',
    'export',
    'store',
    'inspect',
    'check-data',
    'class-cost',
    'preflight',
    'analyze',
    'study',
    'bench',
    'demo',
)


USAGE = f'usage: python -m mmcls_kd VERB ...; VERB is one of {", ".join(VERBS)}; VERB --help says more'


def module_of(verb: str) -> Any:
    """Return the module of a verb."""
    return import_module(f'mmcls_kd.command.{verb.replace("-", "_")}')


def main() -> None:
    """Run the command of the first word with the other words."""
    verb = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if verb in ('-h', '--help'):
        with errors_in_one_line():
            print(USAGE, *(f'{verb:10}  {module_of(verb).__doc__.splitlines()[0]}' for verb in VERBS), sep='\n')
        return
    if verb not in VERBS:
        from .errors import close_names

        sys.exit(f'mmcls_kd: error: unknown verb {verb!r}{close_names(verb, VERBS)}\n{USAGE}')
    name = 'mmcls-kd' if Path(sys.argv[0]).stem == 'mmcls-kd' else 'mmcls_kd'  # the console script, or the package
    sys.argv = [f'{name} {verb}', *sys.argv[2:]]
    sys.exit(module_of(verb).main())


if __name__ == '__main__':
    main()
