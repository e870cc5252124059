"""What a preprocessing is found to do, by what it does: each transform, image processor and data preprocessor for itself."""

import random

import cv2
import numpy as np
import pytest
import torch
from libraries import hugging_face, torchvision_cnn
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.dataset import Compose
from mmpretrain.datasets import CIFAR10, CustomDataset
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from networks import build, images, method, resnet, samples
from PIL import Image

from mmcls_kd.analysis.preflight import ReaderAtSize, sizes_to_try
from mmcls_kd.networks.sources import find_network
from mmcls_kd.networks.trial import pipeline_images
from mmcls_kd.teachers.inputs import InputAdapter, InputSpec, changed

NKD = method('NKDLoss')
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
TO_ONE = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackInputs')
TO_PIL = dict(type='NumpyToPIL', to_rgb=True)
PLAIN = dict(mean=(0.0,), std=(1.0,))


@DATASETS.register_module()
class OwnCIFAR(CIFAR10):
    """A subclass of a data set of RGB arrays."""


@DATASETS.register_module()
class OwnArrays(CustomDataset):
    """A data set that may give its images itself."""


@TRANSFORMS.register_module()
class LoadRGB(LoadImageFromFile):
    """A subclass that turns the channels."""

    def transform(self, results):
        results = super().transform(results)
        results['img'] = results['img'][..., ::-1].copy()
        return results


@TRANSFORMS.register_module()
class UnluckyShuffle(BaseTransform):
    """It shuffles the channels with a generator of its own, which leaves them alone for the first time in the 15th trial."""

    def __init__(self):
        self.count = 0

    def transform(self, results):
        trial, self.count = self.count // 4, self.count + 1  # four colours a trial
        order = [0, 1, 2] if trial >= 14 else [2, 1, 0] if trial % 2 else [1, 2, 0]
        results['img'] = results['img'][..., order].copy()
        return results


@TRANSFORMS.register_module()
class LoadByOwnKey(BaseTransform):
    """It reads a file under a key that nobody else knows."""

    def transform(self, results):
        results['img'] = cv2.imread(results['own_path'])
        return results


@TRANSFORMS.register_module()
class OwnScale(BaseTransform):
    """It scales values, perhaps by a power."""

    def __init__(self, power=1):
        self.power = power

    def transform(self, results):
        results['img'] = (results['img'].astype(np.float32) / 255) ** self.power
        return results


@TRANSFORMS.register_module()
class OwnResize(BaseTransform):
    """It resizes by OpenCV, and perhaps blurs."""

    def __init__(self, blur=False):
        self.blur = blur

    def transform(self, results):
        image = cv2.resize(results['img'], (50, 40), interpolation=cv2.INTER_AREA)
        results['img'] = cv2.GaussianBlur(image, (9, 9), 5) if self.blur else image
        return results


def files(*transforms, kind='ImageNet'):
    return dict(type=kind, pipeline=[LOAD, *transforms, PACK])


AUGMENTED = [
    dict(type='RandomResizedCrop', scale=64, backend='pillow'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandAugment', policies='timm_increasing', num_policies=2, total_level=10, magnitude_level=9),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True),
    dict(type='Albumentations', transforms=[dict(type='ChannelShuffle', p=0.5), dict(type='ToGray', p=0.1)]),
    dict(type='RandomErasing', erase_prob=0.25, mode='const'),
]
CIFAR = dict(type='OwnCIFAR', pipeline=[dict(type='RandomCrop', crop_size=32, padding=4), PACK])


class TestOrder:
    """Of the colours, by what the loading transform does and what follows."""

    @pytest.mark.parametrize(
        ('dataset', 'rgb'),
        [
            (files(), False),
            (files(*AUGMENTED), False),
            (files(dict(type='UnluckyShuffle')), False),
            (files(TO_PIL), True),
            (files(TO_PIL, dict(type='PILToNumpy', to_bgr=True)), False),
            (files(TO_PIL, dict(type='PILToNumpy')), True),
            (dict(type='OwnArrays', pipeline=[dict(type='LoadRGB'), PACK]), True),
            (dict(type='ImageNet', pipeline=[dict(type='LoadImageFromFile', imdecode_backend='pillow'), PACK]), False),
            (dict(type='ImageNet', pipeline=[dict(type='LoadImageFromFile', color_type='unchanged'), PACK]), False),
            (dict(type='ImageNet', pipeline=[{**LOAD, 'backend_args': dict(backend='petrel')}, PACK]), False),
            (dict(type=OwnCIFAR, pipeline=[PACK]), True),
            (dict(type='RepeatDataset', times=2, dataset=CIFAR), True),
            (dict(type='OwnWrapper', inside=[CIFAR]), True),
            (dict(type='FashionMNIST', pipeline=[PACK]), False),
            (dict(type='ConcatDataset', datasets=[CIFAR, files(TO_PIL)]), True),
        ],
    )
    def test_is_found(self, dataset, rgb):
        found = pipeline_images(dataset)
        assert not found.unclear
        assert {key: found.pixels[key] for key in ('mean', 'std', 'to_rgb')} == dict(**PLAIN, to_rgb=rgb)

    @pytest.mark.parametrize(
        ('dataset', 'reason'),
        [
            (dict(type='OwnArrays', pipeline=[PACK]), 'the data set OwnArrays gives its images itself'),
            (
                dict(type='OwnArrays', pipeline=[dict(type='LoadByOwnKey'), PACK]),
                "LoadByOwnKey cannot be tried: KeyError: 'own",
            ),
            (dict(type='ConcatDataset', datasets=[CIFAR, files()]), 'images of different orders or values'),
        ],
    )
    def test_unknown_is_refused_with_the_key(self, dataset, reason):
        found = pipeline_images(dataset)
        assert reason in found.unclear['to_rgb']
        unclear = dict(unclear=found.unclear)
        with pytest.raises(ValueError, match='student’s are not clear: .*rgb_images'):
            build(NKD, teacher=torchvision_cnn(), pipeline_pixels=unclear)
        build(NKD, pipeline_pixels=unclear)  # whose teacher gets what the student gets

    def test_nothing_drawn_outside_changes(self):
        states = [random.getstate()[1], np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
        pipeline_images(files(*AUGMENTED[:2], dict(type='RandomFlip', prob=0.3)))
        assert states == [random.getstate()[1], np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


class TestValues:
    @pytest.mark.parametrize(
        ('transforms', 'mean', 'std', 'rgb'),
        [
            ([TO_PIL, dict(type='torchvision/ToTensor')], [0] * 3, [255] * 3, True),
            ([TO_PIL, dict(type='torchvision/ToTensor'), dict(type='torchvision/Normalize', **TO_ONE)], MEAN, STD, True),
            ([dict(type='Normalize', mean=MEAN, std=STD, to_rgb=True)], MEAN, STD, True),
            ([dict(type='Normalize', mean=MEAN, std=STD, to_rgb=False)], MEAN, STD, False),
            ([dict(type='Albumentations', transforms=[dict(type='Normalize', **TO_ONE)])], MEAN, STD, False),
            ([*AUGMENTED[:2], dict(type='OwnScale')], [0] * 3, [255] * 3, False),
            (
                [TO_PIL, dict(type='torchvision/ToTensor'), dict(type='torchvision/ColorJitter', hue=0.1)],
                [0] * 3,
                [255] * 3,
                True,
            ),
        ],
    )
    def test_of_a_pipeline(self, transforms, mean, std, rgb):
        found = pipeline_images(files(*transforms))
        assert not found.unclear
        assert found.pixels['mean'] == pytest.approx(mean, abs=1e-3)
        assert found.pixels['std'] == pytest.approx(std, abs=1e-3)
        assert found.pixels['to_rgb'] == rgb

    def test_other_ones_are_refused_with_the_key(self):
        found = pipeline_images(files(dict(type='OwnScale', power=2)))
        assert 'OwnScale changes values otherwise' in found.unclear['mean']
        with pytest.raises(ValueError, match=r'student’s are not clear: .*model\.pipeline_pixels=dict\(mean'):
            build(NKD, teacher=torchvision_cnn(), rgb_images=True, pipeline_pixels=dict(unclear=found.unclear))

    def test_a_teachers_too(self):
        config = dict(model=resnet(8), test_dataloader=dict(dataset=files(dict(type='OwnScale', power=2))))
        with pytest.raises(ValueError, match=r'OwnScale .*teacher_pixels=dict\(mean=\.\.\., std=\.\.\., to_rgb=\.\.\.\)'):
            build(NKD, teacher=config)
        build(NKD, teacher=config, teacher_pixels=dict(mean=1, std=2, to_rgb=True))

    def test_pipeline_and_preprocessor_together(self):
        given = dict(mean=[0, 0, 0], std=[255, 255, 255])
        student = build(NKD, teacher=torchvision_cnn(), data_preprocessor=TO_ONE, pipeline_pixels=given)
        assert student.teacher_holder.adapt.given.mean == pytest.approx(MEAN)
        assert student.teacher_holder.adapt.given.std == pytest.approx(STD)

    @pytest.mark.parametrize(
        ('preprocessor', 'given', 'message'),
        [
            (TO_ONE, None, r'mean=\[0.49, 0.46, 0.41\] .*on the scale of 0 to 1.*give 255 times'),
            (dict(mean=MEAN, std=STD), dict(mean=MEAN, std=STD), 'images are normalised twice'),
            (dict(mean=MEAN, std=STD), dict(mean=0.0, std=255.0), 'images are normalised twice'),
        ],
    )
    def test_those_that_do_not_fit_together(self, preprocessor, given, message):
        with pytest.raises(ValueError, match=message):
            build(NKD, data_preprocessor=preprocessor, pipeline_pixels=given)

    def test_teacher_pixels_on_the_scale_of_one(self):
        assert changed(InputSpec(), TO_ONE).mean == pytest.approx(MEAN)
        assert changed(InputSpec(), TO_ONE).std == pytest.approx(STD)
        assert changed(InputSpec(), dict(mean=0, std=1)) == InputSpec()
        assert changed(InputSpec(), dict(mean=0, std=0.5)).std == (127.5,)


class OwnPreprocessor(ClsDataPreprocessor):
    """It turns the channels and divides by itself."""

    def forward(self, data, training=False):
        data = super().forward(data, training)
        return {**data, 'inputs': data['inputs'].flip(1) / self.divisor}


@pytest.mark.parametrize('divisor', [2.0, torch.tensor(0.0)])
def test_a_preprocessor_of_ones_own(divisor):
    preprocessor = OwnPreprocessor(mean=MEAN, std=STD, to_rgb=True)
    preprocessor.divisor = divisor
    settings = dict(teacher=torchvision_cnn(), data_preprocessor=preprocessor)
    if not divisor:
        with pytest.raises(ValueError, match='data_preprocessor: OwnPreprocessor changes values otherwise'):
            build(NKD, **settings)
        return
    given = build(NKD, **settings).teacher_holder.adapt.given
    assert given.mean == pytest.approx(MEAN[::-1], abs=1e-3)
    assert given.std == pytest.approx([2 * v for v in STD[::-1]], abs=1e-3)
    assert not given.to_rgb


def noise(size, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)


def teachers_images(cfg, image):
    """Through our teacher's path, of a student without a normalisation: (C, H, W)."""
    adapt = build(NKD, teacher=cfg).teacher_holder.adapt
    return adapt(torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float())[0]


ALBU = dict(type='Albumentations', transforms=[dict(type='Resize', height=40, width=48), dict(type='Normalize', **TO_ONE)])
TENSOR = [TO_PIL, dict(type='torchvision/PILToTensor')]
TO_FLOAT = dict(type='torchvision/ConvertImageDtype', dtype='float')
TORCHVISION = [
    TO_PIL,
    dict(type='torchvision/Resize', size=(48, 48), interpolation='bicubic'),
    dict(type='torchvision/ToTensor'),
]
RESIZING = {
    'Resize': [dict(type='Resize', scale=(40, 48))],
    'Resize by Pillow': [dict(type='Resize', scale=40, backend='pillow', interpolation='lanczos')],
    'Resize area': [dict(type='Resize', scale=20, interpolation='area')],
    'Resize nearest': [dict(type='Resize', scale=20, interpolation='nearest')],
    'ResizeEdge': [dict(type='ResizeEdge', scale=40, interpolation='bicubic'), dict(type='CenterCrop', crop_size=40)],
    'EfficientNetCenterCrop': [dict(type='EfficientNetCenterCrop', crop_size=40, crop_padding=0)],
    "torchvision's": [*TORCHVISION, dict(type='torchvision/Normalize', **TO_ONE)],
    "torchvision's of tensors": [*TENSOR, dict(type='torchvision/Resize', size=(20, 20)), TO_FLOAT],
    "torchvision's without antialias": [*TENSOR, dict(type='torchvision/Resize', size=(20, 20), antialias=False), TO_FLOAT],
    "albumentations'": [ALBU],
    'own': [dict(type='OwnResize')],
    'own values': [dict(type='OwnResize'), dict(type='OwnScale')],
}


class TestMmpretrainsTestPipelines:
    """What reaches the teacher equals what its test pipeline and data preprocessor make of the same file."""

    @pytest.mark.parametrize('preprocessor', [None, dict(mean=MEAN, std=STD, to_rgb=True), dict(to_rgb=True)])
    @pytest.mark.parametrize('name', RESIZING)
    def test_each_kernel(self, name, preprocessor, tmp_path):
        own = any('Scale' in t['type'] or 'torchvision' in t['type'] or t is ALBU for t in RESIZING[name])
        if own and preprocessor and 'mean' in preprocessor:
            pytest.skip('it would normalise twice')
        image = noise((64, 64))
        Image.fromarray(image).save(tmp_path / 'image.png')
        pipeline = [LOAD, *RESIZING[name], PACK]
        data = Compose([TRANSFORMS.build(t) for t in pipeline])(dict(img_path=str(tmp_path / 'image.png')))
        made = MODELS.build(dict(type='ClsDataPreprocessor', **(preprocessor or {})))(dict(inputs=[data['inputs']]))[
            'inputs'
        ][0]
        dataset = dict(type='CustomDataset', pipeline=pipeline)
        config = dict(model=resnet(4), data_preprocessor=preprocessor or dict(), test_dataloader=dict(dataset=dataset))
        if not preprocessor and not own:
            config['data_preprocessor'] = dict(to_rgb=False)
        given = teachers_images(config, image)
        assert given.shape == made.shape
        levels = min(build(NKD, teacher=config).teacher_holder.adapt.wanted.std)
        assert float((given - made).abs().max()) * levels <= 2.01

    @pytest.mark.parametrize(
        ('transforms', 'reason'),
        [
            ([dict(type='OwnResize', blur=True)], 'OwnResize resizes in a way of its own'),
            ([dict(type='Resize', scale=64), dict(type='Resize', scale=32, backend='pillow')], 'resizes in several ways'),
        ],
    )
    def test_other_ways_are_refused_with_the_key(self, transforms, reason):
        config = dict(model=resnet(4), data_preprocessor=dict(to_rgb=True), test_dataloader=dict(dataset=files(*transforms)))
        with pytest.raises(ValueError, match=rf'{reason}.*teacher_pixels=dict\(interpolation=\.\.\., backend=\.\.\.\)'):
            build(NKD, teacher=config)
        build(NKD, teacher=find_network(config).in_full, teacher_pixels=dict(interpolation='bicubic', backend='cv2'))


SQUARE = dict(height=40, width=40)
VALUES = dict(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3])
CROPPED = dict(do_center_crop=False, size=SQUARE)
PROCESSORS = {
    **{f'ViT, resample {number}': ('ViT', dict(size=SQUARE, resample=number), {}) for number in (0, 1, 2, 3)},
    'crop after': ('DeiT', dict(size=dict(height=46, width=46), crop_size=SQUARE), CROPPED),
    'crop before': ('Perceiver', dict(size=SQUARE, crop_size=dict(height=46, width=46)), CROPPED),
    'shortest edge': ('CLIP', dict(size=dict(shortest_edge=46), crop_size=SQUARE), CROPPED),
    'a share': ('ConvNext', dict(size=dict(shortest_edge=40), crop_pct=0.9), dict(crop_pct=1.0)),
    'channels turned': ('MobileViT', dict(size=dict(shortest_edge=40), crop_size=SQUARE), {}),
    'channels turned after': ('PPLCNet', dict(resize_short=40, crop_size=SQUARE), {}),
    'nearest, std twice': ('EfficientNet', dict(size=SQUARE, resample=0), {}),
    'shifted': ('EfficientNet', dict(size=SQUARE, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False), {}),
}


class TestHuggingFacesProcessors:
    @pytest.mark.parametrize('name', PROCESSORS)
    def test_each(self, name, tmp_path):
        import transformers

        kind, keywords, whole = PROCESSORS[name]
        processor = getattr(transformers, f'{kind}ImageProcessor', None)
        if processor is None:
            pytest.skip(f'this version has no {kind}ImageProcessor')
        processor = processor(**{**VALUES, **keywords})
        hugging_face(tmp_path, processor, size=40)
        image = noise((64, 64))
        saved = transformers.AutoImageProcessor.from_pretrained(tmp_path)
        made = saved(Image.fromarray(image), return_tensors='pt', **whole)['pixel_values'][0]
        given = teachers_images(f'hf:{tmp_path}', image)
        assert given.shape == made.shape == (3, 40, 40)
        assert float((given - made).abs().max()) <= 2.01 * float(made.max() - made.min()) / 255

    def test_one_that_pads_is_refused_with_the_key(self, tmp_path):
        import transformers

        padding = dict(size=dict(shortest_edge=32), crop_size=SQUARE)
        hugging_face(tmp_path, transformers.MobileViTImageProcessor(**padding), size=40)
        with pytest.raises(ValueError, match=r'does not take the middle.*teacher_pixels=dict\(mean=\.\.\., std'):
            build(NKD, teacher=f'hf:{tmp_path}')
        build(NKD, teacher=f'hf:{tmp_path}', teacher_pixels=dict(mean=0, std=255, to_rgb=False, size=40))


class TestTimm:
    def wanted(self, **keywords):
        teacher = build(NKD, teacher=dict(type='TimmClassifier', num_classes=10, **keywords)).teacher_holder
        return teacher.adapt.wanted

    @pytest.mark.parametrize(('name', 'size'), [('levit_128s', 64), ('efficientvit_m0', 64), ('test_vit', 64)])
    def test_the_size_that_it_was_built_for(self, name, size):
        assert self.wanted(model_name=name, img_size=size).size == (size, size)

    def test_the_size_of_a_folder(self, tmp_path):
        import timm
        from timm.models import save_for_hf

        network = timm.create_model('levit_128s', num_classes=10, img_size=64)
        save_for_hf(network, tmp_path, model_args=dict(img_size=64), safe_serialization=True)
        assert build(NKD, teacher=f'timm:local-dir:{tmp_path}').teacher_holder.adapt.wanted.size == (64, 64)

    @pytest.mark.parametrize('interpolation', ['nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos'])
    def test_each_kernel(self, interpolation):
        import timm.data

        about = dict(interpolation=interpolation, input_size=(3, 40, 40), crop_pct=1.0)
        image = noise((64, 64))
        made = timm.data.create_transform(**{**about, **TO_ONE})(Image.fromarray(image))
        cfg = dict(
            type='TimmClassifier', model_name='test_resnet', num_classes=10, pretrained_cfg_overlay={**about, **TO_ONE}
        )
        assert float((teachers_images(cfg, image) - made).abs().max()) <= 1.01 / 255 / 0.224

    def test_by_the_wrapper_of_transformers(self, tmp_path):
        import transformers

        about = dict(
            mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], input_size=[3, 40, 40], interpolation='bicubic', crop_pct=1.0
        )
        config = transformers.TimmWrapperConfig(architecture='test_resnet', num_labels=10, pretrained_cfg=about)
        transformers.TimmWrapperForImageClassification(config).save_pretrained(tmp_path)
        image = noise((64, 64))
        made = transformers.AutoImageProcessor.from_pretrained(tmp_path)(Image.fromarray(image))['pixel_values'][0]
        assert float((teachers_images(f'hf:{tmp_path}', image) - made).abs().max()) <= 1.01 / 255 / 0.5

    def test_weights_alone_say_no_size(self, tmp_path, monkeypatch):
        import timm

        torch.save(timm.create_model('test_resnet', num_classes=10).state_dict(), tmp_path / 'weights.pth')
        cfg = dict(type='TimmClassifier', model_name='test_resnet', num_classes=10)
        settings = dict(teacher_pretrained=str(tmp_path / 'weights.pth'))
        lines = []
        monkeypatch.setattr('mmcls_kd.distillers.teacher.print_log', lambda line, *_: lines.append(line))
        teacher = build(NKD, teacher=cfg, **settings).teacher_holder
        assert teacher.adapt.wanted.size is None
        assert teacher.usual_size == (160, 160)
        assert lines[0].startswith('nothing says for which size of images')
        assert '160 × 160' in lines[0]
        model = build(NKD, teacher=cfg, **settings)
        assert [*sizes_to_try(model)] == [(160, 160), (80, 80)]
        inputs = images()
        logit = ReaderAtSize(model, (80, 80))(inputs, samples())['logit']
        assert torch.equal(
            logit,
            build(NKD, teacher=cfg, teacher_pixels=dict(size=80), **settings).teacher_holder(inputs, samples(), ['logit'])[
                'logit'
            ],
        )
        assert model.teacher_holder.adapt.wanted.size is None
        said = build(NKD, teacher=cfg, teacher_pixels=dict(size=64), **settings).teacher_holder
        assert (said.adapt.wanted.size, said.usual_size) == ((64, 64), None)
        overlay = dict(pretrained_cfg_overlay=dict(input_size=(3, 96, 96)))
        assert build(NKD, teacher=cfg | overlay, **settings).teacher_holder.adapt.wanted.size == (96, 96)


@pytest.mark.parametrize(('name', 'keywords', 'channels'), [('tresnet_m', {}, 3), ('test_resnet', dict(in_chans=1), 1)])
def test_channels_are_not_those_of_the_first_convolution(name, keywords, channels):
    cfg = dict(type='TimmClassifier', model_name=name, num_classes=10, **keywords)
    pixels = dict(size=64)
    assert build(NKD, teacher=cfg, teacher_pixels=pixels).teacher_holder.dry_run.channels == channels


def test_the_adapter_resizes_images_that_are_not_square():
    """Pillow goes along either axis first, as the shape has it."""
    image = noise((60, 60))
    made = np.asarray(Image.fromarray(image).resize((90, 30), Image.Resampling.BICUBIC), np.float32)
    wanted = InputSpec(size=(30, 90), interpolation='bicubic')
    given = InputAdapter(InputSpec(), wanted, 3)(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0]
    assert np.abs(given.permute(1, 2, 0).numpy() - made).max() <= 1
