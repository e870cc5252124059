"""Networks for images and texts (CLIP, SigLIP) of other libraries, in parts."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import close_names, listed, need_library
from .hub import check_hub
from .resizing import PILLOW_NUMBERS
from .towers import make_trainable

#: Prefixes of names: the library and the extra that installs it.
LIBRARIES = {'hf': ('transformers', 'hf'), 'open_clip': ('open_clip', 'open_clip')}
#: Parts of the text half of a network of Hugging Face's.
TEXT_HALF = ('text_model', 'text_projection', 'logit_scale', 'logit_bias')
#: Endings of files of weights in a folder of open_clip.
WEIGHTS = ('.safetensors', '.bin', '.pth')


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


def load_towers(library: str, name: str) -> Towers:
    """Load a network that :func:`parse_model` has found."""
    return {'hf': _hugging_face, 'open_clip': _open_clip}[library](name)


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
