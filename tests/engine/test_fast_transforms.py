"""Faster transforms: the draws and pixels of mmpretrain's, of any JPEG and in any training."""

import io
import struct
import tarfile

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile, RandomFlip
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets.transforms import EfficientNetRandomCrop, PackInputs, RandomResizedCrop
from PIL import Image

import mmcls_kd.engine.fast_transforms as fast
from mmcls_kd.engine.data import SampleIndex, reproducible
from mmcls_kd.engine.fast_transforms import LoadAndCrop, QuickPackInputs, QuickRandomFlip, header_of
from mmcls_kd.errors import ChoiceError, UnreadableImageError
from mmcls_kd.files.held_images import held

DECODERS = ['cv2', pytest.param('simplejpeg', marks=pytest.mark.skipif(fast.simplejpeg is None, reason='is not installed'))]


def picture(height=90, width=121, seed=0):
    """Smooth colours with edges and noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (7, 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    image[height // 3 :, width // 4 : width // 2] += 60
    return Image.fromarray(np.clip(image + random.integers(-9, 9, image.shape), 0, 255).astype(np.uint8))


def encoded(image, kind='JPEG', **settings):
    file = io.BytesIO()
    image.save(file, kind, **{'quality': 90, **settings})
    return file.getvalue()


def turned(orientation, order='<'):
    """EXIF data with an orientation alone."""
    head = b'II*\0' if order == '<' else b'MM\0*'
    entry = struct.pack(f'{order}HHIHH', 0x0112, 3, 1, orientation, 0)
    return b'Exif\0\0' + head + struct.pack(f'{order}IH', 8, 1) + entry + bytes(4)


KINDS = {
    '4:2:0': encoded(picture(), subsampling=2),
    '4:2:2': encoded(picture(), subsampling=1),
    '4:4:4': encoded(picture(), subsampling=0),
    'progressive': encoded(picture(), progressive=True),
    'restart markers': encoded(picture(), restart_marker_rows=1),
    'grey': encoded(picture().convert('L')),
    'CMYK': encoded(picture().convert('CMYK')),
    'upright': encoded(picture(), exif=turned(1)),
    'turned': encoded(picture(), exif=turned(6)),
    'mirrored': encoded(picture(), exif=turned(2, '>')),
    'small': encoded(picture(3, 2)),
    'tall': encoded(picture(400, 31)),
    'with more behind it': encoded(picture()) + b'from a camera',
    'PNG': encoded(picture(), 'PNG'),
    'grey PNG': encoded(picture().convert('L'), 'PNG'),
}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kinds')
    for name, content in KINDS.items():
        (folder / f'{name}.JPEG').write_bytes(content)
    return folder


def both(path, crop, draws=6, **settings):
    """Results of the two transforms and of the one, with the same draws, and the generator's next numbers."""
    pairs = [lambda results: crop(LoadImageFromFile()(results)), LoadAndCrop(crop=crop, **settings)]
    for seed in range(draws):
        found = []
        for transform in pairs:
            np.random.seed(seed)
            found.append((transform(dict(img_path=str(path))), np.random.random()))
        yield found


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'crop', [RandomResizedCrop(32), RandomResizedCrop((20, 31), backend='pillow', interpolation='bicubic')]
)
def test_pixels_and_draws_are_those_of_two_transforms(files, kind, decoder, crop):
    for (expected, after), (found, then) in both(files / f'{kind}.JPEG', crop, decoder=decoder):
        assert then == after
        assert found.keys() == expected.keys()
        assert (found['img_shape'], found['ori_shape']) == (expected['img_shape'], expected['ori_shape'])
        assert found['img'].dtype == np.uint8
        assert np.array_equal(found['img'], expected['img'])


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('kind', ['4:2:0', 'tall'])
def test_another_crop(files, decoder, kind):
    for (expected, after), (found, then) in both(files / f'{kind}.JPEG', EfficientNetRandomCrop(24), decoder=decoder):
        assert then == after
        assert np.array_equal(found['img'], expected['img'])


@pytest.mark.skipif(fast.simplejpeg is None, reason='simplejpeg is not installed')
def test_a_decoder_stops_below_the_crop():
    content, header = KINDS['4:2:0'], header_of(KINDS['4:2:0'])
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    for rows in (1, 8, 17, 50):
        found = fast.decode(content, header, rows, 1, 'simplejpeg')
        assert len(found) == rows + fast.MARGIN
        assert np.array_equal(found[:rows], whole[:rows])


class TestHeader:
    @pytest.mark.parametrize('kind', ['4:2:0', 'progressive', 'restart markers', 'grey', 'CMYK', 'upright'])
    def test_size(self, kind):
        content, header = KINDS[kind], header_of(KINDS[kind])
        assert header[:2] == (90, 121)
        assert content[header.place : header.place + 4] == struct.pack('>HH', 90, 121)

    @pytest.mark.parametrize('order', '<>')
    def test_orientation(self, order):
        known = [header_of(encoded(picture(), exif=turned(k, order))) is not None for k in range(10)]
        assert known == [False, True] + [False] * 8

    def test_none_is_known_of_other_content(self):
        whole = KINDS['4:2:0']
        start = whole.index(b'\xff\xda')
        assert header_of(whole) is not None
        assert not any(header_of(whole[:end]) for end in range(start))
        assert header_of(KINDS['PNG']) is None
        place = header_of(whole).place
        assert header_of(whole[:place] + b'\0\0' + whole[place + 2 :]) is None


class TestReduced:
    @pytest.mark.parametrize('decoder', DECODERS)
    @pytest.mark.parametrize('reduce_to', [1, 0.5])
    def test_pixels(self, tmp_path, decoder, reduce_to):
        (tmp_path / 'a.jpg').write_bytes(content := encoded(picture(400, 480)))
        crop = RandomResizedCrop(40, crop_ratio_range=(0.01, 1.0))
        shrinks = set()
        for seed in range(8):
            np.random.seed(seed)
            top, left, height, width = crop.rand_crop_params(np.empty((400, 480)))
            shrink = max(k for k in (1, 2, 4, 8) if k == 1 or min(height, width) / k >= reduce_to * 40)
            image = cv2.imdecode(np.frombuffer(content, np.uint8), fast.FLAGS[shrink])
            rows, columns = ([round(n / shrink) for n in (a, a + length)] for a, length in ((top, height), (left, width)))
            expected = mmcv.imresize(image[slice(*rows), slice(*columns)], (40, 40))
            np.random.seed(seed)
            found = LoadAndCrop(crop=crop, reduce_to=reduce_to, decoder=decoder)(dict(img_path=str(tmp_path / 'a.jpg')))
            assert np.array_equal(found['img'], expected)
            assert found['ori_shape'] == (400, 480)
            shrinks.add(shrink)
        assert len(shrinks) > 1

    def test_no_crop_is_enlarged_that_was_not(self):
        one = LoadAndCrop(crop=RandomResizedCrop((10, 20)), reduce_to=1)
        sizes = [(19, 400), (20, 39), (20, 40), (80, 159), (80, 160), (999, 999)]
        assert [one._shrink(*size) for size in sizes] == [1, 1, 2, 4, 8, 8]


class TestReading:
    def crop(self, path, **load):
        np.random.seed(0)
        return LoadAndCrop(crop=RandomResizedCrop(24), load=LoadImageFromFile(**load))(dict(img_path=str(path)))['img']

    def test_of_a_shard_and_by_file_backends(self, files, tmp_path):
        path = files / '4:2:0.JPEG'
        with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
            tar.add(path, 'a.JPEG')
        with tarfile.open(tmp_path / 'a.tar') as tar:
            member = tar.getmembers()[0]
        uri = held('webdataset', str(tmp_path / 'a.tar'), f'{member.offset_data}+{member.size}', 'a.JPEG')
        expected = self.crop(path)
        assert np.array_equal(self.crop(uri), expected)
        assert np.array_equal(self.crop(path, backend_args=dict(backend='local')), expected)
        with pytest.warns(DeprecationWarning, match='file_client_args'):
            load = LoadImageFromFile(file_client_args=dict(backend='disk'))
        np.random.seed(0)
        found = LoadAndCrop(crop=RandomResizedCrop(24), load=load)(dict(img_path=str(path)))
        assert np.array_equal(found['img'], expected)

    def test_an_image_that_lacks_its_end_is_an_error(self, tmp_path):
        for name, content in (('a.jpg', KINDS['4:2:0'][:-300]), ('b.jpg', b'no image'), ('c.png', KINDS['PNG'][:-300])):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(OSError, match=f'{name}: '):
                self.crop(tmp_path / name)


class TestSettings:
    @pytest.mark.parametrize(
        ('settings', 'text'),
        [
            (dict(decoder='pillow'), "decoder='pillow': choose one of 'simplejpeg', 'cv2', or None"),
            (dict(reduce_to=0), 'LoadAndCrop: reduce_to=0: give a number above 0'),
            (dict(reduce_to='half'), "reduce_to='half': give a number"),
            (dict(load=LoadImageFromFile(to_float32=True)), 'leave the two as they are'),
            (dict(crop=RandomFlip(prob=0.5)), 'leave the two as they are'),
        ],
    )
    def test_a_wrong_one_is_refused(self, settings, text):
        with pytest.raises((ValueError, ChoiceError)) as error:
            LoadAndCrop(**{'crop': RandomResizedCrop(8), **settings})
        assert text in str(error.value)
        assert '\n' not in str(error.value)

    def test_a_missing_library_is_named(self, monkeypatch):
        monkeypatch.setattr('mmcls_kd.errors.find_spec', lambda name: None)
        with pytest.raises(ValueError, match=r"simplejpeg, which is not installed: pip install 'mmcls_kd\[jpeg\]'"):
            LoadAndCrop(crop=RandomResizedCrop(8), decoder='simplejpeg')
        monkeypatch.setattr(fast, 'simplejpeg', None)
        assert LoadAndCrop(crop=RandomResizedCrop(8)).decoder == 'cv2'


@pytest.mark.parametrize('prob', [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_flips_are_drawn_alike(prob, direction):
    flips = RandomFlip(prob=prob, direction=direction), QuickRandomFlip(prob=prob, direction=direction)
    drawn = []
    for flip in flips:
        np.random.seed(1)
        drawn.append(
            [flip(dict(img=np.arange(6).reshape(2, 3)))['flip_direction'] for _ in range(99)] + [np.random.random()]
        )
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize('shape', [(5, 7, 3), (5, 7), (5, 7, 1), (2, 6, 3), (5, 7, 4)])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_packed_alike(shape, dtype):
    image = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    views = image, image[:, ::-1], image[::-1], image[::-1, ::-1], np.ascontiguousarray(image.swapaxes(0, 1)).swapaxes(0, 1)
    for view in views:
        found, expected = (
            pack(dict(img=view, gt_label=3, img_path='a', flip=True)) for pack in (QuickPackInputs(), PackInputs())
        )
        assert found['inputs'].dtype == expected['inputs'].dtype
        assert torch.equal(found['inputs'], expected['inputs'])
        assert found['inputs'].is_contiguous()
        assert torch.equal(found['data_samples'].gt_label, expected['data_samples'].gt_label)
        assert found['data_samples'].metainfo == expected['data_samples'].metainfo


class TestTraining:
    STEPS = (LoadAndCrop, QuickRandomFlip, QuickPackInputs)

    @pytest.fixture
    def root(self, tmp_path):
        (tmp_path / 'train').mkdir()
        (tmp_path / 'meta').mkdir()
        for number, content in enumerate(KINDS.values()):
            (tmp_path / 'train' / f'{number}.JPEG').write_bytes(content)
        (tmp_path / 'meta' / 'train.txt').write_text(''.join(f'{n}.JPEG {n}\n' for n in range(len(KINDS))))
        return tmp_path

    def loader(self, root, *further, on_unreadable='stop', **load):
        pipeline = [
            dict(type='LoadImageFromFile', **load),
            dict(type='RandomResizedCrop', scale=24),
            *further,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ]
        cfg = dict(
            batch_size=4,
            num_workers=0,
            dataset=dict(type='ImageNet', data_root=str(root), split='train', serialize_data=False, pipeline=pipeline),
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        )
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return Runner.build_dataloader(reproducible(cfg, 3, on_unreadable, in_memory=False), seed=3)

    @pytest.mark.parametrize('further', [(), (dict(type='ColorJitter', brightness=0.5), dict(type='RandomErasing'))])
    def test_batches_are_those_of_mmpretrains_transforms(self, root, monkeypatch, further):
        quick = self.loader(root, *further)
        found = list(quick)
        assert {type(step) for step in quick.dataset.dataset.pipeline.transforms} >= {*self.STEPS}
        monkeypatch.setattr('mmcls_kd.engine.data.hasten', lambda pipeline: False)
        plain = self.loader(root, *further)
        for batch, expected in zip(found, plain, strict=True):
            assert torch.equal(batch['inputs'], expected['inputs'])
            for a, b in zip(batch['data_samples'], expected['data_samples'], strict=True):
                assert a.metainfo == b.metainfo
                assert torch.equal(a.gt_label, b.gt_label)
        assert not {type(step) for step in plain.dataset.dataset.pipeline.transforms} & {*self.STEPS}

    @pytest.mark.parametrize('load', [dict(to_float32=True), dict(color_type='grayscale'), dict(imdecode_backend='pillow')])
    def test_other_readings_stay(self, root, load):
        data = self.loader(root, **load).dataset
        data[0]
        assert type(data.dataset.pipeline.transforms[0]) is LoadImageFromFile

    def test_a_file_that_lacks_its_end_is_named_or_left_out(self, root):
        file = root / 'train' / '2.JPEG'
        file.write_bytes(file.read_bytes()[:-400])
        with pytest.raises(UnreadableImageError, match=r'2\.JPEG of the training data cannot be read \(.*truncated'):
            self.loader(root).dataset[2]
        skipped = list(self.loader(root, on_unreadable='skip'))
        assert [text for batch in skipped for text in batch['unreadable'] if '2.JPEG' in text]

    def test_every_draw_is_seeded(self, root):
        data = self.loader(root).dataset
        assert data.draws_again()
        first = data[SampleIndex(1, 0, 5)]['inputs']
        np.random.seed(9)
        assert torch.equal(data[SampleIndex(1, 0, 5)]['inputs'], first)
        assert not torch.equal(data[SampleIndex(1, 1, 5)]['inputs'], first)
