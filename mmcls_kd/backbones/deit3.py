"""A correct DeiT-III (Touvron et al., arXiv 2204.07118) in place of mmpretrain's.

In mmpretrain 1.2.0, and in its maintained distribution up to 1.3.6, the feed-forward part of a DeiT-III block reads the norm
that belongs to the attention (mmpretrain issue 1614: top-1 35.26 where 81.35 is right). Here it reads its own. Names of
parameters are the same, so mmpretrain's weights load.
"""

from mmengine.logging import print_log
from mmpretrain.models.backbones.deit3 import DeiT3 as UpstreamDeiT3
from mmpretrain.models.backbones.deit3 import DeiT3TransformerEncoderLayer
from torch import Tensor


class DeiT3Block(DeiT3TransformerEncoderLayer):
    """x + γ₁ attention(norm₁ x), then x + γ₂ feed-forward(norm₂ x)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return self.ffn(self.ln2(x), identity=x)


class DeiT3(UpstreamDeiT3):
    """mmpretrain's DeiT3, keywords and names unchanged, whose blocks are :class:`DeiT3Block`."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for block in self.layers:
            block.__class__ = DeiT3Block
        print_log("mmcls_kd's DeiT3 takes the place of mmpretrain's, whose feed-forward reads the wrong norm", 'current')
