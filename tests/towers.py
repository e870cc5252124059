"""Tiny image towers of Hugging Face's own classes, with random weights, saved as that library saves them."""

import torch
import transformers

SIZES = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8)
TEXT = dict(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
DECODER = dict(
    decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=8
)


def made(name, **sizes):
    """The library's own model of a name: the whole one, with a text half or a decoder where it has one."""
    t, sizes = transformers, {**SIZES, **sizes}
    short = {key: value for key, value in sizes.items() if key != 'intermediate_size'}
    models = {
        'dinov2': lambda: t.Dinov2Model(t.Dinov2Config(**short)),
        'dinov2_registers': lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(num_register_tokens=4, **short)),
        'dinov3': lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(num_register_tokens=4, **sizes)),
        'clip': lambda: t.CLIPModel(t.CLIPConfig(projection_dim=12, vision_config=sizes, text_config=TEXT)),
        'clip_vision': lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**sizes)),
        'siglip': lambda: t.SiglipModel(
            t.SiglipConfig(vision_config=sizes, text_config={**TEXT, 'projection_size': sizes['hidden_size']})
        ),
        'mae': lambda: t.ViTMAEForPreTraining(t.ViTMAEConfig(**DECODER, **sizes)),
    }
    torch.manual_seed(0)
    return models[name]().eval()


#: Prefix tokens and width of the embedding of each.
EXPECTED = {
    'dinov2': (1, 16),
    'dinov2_registers': (5, 16),
    'dinov3': (5, 16),
    'clip': (1, 12),
    'clip_vision': (1, 16),
    'siglip': (0, 16),
    'mae': (1, 16),
}


def processor(name):
    """The image processor of a tower's library, for 32 × 32 images; its mean and std are the tower's own."""
    t, crop = transformers, dict(height=32, width=32)
    edge = dict(size=dict(shortest_edge=32), crop_size=crop)
    return {
        'dinov2': lambda: t.BitImageProcessor(**edge, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
        'dinov3': lambda: t.DINOv3ViTImageProcessor(size=crop),
        'clip': lambda: t.CLIPImageProcessor(**edge),
        'siglip': lambda: t.SiglipImageProcessor(size=crop),
        'mae': lambda: t.ViTImageProcessor(size=crop),
    }[name]()


def own_embedding(name, model, images):
    """The embedding that the library itself gives."""
    if name in ('clip', 'siglip'):
        found = model.get_image_features(pixel_values=images)
        return getattr(found, 'pooler_output', found)
    if name == 'mae':
        model.vit.config.mask_ratio = 0.0  # the class token sees the patches in any order
        return model.vit(images).last_hidden_state[:, 0]
    return model(images).pooler_output
