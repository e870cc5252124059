"""MobileNetV1 (Howard et al., arXiv 1704.04861), which mmpretrain does not have."""

from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from torch import Tensor, nn

# (channels, stride) of the depthwise-separable units behind the stem
UNITS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5)
LAST_UNITS = ((1024, 2), (1024, 1))


def conv_bn_relu(width: int, channels_out: int, stride: int = 1, kernel_size: int = 3, groups: int = 1) -> nn.Sequential:
    """Build a convolution without bias, batch norm and ReLU."""
    conv = nn.Conv2d(width, channels_out, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


def depthwise_separable(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """Build a 3×3 depthwise and a 1×1 convolution, see :func:`conv_bn_relu`."""
    depthwise = conv_bn_relu(channels_in, channels_in, stride, groups=channels_in)
    return nn.Sequential(*depthwise, *conv_bn_relu(channels_in, channels_out, kernel_size=1))


@MODELS.register_module()
class MobileNetV1(BaseBackbone):
    """MobileNetV1 of width 1: 4,231,976 parameters with a 1000-class linear head.

    Returns the features after ``model`` (512 channels, stride 16) and after ``s4`` (1024 channels, stride 32).

    Args:
        in_channels: Channels of the image.
        init_cfg: mmengine's initialisation; by default Kaiming for the convolutions and weight 1 for the batch norms.
    """

    layers = ('model', 's4')  # the stages by name, as in mmpretrain's MobileNetV2

    def __init__(self, in_channels: int = 3, init_cfg: dict | list | None = None) -> None:
        default = [dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', layer='BatchNorm2d', val=1, bias=0)]
        super().__init__(init_cfg=init_cfg or default)
        stem = 32
        widths = [stem, *(channels for channels, _ in (*UNITS, *LAST_UNITS))]
        units = [depthwise_separable(width, *unit) for width, unit in zip(widths, (*UNITS, *LAST_UNITS), strict=False)]
        self.model = nn.Sequential(conv_bn_relu(in_channels, stem, 2), *units[: len(UNITS)])
        self.s4 = nn.Sequential(*units[len(UNITS) :])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mid = self.model(x)
        return mid, self.s4(mid)
