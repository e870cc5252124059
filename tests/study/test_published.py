"""Published numbers: read and checked, beside the results in the report; each device's share of a batch; GPU flops."""

import re
from pathlib import Path

import pytest
from studies_kit import FILE, made_up, small_study, write_study

from mmcls_kd.study import flops
from mmcls_kd.study.plan import Planner, Run
from mmcls_kd.study.report import blocks
from mmcls_kd.study.steps import steps_of
from mmcls_kd.study.study_file import read_study

NUMBERS = """        methods=['kd', 'nkd', 'uskd'],
        teacher='my/teacher.pth',
        published={
            'teacher': dict(top1=95, tolerance=0.1, source='an index'),
            'baseline': dict(top1=80.0, tolerance=0.5, source='a paper'),
            'nkd': dict(top1=71.96, tolerance=0.3, source='another paper'),
            'kd+nkd': dict(top1=86.0, tolerance=0.3, source='another paper'),
        },
        settings=dict(mgd"""
WITH_NUMBERS = FILE.replace('        settings=dict(mgd', NUMBERS).replace('seeds =', "_own = 'of no concern'\nseeds =")


@pytest.fixture(scope='module')
def known(tmp_path_factory):
    """The small study with published numbers, and its planner."""
    return small_study(tmp_path_factory.mktemp('published'), WITH_NUMBERS)


def row(table, title):
    (line,) = [line for line in table.splitlines() if line.startswith(f'| {title} |')]
    return [cell.strip() for cell in line.strip('|').split('|')]


class TestReport:
    def accuracies(self, planner, **rows):
        return [{**made_up(run), **({'last': rows[run.row]} if run.row in rows else {})} for run in planner.runs()]

    def test_what_is_not_within_the_tolerance_is_marked(self, known):
        study, planner = known
        records = self.accuracies(planner, baseline=80.5, nkd=72.26, kd=84.0, **{'kd+nkd': 86.31})
        table = blocks(study, records)['cnn']
        assert row(table, 'student alone')[-2:] == ['80.00 ± 0.50', '+0.50']
        assert row(table, '`nkd`')[-2:] == ['71.96 ± 0.30', '+0.30']  # though floating point says 0.30000000000001
        assert row(table, '`kd+nkd`')[-2:] == ['86.00 ± 0.30', '**+0.31, outside**']
        assert row(table, 'KD')[-2:] == ['', '']

    def test_the_teachers_too(self, known):
        study, planner = known
        text = blocks(study, self.accuracies(planner, teacher=94.0))['cnn']
        assert 'Published of the teacher: 95.00 ± 0.10; minus published: **-1.00, outside**.' in text

    def test_they_are_listed_without_any_result(self, known):
        study, _ = known
        table = blocks(study, [])['published']
        assert row(table, 'Small teaches smaller (`cnn`) | `nkd`')[2:] == [
            '71.96 ± 0.30',
            'another paper',
        ]
        assert len(table.splitlines()) == 2 + 4

    def test_a_study_without_them_has_no_word_of_them(self, tmp_path):
        study, planner = small_study(tmp_path)
        made = blocks(study, self.accuracies(planner))
        assert 'published' not in made
        assert '| published' not in made['cnn']
        assert 'Published of the teacher' not in made['cnn']


class TestRuns:
    def test_only_the_wanted_methods_have_rows(self, known):
        _, planner = known
        rows = {run.row for run in planner.runs() if run.kind == 'row'}
        assert rows == {'baseline', 'kd', 'nkd', 'uskd', 'kd+nkd'}
        assert {run.methods[0] for run in planner.runs() if run.held_out} == {'kd', 'nkd', 'uskd'}

    def test_the_teachers_checkpoint_goes_to_whom_it_concerns(self, known):
        _, planner = known
        for run in planner.runs():
            taught = run.row not in ('teacher', 'baseline') and not run.row.startswith('uskd')
            assert ('model.teacher_pretrained=my/teacher.pth' in run.options) == taught, run.key
        (teacher,) = [run for run in planner.runs() if run.kind == 'teacher']
        assert teacher.weights == 'my/teacher.pth'

    def test_a_number_is_no_part_of_a_run(self, known, tmp_path):
        _, planner = known
        _, other = small_study(tmp_path, WITH_NUMBERS.replace('top1=71.96', 'top1=99.0'))
        assert [(run.key, run.digest) for run in planner.runs()] == [(run.key, run.digest) for run in other.runs()]


WRONG = {
    'top1=71.96': ('top1=0', 'pairs.cnn.published.nkd.top1 has to be a number of percent above 0, at most 100, but is 0'),
    "'nkd': dict(top1=71.96, tolerance=0.3": ("'nkd': dict(top1=71.96, tolerance='0.3'", 'nkd.tolerance has to be a number'),
    "source='a paper'": ("sorce='a paper'", "unknown key 'sorce'; did you mean 'source'?"),
    ", source='an index'": ('', "pairs.cnn.published.teacher has no 'source'"),
    "'kd+nkd': dict(top1": ("'kd+nkdd': dict(top1", "published: there is no row 'kd+nkdd'; did you mean 'kd+nkd'"),
    "'nkd', 'uskd'],": ("'nkd', 'usk'],", "pair cnn, methods: unknown method 'usk'; did you mean 'uskd'?"),
    "teacher='my/teacher.pth'": ('teacher=3', 'pairs.cnn.teacher has to be a text, but is 3'),
}


@pytest.mark.parametrize('at', WRONG)
def test_what_cannot_be_is_refused_in_a_sentence(at, tmp_path):
    instead, message = WRONG[at]
    assert at in WITH_NUMBERS
    with pytest.raises(ValueError, match=re.escape(message)):
        Planner(read_study(write_study(tmp_path, WITH_NUMBERS.replace(at, instead, 1))))


class TestDevices:
    """The learning rate belongs to the batch of all devices together."""

    RUN = Run('row', 'a', 'baseline', 0, 'configs/resnet/resnet18_8xb16_cifar100.py', 'x.py')  # 128 in all

    def training(self, devices, *options):
        run = Run(**{**vars(self.RUN), 'shared': options})
        return next(steps_of(run, Path('folder'), None, devices))

    def batch(self, *given):
        return [word for word in self.training(*given)[1] if word.startswith('train_dataloader.batch_size=')][-1:]

    def test_they_share_the_configs_batch(self):
        assert self.batch(1) == ['train_dataloader.batch_size=128']
        assert self.batch(4) == ['train_dataloader.batch_size=32']
        assert self.batch(8) == []  # as in the config

    def test_they_share_the_studys_batch(self):
        assert self.batch(1, 'train_dataloader.batch_size=64') == ['train_dataloader.batch_size=64']
        assert self.batch(4, 'train_dataloader.batch_size=64') == ['train_dataloader.batch_size=16']

    def test_several_go_through_the_scripts(self):
        tool, words = self.training(4)
        assert tool == 'tools/dist_train.sh'
        assert words[:3] == [self.RUN.config, '4', '--work-dir']
        test = Run(**{**vars(self.RUN), 'weights': 'a.pth'})
        tool, words = next(steps_of(test, Path('folder'), None, 2))
        assert tool == 'tools/dist_test.sh'
        assert words[:3] == ['x.py', 'a.pth', '2']
        assert self.training(1)[0] == 'tools/train.py'

    def test_a_batch_that_cannot_be_shared(self):
        with pytest.raises(
            ValueError, match=r'a/baseline/seed0: a batch of 128 images cannot be shared evenly by 3 devices'
        ):
            self.training(3)


class TestHours:
    def test_the_operations_are_those_that_are_published(self):
        """ResNet-18: 1.8 billion multiplications and additions for 224 × 224 (He et al. 2016, table 1)."""
        assert flops.forward_flops('configs/resnet/resnet18_8xb32_in1k.py', 224) == pytest.approx(2 * 1.8e9, rel=0.02)

    def test_images_epochs_student_and_teacher_are_multiplied(self, monkeypatch):
        known = {'student.py': 1e9, 'teacher.py': 5e9}
        monkeypatch.setattr(flops, 'forward_flops', lambda config, side: known[config])
        monkeypatch.setattr(flops, 'epochs_of', lambda run: 10)
        monkeypatch.setattr(flops, '_data_set', lambda config: 'CIFAR100')
        models = {'taught.py': {'teacher_cfg': 'teacher.py'}, 'self.py': {'teacher_cfg': None}}
        found = {c: flops.training_flops(Run('row', 'a', 'b', 0, c, 'student.py'), models) for c in ('taught.py', 'self.py')}
        assert found == {'taught.py': 50_000 * 10 * (3 + 5) * 1e9, 'self.py': 50_000 * 10 * 3e9}

    def test_data_of_which_nothing_is_known(self, known):
        _, planner = known
        with pytest.raises(ValueError, match=r'hours are estimated for ImageNet, .*TinyImageNet, and not for FashionMNIST'):
            flops.estimate(planner, planner.runs(), 1e12)
