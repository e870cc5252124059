"""No library and no architecture is named in distiller and losses, but in the table of default taps (and ``is_vit``)."""

import ast
import re
from pathlib import Path

import pytest

import mmcls_kd.dis_losses
import mmcls_kd.distiller
import mmcls_kd.distillers
import mmcls_kd.features
import mmcls_kd.recipe
import mmcls_kd.teachers

#: What would name one, wherever a letter of another word is not beside it.
NAMED = re.compile(
    r'(?<![a-z])(timm|torchvision|hugging_?face|hf|transformers|res_?net\w*|vi_?ts?|vision_?transformer\w*|dei_?t\w*|bei_?t\w*|'
    r'swin\w*|conv_?ne_?xt\w*|mobile_?net\w*|efficient_?net\w*|dense_?net\w*|reg_?net\w*|shuffle_?net\w*|'
    r'goog_?le_?net\w*|inception\w*|vgg\w*|squeeze_?net\w*|dino\w*|eva)(?![a-z])',
    re.IGNORECASE,
)
#: The tables of families, and of the libraries' networks by name, ways to resize, image towers, models of images and texts,
#: and hub; the original's keyword, and the names of a method.
TABLES = ('families.py', 'libraries.py', 'resizing.py', 'towers.py', 'zero_shot.py', 'image_text.py', 'hub.py')
LEGACY = re.compile('is_vit|DeiTTokenLoss|deit_token(_loss)?')
FILES = [
    path
    for package in (mmcls_kd.distillers, mmcls_kd.dis_losses, mmcls_kd.features, mmcls_kd.recipe, mmcls_kd.teachers)
    for path in sorted(Path(package.__file__).parent.glob('*.py'))
    if path.name not in TABLES
] + [Path(mmcls_kd.distiller.__file__)]


def words(tree):
    """The identifiers and the strings of a module, but for its docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        for field in ('id', 'attr', 'arg', 'name', 'asname', 'module'):
            if isinstance(value := getattr(node, field, None), str):
                yield value
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def named(source):
    """What a module's source names."""
    apart = (re.sub('(?<=[a-z])(?=[A-Z])', '_', LEGACY.sub('', word)) for word in words(ast.parse(source)))
    return sorted({match[0] for word in apart for match in NAMED.finditer(word)})


@pytest.mark.parametrize('path', FILES, ids=lambda path: f'{path.parent.name}/{path.name}')
def test_a_module_names_none(path):
    assert named(path.read_text()) == []


def test_the_files_are_those_of_distiller_and_losses():
    assert {'classification.py', 'taps.py', 'teacher.py', 'dry_run.py', 'mgd.py', 'vitkd.py'} <= {
        path.name for path in FILES
    }


@pytest.mark.parametrize(
    'line',
    [
        'from timm import create_model',
        'import transformers',
        'from mmpretrain.models.backbones import SwinTransformer',
        "if type(network).__name__ == 'ResNet18': pass",
        'resnet = 3',
        "path = 'model.vit.layers'",
        'network.swin_layers',
        "raise ValueError(f'no {kind} of a ConvNeXt')",
        'def read(deit): pass',
        'isinstance(network, HuggingFaceClassifier)',
        'isinstance(network, TimmClassifier)',
    ],
)
def test_it_would_be_seen(line):
    assert named(line)


@pytest.mark.parametrize(
    'line',
    [
        '"""As a ResNet or a timm network does."""',
        'def read(inputs):\n    """Of a ViT."""  # and a Swin',
        'class ViTKDLoss: pass',
        'def __init__(self, is_vit=False): pass',
        'activities = evaluating = medium = 1',
    ],
)
def test_prose_and_names_of_papers_are_none(line):
    assert named(line) == []
