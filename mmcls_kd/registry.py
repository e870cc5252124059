"""The scope ``mmcls_kd``, which mmengine gives to what a config takes from ``mmcls_kd::...``: mmpretrain's names hold in it.

Everything registers in mmpretrain's registries. Without these empty ones below them, mmengine would look for such a config's
classes in its own alone.
"""

from mmengine.registry import Registry
from mmpretrain import registry as mmpretrain_registry

LOCATIONS = [f'mmpretrain.{part}' for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization')]

for parent in [value for value in vars(mmpretrain_registry).values() if isinstance(value, Registry)]:
    if parent.scope == 'mmpretrain':  # not mmengine's, which are imported there
        Registry(parent.name, parent=parent, scope='mmcls_kd', locations=[*LOCATIONS, 'mmcls_kd'])
