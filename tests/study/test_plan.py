"""Studies: their files, and the runs that follow."""

import shutil
from dataclasses import replace

import pytest
from studies_kit import FILE, made_up, small_study, write_study

from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.study.contents import forget_files
from mmcls_kd.study.plan import Planner, best_factor, sweep_results
from mmcls_kd.study.study_file import read_study

#: Another pair, of transformers, at the end of the first one's.
SECOND = """
    vit=dict(
        title='Transformers',
        student='configs/fashion_mnist/vit-d32_3e.py',
        distillers=['configs/distillers/fashion_mnist/vit-d64_distill_vit-d32_fmnist.py'],
    ),
)
ablations"""


def keys(runs, kind):
    return [run.key for run in runs if run.kind == kind]


@pytest.fixture(scope='module')
def plan(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp('plan'))


class TestRuns:
    def test_every_offered_method_has_a_row_of_every_seed(self, plan):
        _, planner = plan
        methods = {'kd', 'nkd', 'uskd', 'mgd'}
        assert methods < set(planner.offers['cnn'])
        rows = {'baseline', 'kd+nkd', *planner.offers['cnn']}
        assert sorted(keys(planner.runs(), 'row')) == sorted(f'cnn/{row}/seed{s}' for row in rows for s in range(3))

    def test_keys_are_unique_and_stable(self, plan):
        study, planner = plan
        runs, again = planner.runs(), Planner(study).runs()
        assert len({run.key for run in runs}) == len(runs)
        assert [(run.key, run.digest) for run in runs] == [(run.key, run.digest) for run in again]

    def test_the_digest_follows_the_settings(self, plan, tmp_path):
        _, planner = plan
        _, changed = small_study(tmp_path, FILE.replace('alpha_mgd=0.5', 'alpha_mgd=0.7'))
        before = {run.key: run.digest for run in planner.runs()}
        other = {run.key for run in changed.runs() if run.digest != before[run.key]}
        assert other
        assert all('/mgd' in key for key in other)

    def test_the_digest_follows_configs_and_weights(self, tmp_path, monkeypatch):
        """A study of configs in a folder of its own, where one after the other is changed."""
        monkeypatch.chdir(tmp_path)
        shutil.copytree(TOOLBOX / 'configs', tmp_path / 'configs')
        distillers = tmp_path / 'configs/distillers/fashion_mnist'

        def changed(file, old, new):
            """The rows whose digest a change of a file changes."""
            before = {run.key: run.digest for run in small_study(tmp_path)[1].runs()}
            content = file.read_bytes()
            assert old in content
            file.write_bytes(content.replace(old, new))
            forget_files()
            return {run.row for run in small_study(tmp_path)[1].runs() if run.digest != before[run.key]}

        forget_files()
        every = {run.row for run in small_study(tmp_path)[1].runs()}
        own = {'uskd', 'uskd-x0.333', 'uskd-x3', 'tfnkd', 'tfnkd-x0.333', 'tfnkd-x3'}
        schedule = tmp_path / 'configs/_base_/schedules/fashion_mnist_3e.py'
        assert changed(schedule, b'weight_decay=1e-4', b'weight_decay=2e-4') == every
        assert changed(tmp_path / 'configs/fashion_mnist/teacher.pth', b'PK', b'KP') == every - own - {'baseline'}
        pair = distillers / 'res18-w16_distill_res18-w4_fmnist.py'
        assert changed(pair, b'model = dict(', b"model = dict(teacher_mode='train', ") == every - own - {
            'baseline',
            'teacher',
        }
        methods = tmp_path / 'configs/_base_/methods/any_pair.py'
        assert changed(methods, b'loss_weight=30000.0', b'loss_weight=7.0') == {'pkt', 'pkt-x0.333', 'pkt-x3'}
        forget_files()

    def test_a_plan_of_another_folder_changes_nothing_here(self, plan, tmp_path, monkeypatch):
        _, planner = plan
        forget_files()
        before = {run.key: run.digest for run in planner.runs()}
        forget_files()
        with monkeypatch.context() as there:
            there.chdir(tmp_path)
            shutil.copytree(TOOLBOX / 'configs', tmp_path / 'configs')
            schedule = tmp_path / 'configs/_base_/schedules/fashion_mnist_3e.py'
            schedule.write_text(schedule.read_text().replace('weight_decay=1e-4', 'weight_decay=2e-4'))
            other = {run.key: run.digest for run in small_study(tmp_path)[1].runs()}
        assert not {*before.values()} & {*other.values()}
        assert {run.key: run.digest for run in planner.runs()} == before

    def test_a_run_says_what_the_tools_are_told(self, plan):
        _, planner = plan
        runs = {run.key: run for run in planner.runs()}
        mgd = runs['cnn/mgd/seed2']
        assert f'{planner.offers["cnn"]["mgd"].place}.alpha_mgd=0.5' in mgd.placed
        assert mgd.digest == replace(mgd, placed=('model.distill_cfg.9.methods.0.alpha_mgd=0.5',)).digest
        assert mgd.shared == ('train_cfg.max_epochs=2',)
        assert mgd.losses['mgd']['alpha_mgd'] == 0.5
        assert runs['cnn/uskd/seed0'].config.endswith('res18-w4_sd_fmnist.py')
        assert runs['cnn/baseline/seed0'].config == runs['cnn/kd/seed0'].student
        assert runs['cnn/nkd-train/seed0'].options == ('model.teacher_mode=train',)
        assert runs['cnn/teacher/seed0'].weights.endswith('teacher.pth')


class TestSweep:
    def test_three_weights_of_one_seed_are_tested_on_held_out_images_too(self, plan):
        _, planner = plan
        sweep = [run for run in planner.runs() if run.held_out and run.methods == ('nkd',)]
        assert [run.row for run in sweep] == ['nkd', 'nkd-x0.333', 'nkd-x3']
        assert {run.seed for run in sweep} == {1}
        assert all(run.held_out == ('test_dataloader.dataset.split=train',) for run in sweep)
        assert [run.changed.get('nkd') for run in sweep] == [None, {'loss_weight': 1 / 3}, {'loss_weight': 3.0}]

    def test_a_method_is_swept_with_the_first_pair_that_offers_it(self, tmp_path):
        _, planner = small_study(tmp_path, FILE.replace(')\nablations', SECOND))
        swept = {run.key for run in planner.runs() if run.held_out}
        assert {'cnn/kd/seed1', 'cnn/kd-x3/seed1', 'vit/vitkd/seed1', 'vit/vitkd-x3/seed1'} <= swept
        assert {key.split('/')[1] for key in swept if key.startswith('vit/')} == {'vitkd', 'vitkd-x0.333', 'vitkd-x3'}

    def test_no_training_is_done_twice(self, plan):
        _, planner = plan
        found = {f'cnn/{name}': {1 / 3: 80.0, 1.0: 81.0, 3.0: 82.0} for name in planner.offers['cnn']}
        trainings = [
            (run.config, run.seed, run.methods, str(run.losses), run.options, run.stored) for run in planner.runs(found)
        ]
        assert len(set(trainings)) == len(trainings)

    def test_the_pairs_own_weight_is_what_is_multiplied(self, tmp_path):
        _, planner = small_study(tmp_path, FILE.replace('alpha_mgd=0.5', 'loss_weight=10.0'))
        weights = {run.factor: run.losses['mgd']['loss_weight'] for run in planner.runs() if run.row.startswith('mgd')}
        assert weights == {1 / 3: pytest.approx(10 / 3), 1: 10.0, 3: 30.0}

    def test_what_it_finds_is_run_with_the_other_seeds(self, plan):
        _, planner = plan
        found = {'cnn/nkd': {1 / 3: 80.0, 1.0: 81.0, 3.0: 82.0}, 'cnn/kd': {1 / 3: 80.0, 1.0: 81.0, 3.0: 80.5}}
        runs = {run.key: run for run in planner.runs(found)}
        before = {run.key for run in planner.runs()}
        assert set(runs) - before == {'cnn/nkd-x3/seed0', 'cnn/nkd-x3/seed2'}
        assert runs['cnn/nkd-x3/seed0'].losses == runs['cnn/nkd-x3/seed1'].losses
        incomplete = {'cnn/nkd': {1.0: 81.0, 3.0: 82.0}}
        assert {run.key for run in planner.runs(incomplete)} == before

    def test_of_equal_weights_the_published_one_wins(self):
        assert best_factor({1 / 3: 80.0, 1.0: 80.0, 3.0: 80.0}) == 1
        assert best_factor({1 / 3: 80.0, 1.0: 79.0, 3.0: 80.0}) == 1 / 3
        assert best_factor({1 / 3: 79.0, 1.0: 79.5, 3.0: 80.0}) == 3

    def test_it_is_read_from_the_records(self, plan):
        _, planner = plan
        records = [made_up(run) for run in planner.runs()]
        found = sweep_results(records)
        scheduled = {'cnn/reviewkd', 'cnn/rld', 'cnn/normdkd', 'cnn/luminet'}  # whose weight is no number
        assert set(found) == {f'cnn/{name}' for name in planner.offers['cnn']} - scheduled
        held_out = {r['key']: r['held_out_accuracy'] for r in records}
        assert found['cnn/kd'] == {
            1 / 3: held_out['cnn/kd-x0.333/seed1'],
            1.0: held_out['cnn/kd/seed1'],
            3.0: held_out['cnn/kd-x3/seed1'],
        }


WRONG = {
    'title = ': ("title = 'Small'\nsedes = [0]\n#", "unknown key 'sedes'; did you mean 'seeds'?"),
    "title = 'Small'\n": ('', "the file has no 'title'"),
    'seeds = [0, 1, 2]': ('seeds = [0, 1, 1]', 'has to stand there once'),
    "report = '../results.md'": ("report = ''", "report has to be a text, but is ''"),
    "against='nkd'": ("against='nkdd'", "has no row 'nkdd'"),
    "pair='cnn', against": ("pair='cn', against", "no pair 'cn'; did you mean 'cnn'?"),
    "methods=['kd', 'nkd']": ("methods=['kd', 'nkdd']", "row kd+nkd: unknown method 'nkdd'; did you mean '"),
    "methods=['nkd']": ("methods=['nkd', 'uskd']", 'are of different configs'),
    'settings=dict(mgd': ('settings=dict(mgdd', "settings of 'mgdd', which no distiller config offers"),
    "'train_cfg.max_epochs=2'": ("'train_cfg.max_epochs'", "'train_cfg.max_epochs' is not of the form KEY=VALUE"),
    'factors=[1 / 3, 1, 3]': ('factors=[1 / 3, 3]', 'positive numbers with 1 among them'),
    'sweep = dict(': ('sweep = 3\n_other = dict(', 'sweep has to be a dict, but is 3'),
    "title='Mode'": ('title=3', 'ablations.mode.title has to be a text, but is 3'),
    "options=['model.teacher_mode=train']": ("stored='yes'", "nkd-train.stored has to be True or False, but is 'yes'"),
    'sweep = ': (
        "shared_teacher = 'map'\nsweep = ",
        "shared_teacher has to be True, False or 'maps', but is 'map'",
    ),
    'seed=1': ('seed=7', 'sweep.seed is 7, but has to be one of seeds, [0, 1, 2]'),
    "'kd+nkd'": ("'../kd'", 'becomes a folder'),
    "'nkd-train'": ("'baseline'", "two rows have the name 'baseline'"),
    "student='configs/fashion_mnist/resnet18-w4_3e.py'": ("student='configs/nowhere.py'", 'config configs/nowhere.py'),
    "'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py'": (
        "'configs/fashion_mnist/resnet18-w4_3e.py'",
        'is no distiller’s',
    ),
}


@pytest.mark.parametrize('at', WRONG)
def test_what_cannot_be_is_refused_in_a_sentence(at, tmp_path):
    instead, message = WRONG[at]
    assert at in FILE
    path = write_study(tmp_path, FILE.replace(at, instead, 1))
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        Planner(read_study(path)).runs()
    assert message in str(refused.value)
    assert '\n' not in str(refused.value)


@pytest.mark.own_process  # mmengine leaves a file open when a config fails
@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_a_file_that_is_no_python(tmp_path):
    with pytest.raises(ValueError, match=r'cannot be read: NameError'):
        read_study(write_study(tmp_path, FILE.replace('pairs = dict(', 'pairs = undefined(')))


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match=r'studies/nowhere.py: no such file'):
        read_study('studies/nowhere.py')
