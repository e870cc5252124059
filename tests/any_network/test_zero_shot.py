"""Zero-shot teachers: against the zero-shot classification of transformers and of open_clip, on the same images."""

import contextlib
import io
import json
import logging
import re
import shutil
from pathlib import Path

import image_text
import numpy as np
import open_clip
import pytest
import torch
import transformers
from image_text import CLASSES, SIZE
from mmpretrain.registry import MODELS
from networks import batch, build, method, resnet
from PIL import Image
from safetensors.torch import load_file, save_file

from mmcls_kd import Distiller, TeacherSpec
from mmcls_kd.command.arguments import training_parser
from mmcls_kd.engine.config import training_config
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.classes import data_named
from mmcls_kd.networks.pixels import wanted_pixels
from mmcls_kd.networks.sources import find_network
from mmcls_kd.teachers import store_logits, zero_shot_classifier
from mmcls_kd.teachers.inputs import InputSpec, changed
from mmcls_kd.teachers.zero_shot import read_classes, read_templates

ONE = 'a photo of a {}.'
SOME = [ONE, 'a bad picture of many {}', '{} in the photo', 'two {}']
KD = method('KDLoss')
PREPROCESSOR = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Folders of the models, by name."""
    folder = tmp_path_factory.mktemp('models')
    return dict(
        clip=f'hf:{image_text.clip(folder / "clip")}',
        siglip=f'hf:{image_text.siglip(folder / "siglip")}',
        open_clip=f'open_clip:{image_text.open_clip(folder / "open_clip")}',
        open_siglip=f'open_clip:{image_text.open_clip(folder / "open_siglip", custom_text=True, init_logit_bias=-10)}',
    )


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))


def pictures(count=40):
    """Images of several colours, as files give them."""
    random = np.random.RandomState(0)
    small = [Image.fromarray(random.randint(0, 256, (5, 5, 3)).astype(np.uint8)) for _ in range(count)]
    return [image.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for image in small]


@torch.no_grad()
def librarys_own(name, classes, templates):
    """Zero-shot logits as the library computes them itself, from the files of the images on, (N, C)."""
    library, _, folder = name.partition(':')
    if library == 'open_clip':
        model, _, process = open_clip.create_model_and_transforms(f'local-dir:{folder}')
        tokenizer = open_clip.get_tokenizer(f'local-dir:{folder}')
        model.eval()
        weights = open_clip.build_zero_shot_classifier(model, tokenizer, classes, templates)
        images = model.encode_image(torch.stack([process(image) for image in pictures()]), normalize=True)
        bias = 0 if model.logit_bias is None else model.logit_bias
        return model.logit_scale.exp() * images @ weights + bias
    with contextlib.redirect_stderr(io.StringIO()):
        model = transformers.AutoModel.from_pretrained(folder).eval()
    process, tokenizer = (
        kind.from_pretrained(folder) for kind in (transformers.AutoImageProcessor, transformers.AutoTokenizer)
    )
    pixels = process(images=pictures(), return_tensors='pt')
    padding = 'max_length' if 'siglip' in model.config.model_type else True
    means = []
    for name in classes:
        texts = tokenizer([form.format(name) for form in templates], padding=padding, return_tensors='pt')
        rows = model(**texts, **pixels).text_embeds.double().numpy()  # of length 1
        mean = rows.mean(axis=0)
        means.append(mean / np.linalg.norm(mean))
    images = model(**texts, **pixels).image_embeds.double().numpy()
    bias = float(getattr(model, 'logit_bias', torch.zeros(())))
    return torch.from_numpy(float(model.logit_scale.exp()) * images @ np.stack(means).T + bias).float()


def through_a_distiller(name, classes, templates, **keywords):
    """Logits of the teacher of a distiller, whose images are normalised for the student, (N, C)."""
    cfg = dict(type='ZeroShotClassifier', model=name, classes=classes, templates=templates)
    student = resnet(4, len(classes), data_preprocessor=PREPROCESSOR)
    distiller = build(KD, student=student, teacher=cfg, teacher_pretrained=None, rgb_images=False, **keywords).eval()
    raw = np.stack([np.asarray(image) for image in pictures()]).transpose(0, 3, 1, 2)
    mean, std = (torch.tensor(PREPROCESSOR[key])[:, None, None] for key in ('mean', 'std'))
    images = (torch.from_numpy(raw).float() - mean) / std
    return distiller, distiller.teacher_holder(images, None, ['logit'])['logit']


@pytest.mark.parametrize('name', ['clip', 'siglip', 'open_clip', 'open_siglip'])
@pytest.mark.parametrize('templates', [[ONE], SOME], ids=['one', 'some'])
def test_the_accuracy_is_the_librarys_own_image_for_image(folders, name, templates):
    expected = librarys_own(folders[name], CLASSES, templates)
    distiller, logit = through_a_distiller(folders[name], CLASSES, templates)
    torch.testing.assert_close(logit, expected, rtol=1e-4, atol=2e-3)
    assert torch.equal(logit.argmax(dim=1), expected.argmax(dim=1))
    assert len(expected.argmax(dim=1).unique()) > 1
    teacher = distiller.teacher.model
    assert (float(teacher.bias) != 0) == ('siglip' in name)
    assert not any('text' in key for key, _ in teacher.named_parameters())  # that half is dropped


@pytest.mark.parametrize('name', ['clip', 'siglip'])
def test_one_template_is_the_model_called_as_a_whole(folders, name):
    folder = folders[name].partition(':')[2]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    process, tokenizer = (
        kind.from_pretrained(folder) for kind in (transformers.AutoImageProcessor, transformers.AutoTokenizer)
    )
    padding = 'max_length' if name == 'siglip' else True
    texts = tokenizer([ONE.format(name) for name in CLASSES], padding=padding, return_tensors='pt')
    with torch.no_grad():
        expected = model(**texts, **process(images=pictures(), return_tensors='pt')).logits_per_image
    torch.testing.assert_close(through_a_distiller(folders[name], CLASSES, ONE)[1], expected, rtol=1e-4, atol=2e-3)


def test_the_named_templates_are_open_clips(folders):
    assert read_templates('openai80') == [form('{}') for form in open_clip.OPENAI_IMAGENET_TEMPLATES]
    made = zero_shot_classifier(folders['open_clip'], CLASSES, cache=False)
    expected = librarys_own(folders['open_clip'], CLASSES, open_clip.OPENAI_IMAGENET_TEMPLATES)
    _, _, process = open_clip.create_model_and_transforms(folders['open_clip'].replace('open_clip:', 'local-dir:', 1))
    with torch.no_grad():
        logit = made(torch.stack([process(image) for image in pictures()]))
    torch.testing.assert_close(logit, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('name', ['clip', 'siglip', 'open_clip'])
def test_the_input_preprocessing_is_the_same_by_trial(folders, name):
    network = MODELS.build(
        find_network(dict(type='ZeroShotClassifier', model=folders[name], classes=CLASSES, templates=ONE)).cfg
    )
    tried = wanted_pixels(network, InputSpec(), None)
    read = changed(InputSpec(), network.model.inputs)
    assert (tried.size, tried.interpolation, tried.backend, tried.to_rgb) == (
        read.size,
        read.interpolation,
        read.backend,
        read.to_rgb,
    )
    np.testing.assert_allclose([tried.mean, tried.std], [read.mean, read.std], rtol=1e-3)


class TestAsATeacher:
    def test_a_step(self, folders):
        distiller, _ = through_a_distiller(folders['clip'], CLASSES, ONE)
        data = distiller.train().data_preprocessor(batch(4, SIZE, len(CLASSES)), training=True)
        losses = distiller(**data, mode='loss')
        assert losses['loss_kd'].isfinite()
        assert not any('teacher' in key or 'text' in key for key in distiller.state_dict())

    @pytest.mark.parametrize('precision', ['bf16'])
    def test_of_lower_precision(self, folders, precision):
        _, expected = through_a_distiller(folders['siglip'], CLASSES, SOME)
        _, logit = through_a_distiller(folders['siglip'], CLASSES, SOME, teacher_precision=precision)
        assert float((logit - expected).abs().max()) < 0.05 * float(expected.abs().max())

    def test_embeddings_by_a_tap(self, folders):
        cfg = dict(type='ZeroShotClassifier', model=folders['clip'], classes=CLASSES, templates=ONE)
        student = resnet(4, len(CLASSES), data_preprocessor=PREPROCESSOR)
        taps = dict(vector_t='model.images')
        distiller = build(
            method('RKDLoss'), student=student, teacher=cfg, teacher_pretrained=True, rgb_images=False, taps=taps
        )
        assert distiller.teacher_holder.shapes['vector'] == (2, 12)

    def test_classes_of_the_data(self, folders):
        cfg = dict(type='ZeroShotClassifier', model=folders['clip'], templates=ONE)
        names = [dict(enumerate('01234')), dict(enumerate(name.replace(' ', '_') for name in CLASSES))]
        student = resnet(4, len(CLASSES), data_preprocessor=PREPROCESSOR)
        with data_named(names):
            distiller = build(KD, student=student, teacher=cfg, teacher_pretrained=True, rgb_images=False)
        assert distiller.teacher.classes == CLASSES
        with pytest.raises(
            ValueError, match=r'model.teacher_cfg: classes: the names of the data’s classes are not known: give'
        ):
            build(KD, student=student, teacher=cfg, teacher_pretrained=True, rgb_images=False)

    def test_classes_in_another_order_are_mapped(self, folders):
        cfg = dict(type='ZeroShotClassifier', model=folders['clip'], templates=ONE, classes=CLASSES[::-1])
        student = resnet(4, len(CLASSES), data_preprocessor=PREPROCESSOR)
        with data_named([dict(enumerate(CLASSES))]):
            distiller = build(KD, student=student, teacher=cfg, teacher_pretrained=True, rgb_images=False)
        assert distiller.teacher_holder.by_name == [4, 3, 2, 1, 0]

    def test_a_config_needs_no_other_file(self, folders, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / 'names.txt').write_text('ankle_boot\nbag\n')
        (tmp_path / 'forms.txt').write_text('# mine\na photo of {}\n\na bad {}\n')
        cfg = dict(type='ZeroShotClassifier', model=folders['clip'], classes='names.txt', templates='forms.txt')
        made = find_network(cfg).in_full
        assert (made.classes, made.templates) == (['ankle boot', 'bag'], ['a photo of {}', 'a bad {}'])
        assert cfg['classes'] == 'names.txt'

    def test_in_plain_pytorch_live_and_stored(self, folders, tmp_path):
        torch.manual_seed(0)
        teacher = zero_shot_classifier(folders['siglip'], CLASSES, ONE)
        student = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 4), torch.nn.Flatten(), torch.nn.Linear(256, len(CLASSES)))
        images, labels, indices = torch.randn(6, 3, SIZE, SIZE), torch.arange(6) % 5, torch.arange(6)
        spec = TeacherSpec(teacher, inputs=teacher.inputs)
        live = Distiller(student, spec, losses='dist', inputs=teacher.inputs)(images, labels)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels, indices), batch_size=3)
        stored = store_logits(teacher, loader, tmp_path / 'store')
        again = Distiller(student, stored, losses='dist')(images, labels, indices)
        torch.testing.assert_close(live['dist'], again['dist'], rtol=1e-2, atol=1e-3)  # stores have float16


def test_the_page(tmp_path, monkeypatch):
    config, plain = re.findall(r'^```python\n(.*?)^```', (TOOLBOX / 'docs' / 'zero_shot.md').read_text(), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    image_text.clip(tmp_path / 'clip_folder')
    torch.manual_seed(0)
    names: dict = {}
    exec(plain, names)
    assert names['out']['dist'].isfinite()
    (tmp_path / 'distil_zero_shot.py').write_text(config)
    cfg = training_config(training_parser(None).parse_args(['distil_zero_shot.py']))
    with data_named([dict(enumerate(f'bag {word}' for word in image_text.WORDS[:10]))]):
        distiller = MODELS.build(cfg.model)
    assert distiller.teacher_holder.num_classes == 10
    assert distiller.teacher_holder.adapt.wanted.size == (SIZE, SIZE)


class TestCache:
    def counted(self, monkeypatch):
        calls = []
        from mmcls_kd.teachers import zero_shot

        own = zero_shot.text_features
        monkeypatch.setattr(zero_shot, 'text_features', lambda *args: calls.append(args) or own(*args))
        return calls

    def test_text_features_are_computed_once(self, folders, tmp_path, monkeypatch):
        calls = self.counted(monkeypatch)
        made = [zero_shot_classifier(folders['clip'], CLASSES, ONE, tmp_path / 'c') for _ in range(2)]
        assert len(calls) == 1
        assert torch.equal(made[0].text_features, made[1].text_features)
        zero_shot_classifier(folders['clip'], CLASSES, SOME, tmp_path / 'c')
        zero_shot_classifier(folders['clip'], CLASSES[::-1], ONE, tmp_path / 'c')
        assert len(calls) == 3
        image_text.clip(tmp_path / 'other', seed=1)
        zero_shot_classifier(f'hf:{tmp_path / "other"}', CLASSES, ONE, tmp_path / 'c')
        assert len(calls) == 4
        assert len([*(tmp_path / 'c').glob('*.pt')]) == 4

    def test_a_damaged_file_is_made_anew(self, folders, tmp_path, monkeypatch):
        expected = zero_shot_classifier(folders['clip'], CLASSES, ONE, tmp_path).text_features
        next(tmp_path.glob('*.pt')).write_bytes(b'no file of torch')
        assert torch.equal(zero_shot_classifier(folders['clip'], CLASSES, ONE, tmp_path).text_features, expected)

    def test_without(self, folders, tmp_path, monkeypatch):
        calls = self.counted(monkeypatch)
        for _ in range(2):
            zero_shot_classifier(folders['clip'], CLASSES, ONE, False)
        assert len(calls) == 2
        assert not (tmp_path / 'torch').exists()


@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        (dict(model='clap:x'), r"model='clap:x': give hf:FOLDER_OR_NAME, open_clip:FOLDER or .*"),
        (dict(model='hf:./nowhere'), r"model='hf:./nowhere': no such folder"),
        (dict(model='open_clip:ViT-B-33/openai'), r"open_clip has no model 'ViT-B-33'; did you mean 'ViT-B-32'.*"),
        (
            dict(model='open_clip:ViT-B-32'),
            r'open_clip:ViT-B-32: which weights\? Give open_clip:ViT-B-32/TAG with .*',
        ),
        (
            dict(model='open_clip:ViT-B-32/opena'),
            r"open_clip:ViT-B-32/opena: no weights .* did you mean 'openai'.*",
        ),
        (dict(templates=['a photo']), r"templates: 'a photo' has no \{\} for the class's name, as in 'a photo of a \{\}.'"),
        (dict(templates=['a {c}']), r"templates: 'a \{c\}' has no \{\} for .*"),
        (dict(templates='a photo'), r"templates='a photo': no such file, and no set .* nor a template with \{\} for .*"),
        (dict(templates=5), r'templates=5: give a list of texts, or a file with one a line'),
        (dict(templates=['a {}.', None]), r"templates=\['a \{\}.', None\]: give a list of texts, .*"),
        (dict(classes=5), r'classes=5: give a list of texts, or a file .*'),
        (dict(classes=['bag', None]), r"classes=\['bag', None\]: give a list of texts, .*"),
        (dict(cache=5), r'cache=5: give a text'),
        (dict(templates='opena80'), r"templates='opena80': no such file, and no set .*; did you mean 'openai80'\?"),
        (dict(templates=[]), r'templates=\[\]: give at least one template'),
        (dict(classes=[]), r'classes=\[\]: name at least one class'),
        (dict(classes='nowhere.txt'), r"classes='nowhere.txt': no such file"),
        (dict(classes=['bag', '_']), r"classes: class 1 has no name \('_'\), so no template makes a text of it"),
        (
            dict(classes=['ankle_boot', 'bag', 'Ankle boot']),
            r"classes: 0 'ankle_boot' and 2 'Ankle boot' are the same .*",
        ),
        (
            dict(classes=['zebra', 'crane']),
            r"classes: the tokenizer of this model makes the same of 'zebra' and .*",
        ),
        (dict(classes=['bag', 'toy ' * 20]), r"classes: 'toy toy .*' is too long for the text half of this model, .*"),
    ],
)
def test_refused_in_one_line(folders, keywords, message):
    given = dict(model=folders['clip'], classes=['bag', 'toy'], templates=ONE, cache=False)
    with pytest.raises((ValueError, FileNotFoundError), match=f'^{message}$') as refused:
        zero_shot_classifier(**{**given, **keywords})
    assert '\n' not in str(refused.value)


def test_models_without_a_text_half_are_refused(folders, tmp_path):
    model = transformers.CLIPModel.from_pretrained(folders['clip'].partition(':')[2])
    image_text.saved(tmp_path / 'half', model.vision_model)
    with pytest.raises(ValueError, match='a clip_vision_model has no text half, which zero-shot classification needs'):
        zero_shot_classifier(f'hf:{tmp_path / "half"}', CLASSES, cache=False)


@pytest.mark.parametrize('setting', [True, False])
def test_texts_are_in_lower_case_where_the_tokenizer_is_set_so(folders, tmp_path, setting):
    folder = shutil.copytree(folders['siglip'].partition(':')[2], tmp_path / 'cased')
    keywords = dict(do_lower_case=True) if setting else {}
    image_text.saved(folder, image_text.tokenizer(16, lower=False, model_input_names=['input_ids'], **keywords))
    made = [
        zero_shot_classifier(f'hf:{folder}', names, ONE, False) for names in (CLASSES, [name.lower() for name in CLASSES])
    ]
    assert torch.equal(made[0].text_features, made[1].text_features) == setting


def test_models_of_any_image_size_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders['siglip'].partition(':')[2], tmp_path / 'naflex')
    image_text.saved(folder, transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16))
    with pytest.raises(ValueError, match='Siglip2ImageProcessor.* makes images of no fixed size'):
        zero_shot_classifier(f'hf:{folder}', CLASSES, cache=False)


def test_a_folder_of_open_clip_without_weights_is_refused(tmp_path):
    folder = image_text.open_clip(tmp_path / 'bare')
    (folder / 'open_clip_pytorch_model.bin').unlink()
    with pytest.raises(FileNotFoundError, match='open_clip:.*: the folder has no weights'):
        zero_shot_classifier(f'open_clip:{folder}', CLASSES, cache=False)


def test_partial_weights_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders['siglip'].partition(':')[2], tmp_path / 'partial')
    weights = load_file(folder / 'model.safetensors')
    kept = {name: weight for name, weight in weights.items() if 'text_model.head' not in name}
    save_file(kept, folder / 'model.safetensors', dict(format='pt'))
    with pytest.raises(ValueError, match=r'the weights leave text_model\.head\.bias, text_model\.head\.weight random'):
        zero_shot_classifier(f'hf:{folder}', CLASSES, cache=False)


@pytest.fixture
def tiny_architecture(folders, monkeypatch):
    """An architecture of open_clip with published weights, trained with QuickGELU; returns the file of the weights."""
    folder = Path(folders['open_clip'].partition(':')[2])
    cfg = json.loads((folder / 'open_clip_config.json').read_text())['model_cfg']
    file = folder / 'open_clip_pytorch_model.bin'
    tags = dict(published=dict(url='', quick_gelu=True))
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, 'tiny', tags)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny', cfg)
    monkeypatch.setattr(open_clip.factory, 'download_pretrained', lambda *_, **__: str(file))
    return file


def test_an_architecture_of_open_clip_with_a_file(folders, tiny_architecture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'w.bin').symlink_to(tiny_architecture)
    made = zero_shot_classifier('open_clip:tiny/w.bin', CLASSES, ONE, cache=False)
    expected = zero_shot_classifier(folders['open_clip'], CLASSES, ONE, cache=False)
    assert torch.equal(made.text_features, expected.text_features)
    assert find_network(dict(type='ZeroShotClassifier', model='open_clip:tiny/w.bin')).cfg.model == (
        f'open_clip:tiny/{tiny_architecture}'
    )


def test_weights_of_another_activation_are_refused(tiny_architecture):
    with pytest.raises(ValueError, match='another activation .QuickGELU.: give open_clip:tiny-quickgelu/published'):
        zero_shot_classifier('open_clip:tiny/published', CLASSES, ONE, cache=False)


def test_some_texts_are_cut(folders, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('mmcls_kd'), 'propagate', True)
    zero_shot_classifier(folders['clip'], ['bag', 'toy'], [ONE, 'a ' * 20 + '{}'], cache=False)
    assert '2 texts are too long for the text half of this model and are cut, such as' in caplog.text


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setattr('mmcls_kd.errors.find_spec', lambda name: None)
    for name, extra in (('hf:x', 'hf'), ('open_clip:x', 'open_clip')):
        with pytest.raises(ValueError, match=rf"pip install 'mmcls_kd\[{extra}\]'"):
            zero_shot_classifier(name, CLASSES, cache=False)


def test_numbers_are_warned_of(folders, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('mmcls_kd'), 'propagate', True)
    zero_shot_classifier(folders['open_clip'], ['n01440764', 'n01443537'], ONE, cache=False)
    assert "the classes are called 'n01440764', 'n01443537', and texts of numbers tell nothing" in caplog.text


def test_templates_of_a_file(tmp_path):
    """Blank lines and remarks are skipped, and each place of a template has the name."""
    file = tmp_path / 'templates.txt'
    file.write_text('\n# of ours\n  a photo of a {}.  \n\n   \nthe {}, a kind of {}.\n')
    assert read_templates(str(file)) == ['a photo of a {}.', 'the {}, a kind of {}.']
    file.write_text('\n  \n# none\n')
    with pytest.raises(ValueError, match='give at least one template'):
        read_templates(str(file))
    file.write_text('a {}.\n\na photo\n')
    with pytest.raises(ValueError, match="templates: 'a photo' has no {} for"):
        read_templates(str(file))


def test_each_place_of_a_template_has_the_name(folders):
    twice = zero_shot_classifier(folders['clip'], ['bag', 'toy'], ['a {} {}'], False)
    named = zero_shot_classifier(folders['clip'], ['bag bag', 'toy toy'], ['a {}'], False)
    assert torch.equal(twice.text_features, named.text_features)


def test_names_for_texts():
    assert read_classes(['Sea_lion', ' jack-o-lantern ', 'a  b']) == ['Sea lion', 'jack-o-lantern', 'a b']


def test_the_root_logger_stays_as_it_is(folders):
    before = list(logging.getLogger().handlers)
    zero_shot_classifier(folders['open_clip'], CLASSES, ONE, cache=False)
    assert logging.getLogger().handlers == before
