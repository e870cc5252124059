"""Zero-shot teachers: a network for images and texts (CLIP, SigLIP) as a classifier, by the names of the classes."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dis_losses.common import at_least_float32
from ..errors import check_text, close_names, listed
from ..files.atomic import save_atomically
from .image_text import Towers, load_towers, parse_model

logger = logging.getLogger(__name__)
#: Named sets of templates.
TEMPLATES = {'openai80': Path(__file__).with_name('openai80.txt')}
#: Class names that no text says anything with: numbers, and WordNet's.
NUMBER = re.compile(r'\d+|n\d{8}')
#: Beginnings of the names of weights of an image half.
IMAGE_HALF = ('vision_', 'visual')
#: Number of texts in a forward pass.
BATCH = 256


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
    towers = load_towers(*parse_model(model))
    _check_lengths(towers, names, forms)
    tokens = towers.tokenize(prompts)
    _check_tokens(tokens, names, len(forms))
    if not isinstance(cache, bool):
        check_text('cache', cache)
    else:
        cache = Path(torch.hub.get_dir()) / 'zero_shot' if cache else ''
    text = _cached(towers, tokens, len(names), Path(cache) if cache else None)
    return ZeroShot(towers.images().eval(), text, towers.scale, towers.bias, names, towers.inputs)


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
