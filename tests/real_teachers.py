"""Teachers of each library, trained on real images by the library's own means and saved as it saves them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
import torchvision
from mmpretrain.models import build_classifier
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from torchvision.transforms._presets import ImageClassification
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification, ViTImageProcessor

CLASSES = ('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot')
IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
IMAGENET_255 = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
TRAINING_IMAGES = 5000


def read_split(folder, split, count):
    """The first images of ``'train'`` or ``'t10k'``, (N, 28, 28) of uint8, and their labels, (N,)."""
    images = np.frombuffer((folder / f'{split}-images-idx3-ubyte').read_bytes(), np.uint8, offset=16)
    labels = np.frombuffer((folder / f'{split}-labels-idx1-ubyte').read_bytes(), np.uint8, offset=8)
    return images.reshape(-1, 28, 28)[:count], torch.from_numpy(labels[:count].astype(np.int64))


@dataclass
class RealTeacher:
    """A trained teacher.

    Attributes:
        cfg: What ``teacher_cfg`` takes.
        weights: What ``teacher_pretrained`` takes.
        network: The library's own network.
        preprocess: The library's own preprocessing: RGB images of PIL to a batch.
        options: What else the distiller has to be told.
    """

    cfg: Any
    weights: str
    network: torch.nn.Module
    preprocess: Callable
    options: dict

    @torch.no_grad()
    def alone(self, images):
        """Class scores of RGB images of PIL without any of our code."""
        return scores(self.network.eval()(self.preprocess(images)))


def scores(output):
    return getattr(output, 'logits', output)


def pictures(images):
    """RGB images of PIL of arrays (N, 28, 28) or (N, 28, 28, 3)."""
    return [Image.fromarray(image).convert('RGB') for image in images]


def each(transform):
    """A preprocessing of a batch, of one that takes single images."""
    return lambda images: torch.stack([transform(image) for image in images])


def train(network, inputs, labels, epochs, lr=2e-3, batch=64):
    """Ordinary training with AdamW and one cycle of the learning rate."""
    steps = epochs * (len(inputs) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(inputs)).split(batch):
            if len(index) < batch:
                continue
            loss = F.cross_entropy(scores(network(inputs[index])), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def timm_cnn(folder, images, labels):
    """A state dict in a .pth file; its images are said by what ``create_model`` was given."""
    overlay = dict(input_size=(3, 40, 40), interpolation='bicubic', crop_pct=1.0, **IMAGENET)
    keywords = dict(model_name='test_resnet', num_classes=10, pretrained_cfg_overlay=overlay)
    network = timm.create_model(**keywords)
    preprocess = each(create_transform(**resolve_model_data_config(network)))
    train(network, preprocess(pictures(images)), labels, epochs=2)
    torch.save(network.state_dict(), folder / 'timm_cnn.pth')
    cfg = dict(type='TimmClassifier', **keywords)
    return RealTeacher(cfg, str(folder / 'timm_cnn.pth'), network, preprocess, {})


def timm_vit(folder, images, labels):
    """A folder as timm makes it for a hub, with safetensors."""
    overlay = dict(input_size=(3, 32, 32), interpolation='bicubic', crop_pct=1.0, **IMAGENET)
    size = dict(img_size=32, patch_size=8, depth=2)
    network = timm.create_model('test_vit', num_classes=10, weight_init='jax', pretrained_cfg_overlay=overlay, **size)
    preprocess = each(create_transform(**resolve_model_data_config(network)))
    train(network, preprocess(pictures(images)), labels, epochs=8)
    save_for_hf(network, folder / 'timm_vit', model_args=size, safe_serialization=True)
    name, weights = f'timm:local-dir:{folder / "timm_vit"}', str(folder / 'timm_vit' / 'model.safetensors')
    return RealTeacher(name, weights, network, preprocess, {})


def hugging_face_vit(folder, images, labels):
    """A folder as ``save_pretrained`` makes it, with an image processor."""
    folder = folder / 'hf_vit'
    config = ViTConfig(
        image_size=56,
        patch_size=14,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=192,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)},
    )
    network = ViTForImageClassification(config)
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)  # a small one learns faster from larger weights
    processor = ViTImageProcessor(
        size=dict(height=56, width=56), resample=3, image_mean=IMAGENET['mean'], image_std=IMAGENET['std']
    )
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)

    def preprocess(images):
        return processor(images, return_tensors='pt').pixel_values

    train(network, preprocess(pictures(images)), labels, epochs=8)
    network.save_pretrained(folder)
    return RealTeacher(f'hf:{folder}', str(folder), network, preprocess, {})


def torchvision_cnn(folder, images, labels):
    """A state dict in a .safetensors file; its images are other than those of the published weights."""
    keywords = dict(num_classes=10)
    network = torchvision.models.shufflenet_v2_x0_5(**keywords)
    preprocess = each(ImageClassification(crop_size=32, resize_size=32))
    train(network, preprocess(pictures(images)), labels, epochs=3, lr=4e-3)
    save_file(network.state_dict(), folder / 'torchvision.safetensors')
    cfg = dict(type='TorchvisionClassifier', model_name='shufflenet_v2_x0_5', **keywords)
    options = dict(teacher_pixels=dict(size=32))
    return RealTeacher(cfg, str(folder / 'torchvision.safetensors'), network, preprocess, options)


SWIN = dict(
    type='ImageClassifier',
    backbone=dict(
        type='SwinTransformer',
        arch=dict(embed_dims=32, depths=[1, 1, 1], num_heads=[2, 4, 8]),
        img_size=32,
        window_size=4,
        out_indices=(2,),
        pad_small_map=True,
        drop_path_rate=0.0,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128, loss=dict(type='CrossEntropyLoss')),
)


def mmpretrain_config(model, resize):
    """The text of a whole config of mmpretrain, with preprocessor and test pipeline."""
    pipeline = [dict(type='LoadImageFromFile'), resize, dict(type='PackInputs')]
    return f"""
model = {model!r}
data_preprocessor = dict(num_classes={model['head']['num_classes']}, to_rgb=True, **{IMAGENET_255!r})
test_dataloader = dict(dataset=dict(type='CustomDataset', pipeline={pipeline!r}))
"""


def mmpretrain_preprocess(network, resize):
    """What mmpretrain's test pipeline and data preprocessor make of images, beginning with BGR arrays as cv2 reads them."""
    resize, pack = (TRANSFORMS.build(cfg) for cfg in (resize, dict(type='PackInputs')))

    def preprocess(images):
        packed = [pack(resize(dict(img=np.array(image)[..., ::-1])))['inputs'] for image in images]
        return network.data_preprocessor(dict(inputs=packed), training=False)['inputs']

    return preprocess


def mmpretrain_network(folder, name, model, resize, images, labels, classes, epochs):
    """A whole config in a file, and a checkpoint with ``meta`` as mmengine writes it."""
    (folder / f'{name}.py').write_text(mmpretrain_config(model, resize))
    preprocessor = dict(num_classes=len(classes), to_rgb=True, **IMAGENET_255)
    network = build_classifier(dict(model, data_preprocessor=preprocessor))
    network.init_weights()
    preprocess = mmpretrain_preprocess(network, resize)
    train(network, preprocess(pictures(images)), labels, epochs)
    content = dict(meta=dict(dataset_meta=dict(classes=list(classes))), state_dict=network.state_dict())
    torch.save(content, folder / f'{name}.pth')
    return RealTeacher(str(folder / f'{name}.py'), str(folder / f'{name}.pth'), network, preprocess, {})


def mmpretrain_swin(folder, images, labels):
    resize = dict(type='Resize', scale=32, backend='pillow', interpolation='bicubic')
    return mmpretrain_network(folder, 'swin', SWIN, resize, images, labels, CLASSES, epochs=4)


def twenty_classes(folder, images, labels):
    """It tells upright from upside-down, twenty classes in an order of its own."""
    names = [*CLASSES, *(f'{name}, upside-down' for name in CLASSES)]
    order = np.random.RandomState(0).permutation(20)  # place i holds class order[i]
    place = torch.from_numpy(np.argsort(order))
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=8, base_channels=8, strides=(2, 2, 2, 1)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=20, in_channels=64, loss=dict(type='CrossEntropyLoss')),
    )
    both = np.concatenate([images, images[:, ::-1]])
    both_labels = place[torch.cat([labels, labels + 10])]
    classes = [names[i] for i in order]
    teacher = mmpretrain_network(
        folder, 'twenty', model, dict(type='Resize', scale=32), both, both_labels, classes, epochs=2
    )
    teacher.places = place[:10].tolist()
    return teacher
