"""Classes by name: which are the same, and where labels cannot mean what names say."""

import hypothesis.strategies as st
import pytest
from folders import class_folders
from hypothesis import given, settings
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from mmcls_kd.engine.labels import check_names, has_labels, left_out, namings, training_names
from mmcls_kd.networks.classes import compare_order, index_by_name, match, otherwise_by_timm


def numbered(*names):
    return dict(enumerate(names))


class TestMatch:
    @pytest.mark.parametrize(
        ('name', 'other'),
        [
            ('tench, Tinca tinca', 'tench'),
            ('tench', 'Tinca tinca, tench'),
            ('Tench', 'tench'),
            ('great_white_shark', 'great white shark'),
            ('Jack-o’-lantern', "jack_o'_lantern"),
            ('n01440764, tench, Tinca tinca', 'n01440764'),
            # two spellings that releases of mmpretrain have
            ('American black bear, black bear, Ursus americanus', 'American black bear, black bear, Ursus americans'),
            ('confectionery, confectionary, candy store', 'confectionery, confectionery, candy store'),
        ],
    )
    def test_spellings_of_one_class(self, name, other):
        assert match(numbered('cat', name), numbered(other, 'cat')) == {0: 1, 1: 0}

    @pytest.mark.parametrize(('name', 'other'), [('cat', 'cats'), ('c', 'c++'), ('10', '100'), ('Cardigan', 'sweater')])
    def test_other_classes(self, name, other):
        assert match({0: name}, {0: other}) == {}

    def test_what_means_two_classes(self):
        cranes = numbered('crane', 'crane', 'bee')
        assert match(cranes, cranes) == {0: 0, 1: 1, 2: 2}
        assert match(cranes, numbered('bee', 'crane', 'crane')) == {2: 0}
        # the text comes before its words
        assert match(numbered('-1', '1'), numbered('1', '-1')) == {0: 1, 1: 0}
        assert match(numbered('cardigan', 'Cardigan'), numbered('Cardigan', 'cardigan')) == {0: 1, 1: 0}

    def test_a_thousand(self):
        own = dict(enumerate(IMAGENET_CATEGORIES))
        assert match(own, {i: name.split(',')[0].upper() for i, name in own.items()}) == {i: i for i in own}

    @settings(max_examples=25, deadline=None)
    @given(st.permutations(range(1000)))
    def test_a_thousand_in_any_order(self, order):
        names = [name for name in IMAGENET_CATEGORIES if name != 'crane'][:200]
        order = [i for i in order if i < 200]
        assert match(dict(enumerate(names)), numbered(*(names[i] for i in order))) == {i: order.index(i) for i in range(200)}


class TestTeacher:
    ANIMALS = numbered('ant', 'bee', 'cat')

    @pytest.mark.parametrize(
        ('known', 'index', 'said'),
        [
            (['ant', 'bee', 'cat'], None, ''),
            (['Ant', 'bee, honeybee', 'cat'], None, ''),
            (['cat', 'bee', 'ant'], [2, 1, 0], "order of the data’s, by name: 'ant' is class 0 of the data and 2 of the"),
            (['dog', 'cat', 'bee', 'ant'], [3, 2, 1], 'by name'),
            (['ant', 'bee', 'cat', 'dog'], [0, 1, 2], 'by name: of 4 the first ones'),
            (['ant', 'bee', 'feline'], None, "taken for the same: class 2 is 'cat' of the data and 'feline' of the teacher"),
            (['Ameise', 'Biene', 'Katze'], None, 'no class of the teacher .* has a name of the data’s'),
            (['LABEL_0', 'LABEL_1', 'LABEL_2'], None, ''),
            (['0', '1', '2'], None, ''),
            (['x', 'y'], None, ''),
            (None, None, ''),
        ],
    )
    def test_by_name(self, known, index, said, caught):
        assert index_by_name([self.ANIMALS], known, 3 if known is None or len(known) == 2 else len(known), 3) == index
        assert caught.matches(said)

    @pytest.mark.parametrize('known', [['bee', 'ant', 'dog'], ['ant', 'bee', 'dog', 'elk'], ['bee', 'ant', 'dog', 'elk']])
    def test_other_places_and_no_counterpart(self, known):
        with pytest.raises(ValueError, match="has none with the name of 2 'cat': say by model.teacher_classes"):
            index_by_name([self.ANIMALS], known, len(known), 3)

    @pytest.mark.parametrize('known', [['ant', 'bee'], ['bee', 'ant'], ['ant', 'dog']])
    def test_fewer_classes_than_the_data(self, known):
        """No class map mends it."""
        with pytest.raises(ValueError, match="lacks classes of the data: it has 2 and the student 3, .* 2 'cat'") as caught:
            index_by_name([self.ANIMALS], known, 2, 3)
        assert ("of 1 'bee', 2 'cat': take a teacher of all the classes" in str(caught.value)) == ('bee' not in known)
        assert 'places' not in str(caught.value)

    def test_fewer_classes_of_the_student_than_of_the_data(self):
        assert index_by_name([self.ANIMALS], ['ant', 'bee', 'cat'], 3, 2) is None

    def test_data_without_names(self, caught):
        for names, known in [(None, ['ant', 'bee']), ([], ['LABEL_0', 'LABEL_1']), ([], None), ([], ['ant', 'bee', 'cat'])]:
            assert index_by_name(names, known, 2, 2) is None
            assert caught.matches('')
        assert index_by_name([], ['ant', 'bee'], 2, 2) is None
        assert caught.matches(
            r"do not name them: .* order of the teacher’s \('ant', 'bee'\).*classes=\[\.\.\.\], or set model.teacher_classes"
        )

    @pytest.mark.parametrize(
        ('dataset', 'has'),
        [
            (None, False),
            (dict(type='CIFAR10'), True),
            (dict(type='HuggingFaceDataset', with_label=False), False),
            (dict(type='WithoutLabels', dataset=dict(type='CIFAR10')), False),
            (dict(type='RepeatDataset', dataset=dict(type='UnlabelledImages')), False),
            (dict(type='ConcatDataset', datasets=[dict(type='UnlabelledImages'), dict(type='WebDataset')]), True),
        ],
    )
    def test_data_with_labels(self, dataset, has):
        assert has_labels(dataset) == has

    def test_the_way_of_naming_that_fits(self):
        ways = [numbered('Ameise', 'Biene'), numbered('n01', 'n02')]
        assert index_by_name(ways, ['n02, bee', 'n01, ant'], 2, 2) == [1, 0]

    def test_numbers(self, caught):
        folders = numbered('0', '1', '10', '2')
        assert index_by_name([folders], ['0', '1', '2', '10'], 4, 4) == [0, 1, 3, 2]
        caught.lines.clear()
        assert index_by_name([folders], ['LABEL_0', 'LABEL_1', 'LABEL_2', 'LABEL_3'], 4, 4) is None
        assert caught.matches("order of their text \\('10' is class 2, and would be class 3 by number\\).*leading zeros")

    @pytest.mark.parametrize(
        ('folders', 'said'),
        [
            (numbered('AM General', 'Acura', 'BMW'), "'AM General' is class 0, and would be class 1 by timm"),
            (numbered('10 cats', '2', '2 cats'), "'10 cats' is class 0, and would be class 2 by timm"),
            (numbered('ant', 'bee2', 'bee3'), ''),
            (numbered('ant', 'Zebra', 'Bee'), ''),  # declared, in an order of their own
        ],
    )
    def test_class_folders_that_timm_numbers_otherwise(self, folders, said, caught):
        assert index_by_name([folders], None, 3, 3) is None
        assert caught.matches(said)

    def test_a_teacher_that_names_them_has_no_order_of_timm(self, caught):
        folders = numbered('AM General', 'Acura', 'BMW')
        assert index_by_name([folders], [*folders.values()], 3, 3) is None
        assert caught.matches('')

    @pytest.mark.parametrize('names', [('1', '10', '2'), ('AM General', 'Acura', 'BMW'), ('a10', 'a2b3', 'b', 'a2b10')])
    def test_order_of_timm(self, names, tmp_path):
        from timm.data import create_dataset

        root = class_folders(tmp_path, **dict.fromkeys(names, 1))
        numbers = create_dataset('', root).reader.class_to_idx
        ordered = sorted(names)
        expected = [(name, i, numbers[name]) for i, name in enumerate(ordered) if i != numbers[name]]
        name, i, j = expected[0]
        assert otherwise_by_timm(numbered(*ordered)) == f'{name!r} is class {i}, and would be class {j} by timm'

    def test_a_file_of_weights(self, caught):
        compare_order(['ant', 'bee', 'cat'], [self.ANIMALS], 'a.pth', refuse=True)
        assert caught.matches('')
        compare_order(['bee', 'ant', 'cat'], [self.ANIMALS], 'a.pth', refuse=False)
        assert caught.matches('a.pth was trained for classes in another order')
        with pytest.raises(
            ValueError, match="another order than the data’s: 'ant' is class 0 of the data and 1 of the file"
        ):
            compare_order(['bee', 'ant', 'cat'], [self.ANIMALS], 'a.pth', refuse=True)


@pytest.fixture
def caught(monkeypatch):
    """What the comparison of names says."""

    class Caught:
        lines: list = []

        def matches(self, text):
            import re

            return not self.lines if not text else bool(re.search(text, ' '.join(self.lines)))

    found = Caught()
    found.lines = []
    monkeypatch.setattr('mmcls_kd.networks.classes._warn', found.lines.append)
    return found


def dataset(root, **settings):
    return CustomDataset(data_root=str(root), serialize_data=False, **settings)


def annotated(root, text, **settings):
    root.mkdir(parents=True, exist_ok=True)
    (root / 'list.txt').write_text(text)
    return dataset(root, ann_file='list.txt', **settings)


ONE_EACH = 'ant/1.jpg 0\nbee/1.jpg 1\ncat/1.jpg 2\n'
CROSSED = 'ant/1.jpg 1\nbee/1.jpg 0\ncat/1.jpg 2\n'


class TestData:
    def test_both_ways_of_naming(self, tmp_path):
        folders = class_folders(tmp_path / 'a', ant=1, bee=1)
        assert namings(dataset(folders)) == ({}, numbered('ant', 'bee'))
        assert namings(dataset(folders, classes=['x', 'y'])) == (numbered('x', 'y'), numbered('ant', 'bee'))
        assert namings(annotated(tmp_path / 'b', CROSSED))[1] == {0: 'bee', 1: 'ant', 2: 'cat'}
        for text in ('1.jpg 0\n2.jpg 1\n', 'ant/1.jpg 0\nant/2.jpg 1\nbee/1.jpg 1\n', 'ant/1.jpg 0\nbee/1.jpg 0\n'):
            assert namings(annotated(tmp_path / 'b', text))[1] == {}

    def test_of_a_config(self, tmp_path):
        folders = class_folders(tmp_path / 'a', ant=1, bee=1)
        plain = dict(type='CustomDataset', data_root=str(folders))
        assert training_names(plain) == [numbered('ant', 'bee')]
        assert training_names(dict(type='ConcatDataset', datasets=[plain, plain])) == [numbered('ant', 'bee')]
        assert training_names(dict(type='FashionMNIST', data_root='nowhere'))[0][9] == 'Ankle boot'
        assert training_names(dict(plain, data_root=str(tmp_path / 'nowhere'))) == []
        assert training_names(None) == []

    @pytest.mark.parametrize('text', [None, ONE_EACH])
    def test_declared_names_in_another_order_than_the_folders(self, text, tmp_path):
        root = class_folders(tmp_path / 'a', ant=1, bee=1, cat=1)
        settings = dict(classes=['cat', 'bee', 'ant'])
        data = dataset(root, **settings) if text is None else annotated(root, text, **settings)
        with pytest.raises(
            ValueError, match=r"train: the declared names .* another order .*set classes=\['ant', 'bee', 'cat'\]"
        ):
            list(check_names({'train': [data]}))
        settings = dict(classes=['Ant', 'honey bee, bee', 'cat'])
        data = dataset(root, **settings) if text is None else annotated(root, text, **settings)
        assert list(check_names({'train': [data]})) == []

    def test_folders_that_are_numbers(self, tmp_path):
        root = class_folders(tmp_path / 'a', **{'0': 1, '1': 1, '10': 1, '2': 1})
        (said,) = check_names({'train': [dataset(root)]})
        assert 'in the order of their text, not of their numbers' in said
        (said,) = check_names({'train': [dataset(root, classes=['zero', 'one', 'two', 'ten'])]})
        assert said.endswith('if the declared names (classes, metainfo) are in the order of the numbers, they are wrong')
        with pytest.raises(ValueError, match="'2' is class 2 of the declared names and 3 of the folders"):
            list(check_names({'train': [dataset(root, classes=['0', '1', '2', '10'])]}))

    @pytest.mark.parametrize(
        ('val', 'message'),
        [
            (dict(bee=1, cat=1), "missing: 'ant'; 'bee' is class 0 of val and 1 of train"),
            (dict(ant=1, bee=1, dog=1), "missing: 'cat'; only here: 'dog'"),
            (dict(aa=1, ant=1, bee=1, cat=1), "only here: 'aa'; 'ant' is class 1 of val and 0 of train"),
        ],
    )
    def test_folders_of_another_split(self, val, message, tmp_path):
        train = dataset(class_folders(tmp_path / 'train', ant=1, bee=1, cat=1))
        with pytest.raises(ValueError, match=f'val: other classes than train: {message}'):
            list(check_names({'train': [train], 'val': [dataset(class_folders(tmp_path / 'val', **val))]}))

    def test_data_sets_of_one_loader_are_told_apart(self, tmp_path):
        parts = [
            dataset(class_folders(tmp_path / name, **counts)) for name, counts in dict(a=dict(x=1, y=1), b=dict(y=1)).items()
        ]
        told = r"^train \(data set 2\): .*'y' is class 0 of train \(data set 2\) and 1 of train \(data set 1\)"
        with pytest.raises(ValueError, match=told):
            list(check_names({'train': parts}))

    def test_what_keeps_the_labels(self, tmp_path):
        train = dataset(class_folders(tmp_path / 'train', ant=1, bee=1, cat=1))
        empty = dataset(class_folders(tmp_path / 'empty', ant=0, bee=1, cat=1))
        shorter = dataset(class_folders(tmp_path / 'shorter', Ant=1, bee=1))
        assert list(check_names({'train': [train, empty], 'val': [empty]})) == []
        assert list(check_names({'train': [train], 'val': [shorter]})) == ["val: other classes than train: missing: 'cat'"]

    def test_lists_that_count_otherwise(self, tmp_path):
        train = annotated(tmp_path / 'train', ONE_EACH)
        with pytest.raises(ValueError, match="val: other classes than train: 'bee' is class 0 of val and 1 of train"):
            list(check_names({'train': [train], 'val': [annotated(tmp_path / 'val', CROSSED)]}))
        named = annotated(tmp_path / 'named', 'x.jpg 0\n', classes=['cat', 'bee', 'ant'])
        with pytest.raises(ValueError, match="'cat' is class 0 of val and 2 of train"):
            list(check_names({'train': [train], 'val': [named]}))


def test_files_that_are_not_read(tmp_path):
    root = class_folders(tmp_path, ant=2, bee=1)
    for name in ('ant/a.webp', 'bee/deep/b.WEBP', 'bee/c.gif', 'bee/d.txt', 'e.jpg', 'README'):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root / 'ant' / '0.jpg').rename(root / 'ant' / '0.JPG')
    text, images = left_out(dataset(root))
    assert images
    assert text.startswith('files that are not read: 4 of other types in class folders (2 .webp, 1 .gif, 1 .txt)')
    assert "extensions=('.bmp', '.gif', '.jpeg'" in text
    assert text.endswith('2 outside of the class folders (1 .jpg, 1 without a suffix)')
    assert list(check_names({'train': [dataset(root)]})) == [f'train: {root}/: {text}']
    assert left_out(dataset(class_folders(tmp_path / 'other', ant=1, bee=1))) is None
