"""Run a tool of the toolbox from any folder: ``python -m mmcls_kd VERB ...``."""

import runpy
import sys

from .errors import close_names
from .files.paths import TOOLBOX

#: Each verb and the program that it runs, without its ending.
VERBS = {
    'train': 'train',
    'test': 'test',
    'transfer': 'pth_transfer',
    'export': 'export_student',
    'store': 'store_teacher',
    'inspect': 'inspect_model',
    'check-data': 'check_data',
    'class-cost': 'class_cost',
    'preflight': 'preflight',
    'analyze': 'analyze',
    'study': 'study',
    'bench': 'benchmark',
    'demo': 'demo',
}


def main() -> None:
    """Run the program of the first word with the other words."""
    usage = f'usage: python -m mmcls_kd VERB ...; VERB is one of {", ".join(VERBS)}; VERB --help says more'
    verb = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if verb in ('-h', '--help'):
        print(usage)
        return
    if verb not in VERBS:
        sys.exit(f'mmcls_kd: error: unknown verb {verb!r}{close_names(verb, VERBS)}\n{usage}')
    name = f'{VERBS[verb]}.py'
    program = next((path for path in (TOOLBOX / 'tools' / name, TOOLBOX / name) if path.is_file()), None)
    if program is None:
        sys.exit(f'mmcls_kd: error: {verb} needs a clone of the toolbox: {name} is not in {TOOLBOX}')
    sys.argv = [str(program), *sys.argv[2:]]
    runpy.run_path(str(program), run_name='__main__')


if __name__ == '__main__':
    main()
