"""The images that a teacher gets: against numpy, PIL and each library's own preprocessing of the raw images."""

import libraries
import numpy as np
import pytest
import torch
import torchvision
from mmpretrain.registry import MODELS
from networks import batch, build, method, resnet
from PIL import Image
from torch import nn

from mmcls_kd.command.arguments import training_parser
from mmcls_kd.engine.config import training_config
from mmcls_kd.networks.pixels import output_spec, wanted_pixels
from mmcls_kd.networks.sources import find_network, network_cfg
from mmcls_kd.teachers.inputs import InputAdapter, InputSpec, changed

NKD = method('NKDLoss')
STUDENT = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
BGR = dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], to_rgb=False)


def raw(count=3, channels=3, size=(32, 32), seed=0):
    """Smooth images with values from 0 to 255, blue, green, red, as mmcv loads them."""
    random = np.random.RandomState(seed)
    small = [Image.fromarray(random.randint(0, 256, (6, 6, 3)).astype(np.uint8)) for _ in range(count)]
    images = np.stack([np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC)) for image in small])
    return images[..., :channels].transpose(0, 3, 1, 2).astype(np.float32)


def normalised(bgr, pixels):
    """Images of a kind, by numpy alone."""
    images = bgr[:, ::-1] if pixels.to_rgb and bgr.shape[1] == 3 else bgr
    mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (pixels.mean, pixels.std))
    return torch.from_numpy((images - mean) / std)


def resized(bgr, size, how):
    """By PIL, channel for channel, in floating point."""
    planes = [Image.fromarray(plane, mode=None).resize(size[::-1], how) for image in bgr for plane in image]
    return np.stack([np.asarray(plane) for plane in planes]).reshape(*bgr.shape[:2], *size)


KINDS = {
    'as they come': InputSpec(to_rgb=False),
    'RGB': InputSpec(),
    'normalised': changed(InputSpec(), STUDENT),
    'BGR normalised': changed(InputSpec(), BGR),
    'one number for all': InputSpec((127.5,), (127.5,), to_rgb=False),
    'from 0 to 1': InputSpec((0.0,) * 3, (255.0,) * 3),
}


class TestValues:
    @pytest.mark.parametrize('wanted', KINDS)
    @pytest.mark.parametrize('given', KINDS)
    def test_each_kind_of_each(self, given, wanted):
        images, given, wanted = raw(), KINDS[given], KINDS[wanted]
        made = InputAdapter(given, wanted, 3)(normalised(images, given))
        torch.testing.assert_close(made, normalised(images, wanted), rtol=1e-5, atol=2e-4)

    @pytest.mark.parametrize('kind', KINDS)
    def test_nothing_to_do_is_nothing_done(self, kind):
        pixels = KINDS[kind]
        images = normalised(raw(), pixels)
        assert InputAdapter(pixels, pixels, 3)(images) is images
        sized = changed(pixels, dict(size=32, interpolation='bicubic'))
        assert InputAdapter(pixels, sized, 3)(images) is images
        assert InputAdapter(pixels, changed(sized, dict(size=(32, 31))), 3)(images) is not images

    def test_the_images_stay_as_they_are(self):
        images = normalised(raw(), KINDS['normalised'])
        before = images.clone()
        InputAdapter(KINDS['normalised'], changed(KINDS['BGR normalised'], dict(size=16)), 3)(images)
        assert torch.equal(images, before)

    @pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
    def test_it_keeps_their_type(self, dtype):
        given, wanted = KINDS['normalised'], changed(KINDS['from 0 to 1'], dict(size=16))
        exact = InputAdapter(given, wanted, 3)(normalised(raw(), given))
        made = InputAdapter(given, wanted, 3)(normalised(raw(), given).to(dtype))
        assert made.dtype == dtype
        torch.testing.assert_close(made.float(), exact, rtol=0, atol={torch.float64: 1e-5}.get(dtype, 0.02))

    @pytest.mark.parametrize(('given', 'wanted'), [(4, 3), (4, 1), (3, 4), (2, 3)])
    def test_other_channels_than_grey_and_rgb_are_refused(self, given, wanted):
        adapter = InputAdapter(InputSpec(), InputSpec(), wanted)
        with pytest.raises(ValueError, match=f'images of {wanted} channels, and the student’s have {given}'):
            adapter(torch.zeros(2, given, 8, 8))
        assert InputAdapter(InputSpec(), InputSpec(), given)(images := torch.zeros(2, given, 8, 8)) is images

    def test_it_goes_where_the_images_go(self):
        adapter = InputAdapter(KINDS['normalised'], KINDS['BGR normalised'], 3)
        adapter(normalised(raw(), KINDS['normalised']))
        assert adapter(torch.zeros(1, 3, 4, 4, device='meta')).device.type == 'meta'


class TestChannels:
    @pytest.mark.parametrize('given', ['normalised', 'BGR normalised'])
    @pytest.mark.parametrize('to_rgb', [True, False])
    def test_grey_of_colours_is_pils(self, given, to_rgb):
        bgr = np.round(raw()).clip(0, 255)
        made = InputAdapter(KINDS[given], InputSpec(to_rgb=to_rgb), 1)(normalised(bgr, KINDS[given]))
        rgb = bgr[:, ::-1].transpose(0, 2, 3, 1).astype(np.uint8)
        expected = np.stack([np.asarray(Image.fromarray(image).convert('L'), np.float32) for image in rgb])
        assert made.shape == (3, 1, 32, 32)
        assert (made[:, 0] - torch.from_numpy(expected)).abs().max() <= 0.51  # PIL rounds

    @pytest.mark.parametrize('wanted', KINDS)
    def test_colours_of_grey(self, wanted):
        grey, given = raw(channels=1), InputSpec((72.94,), (90.02,), to_rgb=False)
        made = InputAdapter(given, KINDS[wanted], 3)(normalised(grey, given))
        expected = normalised(np.repeat(grey, 3, axis=1), KINDS[wanted])
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=2e-4)

    def test_a_grey_network_with_numbers_for_three_channels_takes_their_mean(self):
        given = InputSpec(to_rgb=False)
        made = InputAdapter(given, InputSpec((10.0, 20.0, 60.0), (1.0, 2.0, 3.0)), 1)(torch.full((2, 1, 4, 4), 50.0))
        assert torch.equal(made, torch.full((2, 1, 4, 4), 10.0))

    def test_a_grey_network_of_a_library_teaches(self):
        distiller = build(NKD, teacher=dict(libraries.timm_resnet(), in_chans=1))
        seen = first_input(distiller)
        assert seen.shape == (4, 1, 160, 160)


class TestSizes:
    GIVEN = KINDS['normalised']

    def test_nearest(self):
        images = raw()
        wanted = InputSpec(to_rgb=False, size=(64, 16), interpolation='nearest')
        made = InputAdapter(self.GIVEN, wanted, 3)(normalised(images, self.GIVEN))
        expected = images.repeat(2, axis=2)[:, :, :, 1::2]
        torch.testing.assert_close(made, torch.from_numpy(expected), rtol=1e-4, atol=2e-3)

    def test_bicubic_does_not_leave_the_range(self):
        images = np.zeros((1, 3, 8, 8), np.float32)
        images[..., 4:] = 255
        made = InputAdapter(InputSpec(), InputSpec(size=(32, 32), interpolation='bicubic'), 3)(torch.from_numpy(images))
        assert (made.min(), made.max()) == (0, 255)

    @pytest.mark.parametrize('how', ['NEAREST_EXACT', 'BILINEAR', 'BICUBIC'])
    def test_as_torchvisions_transforms_do(self, how):
        mode = getattr(torchvision.transforms.InterpolationMode, how)
        transform = torchvision.transforms.Resize((20, 28), mode, antialias=True)
        kernel = how.removesuffix('_EXACT').lower()
        wanted = InputSpec(to_rgb=False, size=(20, 28), interpolation=kernel, backend='torchvision')
        images = torch.from_numpy(raw()).byte()
        made = InputAdapter(InputSpec(to_rgb=False), wanted, 3)(images.float())
        torch.testing.assert_close(made, transform(images).float(), rtol=0, atol=1)  # it rounds once, Pillow twice


class TestSettings:
    def test_each_form(self):
        pixels = changed(InputSpec(), dict(mean=[1] * 3, std=[1, 2, 4], size=48, interpolation='bicubic', to_rgb=False))
        assert pixels == InputSpec((1.0,) * 3, (1.0, 2.0, 4.0), False, (48, 48), 'bicubic')
        assert changed(InputSpec(), dict(mean=128, std=2)) == InputSpec((128.0,), (2.0,))
        assert changed(pixels, dict(size=[32, 40])).size == (32, 40)
        assert changed(pixels, dict(size=None)).size is None
        assert changed(pixels, {}) == pixels

    @pytest.mark.parametrize(
        ('given', 'message'),
        [
            (dict(sise=3), "teacher_pixels has no 'sise'; it takes mean, std, to_rgb, size, interpolation, backend"),
            (dict(mean=[1, 2]), r'mean=\[1.0, 2.0\] and std=\[1.0\] do not fit'),
            (dict(mean=[1, 2], std=[1, 2]), 'do not fit: give 1 or 3 numbers each'),
            (dict(std=0), 'no std of 0'),
            (dict(interpolation='best'), "interpolation='best': choose one of nearest, box, bilinear, hamming, bicubic"),
            (dict(interpolation='area'), "backend='pillow' has no interpolation='area', but nearest, box, bilinear"),
            (dict(size=(1, 2, 3)), r'size=\(1, 2, 3\)'),
            (dict(size=0), 'size=0'),
            (dict(size='big'), "size='big'"),
            (dict(mean='big'), "mean='big'"),
        ],
    )
    def test_wrong_ones(self, given, message):
        with pytest.raises(ValueError, match=message):
            build(NKD, teacher_pixels=given)

    def test_they_replace_what_the_library_says(self):
        pixels = dict(mean=[1.0], std=[2.0], size=48, interpolation='nearest', to_rgb=False)
        distiller = build(NKD, teacher=libraries.timm_resnet(), teacher_pixels=pixels)
        assert distiller.teacher_holder.adapt.wanted == InputSpec((1.0,), (2.0,), False, (48, 48), 'nearest')
        assert distiller.teacher_holder.survey.size == (48, 48)

    def test_several_teachers(self):
        pixels = [None, dict(mean=[1.0], std=[2.0])]
        distiller = build(NKD, teacher=[libraries.timm_resnet(), resnet(8)], teacher_pixels=pixels)
        first, second = distiller.teacher_holder.teachers
        assert first.adapt.wanted.size == (160, 160)
        assert second.adapt.wanted == InputSpec((1.0,), (2.0,), to_rgb=False)


class TestMmpretrain:
    def test_a_data_preprocessor(self):
        for given in (STUDENT, BGR, dict(to_rgb=True), {}):
            pixels = output_spec(MODELS.build(dict(type='ClsDataPreprocessor', **given)))
            assert pixels.mean == pytest.approx(given.get('mean', [0.0]))
            assert pixels.std == pytest.approx(given.get('std', [1.0]))
            assert (pixels.to_rgb, pixels.size) == (given.get('to_rgb', False), None)

    def test_mmengines_own(self):
        given = dict(type='mmengine.ImgDataPreprocessor', mean=[1.0] * 3, std=[2.0] * 3)
        assert output_spec(MODELS.build({**given, 'bgr_to_rgb': True})) == InputSpec((1.0,) * 3, (2.0,) * 3, to_rgb=True)
        assert output_spec(MODELS.build(given)) == InputSpec((1.0,) * 3, (2.0,) * 3, to_rgb=False)

    @pytest.mark.parametrize('to_rgb', [False, True])
    @pytest.mark.parametrize('rgb_images', [False, True])
    def test_data_that_come_red_green_blue(self, to_rgb, rgb_images):
        settings = dict(student=resnet(4, data_preprocessor=dict(to_rgb=to_rgb)), rgb_images=rgb_images)
        raw_image = torch.arange(3.0).view(1, 3, 1, 1).expand(1, 3, 32, 32)  # 0, 1, 2: in the order of the data set
        inputs = raw_image.flip(1) if to_rgb else raw_image
        library = build(NKD, teacher=libraries.timm_resnet(), teacher_pixels=dict(mean=0, std=1, size=None), **settings)
        red_first = [0, 1, 2] if rgb_images else [2, 1, 0]
        assert library.teacher_holder.adapt(inputs)[0, :, 0, 0].tolist() == red_first
        same_data = build(NKD, teacher=resnet(8, data_preprocessor=dict(to_rgb=False)), **settings)
        assert same_data.teacher_holder.adapt(inputs)[0, :, 0, 0].tolist() == [0, 1, 2]

    @pytest.mark.parametrize(('kind', 'rgb'), [('CIFAR100', True), ('mmpretrain.CIFAR10', True), ('ImageNet', False)])
    def test_a_teacher_of_other_data(self, kind, rgb):
        """Each network has the order of its own data, also in the config that is dumped."""
        cfg = dict(
            model=resnet(8),
            data_preprocessor=dict(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=False),
            test_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(type=kind, pipeline=[]))),
        )
        for teacher in (cfg, find_network(cfg).in_full):
            distiller = build(NKD, teacher=teacher, rgb_images=True)
            assert distiller.teacher_holder.adapt.wanted.to_rgb == rgb

    def test_torchvisions_googlenet_is_the_same_wherever_its_weights_come_from(self):
        network = MODELS.build(network_cfg(dict(type='TorchvisionClassifier', model_name='googlenet', init_weights=False)))
        network.model.transform_input = True
        assert wanted_pixels(network, InputSpec(), None).mean == (127.5,) * 3
        assert not MODELS.build(network_cfg('torchvision:inception_v3')).model.transform_input

    def test_cifar_comes_red_green_blue(self):
        args = training_parser(None).parse_args(['configs/distillers/cifar100/res34_distill_res18_cifar.py'])
        assert training_config(args).model.rgb_images
        args = training_parser(None).parse_args(['configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py'])
        assert not training_config(args).model.rgb_images

    def test_a_config_with_pixels_of_its_own(self):
        teacher = resnet(8, data_preprocessor=dict(mean=[1.0] * 3, std=[2.0] * 3, to_rgb=True))
        distiller = build(NKD, teacher=teacher, data_preprocessor=BGR)
        assert distiller.teacher_holder.adapt.wanted == InputSpec((1.0,) * 3, (2.0,) * 3)

    def test_one_without_gets_the_students(self):
        distiller = build(NKD, data_preprocessor=BGR)
        assert distiller.teacher_holder.adapt.wanted == distiller.teacher_holder.adapt.given
        assert not distiller.teacher_holder.adapt.given.to_rgb

    def test_a_whole_config(self):
        pipeline = [dict(type='ResizeEdge', scale=56, edge='short'), dict(type='CenterCrop', crop_size=48)]
        whole = dict(model=resnet(8), data_preprocessor=STUDENT, test_dataloader=dict(dataset=dict(pipeline=pipeline)))
        wanted = build(NKD, teacher=whole).teacher_holder.adapt.wanted
        assert (wanted.size, wanted.to_rgb) == ((48, 48), True)
        assert wanted.mean == pytest.approx(STUDENT['mean'])


def first_input(distiller, data=None):
    """What the first convolution of the teacher is given for a batch of the dataloader."""
    first = next(m for m in distiller.teacher.modules() if isinstance(m, nn.Conv2d))
    seen = []
    handle = first.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    data = distiller.data_preprocessor(data or batch(), training=True)
    distiller.loss(data['inputs'], data['data_samples'])
    handle.remove()
    return seen[0]


def raw_batch(size=32):
    """A batch of smooth images, and the same as PIL's, red, green, blue."""
    images = np.round(raw(4, size=(size, size))).clip(0, 255).astype(np.uint8)
    data = {**batch(4, size), 'inputs': torch.from_numpy(images)}
    return data, [Image.fromarray(image[::-1].transpose(1, 2, 0).copy()) for image in images]


STUDENTS = {'RGB': STUDENT, 'BGR': BGR, 'none': None}
#: Libraries resize images of whole numbers and round them, which moves them by one at most, divided by a std near 50.
ROUNDED = dict(rtol=0, atol=0.03)


@pytest.mark.parametrize('student', STUDENTS)
class TestTheTeachersOwnPreprocessing:
    """Of the raw images it makes what reaches the teacher's first layer in the distiller."""

    def test_timm(self, student):
        import timm.data

        distiller = build(NKD, teacher=libraries.timm_resnet(), data_preprocessor=STUDENTS[student])
        data, images = raw_batch()
        cfg = timm.data.resolve_model_data_config(distiller.teacher.model)
        transform = timm.data.create_transform(**{**cfg, 'crop_pct': 1.0})
        expected = torch.stack([transform(image) for image in images])
        assert expected.shape[2:] == (160, 160)
        torch.testing.assert_close(first_input(distiller, data), expected, **ROUNDED)

    def test_timms_vit_has_the_size_that_it_was_made_with(self, student):
        distiller = build(NKD, teacher=libraries.timm_vit(), data_preprocessor=STUDENTS[student])
        assert first_input(distiller, raw_batch(48)[0]).shape == (4, 3, 32, 32)

    def test_torchvision(self, student):
        distiller = build(NKD, teacher=libraries.torchvision_cnn(), data_preprocessor=STUDENTS[student])
        data, images = raw_batch()
        preset = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()
        preset.resize_size = [224]
        expected = torch.stack([preset(image) for image in images])
        torch.testing.assert_close(first_input(distiller, data), expected, **ROUNDED)

    @pytest.mark.parametrize('kind', ['ViT', 'plain ViT', 'DeiT', 'ConvNext', 'MobileViT', 'EfficientNet', 'shifted'])
    def test_hugging_face(self, student, kind, tmp_path):
        processor = hugging_face_processor(kind)
        libraries.hugging_face(tmp_path, processor)
        distiller = build(NKD, teacher=f'hf:{tmp_path}', data_preprocessor=STUDENTS[student])
        data, images = raw_batch(48)
        expected = processor(images, return_tensors='pt')['pixel_values']
        assert expected.shape[2:] == (32, 32)
        levels = 1.5 * (expected.max() - expected.min()).item() / 255
        torch.testing.assert_close(first_input(distiller, data), expected, rtol=0, atol=levels)


def hugging_face_processor(kind):
    """One that makes images of 32 x 32 in a way of its own."""
    import transformers

    edges, values = dict(height=32, width=32), dict(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3])
    keywords = {
        'plain ViT': dict(do_normalize=False),
        'DeiT': dict(crop_size=edges, resample=3),
        'ConvNext': dict(size=dict(shortest_edge=32), crop_pct=1.0),
        'MobileViT': dict(size=dict(shortest_edge=32), crop_size=edges),  # blue, green, red
        'shifted': dict(rescale_factor=1 / 127.5, rescale_offset=True, include_top=False),
    }.get(kind, {})
    name = {'plain ViT': 'ViT', 'shifted': 'EfficientNet'}.get(kind, kind)
    return getattr(transformers, f'{name}ImageProcessor')(**{'size': edges, **values, **keywords})


class TestHuggingFacesMetadata:
    def pixels(self, folder, processor=None, **teacher):
        libraries.hugging_face(folder, processor)
        cfg = network_cfg(dict(type='HuggingFaceClassifier', model_name=str(folder), **teacher))
        return wanted_pixels(MODELS.build(cfg), changed(InputSpec(), BGR), cfg.get('data_preprocessor'))

    def test_without_a_processor_its_size_alone_is_known(self, tmp_path):
        assert self.pixels(tmp_path) == changed(InputSpec(), {**BGR, 'size': 32})

    def test_a_crop_has_its_own_size(self, tmp_path):
        import transformers

        sizes = dict(size=dict(height=40, width=40), crop_size=dict(height=36, width=36))
        assert self.pixels(tmp_path, transformers.DeiTImageProcessor(**sizes)).size == (36, 36)

    def test_a_processor_that_does_not_resize(self, tmp_path):
        import transformers

        assert self.pixels(tmp_path, transformers.ViTImageProcessor(do_resize=False)).size is None

    def test_a_processor_that_leaves_values_alone(self, tmp_path):
        import transformers

        processor = transformers.ViTImageProcessor(do_normalize=False, do_rescale=False, resample=0)
        wanted = self.pixels(tmp_path, processor)
        assert (wanted.mean, wanted.std, wanted.to_rgb) == ((0.0,) * 3, (1.0,) * 3, True)
        assert wanted.interpolation == 'nearest'

    def test_a_data_preprocessor_in_the_config_counts_more(self, tmp_path):
        import transformers

        given = dict(mean=[1.0] * 3, std=[2.0] * 3, to_rgb=False)
        wanted = self.pixels(tmp_path, transformers.ViTImageProcessor(size=48), data_preprocessor=given)
        assert wanted == InputSpec((1.0,) * 3, (2.0,) * 3, False, (48, 48), 'bilinear', 'torchvision')

    def test_a_damaged_one_is_named(self, tmp_path):
        libraries.hugging_face(tmp_path)
        (tmp_path / 'preprocessor_config.json').write_text('{"do_resize": tr')
        with pytest.raises(ValueError, match=r'its preprocessor_config\.json cannot be read'):
            build(NKD, teacher=f'hf:{tmp_path}')


class TestOtherMetadata:
    @pytest.mark.parametrize(
        ('name', 'size', 'interpolation'),
        [('test_resnet', 160, 'bilinear'), ('resnet10t', 176, 'bicubic'), ('mobilenetv3_small_050', 224, 'bicubic')],
    )
    def test_timm(self, name, size, interpolation):
        network = MODELS.build(network_cfg(f'timm:{name}'))
        wanted = wanted_pixels(network, changed(InputSpec(), BGR), None)
        assert (wanted.size, wanted.interpolation, wanted.to_rgb) == ((size, size), interpolation, True)
        assert interpolation == network.model.pretrained_cfg['interpolation']
        assert wanted.mean == pytest.approx([255 * v for v in network.model.pretrained_cfg['mean']])
        assert wanted.std == pytest.approx([255 * v for v in network.model.pretrained_cfg['std']])

    def test_torchvisions_weights_say_it(self, monkeypatch):
        network = torchvision.models.mobilenet_v3_large()
        monkeypatch.setattr(
            'torchvision.models._api.load_state_dict_from_url', lambda *args, **keywords: network.state_dict()
        )
        cfg = dict(type='TorchvisionClassifier', model_name='mobilenet_v3_large', weights='IMAGENET1K_V1')
        wanted = wanted_pixels(MODELS.build(network_cfg(cfg)), InputSpec(), None)
        assert (wanted.size, wanted.interpolation) == ((224, 224), 'bilinear')
        assert wanted.mean == pytest.approx(STUDENT['mean'])
        assert wanted.std == pytest.approx(STUDENT['std'])

    def test_a_vit_of_torchvision_has_the_size_that_it_was_made_with(self):
        cfg = dict(type='TorchvisionClassifier', model_name='vit_b_32', image_size=64)
        assert wanted_pixels(MODELS.build(network_cfg(cfg)), InputSpec(), None).size == (64, 64)

    def test_a_plain_module_gets_the_students(self):
        student = changed(InputSpec(), BGR)
        assert wanted_pixels(MODELS.build(network_cfg(dict(type='libraries.Plain'))), student, None) == student
