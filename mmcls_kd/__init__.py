"""mmcls_kd: knowledge distillation for image classification, on MMEngine and mmpretrain.

Importing the package registers its losses, backbones and distiller in mmpretrain's registries.
"""

import warnings

with warnings.catch_warnings():  # of mmcv, about an operator that no classifier needs
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    from . import amp, backbones, dis_losses, distillers, engine, networks

__version__ = '0.1.0'
__all__ = ['__version__', 'amp', 'backbones', 'dis_losses', 'distillers', 'engine', 'networks']
