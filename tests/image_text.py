"""Tiny networks for images and texts, and files of them, made here from their libraries' own classes."""

import contextlib
import io
import json

import torch

SIZE = 32
CLASSES = ['ankle boot', 'bag', 'T-shirt', 'pull over', 'trouser']
WORDS = [
    *['a', 'an', 'the', 'of', 'on', 'in', 'photo', 'bad', 'good', 'many', 'one', 'two', 'picture', 'toy'],
    *['ankle', 'boot', 'bag', 't', 'shirt', 'pull', 'over', 'trouser', '.', '-'],
]
WIDTHS = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)


def tokenizer(length, lower=True, **keywords):
    """A tokenizer of words, which it lowers by itself or not."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(['<pad>', '<unk>', '<start>', '<end>', *WORDS])}
    made = Tokenizer(models.WordLevel(words, unk_token='<unk>'))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if lower:
        made.normalizer = normalizers.Lowercase()
    ends = [(name, words[name]) for name in ('<start>', '<end>')]
    made.post_processor = processors.TemplateProcessing(single='<start> $A <end>', special_tokens=ends)
    marks = dict(unk_token='<unk>', pad_token='<pad>', bos_token='<start>', eos_token='<end>')
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=length, **marks, **keywords)


def saved(folder, *parts):
    """Save parts of a model into a folder, without progress bars."""
    with contextlib.redirect_stderr(io.StringIO()):
        for part in parts:
            part.save_pretrained(folder)
    return folder


def clip(folder, seed=0, length=16):
    """A folder with CLIP as transformers saves it."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(seed)
    ends = dict(pad_token_id=0, bos_token_id=2, eos_token_id=3)
    text = dict(WIDTHS, vocab_size=4 + len(WORDS), max_position_embeddings=length, **ends)
    vision = dict(WIDTHS, image_size=SIZE, patch_size=8)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
    sides = dict(size=dict(shortest_edge=SIZE), crop_size=dict(height=SIZE, width=SIZE))
    return saved(folder, shaken(model), tokenizer(length), CLIPImageProcessor(**sides))


def siglip(folder, seed=0, length=16):
    """A folder with SigLIP as transformers saves it; its texts have a full length, without a mask."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(seed)
    ends = dict(pad_token_id=0, bos_token_id=2, eos_token_id=3)
    text = dict(WIDTHS, vocab_size=4 + len(WORDS), max_position_embeddings=length, projection_size=16, **ends)
    vision = dict(WIDTHS, image_size=SIZE, patch_size=8)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    sides = dict(height=SIZE, width=SIZE)
    tokens = tokenizer(length, model_input_names=['input_ids'])
    return saved(folder, shaken(model, scale=4.7, bias=-12.9), tokens, SiglipImageProcessor(size=sides))


def shaken(model, scale=4.6, bias=0.0):
    """Larger weights, so that features differ, and a trained model's scale and bias."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.4)
        model.logit_scale.fill_(scale)
        if getattr(model, 'logit_bias', None) is not None:
            model.logit_bias.fill_(bias)
    return model


def open_clip(folder, seed=0, **keywords):
    """A folder with CLIP as open_clip saves it, with its tokenizer of 49,408 tokens."""
    import open_clip

    torch.manual_seed(seed)
    text = dict(context_length=32, vocab_size=49408, width=16, heads=2, layers=2)
    vision = dict(image_size=SIZE, layers=2, width=16, head_width=8, patch_size=8)
    cfg = dict(embed_dim=12, vision_cfg=vision, text_cfg=text, **keywords)
    folder.mkdir(exist_ok=True)
    pixels = dict(mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3], interpolation='bicubic', resize_mode='squash')
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=cfg, preprocess_cfg=pixels)))
    custom = cfg.pop('custom_text', False)
    model = shaken((open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**cfg), 4.7, -12.9)
    torch.save(model.state_dict(), folder / 'open_clip_pytorch_model.bin')
    return folder
