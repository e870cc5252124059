"""The same as ``python -m mmcls_kd transfer``."""

from mmcls_kd.command.transfer import main

if __name__ == '__main__':
    main()
