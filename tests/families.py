"""Tiny networks of many families, of each library, and what a tap has to read in them, computed by the library's own means.

``FAMILIES`` holds by name what makes a classifier, and what computes the tensors that it offers of images.
"""

import copy
import functools
import tempfile

import networks
import torch
import torchvision
from mmpretrain.registry import MODELS
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

CLASSES, SIZE = networks.CLASSES, 32
BLOCKS = dict(img_size=SIZE, patch_size=8, embed_dim=16, depth=4, num_heads=2)
FAMILIES = {}


def family(name, *make):
    """Add one: the function under this decorator computes what it has to offer."""

    def add(expected):
        FAMILIES[name] = (*make, expected)
        return expected

    return add


@functools.cache
def _built(name):
    torch.manual_seed(0)
    network = FAMILIES[name][0]().eval()
    lively(network)
    return network


def built(name):
    """The network of a family, in eval mode, its statistics and scales as after a training."""
    return copy.deepcopy(_built(name))


def expected(name, network, images):
    """What it has to offer of images, by name."""
    with torch.no_grad():
        found = FAMILIES[name][-1](network, images)
        return found | (dict(stages_preact=before_relu(network, images, found['stages'])) if ' ResNet' in name else {})


def before_relu(network, images, maps):
    """The inputs of all ReLUs of which these maps are the outputs."""
    inputs = []
    relus = [module for module in network.modules() if type(module) is nn.ReLU]
    handles = [relu.register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone())) for relu in relus]
    network(images)
    for handle in handles:
        handle.remove()
    return tuple(next(one for one in inputs if torch.equal(one.relu(), feat)) for feat in maps)


def lively(network):
    """Norms whose scale, shift and statistics are neither 0 nor 1, and a classifier that is not 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if getattr(module, 'weight', None) is not None and module.weight.dim() == 1:
                module.weight.uniform_(0.5, 1.5, generator=generator)
                if getattr(module, 'bias', None) is not None:
                    module.bias.normal_(std=0.1, generator=generator)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if isinstance(module, nn.Linear) and module.out_features == CLASSES:
                module.weight.normal_(std=0.5, generator=generator)


def goes_into(network, path, images):
    """What a layer of a network is given."""
    found = []
    handle = network.get_submodule(path).register_forward_pre_hook(lambda _module, args: found.append(args[0]))
    network(images)
    handle.remove()
    return found[0].flatten(1)


def stages(logit, vector, maps, feat=None, middle=None):
    """The tensors of a network of stages: of its maps, its last map if more is done to it, and that of the stage before."""
    feat = maps[-1] if feat is None else feat
    middle = maps[-2] if middle is None else middle
    return dict(
        logit=logit,
        vector=vector,
        stages=tuple(maps),
        feat=feat,
        tokens_high=feat.flatten(2).transpose(1, 2),
        feat_mid=middle.mean(dim=(2, 3)),
    )


def blocks(logit, vector, tokens, last, extra, class_token=True):
    """The tensors of a transformer of four blocks: of the tokens after each, and after its final norm."""
    first, second = tokens[:2]
    patches = last[:, extra:]
    return dict(
        logit=logit,
        vector=vector,
        stages=tuple(_on_grid(block[:, extra:]) for block in tokens),
        feat=_on_grid(patches),
        feat_mid=second[:, 0] if class_token else second[:, extra:].mean(dim=1),
        tokens_low=torch.stack([first[:, extra:], second[:, extra:]], dim=1),
        tokens_high=patches,
    )


def _on_grid(tokens):
    side = int(tokens.shape[1] ** 0.5)
    return torch.stack(tokens.split(side, dim=1), dim=1).permute(0, 3, 1, 2)


# ---- mmpretrain


def mmpretrain(backbone, width, head='LinearClsHead', neck=True):
    """What makes an image classifier."""
    classifier = dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling') if neck else None,
        head=dict(type=head, num_classes=CLASSES, in_channels=width, loss=dict(type='CrossEntropyLoss')),
    )
    return lambda: MODELS.build(copy.deepcopy(classifier))


def layer_by_layer(backbone, images, names):
    """What each of a backbone's layers returns, by name."""
    outputs, value = {}, images
    for name in names:
        outputs[name] = value = backbone.get_submodule(name)(value)
    return outputs


@family('mmpretrain ResNet', lambda: MODELS.build(networks.resnet(8)))
def _(network, images):
    backbone = copy.deepcopy(network.backbone)
    backbone.out_indices = (0, 1, 2, 3)
    return stages(network(images), goes_into(network, 'head.fc', images), backbone(images))


@family('mmpretrain MobileNetV2', mmpretrain(dict(type='MobileNetV2', widen_factor=0.1), 1280))
def _(network, images):
    names = ['conv1', *(f'layer{i}' for i in range(1, 8)), 'conv2']
    outputs = layer_by_layer(network.backbone, images, names)
    maps = [outputs[name] for name in ('layer2', 'layer3', 'layer5', 'conv2')]  # strides 4, 8, 16, 32
    return stages(network(images), goes_into(network, 'head.fc', images), maps, middle=outputs['layer7'])


SWIN = dict(
    type='SwinTransformer',
    arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]),
    img_size=SIZE,
    patch_size=2,
    window_size=2,
    out_indices=(2, 3),
)


@family('mmpretrain Swin', mmpretrain(SWIN, 64))
def _(network, images):
    middle, last = network.backbone(images)
    maps, (value, size) = [], network.backbone.patch_embed(images)
    for stage in network.backbone.stages:
        value, _ = stage(value, size, do_downsample=False)
        maps.append(_on_grid(value))  # before its norm
        if stage.downsample:
            value, size = stage.downsample(value, size)
    return stages(network(images), goes_into(network, 'head.fc', images), maps, last, middle)


CONVNEXT = dict(type='ConvNeXt', arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32]))


@family('mmpretrain ConvNeXt', mmpretrain(CONVNEXT, 32, neck=False))
def _(network, images):
    outputs, value = [], images
    for smaller, stage in zip(network.backbone.downsample_layers, network.backbone.stages, strict=True):
        value = stage(smaller(value))
        outputs.append(value)
    return stages(network(images), goes_into(network, 'head.fc', images), outputs)


def _mmpretrain_blocks(network, images):
    backbone = copy.deepcopy(network.backbone)
    last = copy.deepcopy(backbone)
    last.out_type, backbone.out_type, backbone.out_indices = 'raw', 'raw', (0, 1, 2, 3)
    backbone.final_norm = False
    last = last(images)[-1]
    two_heads = 'Distilled' in type(backbone).__name__
    vector = last[:, 0] if two_heads else goes_into(network, 'head.layers.head', images)
    found = blocks(network(images), vector, backbone(images), last, backbone.num_extra_tokens)
    return found | (dict(logit_token=network.head.layers.head_dist(last[:, 1])) if two_heads else {})


for kind, head in dict(
    VisionTransformer='VisionTransformerClsHead', DeiT3='VisionTransformerClsHead', DistilledVisionTransformer='DeiTClsHead'
).items():
    classifier = networks.vit(16, kind)
    classifier['head']['type'] = head
    family(f'mmpretrain {kind}', functools.partial(MODELS.build, classifier))(_mmpretrain_blocks)


# ---- timm


def timm(name, **keywords):
    """What makes a classifier of timm."""
    return lambda: MODELS.build(dict(type='TimmClassifier', model_name=name, num_classes=CLASSES, **keywords))


@family('timm ResNet', timm('resnet10t', stem_width=8, channels=(8, 16, 24, 32)))
def _(network, images):
    maps = network.model.forward_intermediates(images, intermediates_only=True)
    return stages(network(images), goes_into(network, 'model.fc', images), maps[-4:])


@family('timm EfficientNet', timm('test_efficientnet'))
def _(network, images):
    maps = network.model.forward_intermediates(images, intermediates_only=True)[-4:]
    last = network.model.forward_features(images)
    return stages(network(images), goes_into(network, 'model.classifier', images), maps, last)


@family('timm ConvNeXt', timm('convnext_atto', dims=(8, 16, 24, 32), depths=(1, 1, 2, 1)))
def _(network, images):
    maps = network.model.forward_intermediates(images, intermediates_only=True)
    last = network.model.forward_features(images)
    return stages(network(images), goes_into(network, 'model.head.fc', images), maps, last)


@family(
    'timm Swin',
    timm(
        'swin_tiny_patch4_window7_224',
        embed_dim=16,  # as many as rows and columns of the first stage, and it takes images of no other size
        depths=(1, 1, 2, 1),
        num_heads=(1, 1, 1, 1),
        img_size=SIZE,
        window_size=2,
        patch_size=2,
    ),
)
def _(network, images):
    maps = network.model.forward_intermediates(images, intermediates_only=True)
    last = network.model.forward_features(images)
    return stages(network(images), goes_into(network, 'model.head.fc', images), maps, last.permute(0, 3, 1, 2))


def _timm_blocks(network, images, class_token=True):
    last, extra = network.model.forward_features(images), network.model.num_prefix_tokens
    how = dict(return_prefix_tokens=bool(extra), output_fmt='NLC', intermediates_only=True)
    read = network.model.forward_intermediates(images, **how)
    tokens = [torch.cat([prefix, patches], dim=1) for patches, prefix in read] if extra else read
    two_heads = hasattr(network.model, 'head_dist')
    vector = last[:, 0] if two_heads else goes_into(network, 'model.head', images)
    found = blocks(network(images), vector, tokens, last, extra, class_token)
    return found | (dict(logit_token=network.model.head_dist(last[:, 1])) if two_heads else {})


for title, name in dict(
    ViT='vit_tiny_patch16_224',
    DeiT='deit_tiny_patch16_224',
    DeiT_distilled='deit_tiny_distilled_patch16_224',
    ViT_with_registers='vit_small_patch14_reg4_dinov2',
    BEiT='beit_base_patch16_224',
    EVA='eva02_tiny_patch14_224',
).items():
    family(f'timm {title}', timm(name, **BLOCKS))(_timm_blocks)
family('timm ViT_with_registers_alone', timm('vit_medium_patch16_reg4_gap_256', **BLOCKS))(
    functools.partial(_timm_blocks, class_token=False)
)


@family('timm CaiT', timm('cait_xxs24_224', **BLOCKS))
def _(network, images):
    tokens = network.model.forward_intermediates(images, output_fmt='NLC', intermediates_only=True)
    last = network.model.forward_features(images)[:, 1:]  # its class token joins behind the blocks
    return blocks(network(images), goes_into(network, 'model.head', images), tokens, last, 0, class_token=False)


family('timm ViT_with_attention_pooling', timm('vit_base_patch16_siglip_224', **BLOCKS))(
    functools.partial(_timm_blocks, class_token=False)
)
#: Two by two patches and five tokens before them are as many as three by three.
family('timm ViT_with_registers_small', timm('vit_small_patch14_reg4_dinov2', **{**BLOCKS, 'patch_size': 16}))(_timm_blocks)


# ---- torchvision


def module(make):
    """What makes a classifier of a module."""
    return lambda: MODELS.build(dict(type='ModuleClassifier', model=make()))


def torchvision_classifier(name, **keywords):
    """What makes a classifier of torchvision."""
    return lambda: MODELS.build(dict(type='TorchvisionClassifier', model_name=name, num_classes=CLASSES, **keywords))


def nodes(network, images, *names):
    """What parts of a network of torchvision return."""
    return [create_feature_extractor(network.model, [name])(images)[name] for name in names]


@family('torchvision ResNet', torchvision_classifier('resnet18'))
def _(network, images):
    maps = nodes(network, images, *(f'layer{i}' for i in range(1, 5)))
    return stages(network(images), goes_into(network, 'model.fc', images), maps)


@family('torchvision MobileNetV2', torchvision_classifier('mobilenet_v2', width_mult=0.25))
def _(network, images):
    middle, *maps = nodes(network, images, 'features.17', *(f'features.{i}' for i in (3, 6, 13, 18)))
    return stages(network(images), goes_into(network, 'model.classifier.1', images), maps, middle=middle)


@family('torchvision GoogLeNet', torchvision_classifier('googlenet', init_weights=False))
def _(network, images):
    middle, *maps = nodes(network, images, 'inception5a', 'inception3b', 'inception4e', 'inception5b')
    return stages(network(images), goes_into(network, 'model.fc', images), maps, middle=middle)


@family(
    'torchvision DenseNet',
    module(lambda: torchvision.models.DenseNet(4, (1, 1, 1, 2), num_init_features=8, num_classes=CLASSES)),
)
def _(network, images):
    last, *maps = nodes(network, images, 'features.norm5', *(f'features.denseblock{i}' for i in range(1, 5)))
    return stages(network(images), goes_into(network, 'model.classifier', images), maps, last)  # not yet rectified


def _torchvision_convnext():
    from torchvision.models.convnext import CNBlockConfig

    return torchvision.models.ConvNeXt(
        [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 1), CNBlockConfig(24, 32, 1), CNBlockConfig(32, None, 1)],
        num_classes=CLASSES,
    )


@family('torchvision ConvNeXt', module(_torchvision_convnext))
def _(network, images):
    maps = nodes(network, images, *(f'features.{i}' for i in (1, 3, 5, 7)))
    return stages(network(images), goes_into(network, 'model.classifier.2', images), maps)


def _torchvision_swin():
    # the first stage has as many channels as rows and columns, so its shape does not show where they are
    return torchvision.models.SwinTransformer([2, 2], 16, [1, 1, 2, 1], [1, 1, 1, 1], [2, 2], num_classes=CLASSES)


@family('torchvision Swin', module(_torchvision_swin))
def _(network, images):
    found = nodes(network, images, 'norm', *(f'features.{i}' for i in (1, 3, 5, 7)))
    last, *maps = (value.permute(0, 3, 1, 2) for value in found)
    return stages(network(images), goes_into(network, 'model.head', images), maps, last)


@family('torchvision ViT', module(lambda: torchvision.models.VisionTransformer(SIZE, 8, 4, 2, 16, 32, num_classes=CLASSES)))
def _(network, images):
    *tokens, last = nodes(network, images, *(f'encoder.layers.encoder_layer_{i}.add_1' for i in range(4)), 'encoder.ln')
    return blocks(network(images), goes_into(network, 'model.heads.head', images), tokens, last, 1)


# ---- Hugging Face


def hugging_face(kind, **settings):
    """What makes a classifier of transformers, from a folder with its config."""

    def make():
        import transformers

        config = getattr(transformers, f'{kind}Config')(num_labels=CLASSES, **settings)
        config.architectures = [f'{kind}ForImageClassification']
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            return MODELS.build(dict(type='HuggingFaceClassifier', model_name=folder, pretrained=False))

    return make


def _hugging_face_blocks(extra):
    def tensors(network, images):
        output = network.model(images, output_hidden_states=True)
        last = network.model.base_model(images).last_hidden_state
        vector = goes_into(network, 'model.classifier', images)
        return blocks(output.logits, vector, output.hidden_states[1:], last, extra)

    return tensors


TRANSFORMER = dict(
    hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=SIZE, patch_size=8
)
for kind, extra in dict(ViT=1, DeiT=2, Dinov2=1, Dinov2WithRegisters=5).items():
    family(f'hf {kind}', hugging_face(kind, **TRANSFORMER))(_hugging_face_blocks(extra))


def _hugging_face_stages(network, images):
    output = network.model(images, output_hidden_states=True)
    linear = 'model.classifier.1' if isinstance(network.model.classifier, nn.Sequential) else 'model.classifier'
    return stages(output.logits, goes_into(network, linear, images), output.hidden_states[-4:])


WIDTHS = dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])
family('hf ResNet', hugging_face('ResNet', embedding_size=8, layer_type='basic', **WIDTHS))(_hugging_face_stages)
family('hf ConvNext', hugging_face('ConvNext', **WIDTHS))(_hugging_face_stages)


@family(
    'hf Swin',
    hugging_face(
        'Swin', image_size=SIZE, patch_size=2, embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 1, 1, 1], window_size=2
    ),
)
def _(network, images):
    last = network.model.swin(images).last_hidden_state
    encoder = network.model.swin.encoder
    value, size = network.model.swin.embeddings(images)[0], (images.shape[2] // 2, images.shape[3] // 2)
    values = []
    for stage in encoder.layers:
        for block in stage.blocks:
            value = block(value, size)[0]
        values.append(value)
        if stage.downsample:
            value, size = stage.downsample(value, size), (size[0] // 2, size[1] // 2)
    vector = goes_into(network, 'model.classifier', images)
    return stages(network(images), vector, [_on_grid(value) for value in values], _on_grid(last))
