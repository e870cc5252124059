"""The benchmark stands beside the tools, not in the package."""

import sys

from mmcls_kd.files.paths import TOOLBOX

sys.path.append(str(TOOLBOX / 'tools'))
