"""Class folders: their layouts, the split, and what is refused before anything is built."""

import os
from collections import Counter

import numpy as np
import pytest
from folders import class_folders
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from small_networks import CNN

from mmcls_kd.command.from_folder.choices import BY_IMAGES, SIZES, WITH_BATCH_NORM, WITHOUT, choose, size_of
from mmcls_kd.command.from_folder.images import find_images
from mmcls_kd.files.paths import TOOLBOX

RED = (200, 30, 60)


class TestLayouts:
    @pytest.mark.parametrize('name', ['val', 'valid', 'validation', 'test'])
    def test_train_and_validation(self, tmp_path, name):
        class_folders(tmp_path / 'train', ant=3, bee=4)
        class_folders(tmp_path / name, ant=2, bee=1)
        found = find_images(tmp_path)
        assert found.classes == ['ant', 'bee']
        assert (len(found.train), len(found.val), found.side) == (7, 3, 32)
        assert found.train[0] == ('train/ant/0.jpg', 0)
        assert found.val[-1] == (f'{name}/bee/0.jpg', 1)

    def test_a_test_set_beside_train_and_validation(self, tmp_path):
        for part, count in dict(train=3, val=2, test=1).items():
            class_folders(tmp_path / part, ant=count, bee=count)
        found = find_images(tmp_path)
        assert [len(part) for part in (found.train, found.val, found.test)] == [6, 4, 2]
        assert found.test == [('test/ant/0.jpg', 0), ('test/bee/0.jpg', 1)]
        assert found.notes == []

    def test_without_validation_images_the_test_set_validates_and_this_is_said(self, tmp_path):
        for part in ('train', 'test'):
            class_folders(tmp_path / part, ant=2, bee=2)
        found = find_images(tmp_path)
        assert (len(found.val), found.test) == (4, [])
        assert 'test validates after each epoch, as there is no val/' in found.notes[0]

    def test_folders_that_are_not_used_are_said(self, tmp_path):
        for part in ('train', 'val', 'more'):
            class_folders(tmp_path / part, ant=2, bee=2)
        (tmp_path / 'test').mkdir()
        Image.new('RGB', (8, 8)).save(tmp_path / 'test' / 'a.png')  # a competition's, without labels
        found = find_images(tmp_path)
        assert found.test == []
        assert found.notes == ['not used, beside train/: more, test']

    def test_a_class_of_the_test_set_that_training_lacks_is_refused(self, tmp_path):
        for part in ('train', 'val'):
            class_folders(tmp_path / part, ant=2, bee=2)
        class_folders(tmp_path / 'test', ant=1, wasp=1)
        with pytest.raises(ValueError, match="test/wasp: the training images have no class 'wasp'"):
            find_images(tmp_path)

    def test_train_alone_is_split(self, tmp_path):
        class_folders(tmp_path / 'train', ant=5, bee=5)
        found = find_images(tmp_path)
        assert (found.classes, len(found.train), len(found.val)) == (['ant', 'bee'], 8, 2)

    def test_a_class_may_be_called_train(self, tmp_path):
        class_folders(tmp_path, car=5, train=5)
        assert find_images(tmp_path).classes == ['car', 'train']

    def test_folders_inside_of_a_class_hidden_ones_and_other_files(self, tmp_path):
        class_folders(tmp_path, ant=4, bee=4)
        class_folders(tmp_path / 'ant', deep=1)
        class_folders(tmp_path, **{'.git': 1, '__MACOSX': 1})
        (tmp_path / 'ant' / 'notes.txt').touch()
        found = find_images(tmp_path)
        assert found.classes == ['ant', 'bee']
        assert ('ant/deep/0.jpg', 0) in found.train + found.val
        assert len(found.train + found.val) == 9
        assert found.notes == [f'{tmp_path}: left out, as hidden or made by programs, though with images: .git, __MACOSX']

    def test_a_class_may_begin_with_underscores(self, tmp_path):
        for part in ('train', 'val'):
            class_folders(tmp_path / part, __background__=2, ant=2)
            (tmp_path / part / '__pycache__').mkdir()
        found = find_images(tmp_path)
        assert (found.classes, len(found.train), len(found.val)) == (['__background__', 'ant'], 4, 4)
        assert found.notes == []

    def test_links_to_folders_are_followed_once(self, tmp_path):
        data, more = tmp_path / 'data', tmp_path / 'more'
        class_folders(data, ant=2, bee=2)
        class_folders(data / 'ant', own=1)
        class_folders(more, deep=3)
        (data / 'ant' / 'linked').symlink_to(more)
        (data / 'ant' / 'again').symlink_to(more / 'deep')
        (data / 'ant' / 'a').symlink_to(data / 'ant' / 'own')
        (data / 'ant' / 'up').symlink_to(data)
        (more / 'round').symlink_to(more)
        class_folders(tmp_path, cat=2)
        (data / 'cat').symlink_to(tmp_path / 'cat')
        found = find_images(data)
        assert sorted(path for path, label in found.train + found.val if label == 0) == [
            *(f'ant/{i}.jpg' for i in range(2)),
            *(f'ant/again/{i}.jpg' for i in range(3)),
            'ant/own/0.jpg',
        ]
        assert found.classes == ['ant', 'bee', 'cat']

    def test_hidden_files_and_folders_inside_of_a_class_are_ignored(self, tmp_path):
        class_folders(tmp_path, ant=2, bee=2)
        class_folders(tmp_path / 'ant', **{'.ipynb_checkpoints': 1})
        (tmp_path / 'bee' / '._0.jpg').write_bytes(b'metadata of another system')
        found = find_images(tmp_path)
        assert len(found.train + found.val) == 4

    @pytest.mark.parametrize('names', [('training', 'validation'), ('Train', 'Val'), ('train', 'testing'), ('val',)])
    def test_parts_of_a_data_set_are_no_classes(self, tmp_path, names):
        for name in names:
            class_folders(tmp_path / name, ant=2, bee=2)
        with pytest.raises(ValueError, match="which are no classes: name the folder of training images 'train'"):
            find_images(tmp_path)

    def test_a_class_without_validation_images_is_noted_and_keeps_the_labels(self, tmp_path):
        class_folders(tmp_path / 'train', ant=2, bee=2, cat=2)
        class_folders(tmp_path / 'val', ant=1, cat=1)
        found = find_images(tmp_path)
        assert found.val == [('val/ant/0.jpg', 0), ('val/cat/0.jpg', 2)]
        assert "no images of 'bee'" in found.notes[0]


class TestSplit:
    def test_is_stratified_complete_and_reproducible(self, tmp_path):
        class_folders(tmp_path, ant=10, bee=20, cat=2)
        found = find_images(tmp_path, 0.3, seed=1)
        assert Counter(label for _, label in found.val) == {0: 3, 1: 6, 2: 1}
        assert sorted(found.train + found.val) == sorted({*found.train, *found.val})
        assert len(found.train + found.val) == 32
        assert find_images(tmp_path, 0.3, seed=1) == found
        assert find_images(tmp_path, 0.3, seed=2).val != found.val

    @pytest.mark.parametrize('share', [0.0, 1.0, -1.0, float('nan')])
    def test_a_share_outside_of_0_to_1_is_refused(self, tmp_path, share):
        with pytest.raises(ValueError, match='--val-fraction .*between 0 and 1'):
            find_images(class_folders(tmp_path, ant=2, bee=2), share)


@pytest.mark.parametrize(
    ('train', 'val', 'message'),
    [
        (dict(ant=2, bee=0), {}, 'bee has no image: add images .* or remove the folder'),
        (dict(ant=2, bee=0, cat=0), {}, 'bee has no image, nor have 1 more'),
        (dict(ant=2, bee=2), dict(ant=1, bee=0), 'val/bee has no image'),
        (dict(ant=2, bee=2), dict(ant=1, beee=1), "no class 'beee'; did you mean 'bee'"),
        (dict(ant=2, bee=2), dict(ant=1, Bee=1), "no class 'Bee'; did you mean 'bee'"),
        (dict(ant=2, Ant=2), {}, "'Ant' and 'ant' differ by case alone"),
        (dict(ant=2), {}, "has one class, 'ant'"),
        (dict(ant=2, bee=1), {}, "class 'bee' has one image, train/bee/0.jpg, and a split needs at least two"),
        ({}, {}, 'train has no class folders'),
    ],
)
def test_refusals(tmp_path, train, val, message):
    (tmp_path / 'train').mkdir()
    class_folders(tmp_path / 'train', **train)
    class_folders(tmp_path / 'val', **val)
    with pytest.raises(ValueError, match=message) as caught:
        find_images(tmp_path)
    assert '\n' not in str(caught.value)


def test_no_folder_and_no_class_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        find_images(tmp_path / 'nowhere')
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='has images, but no class folders: put the images of each class'):
        find_images(tmp_path)


@pytest.mark.parametrize('place', ['file', 'class', 'root'])
def test_names_that_are_not_utf_8_are_refused_by_name(tmp_path, place):
    """As of a disk that was written under Latin-1."""
    root = class_folders(tmp_path / 'all', ant=3, bee=2)
    old = dict(file=root / 'ant' / '0.jpg', root=root)
    old['class'] = root / 'bee'
    try:
        odd = old[place].rename(old[place].with_name(os.fsdecode(b'caf\xe9.jpg')))
    except OSError:
        pytest.skip('names are UTF-8 on this disk')
    with pytest.raises(ValueError, match=r'--data: .*/caf\\xe9.jpg.* has no name in UTF-8') as caught:
        find_images(odd if place == 'root' else root)
    assert 'rename it; ' in str(caught.value)
    assert (', nor have 1 more' in str(caught.value)) == (place == 'class')
    str(caught.value).encode()


class TestModes:
    """What docs/own_images.md says of images that are not 8-bit RGB."""

    @pytest.fixture
    def folder(self, tmp_path):
        return class_folders(tmp_path, ant=2, bee=2)

    def red(self):
        return Image.new('RGB', (16, 12), RED)

    def decoded(self, folder, path):
        assert find_images(folder).classes == ['ant', 'bee']
        return TRANSFORMS.build(dict(type='LoadImageFromFile'))(dict(img_path=str(path)))['img'][..., ::-1]

    @pytest.mark.parametrize(
        ('name', 'make', 'colour'),
        [
            ('palette.png', lambda i: i.convert('P', palette=Image.Palette.ADAPTIVE), RED),
            ('cmyk.jpg', lambda i: i.convert('CMYK'), RED),
            ('clear.png', lambda i: Image.new('RGBA', i.size, (*RED, 0)), RED),  # alpha is ignored
            ('grey.png', lambda i: Image.new('L', i.size, 90), (90, 90, 90)),
            ('bits.png', lambda i: Image.new('1', i.size, 1), (255, 255, 255)),
            ('deep.png', lambda i: Image.fromarray(np.full((12, 16), 40_000, np.uint16)), (156, 156, 156)),  # high byte
        ],
    )
    def test_become_8_bit_colours(self, folder, name, make, colour):
        make(self.red()).save(folder / 'ant' / name)
        image = self.decoded(folder, folder / 'ant' / name)
        assert (image.shape, image.dtype) == ((12, 16, 3), np.uint8)
        assert abs(image.astype(int) - colour).max() <= 2

    @pytest.mark.parametrize('name', ['moving.png', 'moving.webp', 'pages.tif'])
    def test_of_an_animation_the_first_image_counts(self, folder, name):
        blue = Image.new('RGB', (16, 12), (0, 0, 255))
        self.red().save(folder / 'ant' / name, save_all=True, append_images=[blue])
        assert abs(self.decoded(folder, folder / 'ant' / name).astype(int).mean((0, 1)) - RED).max() <= 6

    def test_exif_rotates(self, folder):
        exif = Image.Exif()
        exif[0x0112] = 6
        self.red().save(folder / 'ant' / 'lying.jpg', exif=exif)
        assert self.decoded(folder, folder / 'ant' / 'lying.jpg').shape == (16, 12, 3)

    def test_what_opencv_does_not_decode_is_refused(self, folder):
        Image.fromarray(np.full((12, 16), 0.5, np.float32)).save(folder / 'ant' / 'float.tif')
        with pytest.raises(ValueError, match=r'float.tif: OpenCV does not decode it \(TIFF F\): convert it'):
            find_images(folder)

    def test_what_is_no_image_is_refused(self, folder):
        (folder / 'bee' / 'broken.jpg').write_bytes(b'nothing')
        with pytest.raises(ValueError, match=r'broken.jpg cannot be read \(no image that can be identified\): mend'):
            find_images(folder)


class TestChoices:
    def test_by_network_and_number_of_images(self):
        cnn, other = CNN(), CNN(norm=False)
        small, large = choose(640, 64, cnn), choose(640_000, 224, other)
        assert (small.optimizer['type'], large.optimizer['type']) == ('SGD', 'AdamW')
        assert (small.epochs, small.batch_size, small.workers) == (100, 32, 0)
        assert (large.epochs, large.batch_size, large.workers) == (15, 128, 2)
        assert small.optimizer['lr'] == pytest.approx(WITH_BATCH_NORM.lr / 2)
        assert large.optimizer['lr'] == pytest.approx(WITHOUT.lr * 2)
        assert choose(640, 64, cnn, pretrained=True).optimizer['lr'] == pytest.approx(WITH_BATCH_NORM.pretrained_lr / 2)

    @pytest.mark.parametrize('epochs', [1, 2, 3, 30])
    def test_the_warm_up_ends_before_the_training(self, epochs):
        assert choose(100, 64, CNN(), epochs=epochs).warm_up < epochs

    def test_of_few_images_are_at_least_four_batches_and_none_of_one_image(self):
        assert (choose(12, 64, CNN()).batch_size, choose(3, 64, CNN()).batch_size) == (3, 2)
        assert choose(13, 64, CNN()).drop_last
        assert not choose(12, 64, CNN()).drop_last

    def test_the_documented_table_is_the_one_in_use(self):
        text = (TOOLBOX / 'docs' / 'own_images.md').read_text()
        for row in BY_IMAGES:
            images = f'up to {row.images:,}' if row.images < float('inf') else 'more'
            assert f'| {images} | {row.epochs} | {row.batch_size} | {row.area:g} |' in text
        for kind in (WITH_BATCH_NORM, WITHOUT):
            assert f'| {kind.optimizer["type"]} | {kind.lr:g} | {kind.pretrained_lr:g} |' in text
        assert ', '.join(map(str, SIZES)) in text
        assert [size_of(side) for side in (1, 64, 65, 5000)] == [64, 64, 96, 224]
