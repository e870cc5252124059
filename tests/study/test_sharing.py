"""Runs of the same views share a stored teacher: which ones, one after the other, and until the last of them."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Thread

import pytest
from commands import tool
from mmengine.config import Config
from studies_kit import DOCUMENT, FILE, small_study, write_study

from mmcls_kd.files.locks import locked
from mmcls_kd.recipe.methods import parse_method
from mmcls_kd.study import contents, execution, sharing
from mmcls_kd.study.records import read_records
from mmcls_kd.study.report import blocks
from mmcls_kd.study.sharing import STORES, remove_stores, reserve, shared_store
from mmcls_kd.study.steps import Steps, steps_of, store_of
from mmcls_kd.teachers.store import Manifest

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
METHODS = ['kd', 'nkd', 'dkd', 'mgd', 'rkd', 'wkd_logit', 'uskd']
SHARED = FILE.replace("rows={'kd+nkd'", f"methods={METHODS}, rows={{'kd+nkd'", 1) + '\nshared_teacher = True\n'
DISTILLER = 'configs/distillers/fashion_mnist/res18-w16_distill_res18-w4_fmnist.py'


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """The runs of a study with shared teachers, by key, and its study."""
    study, planner = small_study(tmp_path_factory.mktemp('shared'), SHARED)
    return study, {run.key: run for run in planner.runs()}


class TestPlan:
    def test_methods_of_logits_vectors_and_weights_share_one_a_seed(self, shared):
        _, runs = shared
        weights = [f'-x{x}' for x in ('0.333', '3')]
        sharing = ('kd', 'nkd', 'dkd', 'rkd', 'wkd_logit')
        of_store = {'kd+nkd', *(f'{name}{weight}' for name in sharing for weight in ('', *weights))}
        for seed in range(3):
            stores = {}
            for run in runs.values():
                if run.seed == seed and run.shared_store:
                    assert run.shared_store.startswith(f'seed{seed}-')
                    stores.setdefault(run.shared_store, set()).add(run.row)
            assert [*stores.values()] == [{row for row in of_store if seed == 1 or '-x' not in row}]
            assert {run.stored_features for run in runs.values() if run.seed == seed and run.shared_store} == {('vector',)}

    def test_rows_on_the_same_maps_share_one(self, shared, tmp_path):
        text = SHARED.replace('shared_teacher = True', "shared_teacher = 'maps'").replace(
            "'mgd'", "'mgd', 'srrl', 'sp', 'at', 'reviewkd'"
        )
        text = text.replace("rows={'kd+nkd'", "rows={'fitnet-stored': dict(methods=['fitnet'], stored=True), 'kd+nkd'")
        runs = {run.key: run for run in small_study(tmp_path, text)[1].runs()}
        assert runs['cnn/kd/seed0'].digest == shared[1]['cnn/kd/seed0'].digest
        stores = {run.shared_store: run.stored_features for run in runs.values() if run.seed == 0 and not run.stored}
        assert sorted(stores.values()) == [(), ('feat',), ('stages', 'vector'), ('vector',)]
        sharing = {name: [] for name in stores}
        for run in runs.values():
            if run.seed == 0 and not run.stored:
                sharing[run.shared_store].append(run.row)
        assert [sharing[name] for name in stores if {'feat', 'stages'} & {*stores[name]}] == [
            ['mgd', 'sp'],
            ['at', 'reviewkd'],
        ]
        assert not runs['cnn/srrl/seed0'].shared_store  # it needs the teacher's head
        tool_name, words = next(steps_of(runs['cnn/at/seed0'], tmp_path / 'cnn/at/seed0'))
        assert tool_name == 'tools/store_teacher.py'
        assert words[words.index('--with') + 1 :][:3] == ['stages', 'vector', '--cfg-options']
        own = runs['cnn/fitnet-stored/seed0']  # has a store of its own, with its maps
        assert own.digest == replace(own, stored_features=()).digest
        _, words = next(steps_of(own, tmp_path / 'cnn/fitnet-stored/seed0'))
        assert words[words.index('--with') + 1 :][:2] == ['stages', '--cfg-options']

    def test_the_digest_of_a_row_that_shares_none_stays(self, shared):
        for run in shared[1].values():
            assert (run.digest == replace(run, shared_store='').digest) == (not run.shared_store)

    def test_the_store_is_made_where_there_is_none(self, shared, tmp_path):
        run = shared[1]['cnn/kd/seed0']
        folder = tmp_path / 'cnn/kd/seed0'
        folder.mkdir(parents=True)
        (folder / 'last_checkpoint').write_text('epoch_2.pth')
        store = tmp_path / STORES / run.store_name
        assert store_of(run, folder) == store
        tools = dict(steps_of(run, folder))
        assert list(tools) == ['tools/store_teacher.py', 'tools/train.py', 'pth_transfer.py', 'tools/test.py']
        words = tools['tools/store_teacher.py']
        assert words[words.index('--store') + 1] == str(store)
        assert words[words.index('--epochs') + 1] == '2'
        assert f'model.teacher_store={store}' in tools['tools/train.py']
        write_store(store, epochs=1)  # of a run that was killed
        assert 'tools/store_teacher.py' in dict(steps_of(run, folder))
        write_store(store, epochs=2)
        tools = dict(steps_of(run, folder))
        assert 'tools/store_teacher.py' not in tools
        assert f'model.teacher_store={store}' in tools['tools/train.py']


def write_store(folder, epochs):
    """Write the manifest of a store, without records."""
    Manifest({}, {}, 10, 10, 1, 64, 64, epochs=epochs).write(folder)


class TestNames:
    """Equal names are for equal views and teachers."""

    def test_it_follows_the_file_of_the_working_directory(self, tmp_path, monkeypatch):
        name, file = self.name(), tmp_path / DISTILLER
        monkeypatch.chdir(tmp_path)
        assert self.name() == name  # that of the toolbox, too
        file.parent.mkdir(parents=True)
        config = Config(contents.known_config(DISTILLER)._cfg_dict.to_dict())
        epochs = config.train_cfg.max_epochs
        found = []
        for more in (1, 2):
            config.train_cfg.max_epochs = epochs + more
            file.write_text(config.pretty_text)
            contents.forget_files()
            assert contents.known_config(DISTILLER, ('train_cfg.val_interval=7',)).train_cfg.max_epochs == epochs + more
            found.append(self.name())
        assert len({name, *found}) == 3
        monkeypatch.undo()
        assert self.name() == name

    def name(self, *options, seed=0, content='', **entry):
        return shared_store(DISTILLER, options, seed, [parse_method('loss_kd', dict(type='KDLoss') | entry)], content)[0]

    def test_it_follows_views_and_teacher_alone(self):
        name = self.name()
        assert name == self.name('optim_wrapper.optimizer.lr=0.7') == self.name('model.student_pretrained=a.pth')
        assert name == self.name('train_dataloader.batch_size=7') == self.name(type='DKDLoss')
        others = [
            self.name(seed=1),
            self.name(content='other weights'),
            self.name('train_cfg.max_epochs=7'),
            self.name('train_dataloader.dataset.indices=7'),
            self.name('model.teacher_precision=bf16'),
            self.name('model.teacher_classes=[1,0,2,3,4,5,6,7,8,9]'),
            self.name('optim_wrapper.type=AmpOptimWrapper'),
            self.name('optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.dtype=float16'),
        ]
        assert len({name, *others}) == 9
        assert all(others)

    @pytest.mark.parametrize(
        'change',
        [
            {'model.teacher_mode': 'train'},
            {'model.teacher_store': 'there'},
            {'model.train_cfg': dict(augments=dict(type='Mixup', alpha=0.8))},
            {'custom_hooks': [dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=1)])]},
        ],
    )
    def test_a_teacher_of_more_than_the_views_is_not_shared(self, change):
        changed = Config(contents.known_config(DISTILLER)._cfg_dict.to_dict())
        assert sharing._views(changed)
        changed.merge_from_dict(change)
        assert sharing._views.__wrapped__(changed) == ''

    def test_facts_that_are_given_are_not_needed(self):
        needed = sharing.teacher_inputs(parse_method('loss_w', dict(type='WKDLogitLoss')))
        assert 'teacher_weight' in needed
        assert sharing.teacher_inputs(parse_method('loss_w', dict(type='WKDLogitLoss', cost='cost.pth'))) == {'logit_t'}

    def test_methods_that_need_more_share_none(self):
        assert self.name(type='MGDLoss') == self.name(type='SRRLLoss') == ''
        assert self.name(type='TFNKDLoss') == ''  # without a teacher


def test_one_at_a_time_makes_a_store(tmp_path):
    store = tmp_path / STORES / 'seed0-a'
    with ExitStack() as first, ExitStack() as second:
        assert reserve(store, 2, first)
        assert not reserve(store, 2, second)
        write_store(store, epochs=1)
        assert not reserve(store, 2, second)
        first.close()
        assert reserve(store, 2, second)
        write_store(store, epochs=2)
        assert reserve(store, 2, first)  # needs to hold nothing
        remove_stores(tmp_path, ())
        assert store.exists()  # while another run stores
        second.close()
        remove_stores(tmp_path, {'seed0-a'})
        assert store.exists()
        remove_stores(tmp_path, ())
    assert not any((tmp_path / STORES).iterdir())


#: A stand-in for a tool, as in test_execution.py; it stores a teacher of two epochs, but fails once where a file says so.
STEP = """
folder=$1 name=$(basename "$0" .sh)
case $name in
store_teacher)
    if grep -qsF "$(basename "$2")" fails; then rm fails; echo 'store_teacher.py: error: no space'; exit 1; fi
    sleep 0.1
    mkdir -p "$2"; cp manifest.json "$2"; echo "$2" >> stored;;
train)
    [ -z "$2" ] || [ -e "$2/manifest.json" ] || exit 1
    touch "$folder/e.pth"; printf '%s' "$folder/e.pth" > "$folder/last_checkpoint";;
*) printf '{"accuracy/top1": 80.0}' > "$folder/$name.json";;
esac
"""


def stand_ins(run, folder, data_root=None, devices=1):
    store = store_of(run, folder)
    if store is not None and not sharing.is_stored(store, 2):
        yield str(Path('store_teacher.sh').resolve()), [str(folder), str(store)]
    for name in ('train', 'test', *(['held_out'] if run.held_out else [])):
        yield str(Path(f'{name}.sh').resolve()), [str(folder), str(store or '')]


@pytest.fixture
def folder(tmp_path, monkeypatch, shared):
    """A folder with a study whose tools are stand-ins; the working directory."""
    write_study(tmp_path, SHARED)
    (tmp_path / 'results.md').write_text(DOCUMENT)
    write_store(tmp_path, epochs=2)
    for name in ('store_teacher', 'train', 'test', 'held_out'):
        (tmp_path / f'{name}.sh').write_text(STEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execution, 'steps_of', stand_ins)
    monkeypatch.setattr(execution, 'surroundings', dict)
    monkeypatch.setattr(contents, 'read_config', known_config)
    return tmp_path


#: Reading a config takes half a second, and each call of the tool reads several.
known_config = cache(contents.read_config)


def study(*arguments, only=('cnn/*/seed0', 'cnn/*/seed2')):
    """Call the tool; returns its exit code or message, 0 where all went well."""
    sys.argv = ['study.py', 'studies/small.py', *arguments, *(['--only', *only] if only else [])]
    try:
        return tool('study')() or 0
    except SystemExit as ended:
        return ended.code


def stores():
    return {path.name for path in Path('work_dirs/studies/small', STORES).glob('seed*')}


def results():
    return read_records(Path('studies/results/small.jsonl'))


class TestExecution:
    """The stores of a study, from the first run that makes one to the last that reads it."""

    def test_each_is_stored_once_and_removed_after_its_last_run(self, folder, capsys):
        assert study('--jobs', '3', only=('cnn/*/seed0', 'cnn/kd/seed2')) == 0
        made = Path('stored').read_text().splitlines()
        assert len(made) == len(set(made)) == 2
        assert capsys.readouterr().out.count('has stored its teacher for all runs') == 2
        assert {name[:5] for name in stores()} == {'seed2'}  # whose other runs are to come
        assert study('--jobs', '3') == 0
        assert len(Path('stored').read_text().splitlines()) == 2
        assert stores() == set()
        assert study('--check', 'cnn/kd/seed0', only=()) == 0
        assert not list(Path('work_dirs').rglob(f'{STORES}/seed*'))

    @pytest.mark.parametrize('jobs', ['1', '3'])
    def test_a_failure_to_store_is_that_of_all_its_runs_and_told_once(self, folder, shared, capsys, jobs):
        Path('fails').write_text(shared[1]['cnn/kd/seed0'].store_name)
        assert 'study.py: 6 runs failed' in study('--jobs', jobs, only=('cnn/*kd*/seed0', 'cnn/kd/seed2'))
        failed, log = capsys.readouterr().err.strip().splitlines()
        keys, reason = failed.split(' failed: ')
        assert sorted(keys.split(', ')) == [f'cnn/{row}/seed0' for row in ('dkd', 'kd+nkd', 'kd', 'nkd', 'rkd', 'wkd_logit')]
        assert reason == 'store_teacher.py: error: no space'
        assert reason in Path(log.strip()).read_text()
        assert len(Path('stored').read_text().splitlines()) == 1  # of the other seed
        assert study(only=('cnn/*kd*/seed0',)) == 0
        assert len(Path('stored').read_text().splitlines()) == 2
        assert [path.name for path in Path('work_dirs/studies/small', STORES).iterdir() if 'seed0' in path.name] == []

    def test_a_job_waits_for_the_store_that_another_makes(self, folder, shared):
        place = Path('work_dirs/studies/small', STORES)
        store = place / shared[1]['cnn/kd/seed1'].store_name
        codes = []
        with locked(store.with_name(f'.{store.name}'), ''):
            job = Thread(target=lambda: codes.append(perform(shared[1]['cnn/kd/seed1'])))
            job.start()
            job.join(0.5)
            assert job.is_alive()
            write_store(store, epochs=2)
        job.join()
        assert codes == ['cnn/kd/seed1']
        assert not Path('stored').exists()

    def test_the_report_names_the_rows(self, folder, shared):
        assert study(only=('cnn/*/seed0',)) == 0
        said = 'its outputs are rounded to float16: `kd`, `dkd`, `kd+nkd`, `nkd`, `rkd`, `wkd_logit`.'
        assert said in blocks(shared[0], results())['cnn']


def perform(run):
    """Execute a run as a job does; returns its key."""
    place = execution.Place(Path('work_dirs/studies/small'))
    steps = Steps(1)
    with ExitStack() as held:
        run, *_ = execution._perform(execution.Queue([run], place, steps).take(held), place, steps, held)
    return run.key


def test_a_wait_ends_with_the_study(tmp_path, shared):
    steps, place = Steps(1), execution.Place(tmp_path)
    run = shared[1]['cnn/kd/seed1']
    store = tmp_path / STORES / run.store_name
    with locked(store.with_name(f'.{store.name}'), ''), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(execution.Queue([run], place, steps).take, ExitStack())
        steps.end()
        with pytest.raises(InterruptedError):
            waiting.result()
