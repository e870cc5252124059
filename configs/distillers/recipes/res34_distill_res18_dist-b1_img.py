"""DIST under its strategy B1: ResNet-34 teaches ResNet-18 for 100 epochs, on ImageNet. Top-1 by the authors: alone 69.76, DIST 72.07.

The strategy is that of imagenet/res34_distill_res18_img.py, with DIST in the place of NKD (arXiv 2205.10536; hunto/DIST_KD).

bash tools/dist_train.sh configs/distillers/recipes/res34_distill_res18_dist-b1_img.py 8
"""

_base_ = ['../imagenet/res34_distill_res18_img.py']
from mmcls_kd.configs import offer

methods = ['dist']
model = dict(distill_cfg=offer(_base_.offered, methods))
