"""Every family of networks of each library, against its library: the table of docs/teachers.md.

``python tests/library_sweep.py`` builds the smallest network of each family with random weights, takes it for a teacher, and
compares what the distiller makes of images with what the library says: the images that reach the network, its class scores,
and the tensors ``feat``, ``vector`` and ``stages``. It needs no network connection. Rows that are done are kept in a file,
so a run that was ended goes on where it was; ``--write`` puts them into the table, and ends with 1 where one is wrong.
"""

import argparse
import atexit
import copy
import gc
import json
import logging
import math
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families import lively
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image
from torch import nn

import mmcls_kd  # noqa: F401  (registers)
from mmcls_kd.distillers.teacher import StudentSpec, Teacher, TeacherSettings
from mmcls_kd.features.layouts import Layout, as_map, tensors_in
from mmcls_kd.teachers.inputs import InputSpec

CLASSES = 10
MANUAL = Path(__file__).parents[1] / 'docs' / 'teachers.md'
MARKS = ('<!-- families: begin -->', '<!-- families: end -->')
#: Where rows are kept while the table is made.
ROWS = Path(tempfile.gettempdir(), 'families.jsonl')
COLUMNS = ('pixels', 'logits', 'feat', 'vector', 'stages')
RIGHT, REFUSED = 'right', 'refused'
#: Of networks that take images of any size the height and width that is tried.
SIDE = 96
#: How far a number may be from the library's, in units of the largest.
TOLERANCE = 1e-3


@dataclass
class Truth:
    """What a library says.

    Attributes:
        logit: The class scores.
        feat: Forms in which the last map may be, or its tokens.
        vector: Forms in which what goes into the classifier may be.
        stages: The features from shallow to deep; None if the library does not say them.
        extra: How many tokens stand before the patches.
    """

    logit: Any
    feat: list
    vector: list
    stages: list | None
    extra: int = 0


@dataclass
class Family:
    """One row: a network, how the distiller is given it, and what its library says.

    Attributes:
        library: Its library.
        name: Of the family.
        network: Its name in the library.
        cfg: What the distiller is given.
        make: Makes the network by the library's own means.
        truth: Takes the network and images and gives a :class:`Truth`.
        preprocess: Takes the network and the side of the images, and gives what makes the network's input of a picture.
    """

    library: str
    name: str
    network: str
    cfg: Any
    make: Any
    truth: Any
    preprocess: Any


# ---- what is compared


def close(one, other):
    """Whether a tensor is another but for rounding."""
    if one.shape != other.shape:
        return False
    return float((one - other).abs().max()) <= TOLERANCE * float(other.abs().max().clamp(min=1e-6))


def as_maps(tensor, extra):
    """A tensor as each map that it may be."""
    if tensor.dim() == 4:
        return [tensor, tensor.permute(0, 3, 1, 2)]
    if tensor.dim() == 3:
        found = as_maps(tensor.transpose(1, 2).contiguous(), None) if extra is not None else []  # some give (N, D, L)
        for count in sorted({extra or 0, *range(6)}):  # values tell which of them it is
            side = int(max(tensor.shape[1] - count, 0) ** 0.5)
            if side and side**2 == tensor.shape[1] - count:
                found.append(as_map(tensor, Layout('tokens', count)))
        return found
    return []


def same_map(read, wanted, extra):
    """Whether a map is that of the library, in whatever form that has it."""
    return any(close(read, one) for one in as_maps(wanted, extra))


def stages_verdict(read, wanted, extra):
    """Whether maps are some of the library's in their order, and of such as grow smaller the last ones."""
    place = 0
    for tensor in read:
        fitting = [i for i, one in enumerate(wanted) if i >= place and same_map(tensor, one, extra)]
        if not fitting:
            return f'wrong: {tuple(tensor.shape)} is none of {[tuple(one.shape) for one in wanted[place:]]}'
        place = fitting[0] + 1
    sizes = [tensor.shape[-1] for tensor in read]
    if sizes != sorted(sizes, reverse=True):
        return f'wrong: sizes {sizes}'
    return RIGHT


def ends_of_sizes(teacher, read, wanted, images):
    """Whether maps are of scales that the library's are of, none is of tokens, and all goes through each.

    Some libraries give what stands at the beginning of a scale, where later parts of that scale follow.
    """
    tap = teacher.taps['stages']
    scales, known = ([round(math.log2(images.shape[-1] / one.shape[-1])) for one in maps] for maps in (read, wanted))
    if scales != sorted(set(scales)) or not set(scales) <= set(known):
        return False
    if any(teacher.dry_run.layout(path).kind == 'tokens' for path in tap.modules):
        return False
    return all(all_goes_through(teacher.network, replace(tap, modules=(path,)), images) for path in tap.modules)


def all_goes_through(network, tap, images):
    """Whether the class scores are the other images' where that tensor is the other images'."""
    module = network.get_submodule(tap.modules[0])
    kept = []
    handle = module.register_forward_hook(lambda _m, _a, output: kept.extend(t.clone() for t in tensors_in(output)))
    wanted = network(images)
    handle.remove()

    def exchange(_module, _args, output):
        index = getattr(tap.view, 'index', 0)
        tensors_in(output)[index].copy_(kept[index])

    handle = module.register_forward_hook(exchange)
    found = network(images.flip(0))
    handle.remove()
    return close(found, wanted)


def row_of(family, with_pixels=True):
    """The cells of a row."""
    torch.manual_seed(0)
    plain = family.make().eval()
    lively(plain)
    student = StudentSpec(InputSpec(mean=(0.0,), std=(1.0,), to_rgb=True), CLASSES)
    try:
        teacher = small_teacher(family, plain, student)
    except ValueError as error:
        return dict(library=family.library, family=family.name, network=family.network, said=str(error)) | dict.fromkeys(
            COLUMNS, REFUSED
        )
    inner = teacher.network if isinstance(plain, type(teacher.network)) else teacher.network.model
    assert [*dict(inner.named_parameters())] == [*dict(plain.named_parameters())]
    inner.load_state_dict(plain.state_dict(), strict=False)  # a pass may have made further buffers
    size = teacher.dry_run.size
    images = torch.randn(2, 3, *size)
    cells = {}
    with torch.no_grad():
        truth = family.truth(plain, images)
        read = teacher.fast(images, teacher.taps)
        cells['logits'] = RIGHT if close(read['logit'], truth.logit) else 'wrong: other class scores'
        cells['feat'] = feat_cell(teacher, read, truth, images, plain)
        cells['vector'] = vector_cell(read, truth)
        if 'stages' not in read:
            cells['stages'] = REFUSED
        elif truth.stages is None:
            cells['stages'] = 'wrong: the library does not say'
        else:
            said = truth.stages if isinstance(truth.stages[0], (list, tuple)) else [truth.stages]
            verdicts = [stages_verdict(read['stages'], maps, truth.extra) for maps in said]
            if RIGHT not in verdicts and ends_of_sizes(teacher, read['stages'], said[0], images):
                verdicts = [RIGHT]
            cells['stages'] = RIGHT if RIGHT in verdicts else verdicts[0]
        if with_pixels:
            cells['pixels'] = pixels_cell(teacher, plain, family)
    taps = {name: ' '.join(tap.modules) for name, tap in teacher.taps.items()}
    return dict(library=family.library, family=family.name, network=family.network, **cells, taps=taps)


def shapes_in(network):
    """The shapes in a state dict, without the wrapper's name before them."""
    return {key.removeprefix('model.'): value.shape for key, value in network.state_dict().items()}


def small_teacher(family, plain, student):
    """The network as a teacher, of small images if it takes these."""
    if family.library != 'transformers':
        with suppress(ValueError):
            teacher = Teacher(TeacherSettings(family.cfg(plain), False, pixels=dict(size=SIDE)), student)
            if shapes_in(teacher.network) == shapes_in(plain):  # some make other buffers for these
                return teacher
    return Teacher(TeacherSettings(family.cfg(plain), False), student)


def feat_cell(teacher, read, truth, images, plain):
    """Whether ``feat`` is the library's last map, through which all goes."""
    if 'feat' not in read:
        return REFUSED
    if not all_goes_through(teacher.network, teacher.taps['feat'], images):
        return 'wrong: not all goes through it'
    if any(same_map(read['feat'], wanted, truth.extra) for wanted in truth.feat):
        return RIGHT
    pooled = read['feat'].mean(dim=(2, 3))
    if not any(close(pooled, vector) for vector in vectors_in(plain, images)):
        return f'wrong: {tuple(read["feat"].shape)} is none of {[tuple(wanted.shape) for wanted in truth.feat]}'
    return RIGHT


def vector_cell(read, truth):
    """Whether ``vector`` is what goes into the classifier."""
    if 'vector' not in read:
        return REFUSED
    if any(close(read['vector'], wanted.flatten(1)) for wanted in truth.vector):
        return RIGHT
    return f'wrong: {tuple(read["vector"].shape)} is none of {[tuple(wanted.shape) for wanted in truth.vector]}'


def pixels_cell(teacher, plain, family):
    """Whether a picture reaches the network as the library's own preprocessing makes it, but for a border cut off."""
    size = teacher.adapt.wanted.size or teacher.dry_run.size
    generator = np.random.RandomState(0)
    coarse = generator.randint(0, 256, (size[0] // 4 + 3, size[1] // 4 + 3, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((size[1] * 5 // 4, size[0] * 5 // 4), Image.Resampling.BILINEAR)
    wanted = family.preprocess(plain, size)(picture)
    raw = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    made = teacher.adapt(raw)
    if made.shape != wanted.shape:
        return f'wrong: {tuple(made.shape)} instead of {tuple(wanted.shape)}'
    std = torch.tensor(teacher.adapt.wanted.std).max()
    apart = (made - wanted).abs() * std
    if apart.max() > 2.1 or (apart > 0.1).float().mean() > 0.25 or (apart > 1.1).float().mean() > 0.05:
        return f'wrong: {float(apart.max()):.3g} of 255 apart, {float((apart > 0.1).float().mean()):.1%} of them'
    return RIGHT


# ---- what the libraries say


def into_the_last_linear(network, images):
    """What the linear layer that makes the class scores is given; none if none does."""
    found = []

    def hook(_module, args, output):
        if args[0][0].numel() == args[0].shape[-1] or (args[0].dim() == 4 and args[0].shape[2:] == (1, 1)):
            found.append((args[0].flatten(1), output.flatten(1)))

    layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    output = network(images)
    for handle in handles:
        handle.remove()
    logit = getattr(output, 'logits', output)
    return [given for given, made in found if close(made, logit)]


def names(text):
    """The words of a text."""
    return text.split()


def vectors_in(network, images):
    """All vectors that parts of a network return, such as poolings."""
    found = []

    def hook(_module, _args, output):
        found.extend(one.flatten(1) for one in tensors_in(output) if one[0].numel() == max(one.shape[1:]))

    handles = [module.register_forward_hook(hook) for module in network.modules()]
    network(images)
    for handle in handles:
        handle.remove()
    return found


TIMM = names("""
beit_base_patch16_224 halonet_h1 test_byobnet cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32 test_convnext
cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_focus_s cspnext_tiny davit_tiny deit_tiny_patch16_224
deit_tiny_distilled_patch16_224 densenet121 dla34 dpn48b
edgenext_xx_small efficientformer_l1 efficientformerv2_s0 test_efficientnet efficientvim_m1
efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 vit_pe_core_tiny_patch16_384 fasternet_t0 fastvit_t8 focalnet_tiny_srf
gcvit_xxtiny ghostnet_100 hardcorenas_b hgnetv2_b0 hiera_tiny_224 hieradet_small hrnet_w18_small iformer_t
inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128 lowformer_b0 test_mambaout
test_coatnet maxvit_rmlp_pico_rw_256 poolformer_s12 caformer_s18 gmlp_ti16_224 mixer_s32_224 mobilenetv3_small_050
mobilenetv5_base mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_gap nasnetalarge nest_tiny nextvit_small test_nfnet
pit_ti_224 pnasnet5large pvt_v2_b0 rdnet_tiny regnetx_004_tv repghostnet_050 repvit_m1 res2net50_14w_8s resnest14d
test_resnet resnet50_clip resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s050
swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224
tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny test_vit test_vit2 vit_base_patch16_siglip_224
vit_small_patch14_reg4_dinov2 vit_tiny_r_s16_p8_224 test_vit_relpos samvit_base_patch16_224 vitamin_small_224 volo_d1_224
ese_vovnet19b_slim_dw legacy_xception xception41p xcit_nano_12_p8_224
""")


def timm_families(networks=None):
    """Those of timm: one of each of its modules, and of some that hold several kinds."""
    import timm
    from timm.models import model_entrypoint

    for name in networks or TIMM:
        cfg = dict(type='TimmClassifier', model_name=name, num_classes=CLASSES)
        module = model_entrypoint(name).__module__.rsplit('.', 1)[-1]
        make = lambda name=name: timm.create_model(name, num_classes=CLASSES)  # noqa: E731
        yield Family('timm', module, name, lambda _p, cfg=cfg: cfg, make, timm_truth, timm_preprocess)


def outputs_of(network, images, paths):
    """What parts of a network return."""
    found = {}
    for path in dict.fromkeys(paths):
        hook = lambda _m, _args, output, path=path: found.update({path: output.clone()})  # noqa: E731
        network.get_submodule(path).register_forward_hook(hook)
    network(images)
    return [found[path] for path in paths]


def timm_truth(network, images):
    """By ``forward_features``, ``forward_head``, and ``forward_intermediates`` or ``features_only``."""
    import timm

    feat = network.forward_features(images)
    vectors = into_the_last_linear(network, images)
    with suppress(TypeError):
        vectors.append(network.forward_head(feat, pre_logits=True))
    if hasattr(network, 'head_dist'):
        vectors.append(feat[:, 0])  # of two classifiers what goes into the first
    feats = tensors_in(feat)
    if hasattr(network, 'forward_intermediates'):
        stages = network.forward_intermediates(images, intermediates_only=True)
        if feats[0].dim() == 3 and feats[0].shape[1] < 3:  # class tokens alone
            feats = [*feats, stages[-1]]
    elif hasattr(network.get_submodule('features') if hasattr(network, 'features') else None, 'denseblock1'):
        stages = outputs_of(network, images, [f'features.denseblock{i}' for i in range(1, 5)])  # before the final norm
    else:
        name = network.pretrained_cfg['architecture']
        try:
            twin = timm.create_model(name, features_only=True).eval()
        except (RuntimeError, AttributeError, TypeError, AssertionError):
            stages = None
        else:
            missing = twin.load_state_dict(network.state_dict(), strict=False).missing_keys
            stages = None if missing else twin(images)
    extra = getattr(network, 'num_prefix_tokens', 0)
    return Truth(network(images), feats, vectors, stages, extra if isinstance(extra, int) else 0)


def timm_preprocess(network, size):
    """Its evaluation transform, without the border that it cuts off."""
    from timm.data import create_transform, resolve_model_data_config

    data = resolve_model_data_config(network)
    transform = create_transform(**{**data, 'input_size': (data['input_size'][0], *size), 'crop_pct': 1.0})
    return lambda picture: transform(picture)[None]


#: Of torchvision's networks the last map and the ends of four stages, by the names of the graph's nodes.
CONV = 'features.'
TORCHVISION = dict(
    alexnet=('features', [1, 4, 11, 12]),
    convnext_tiny=('features', [1, 3, 5, 7]),
    densenet121=('features.norm5', [f'features.denseblock{i}' for i in range(1, 5)]),
    efficientnet_b0=('features', [2, 3, 5, 8]),
    efficientnet_v2_s=('features', [2, 3, 5, 7]),
    googlenet=('inception5b', ['inception3b', 'inception4e', 'inception5b']),
    inception_v3=('Mixed_7c', ['Mixed_5d', 'Mixed_6e', 'Mixed_7c']),
    maxvit_t=('blocks.3', [f'blocks.{i}' for i in range(4)]),
    mnasnet0_5=('layers', ['layers.8', 'layers.9', 'layers.11', 'layers.16']),
    mobilenet_v2=('features', [3, 6, 13, 18]),
    mobilenet_v3_small=('features', [1, 3, 8, 12]),
    regnet_x_400mf=('trunk_output', [f'trunk_output.block{i}' for i in range(1, 5)]),
    resnet18=('layer4', [f'layer{i}' for i in range(1, 5)]),
    shufflenet_v2_x0_5=('conv5', ['stage2', 'stage3', 'stage4']),
    squeezenet1_1=('features', [1, 4, 7, 12]),
    swin_t=('norm', [1, 3, 5, 7]),
    swin_v2_t=('norm', [1, 3, 5, 7]),
    vgg11=('features', [9, 14, 19, 20]),
    vit_b_32=('encoder.ln', [f'encoder.layers.encoder_layer_{i}' for i in range(12)]),
)


def torchvision_families(networks=None):
    """Those of torchvision."""
    import torchvision

    for name in networks or TORCHVISION:
        said = TORCHVISION[name]
        keywords = dict(num_classes=CLASSES)
        if name in ('googlenet', 'inception_v3'):
            keywords |= dict(init_weights=False)
        cfg = dict(type='TorchvisionClassifier', model_name=name, **keywords)
        builder = torchvision.models.get_model_builder(name)
        make = lambda cfg=cfg: MODELS.build(copy.deepcopy(cfg)).model  # noqa: E731
        family = builder.__module__.rsplit('.', 1)[-1] + (' v2' if '_v2_s' in name or '_v2_t' in name else '')

        def truth(network, images, said=said):
            paths = [f'features.{p}' if isinstance(p, int) else p for p in said[1]]
            feat, *stages = outputs_of(network, images, [said[0], *paths])
            vectors = into_the_last_linear(network, images) or [feat.mean(dim=(2, 3))]  # squeezenet's are of each place
            return Truth(network(images), [feat], vectors, stages, 1 if hasattr(network, 'class_token') else 0)

        def preprocess(network, size, name=name):
            preset = torchvision.models.get_model_weights(name).DEFAULT.transforms
            preset = preset(crop_size=size[0], resize_size=size[0])
            if not hasattr(network, 'transform_input'):
                return lambda picture: preset(picture)[None]
            network.transform_input = True  # as with the published weights
            return lambda picture: network._transform_input(preset(picture)[None])

        yield Family('torchvision', family, name, lambda _p, cfg=cfg: cfg, make, truth, preprocess)


VIT = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16)
SWIN = dict(image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2], window_size=2)
WIDTHS = dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])
CLIP = dict(vision_config=VIT, text_config=dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
HUGGING_FACE = dict(
    Beit=VIT,
    Bit=dict(embedding_size=8, num_groups=2, **WIDTHS),
    CLIP=CLIP,
    ConvNext=WIDTHS,
    ConvNextV2=WIDTHS,
    Cvt=dict(embed_dim=[8, 16, 32], depth=[1, 2, 4], num_heads=[1, 2, 2]),
    Data2VecVision=VIT,
    DeiT=VIT,
    Dinov2=VIT,
    Dinov2WithRegisters=VIT,
    DonutSwin=SWIN,
    EfficientNet=dict(width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320, image_size=64),
    FocalNet=dict(embed_dim=8, depths=[1, 1, 2, 1], image_size=64, hidden_sizes=[8, 16, 32, 64]),
    HGNetV2=dict(),
    Hiera=dict(embed_dim=8, image_size=[64, 64], depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2]),
    IJepa=VIT,
    ImageGPT=dict(n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=33),
    Levit=dict(image_size=128, hidden_sizes=[16, 24, 32], num_attention_heads=[1, 2, 2], depths=[1] * 3, key_dim=[8] * 3),
    MetaClip2=CLIP,
    MobileNetV1=dict(depth_multiplier=0.25),
    MobileNetV2=dict(depth_multiplier=0.35),
    MobileViT=dict(hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 24, 32, 48, 64], image_size=64),
    MobileViTV2=dict(width_multiplier=0.5, image_size=64),
    PoolFormer=dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
    PPLCNet=dict(scale=0.25),
    Pvt=dict(image_size=64, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], num_attention_heads=[1, 1, 1, 1]),
    PvtV2=dict(image_size=64, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], num_attention_heads=[1, 1, 1, 1]),
    RegNet=dict(embedding_size=8, groups_width=8, **WIDTHS),
    ResNet=dict(embedding_size=8, layer_type='basic', **WIDTHS),
    Segformer=dict(hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 1, 1, 1], depths=[1, 1, 2, 1]),
    Siglip=dict(vision_config=VIT, text_config=dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)),
    SwiftFormer=dict(depths=[1, 1, 2, 1], embed_dims=[8, 16, 24, 32], image_size=64),
    Swin=SWIN,
    Swinv2=SWIN,
    TextNet=dict(),
    ViT=VIT,
    ViTMSN=VIT,
)


def hugging_face_families(networks=None):
    """Those of transformers with a classifier of images."""
    root = tempfile.mkdtemp(prefix='families-')
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for kind, settings in HUGGING_FACE.items():
        if networks and f'{kind}Config' not in networks:
            continue
        folder = f'{root}/{kind}'

        def make(kind=kind, settings=settings, folder=folder):
            import transformers

            config = getattr(transformers, f'{kind}Config')(num_labels=CLASSES, **copy.deepcopy(settings))
            config.architectures = [f'{kind}ForImageClassification']
            config.save_pretrained(folder)
            processor_of(config).save_pretrained(folder)
            return getattr(transformers, f'{kind}ForImageClassification')(config)

        def preprocess(network, size, folder=folder):
            from transformers import AutoImageProcessor

            processor = AutoImageProcessor.from_pretrained(folder)
            return lambda picture: processor(picture, return_tensors='pt').pixel_values

        cfg = dict(type='HuggingFaceClassifier', model_name=folder, pretrained=False)
        yield Family('transformers', kind, f'{kind}Config', lambda _p, cfg=cfg: cfg, make, hugging_face_truth, preprocess)


def processor_of(config):
    """The image processor of a config's kind, for the size of its images, without a border that it cuts off."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type) or dict(torchvision='BitImageProcessor')
    size = getattr(getattr(config, 'vision_config', config), 'image_size', None) or 64
    size = size[0] if isinstance(size, (list, tuple)) else size
    kind = getattr(transformers, names['torchvision'])
    usual, square = kind(), dict(height=size, width=size)
    if config.model_type == 'levit':  # whose processor enlarges the shortest edge by 256 / 224, to cut that off
        return kind(size=square, do_center_crop=False)
    keywords = dict(size=dict(shortest_edge=size) if usual.size.shortest_edge else square)
    keywords |= {key: value for key, value in dict(crop_pct=1.0, crop_size=square).items() if getattr(usual, key, None)}
    return kind(**keywords)


def hugging_face_truth(network, images):
    """By hidden states, the last hidden state, and what the classifier is given."""
    output = network(images, output_hidden_states=True)
    inner = network.base_model if network.base_model is not network else getattr(network, 'vision_model', network)
    whole_output = inner(images)
    last = getattr(whole_output, 'last_hidden_state', None)
    feats = [tensor for tensor in [last, *(output.hidden_states or [])[-1:]] if tensor is not None]
    feats += [norm(last) for name, norm in network.named_children() if name == 'norm']
    hidden = getattr(output, 'reshaped_hidden_states', None) or output.hidden_states
    stages = [
        m
        for m in (
            before_each_downsampling(network, images, hidden[-1] if hidden else feats[0]),
            maps_of_the_backbone(network, images),
            hidden,
        )
        if m
    ]
    kind = type(network).__name__
    extra = 2 if kind.startswith('DeiT') else 0
    if any(word in kind for word in ('ViT', 'Beit', 'Data2', 'Dinov2', 'CLIP', 'Clip')) and 'Mobile' not in kind:
        extra = extra or 1
    if 'Registers' in kind:
        extra = 1 + network.config.num_register_tokens
    return Truth(output.logits, feats, into_the_last_linear(network, images), stages or None, extra)


def before_each_downsampling(network, images, last):
    """What goes into the parts that are called so, and the last map of all."""
    found = []
    parts = [
        part
        for name, part in network.named_modules()
        if [*part.parameters()] and ('downsample' in name.split('.')[-1] or type(part).__name__.endswith('Subsample'))
    ]
    parts += [part for name, part in network.named_children() if name == 'norm']
    handles = [part.register_forward_pre_hook(lambda _m, args: found.append(args[0])) for part in parts]
    network(images)
    for handle in handles:
        handle.remove()
    return [*found, last] if found else None


def maps_of_the_backbone(network, images):
    """What the library's own backbone for detectors gives after each stage, before the norms that it has for these."""
    import transformers

    kind = type(network).__name__.removesuffix('ForImageClassification')
    make = getattr(transformers, f'{"Swin" if kind == "DonutSwin" else kind}Backbone', None)
    if make is None:
        return None
    config = copy.deepcopy(network.config)
    if kind == 'DonutSwin':
        config = transformers.SwinConfig(**{k: v for k, v in config.to_dict().items() if k != 'model_type'})
    config._out_features = config._out_indices = None
    config.out_features = list(config.stage_names)
    backbone = make(config).eval()
    weights = network.base_model.state_dict()
    missing = backbone.load_state_dict(weights, strict=False).missing_keys
    if len([k for k in missing if 'hidden_states_norms' not in k and not k.startswith('layernorm')]) > 0:
        missing = backbone.load_state_dict({f'{network.base_model_prefix}.{k}': v for k, v in weights.items()}, strict=False)
        missing = missing.missing_keys
    if [k for k in missing if 'hidden_states_norms' not in k and not k.startswith('layernorm')]:
        return None
    for name in getattr(backbone, 'hidden_states_norms', {}):
        backbone.hidden_states_norms[name] = nn.Identity()
    return backbone(images).feature_maps


MMPRETRAIN = names("""
beit-base-p16_beit-in21k-pre_3rdparty_in1k deit-tiny_4xb256_in1k conformer-tiny-p16_3rdparty_in1k
convmixer-768-32_3rdparty_in1k convnext-v2-atto_fcmae-pre_3rdparty_in1k convnext-tiny_32xb128_in1k
cspresnext50_3rdparty_8xb32_in1k cspresnet50_3rdparty_8xb32_in1k cspdarknet50_3rdparty_8xb32_in1k davit-tiny_3rdparty_in1k
deit-tiny-distilled_3rdparty_in1k deit3-small-p16_3rdparty_in1k densenet121_3rdparty_in1k edgenext-xxsmall_3rdparty_in1k
efficientformer-l1_3rdparty_8xb128_in1k efficientnet-b0_3rdparty_8xb32-aa-advprop_in1k efficientnetv2-b0_3rdparty_in1k
hivit-tiny-p16_16xb64_in1k hornet-tiny_3rdparty_in1k hrnet-w18_3rdparty_8xb32_in1k inception-v3_3rdparty_8xb32_in1k
levit-128s_3rdparty_in1k mixmim-base_mixmim-pre_8xb128-coslr-100e_in1k mlp-mixer-base-p16_3rdparty_64xb64_in1k
mobilenet-v2_8xb32_in1k mobilenet-v3-small-050_3rdparty_in1k mobileone-s0_8xb32_in1k mobilevit-xxsmall_3rdparty_in1k
mvitv2-tiny_3rdparty_in1k poolformer-s12_3rdparty_32xb128_in1k vig-tiny_3rdparty_in1k pvig-tiny_3rdparty_in1k
regnetx-400mf_8xb128_in1k repmlp-base_3rdparty_8xb64_in1k repvgg-a0_8xb32_in1k res2net50-w14-s8_3rdparty_8xb32_in1k
resnet18_8xb32_in1k resnet18_8xb16_cifar10 vit-small-p16_mocov3-pre_8xb128-linear-coslr-90e_in1k resnext50-32x4d_8xb32_in1k
revvit-small_3rdparty_in1k riformer-s12_in1k seresnet50_8xb32_in1k shufflenet-v1-1x_16xb64_in1k shufflenet-v2-1x_16xb64_in1k
swin-tiny_16xb64_in1k swinv2-tiny-w8_3rdparty_in1k-256px t2t-vit-t-14_8xb64_in1k tinyvit-5m_3rdparty_in1k
tnt-small-p16_3rdparty_in1k twins-svt-small_3rdparty_8xb128_in1k twins-pcpvt-small_3rdparty_8xb128_in1k
van-tiny_3rdparty_in1k vgg11_8xb32_in1k vit-tiny-p14_eva02-in21k-pre_3rdparty_in1k-336px xcit-nano-12-p8_3rdparty-dist_in1k
wide-resnet50_3rdparty_8xb32_in1k
""")


def mmpretrain_families(networks=None):
    """Those of mmpretrain's zoo."""
    from mmcls_kd.networks.sources import find_network

    for name in networks or MMPRETRAIN:
        found = find_network(name).cfg
        family = found.backbone.type if 'backbone' in found else found.type
        make = lambda name=name: MODELS.build(find_network(name).cfg)  # noqa: E731
        truth = lambda network, images: mmpretrain_truth(network, images)  # noqa: E731
        yield Family('mmpretrain', family, name, lambda _p, name=name: name, make, truth, mmpretrain_preprocess(name))


def mmpretrain_truth(network, images):
    """By its backbone with all outputs, its neck, and what its classifier is given."""
    outputs = network.backbone(images)
    last = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
    necks = tensors_in(network.neck(outputs)) if network.neck else []
    stages = backbone_stages(network.backbone, images)
    feats = [t for t in [*tensors_in(last), *necks, *backbone_tokens(network.backbone, images)] if t.dim() > 2]
    if not feats:  # it pools, or classifies, them itself
        names_of_last = [name for name in ('norm', 'Mixed_7c', 'features') if hasattr(network.backbone, name)][:1]
        last_of = [*network.backbone.features.named_children()][-1:] if names_of_last == ['features'] else []
        feats = outputs_of(network.backbone, images, [f'features.{name}' for name, _ in last_of] or names_of_last)
    vectors = into_the_last_linear(network, images)
    if not vectors:  # of two classifiers what goes into both, or into the first
        vectors = [one.mean(dim=(2, 3)) if one.dim() == 4 else one for one in tensors_in(last)[:1]]
    last_map = [*feats, *stages[-1:]]
    before = before_each_downsampling(network.backbone, images, last_map[0]) if last_map else None
    stages = [maps for maps in (before, [*stages, *feats]) if maps]
    extra = getattr(network.backbone, 'num_extra_tokens', 0)
    return Truth(network(images), [*feats, *(maps[-1] for maps in stages[-1:])], vectors, stages or None, extra)


def backbone_tokens(backbone, images):
    """What a backbone that gives class tokens gives otherwise."""
    other = copy.deepcopy(backbone)
    if not hasattr(other, 'out_type'):
        return []
    other.out_type = 'raw'
    return tensors_in(other(images))


def backbone_stages(backbone, images):
    """All outputs that a backbone may have, without norms of outputs; none if it gives but one."""
    if type(backbone).__name__ in ('DenseNet', 'RepMLPNet'):  # these give them behind the transition to the next
        return outputs_of(backbone, images, [f'stages.{i}' for i in range(4)])
    counts = [
        len(getattr(backbone, 'layers', ())),
        getattr(backbone, 'num_stages', 0),
        getattr(backbone, 'num_layers', 0),
        4,
    ]
    misfits = (ValueError, TypeError, RuntimeError, AttributeError, AssertionError, IndexError, NotImplementedError)
    for count in sorted(set(counts) - {0}, reverse=True):
        for without_norms in (True, False):
            other = copy.deepcopy(backbone)
            if hasattr(other, 'out_type'):
                other.out_type = 'raw'
            if isinstance(getattr(other, 'final_norm', None), bool):
                other.final_norm = False
            if without_norms and type(other).__name__ == 'MlpMixer':
                other.ln1 = nn.Identity()
            if hasattr(other, 'gap_before_final_norm'):
                other.gap_before_final_norm = False
            if without_norms and any(isinstance(getattr(other, f'norm{i}', None), nn.Module) for i in range(count)):
                for i in range(count):
                    setattr(other, f'norm{i}', nn.Identity())
            other.out_indices = tuple(range(count))
            with suppress(*misfits):
                return tensors_in(other(images))
    return []


def mmpretrain_preprocess(name):
    """Its test pipeline, without the border that it cuts off, and its data preprocessor."""

    def preprocess(network, size):
        from mmpretrain.apis.model import ModelHub

        pipeline = ModelHub.get(name).config.test_dataloader.dataset.pipeline
        steps = []
        for step in copy.deepcopy(list(pipeline)):
            built = TRANSFORMS.build(step)
            styled = step['type'] == 'EfficientNetCenterCrop' or getattr(built, 'efficientnet_style', False)
            if styled or step['type'] in ('Resize', 'ResizeEdge'):
                how = dict(interpolation=built.interpolation, backend=built.backend)
                built = TRANSFORMS.build(dict(type='Resize', scale=(size[1], size[0]), **how))
            if styled or step['type'] not in ('LoadImageFromFile', 'CenterCrop'):
                steps.append(built)
        if len(steps) == 1:  # made for images as they come
            steps.insert(0, TRANSFORMS.build(dict(type='Resize', scale=(size[1], size[0]), backend='pillow')))

        def made(picture):
            results = dict(img=np.array(picture)[..., ::-1].copy())
            for step in steps:
                results = step(results)
            return network.data_preprocessor(dict(inputs=[results['inputs']]), training=False)['inputs']

        return made

    return preprocess


LIBRARIES = dict(
    timm=timm_families,
    torchvision=torchvision_families,
    transformers=hugging_face_families,
    mmpretrain=mmpretrain_families,
)


# ---- the table


def table(rows):
    """The table of rows, as the manual has it."""
    lines = ['| library | family | network | pixels | logits | feat | vector | stages |', '| --- ' * 8 + '|']
    for row in rows:
        cells = [row['library'], row['family'], f'`{row["network"]}`', *(short(row[name]) for name in COLUMNS)]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def short(cell):
    """A cell's first word."""
    return cell.partition(':')[0]


def rows_in(manual):
    """The lines of the table in the manual."""
    _, _, rest = manual.partition(MARKS[0])
    return [line for line in rest.partition(MARKS[1])[0].splitlines() if '`' in line]


def quiet():
    """No words of the libraries."""
    warnings.simplefilter('ignore')
    init_default_scope('mmpretrain')
    MMLogger.get_instance('sweep', log_level='ERROR')
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


def main(argv=None):
    """Fill the rows that are missing; returns 1 where one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--library', choices=LIBRARIES, action='append')
    parser.add_argument('--network', action='append', help='only these, whether done or not')
    parser.add_argument('--rows', type=Path, default=ROWS, help=f'where the rows are kept (default: {ROWS})')
    parser.add_argument('--write', action='store_true', help='put the rows into docs/teachers.md')
    parser.add_argument('--no-pixels', action='store_true')
    args = parser.parse_args(argv)
    quiet()
    kept = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.exists() else []
    rows = {(row['library'], row['network']): row for row in kept}
    order = []
    for library in args.library or LIBRARIES:
        for family in LIBRARIES[library]():
            key = (library, family.network)
            order.append(key)
            if (args.network and family.network not in args.network) or (not args.network and key in rows):
                continue
            start = time.process_time()
            try:
                row = row_of(family, not args.no_pixels)
            except Exception as error:
                reason = f'wrong: {type(error).__name__}: {str(error)[:300]}'
                row = dict(library=library, family=family.name, network=family.network, **dict.fromkeys(COLUMNS, reason))
                row |= dict(logits=reason)
            row['seconds'] = round(time.process_time() - start, 1)
            rows[key] = row
            with args.rows.open('a') as file:
                file.write(json.dumps(row) + '\n')
            print(json.dumps(row), flush=True)
            gc.collect()
    if args.write:
        text = MANUAL.read_text()
        before, after = text.partition(MARKS[0])[0], text.partition(MARKS[1])[2]
        done = [rows[key] for key in order if key in rows]
        MANUAL.write_text(f'{before}{MARKS[0]}\n{table(done)}\n{MARKS[1]}{after}')
    wrong = [row for row in rows.values() if any(str(row.get(name)).startswith('wrong') for name in COLUMNS)]
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
