"""The same as ``python -m mmcls_kd predict``, from a clone without being installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmcls_kd.command.predict import main

if __name__ == '__main__':
    main()
