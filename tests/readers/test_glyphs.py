"""Glyphs: made of the fonts that matplotlib brings, read, and refused where a file is missing."""

import json
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import tool
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from mmcls_kd.engine.folders import check_data_folders
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.readers.glyphs import Glyphs

matplotlib = pytest.importorskip('matplotlib', reason='its fonts are used')
pytest.importorskip('fontTools', reason='it reads fonts')
#: Two families of letters, and two files of symbols in the places of letters.
LETTERS = ('DejaVuSans.ttf', 'DejaVuSans-Bold.ttf', 'DejaVuSerif.ttf', 'DejaVuSerif-Italic.ttf', 'STIXGeneral.ttf')
SYMBOLS = ('cmsy10.ttf', 'LastResortHE-Regular.ttf')
TWICE = ('train', 2), ('t10k', 1)


@pytest.fixture(scope='module')
def maker():
    return SimpleNamespace(**tool('make_glyphs').__globals__)


@pytest.fixture(scope='module')
def fonts(tmp_path_factory):
    """A folder with some of matplotlib's fonts."""
    folder, source = tmp_path_factory.mktemp('fonts'), Path(matplotlib.get_data_path(), 'fonts', 'ttf')
    for name in filter(lambda name: (source / name).is_file(), LETTERS + SYMBOLS):
        shutil.copy(source / name, folder)
    return folder


@pytest.fixture(scope='module')
def found(maker, fonts):
    return maker.find_fonts(fonts)


@pytest.fixture(scope='module')
def root(maker, found, tmp_path_factory):
    """The folder of a data set with two training images and a test image of each class."""
    root = tmp_path_factory.mktemp('glyphs')
    maker.make(found, root, dict(TWICE), 0.2, {'fonts-some': '1.0-1'})
    return root


@pytest.fixture(scope='module')
def images(maker, found):
    """Images (fonts, classes, 28, 28) of the fonts of letters."""
    return maker.draw_all([font for font in found if font.path.name in LETTERS])


def at(maker, letters):
    return [maker.CLASSES.index(letter) for letter in letters]


def built(root, **keywords):
    return DATASETS.build(dict(type='Glyphs', data_root=str(root), pipeline=[], **keywords))


def changed(root, folder):
    return shutil.copytree(root, folder / 'glyphs')


class TestMaking:
    def test_every_class_has_as_many_images(self, root):
        for split, count in (('train', 2), ('test', 1)):
            labels = built(root, split=split, test_mode=split == 'test').get_gt_labels()
            assert np.array_equal(np.bincount(labels), [count] * 100)

    def test_no_family_is_in_both_splits_and_symbols_are_in_none(self, root):
        about = json.loads((root / 'glyphs.json').read_text())
        assert (about['train']['families'], about['t10k']['families']) == (['deja'], ['stixgeneral'])
        assert about['train']['family'] == [0] * 200
        assert about['packages'] == {'fonts-some': '1.0-1'}

    def test_the_same_fonts_give_the_same_files(self, maker, fonts, root, tmp_path, monkeypatch, capsys):
        options = ['--fonts', str(fonts), '--root', str(tmp_path / 'again'), '--train', '2', '--test', '1']
        monkeypatch.setattr('sys.argv', ['make_glyphs.py', *options])
        maker.main()
        assert maker.digest(tmp_path / 'again') == maker.digest(root)
        assert f'SHA-256 {maker.digest(root)}\n' in capsys.readouterr().out

    def test_glyphs_stand_upright_in_the_middle(self, maker, found):
        font = next(font for font in found if font.path.stem == 'DejaVuSans')
        drawn = font.draw('H', maker.CAPITAL * maker.SCALE)
        rows, columns = (np.flatnonzero((drawn > 127).any(axis)) for axis in (1, 0))
        assert (rows[0], rows[-1] + 1) == (maker.BASELINE - maker.CAPITAL, maker.BASELINE)
        assert columns[0] + columns[-1] + 1 == pytest.approx(28, abs=1)
        wide = np.flatnonzero((font.draw('Щ', 40 * maker.SCALE) > 0).any(0))  # drawn smaller, else it would not fit
        assert 0 < wide[0] < wide[-1] < 27

    def test_a_class_without_a_font_is_refused(self, maker, found, tmp_path):
        with pytest.raises(ValueError, match=r'no font of the split t10k has 0 1 2 .*: more fonts are needed'):
            maker.make([font for font in found if font.path.stem == 'DejaVuSans'], tmp_path, dict(TWICE), 0.2, {})
        assert not [*tmp_path.iterdir()]

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (['--fonts', 'EMPTY'], 'EMPTY: no .ttf or .otf file with Latin letters and digits in it'),
            (['--test', '0'], '--train 300, --test 0: give at least 1'),
            (['--share', '1.5'], '--share 1.5: give a number between 0 and 1'),
        ],
    )
    def test_wrong_options_are_named(self, maker, tmp_path, monkeypatch, capsys, options, message):
        options = [option.replace('EMPTY', str(tmp_path)) for option in options]
        monkeypatch.setattr('sys.argv', ['make_glyphs.py', '--root', str(tmp_path / 'data'), *options])
        with pytest.raises(SystemExit) as stop:
            maker.main()
        assert message.replace('EMPTY', str(tmp_path)) in f'{stop.value}{capsys.readouterr().err}'
        assert not [*tmp_path.iterdir()]

    def test_a_wrong_line_of_a_list_is_named(self, maker, tmp_path):
        (tmp_path / 'list.txt').write_text('fonts-hack 3.003-3\nfonts-go\n')
        with pytest.raises(ValueError, match="'fonts-go' is not NAME VERSION"):
            maker.read_packages(tmp_path / 'list.txt')


class TestChecks:
    """On drawings of a font's own letters in wrong places."""

    def test_blank_and_doubled_glyphs_are_left_out(self, maker, images):
        images = images.copy()
        images[0, at(maker, 'x')] = 0
        images[0, at(maker, 'Q')] = images[0, at(maker, 'O')]
        good = maker.good_glyphs(images)
        assert not good[0, at(maker, 'xQO')].any()
        assert good[1:, at(maker, 'xQO')].all()

    def test_small_capitals_are_left_out(self, maker, images):
        images = images.copy()
        for letter in maker.ALPHABETS[0][36:]:
            small = images[0, at(maker, letter.upper())[0]]
            images[0, at(maker, letter)[0]] = np.roll(small, 1, axis=0)
        good = maker.good_glyphs(images)
        assert not good[0, at(maker, maker.SMALL)].any()
        assert good[0, at(maker, 'AGQ2')].all()

    def test_a_copy_under_another_name_is_of_the_same_family(self, maker, images):
        names = ['c', 'd', 'e', 'f', 'g', 'a']
        images = np.concatenate([images, images[:1]])
        fonts = [SimpleNamespace(family=name) for name in names]
        related = maker.related(fonts, images, maker.good_glyphs(images))
        assert related == dict(zip(names, ['a', *names[1:]], strict=True))

    @pytest.mark.parametrize(
        ('name', 'family'), [('DejaVu Sans Mono', 'deja'), ('FreeSerif', 'free'), ('LMRoman10', 'lmroman'), ('[F500]', 'f')]
    )
    def test_a_family_is_the_first_word(self, maker, name, family):
        assert maker.family_of(name) == family


class TestReading:
    def test_images_labels_and_names(self, maker, root):
        data = built(root, split='test', test_mode=True)
        raw = np.fromfile(root / 't10k-images-idx3-ubyte', np.uint8)[16:].reshape(-1, 28, 28)
        assert len(data) == 100
        assert np.array_equal(data[3]['img'], raw[3])
        assert data.CLASSES[10] == 'latin capital letter a'
        assert [unicodedata.lookup(name) for name in data.CLASSES] == [*maker.CLASSES]

    @pytest.mark.parametrize('name', ['glyphs.json', 'train-images-idx3-ubyte', 't10k-labels-idx1-ubyte'])
    def test_a_missing_file_is_named_with_its_command(self, root, tmp_path, name):
        folder = changed(root, tmp_path)
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=f'{name}: no such file; python tools/make_glyphs.py makes it'):
            built(folder)

    def test_a_truncated_one_is_refused_before_training(self, root, tmp_path):
        folder = changed(root, tmp_path)
        file = folder / 'train-images-idx3-ubyte'
        file.write_bytes(file.read_bytes()[:-1])
        cfg = Config(dict(train_dataloader=dict(dataset=dict(type='Glyphs', data_root=str(folder)))))
        with pytest.raises(
            ValueError, match=r'156815 bytes long, and should be 156816; move it away, then python .*make_gl'
        ):
            check_data_folders(cfg, ('train_dataloader',))

    def test_another_split_is_refused(self, root):
        with pytest.raises(ValueError, match="split='val': choose 'train' or 'test'"):
            Glyphs(str(root), split='val')


def test_the_document_states_the_checksum_and_the_number_of_packages(maker):
    text = (TOOLBOX / 'docs' / 'glyphs.md').read_text(encoding='utf-8')
    assert maker.PUBLISHED in text
    assert f'{len(maker.read_packages(maker.PACKAGES))} packages' in text
