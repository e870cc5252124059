"""Zero-shot teachers: a network for images and texts (CLIP, SigLIP) as a classifier, by the names of the classes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check_text, close_names, listed, need_library
from ..files.atomic import save_atomically
from .hub import check_hub
from .resizing import PILLOW_NUMBERS
from .towers import make_trainable

logger = logging.getLogger(__name__)
#: Named sets of templates.
TEMPLATES = {'openai80': Path(__file__).with_name('openai80.txt')}
#: Prefixes of names: the library and the extra that installs it.
LIBRARIES = {'hf': ('transformers', 'hf'), 'open_clip': ('open_clip', 'open_clip')}
#: Class names that no text says anything with: numbers, and WordNet's.
NUMBER = re.compile(r'\d+|n\d{8}')
#: Parts of the text half of a network of Hugging Face's.
TEXT_HALF = ('text_model', 'text_projection', 'logit_scale', 'logit_bias')
#: Beginnings of the names of weights of an image half.
IMAGE_HALF = ('vision_', 'visual')
#: Endings of files of weights in a folder of open_clip.
WEIGHTS = ('.safetensors', '.bin', '.pth')
#: Number of texts in a forward pass.
BATCH = 256


@dataclass
class Towers:
    """A network for images and texts, in parts.

    Attributes:
        images: Function that drops the text half and returns the image half: images, (N, 3, H, W), to features, (N, D).
        inputs: Input preprocessing of its images, as of :class:`mmcls_kd.TeacherSpec`.
        whole: The network.
        tokenize: Function from texts to the inputs of ``encode``, each (N, length).
        encode: Its text half: tokens to features, (N, D).
        too_long: Function that checks whether a text is longer than the text half takes.
        scale: Factor of the cosine: ``exp(logit_scale)``.
        bias: Summand of the logits, SigLIP's ``logit_bias``; 0 for none.
        about: Facts about the text half for its fingerprint.
    """

    images: Callable[[], nn.Module]
    inputs: dict[str, Any]
    whole: nn.Module
    tokenize: Callable[[list[str]], dict[str, Tensor]]
    encode: Callable[..., Tensor]
    too_long: Callable[[str], bool]
    scale: Tensor
    bias: Tensor
    about: str


class ZeroShot(nn.Module):
    r"""A classifier by the features of its classes' names.

    .. math:: z_c = s \frac{f(x)}{\lVert f(x) \rVert} \cdot t_c + b

    Args:
        images: Image half: images, (N, 3, H, W), to features f, (N, D).
        text: Features t of the classes, (C, D), of length 1.
        scale: The model's factor s, ``exp(logit_scale)``.
        bias: The model's summand b: SigLIP's ``logit_bias``, 0 for CLIP. It is the same for all classes, so softmax is
            independent of it.
        classes: Names of the classes.
        inputs: Input preprocessing of the image half, as of :class:`mmcls_kd.TeacherSpec`.
    """

    def __init__(
        self,
        images: nn.Module,
        text: Tensor,
        scale: Tensor,
        bias: Tensor,
        classes: Sequence[str],
        inputs: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.images, self.classes, self.inputs = images, list(classes), dict(inputs)
        for name, value in dict(text_features=text, scale=scale, bias=bias).items():
            self.register_buffer(name, value.detach().clone())
        self.text_features: Tensor
        self.scale: Tensor
        self.bias: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, C), in float32 at least."""
        features = self.images(images)
        with torch.autocast(images.device.type, enabled=False):
            features, text = (at_least_float32(tensor) for tensor in (features, self.text_features))
            return self.scale.to(features) * F.normalize(features, dim=-1) @ text.T + self.bias.to(features)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Raise lower precision to float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def zero_shot_classifier(
    model: str,
    classes: str | Sequence[str],
    templates: str | Sequence[str] = 'openai80',
    cache: str | Path | bool = True,
) -> ZeroShot:
    """Build a classifier of a network for images and texts, by the names of the classes.

    Each class's name is set into each template; the texts' features are normalised, averaged, and normalised again. The text
    half is dropped afterwards.

    Args:
        model: ``hf:FOLDER_OR_NAME`` (transformers), ``open_clip:FOLDER``, or ``open_clip:ARCHITECTURE/TAG_OR_FILE``.
        classes: Names of the classes in the order of the labels, or a file with one name a line. Underscores become spaces.
        templates: ``'openai80'``, the 80 with which OpenAI evaluated CLIP on ImageNet; a file with one a line; one, or a
            list. Each ``{}`` stands for the name of the class.
        cache: Folder of computed text features; True for one in torch's cache, False for none.

    Raises:
        ValueError: If there is no such model, it has no text half, or names or templates do not fit.
        FileNotFoundError: If a folder or file is missing.
        MissingLibraryError: If the model's library is not installed.
    """
    names, forms = read_classes(classes), read_templates(templates)
    prompts = [form.replace('{}', name) for name in names for form in forms]
    if all(map(NUMBER.fullmatch, names)):
        logger.warning(
            f'the classes are called {listed([*map(repr, names)], 3)}, and texts of numbers tell nothing about images: give '
            'their names by classes=[...], or by a file with one name a line'
        )
    library, name = parse_model(model)
    towers = {'hf': _hugging_face, 'open_clip': _open_clip}[library](name)
    _check_lengths(towers, names, forms)
    tokens = towers.tokenize(prompts)
    _check_tokens(tokens, names, len(forms))
    if not isinstance(cache, bool):
        check_text('cache', cache)
    else:
        cache = Path(torch.hub.get_dir()) / 'zero_shot' if cache else ''
    text = _cached(towers, tokens, len(names), Path(cache) if cache else None)
    return ZeroShot(towers.images().eval(), text, towers.scale, towers.bias, names, towers.inputs)


def parse_model(model: str) -> tuple[str, str]:
    """Return the library and the name of a model; folders and files of weights by absolute paths.

    Raises:
        ValueError: If the library is unknown.
        FileNotFoundError: If it is the path of a folder that is missing.
        MissingLibraryError: If the library is not installed.
    """
    library, _, name = str(model).partition(':')
    if library not in LIBRARIES or not name:
        raise ValueError(
            f'model={model!r}: give hf:FOLDER_OR_NAME, open_clip:FOLDER or open_clip:ARCHITECTURE/TAG_OR_FILE'
            f'{close_names(library, LIBRARIES)}'
        )
    need_library(LIBRARIES[library][0], f'model={model!r}', LIBRARIES[library][1])
    folder = Path(name).expanduser()
    if folder.is_dir():
        return library, str(folder.resolve())
    if name.startswith(('/', '.', '~')) or (library == 'hf' and name.count('/') > 1):  # a hub's name is OWNER/NAME
        raise FileNotFoundError(f'model={model!r}: no such folder')
    architecture, _, weights = name.partition('/')
    if library == 'open_clip' and (file := Path(weights).expanduser()).is_file():
        return library, f'{architecture}/{file.resolve()}'
    return library, name


def read_classes(classes: str | Sequence[str]) -> list[str]:
    """Return the names of classes as texts have them, given in a list or a file.

    Raises:
        ValueError: If there is none, one is empty, or two are the same.
        FileNotFoundError: If the file is missing.
    """
    given = _given('classes', classes, (str, int))
    names = [' '.join(name.replace('_', ' ').split()) for name in given]
    if not names:
        raise ValueError(f'classes={classes!r}: name at least one class')
    first: dict[str, int] = {}
    for label, name in enumerate(names):
        if not name:
            raise ValueError(f'classes: class {label} has no name ({given[label]!r}), so no template makes a text of it')
        if (other := first.setdefault(name.casefold(), label)) != label:
            raise ValueError(
                f'classes: {other} {given[other]!r} and {label} {given[label]!r} are the same name to a text ({name!r}): '
                'name them apart'
            )
    return names


def read_templates(templates: str | Sequence[str]) -> list[str]:
    """Return templates, given by the name of a set, a file, one template, or a list.

    Raises:
        ValueError: If there is none, or one has no place for the class's name.
        FileNotFoundError: If the file is missing.
    """
    if isinstance(templates, str) and '{' in templates:
        forms = [templates]
    else:
        named = TEMPLATES.get(templates, templates) if isinstance(templates, str) else templates
        forms = _given('templates', str(named) if isinstance(named, Path) else named, str)
    if not forms:
        raise ValueError(f'templates={templates!r}: give at least one template')
    if without := next((form for form in forms if '{}' not in form), None):
        raise ValueError(f"templates: {without!r} has no {{}} for the class's name, as in 'a photo of a {{}}.'")
    return forms


def _given(key: str, value: Any, kinds: type | tuple[type, ...]) -> list[str]:
    """Return texts that are given in a list, or by a file."""
    if isinstance(value, str):
        return _lines(key, value)
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, kinds) for one in value):
        raise ValueError(f'{key}={value!r}: give a list of texts, or a file with one a line')
    return [*map(str, value)]


def _lines(key: str, path: str) -> list[str]:
    """Return the lines of a file, but for empty ones and those that begin with #."""
    try:
        text = Path(path).expanduser().read_text(encoding='utf-8')
    except OSError as error:
        others = (
            f", and no set of templates of that name ({', '.join(TEMPLATES)}), nor a template with {{}} for the class's name"
            f'{close_names(path, TEMPLATES)}'
        )
        raise FileNotFoundError(f'{key}={path!r}: no such file{others if key == "templates" else ""}') from error
    except UnicodeDecodeError as error:
        raise ValueError(f'{key}={path!r}: not a text file in UTF-8, one a line') from error
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith('#')]


def _check_lengths(towers: Towers, names: Iterable[str], forms: Sequence[str]) -> None:
    """Refuse a class whose name no template leaves room for; warn of texts that the text half will cut."""
    cut = []
    for name in names:
        long = [form for form in forms if towers.too_long(form.replace('{}', name))]
        if len(long) == len(forms):
            raise ValueError(
                f'classes: {name!r} is too long for the text half of this model, with every template: give a shorter name'
            )
        cut += [form.replace('{}', name) for form in long]
    if cut:
        logger.warning(f'{len(cut)} texts are too long for the text half of this model and are cut, such as {cut[0]!r}')


def _check_tokens(tokens: Mapping[str, Tensor], names: Sequence[str], forms: int) -> None:
    """Refuse two classes of which the tokenizer makes the same."""
    first: dict[tuple, int] = {}
    for label, row in enumerate(tokens[next(iter(tokens))].unflatten(0, (-1, forms)).flatten(1).tolist()):
        if (other := first.setdefault(tuple(row), label)) != label:
            raise ValueError(
                f'classes: the tokenizer of this model makes the same of {names[other]!r} and {names[label]!r}: name them '
                'apart, in words that it knows'
            )


@torch.no_grad()
def text_features(towers: Towers, tokens: Mapping[str, Tensor], classes: int) -> Tensor:
    """Return the features of the classes, (C, D): means of their texts' normalised features, normalised."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    total = len(next(iter(tokens.values())))
    logger.info(f'text features of {classes} classes: {total} texts')
    towers.whole.to(device).eval()
    made = []
    for start in range(0, total, BATCH):
        batch = {key: value[start : start + BATCH].to(device) for key, value in tokens.items()}
        made.append(F.normalize(towers.encode(**batch).float(), dim=-1).cpu())
    towers.whole.cpu()
    return F.normalize(torch.cat(made).unflatten(0, (classes, -1)).mean(dim=1), dim=-1)


def _cached(towers: Towers, tokens: Mapping[str, Tensor], classes: int, cache: Path | None) -> Tensor:
    """Return the features of the classes, from a file in the cache if it has them; several processes compute them once."""
    if cache is None:
        return text_features(towers, tokens, classes)
    from filelock import FileLock

    file = cache.expanduser() / f'{fingerprint(towers, tokens)}.pt'
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix('.lock')):
        with contextlib.suppress(Exception):  # none there, or a damaged one
            return torch.load(file, weights_only=True)['text_features']
        text = text_features(towers, tokens, classes)
        save_atomically(dict(text_features=text), file)
    return text


def fingerprint(towers: Towers, tokens: Mapping[str, Tensor]) -> str:
    """Return the checksum of all that determines the text features: the text half, and the tokens of its texts."""
    digest = hashlib.sha256(towers.about.encode())
    weights = ((name, tensor) for name, tensor in towers.whole.named_parameters() if not name.startswith(IMAGE_HALF))
    for name, tensor in (*weights, *tokens.items()):
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}'.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


class ImageHalf(nn.Module):
    """The image half of a network of transformers, whose text half is dropped."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        for part in TEXT_HALF:
            if hasattr(network, part):
                delattr(network, part)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, (N, D)."""
        return _pooled(self.network.get_image_features(pixel_values=images))


def _pooled(output: Any) -> Tensor:
    """Return the features in an output of transformers: before version 5 they are the output."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _hugging_face(name: str) -> Towers:
    """Load a network of transformers, with its tokenizer and image processor."""
    import transformers

    check_hub(name)
    config = transformers.AutoConfig.from_pretrained(name)
    if not hasattr(config, 'text_config'):
        raise ValueError(
            f'hf:{name}: a {config.model_type} has no text half, which zero-shot classification needs: give the whole model '
            'for images and texts, such as CLIP’s or SigLIP’s'
        )
    network, info = transformers.AutoModel.from_pretrained(name, output_loading_info=True)
    if not all(hasattr(network, part) for part in ('get_text_features', 'get_image_features', 'logit_scale')):
        raise ValueError(f'hf:{name}: {type(network).__name__} does not compare images and texts as CLIP and SigLIP do')
    if missing := sorted({*info['missing_keys'], *(key for key, *_ in info['mismatched_keys'])}):
        raise ValueError(f'hf:{name}: the weights leave {listed(missing)} random: give the whole model')
    make_trainable(network)
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    # of SigLIP 2, whose tokenizer is Gemma's and does not heed it
    cased = str.lower if tokenizer.init_kwargs.get('do_lower_case') else str
    longest = min(tokenizer.model_max_length, config.text_config.max_position_embeddings)
    # SigLIP learned with full lengths, and reads its features from the last token
    padding = 'max_length' if config.model_type.startswith('siglip') else True
    options = dict(padding=padding, truncation=True, max_length=longest, return_tensors='pt')
    bias = getattr(network, 'logit_bias', None)
    return Towers(
        images=lambda: ImageHalf(network),
        inputs=_inputs(transformers.AutoImageProcessor.from_pretrained(name)),
        whole=network,
        tokenize=lambda texts: dict(tokenizer([cased(text) for text in texts], **options)),
        encode=lambda **tokens: _pooled(network.get_text_features(**tokens)),
        too_long=lambda text: len(tokenizer(cased(text))['input_ids']) > longest,
        scale=network.logit_scale.detach().exp().reshape(()),
        bias=torch.zeros(()) if bias is None else bias.detach().reshape(()),
        about=f'transformers {transformers.__version__} {type(network)} {config.text_config.to_json_string()}',
    )


def _inputs(processor: Any) -> dict[str, Any]:
    """Return the input preprocessing of an image processor of transformers."""
    size = dict((processor.crop_size if getattr(processor, 'do_center_crop', False) else processor.size) or {})
    side = size.get('shortest_edge')
    if not size.get('height', side):
        raise ValueError(
            f'{type(processor).__name__} makes images of no fixed size (of patches, in SigLIP 2’s naflex models): give a '
            'model for one image size'
        )
    fast = getattr(processor, 'backend', None) == 'torchvision' or getattr(processor, 'is_fast', False)
    return dict(
        mean=[255 * value for value in processor.image_mean],
        std=[255 * value for value in processor.image_std],
        to_rgb=True,
        size=(size.get('height', side), size.get('width', side)),
        interpolation=PILLOW_NUMBERS[int(processor.resample)],
        backend='torchvision' if fast else 'pillow',
    )


def _open_clip(name: str) -> Towers:
    """Load a network of open_clip, with its tokenizer."""
    import open_clip

    architecture, weights = _open_clip_name(name)
    with warnings.catch_warnings(record=True) as said, _root_logger_kept():
        warnings.simplefilter('always')
        network = open_clip.create_model(architecture, weights, precision='fp32', require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(architecture)
        about = f'open_clip {open_clip.__version__} {json.dumps(open_clip.get_model_config(architecture))} {network}'
    if any('QuickGELU mismatch' in str(one.message) for one in said):
        raise ValueError(
            f'open_clip:{name}: these weights were trained with another activation (QuickGELU): give '
            f'open_clip:{architecture}-quickgelu/{weights}'
        )
    made = dict(open_clip.get_model_preprocess_cfg(network))
    side = made['size']
    bias = getattr(network, 'logit_bias', None)
    return Towers(
        images=lambda: _First(network.visual),
        inputs=dict(
            mean=[255 * value for value in made['mean']],
            std=[255 * value for value in made['std']],
            to_rgb=True,
            size=(side, side) if isinstance(side, int) else tuple(side),
            interpolation=made['interpolation'],
            backend='pillow',
        ),
        whole=network,
        tokenize=lambda texts: dict(text=tokenizer(texts)),
        encode=lambda text: network.encode_text(text),
        too_long=lambda text: _open_clip_length(tokenizer, text) > tokenizer.context_length,
        scale=network.logit_scale.detach().exp().reshape(()),
        bias=torch.zeros(()) if bias is None else bias.detach().reshape(()),
        about=about,
    )


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Keep the root logger as it is: logging by its functions, as open_clip does, would give it a handler."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _First(nn.Module):
    """An image half of open_clip, of whose outputs the first are the features (CoCa has tokens, too)."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, (N, D)."""
        output = self.visual(images)
        return output if isinstance(output, Tensor) else output[0]


def _open_clip_name(name: str) -> tuple[str, str | None]:
    """Return open_clip's name of an architecture or folder, and the tag or file of its weights."""
    import open_clip

    if Path(name).is_dir():
        if not any(file.suffix in WEIGHTS for file in Path(name).iterdir()):
            raise FileNotFoundError(f'open_clip:{name}: the folder has no weights ({", ".join(WEIGHTS)})')
        return f'local-dir:{name}', None
    if name.startswith(('hf-hub:', 'local-dir:')):
        return name, None
    architecture, _, weights = name.partition('/')
    if architecture not in (known := open_clip.list_models()):
        raise ValueError(f'open_clip has no model {architecture!r}{close_names(architecture, known)}')
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if weights not in tags and not Path(weights).is_file():
        raise ValueError(
            f'open_clip:{name}: {f"no weights {weights!r}" if weights else "which weights?"} Give open_clip:{architecture}/'
            f'TAG with one of {", ".join(tags) or "no known tags"}, or a file{close_names(weights, tags)}'
        )
    return architecture, weights


def _open_clip_length(tokenizer: Any, text: str) -> int:
    """Return the number of tokens of a text, with the marks of its beginning and end."""
    if hasattr(tokenizer, 'tokenizer'):
        return len(tokenizer.tokenizer(text)['input_ids'])
    return len(tokenizer.encode(text)) + 2
