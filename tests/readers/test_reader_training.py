"""A training from shards or parquet files: killed and resumed to the last bit, and every command takes them."""

import signal

import pytest
from commands import DISTILLER, run
from containers import cut, fashion_folders, files_of, write_parquet, write_shards
from interruption import Run, assert_equal, assert_same_run, last

from mmcls_kd.files.paths import TOOLBOX

pytestmark = [
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
    pytest.mark.filterwarnings('ignore:.*instance named of'),
]
CONFIG = """
_base_ = '{base}'
methods = ['nkd', 'mgd']
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
model = dict(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))
load = dict(type='LoadImageFromFile', color_type='grayscale')
train_dataloader = dict(num_workers={workers}, batch_size={batch_size}, dataset=dict(
    _delete_=True, {data}, data_prefix='train', pipeline=[load, *_base_.train_dataloader.dataset.pipeline]))
val_dataloader = dict(num_workers=0, batch_size=25, dataset=dict(
    _delete_=True, {data}, data_prefix='val', pipeline=[load, dict(type='PackInputs')]))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3)
default_hooks = dict(checkpoint=dict(interval=3, by_epoch=False, max_keep_ckpts=2), logger=dict(interval=1))
randomness = dict(_delete_=True, seed=7)
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """The same images in folders, shards and parquet files: 128 of training, 50 of validation."""
    root = fashion_folders(tmp_path_factory.mktemp('fashion') / 'folders').parent
    for split in ('train', 'val'):
        files = files_of(root / 'folders' / split)
        write_shards(files, root / 'shards' / split, per_shard=29)
        names = [f'class{i}' for i in range(10)]
        for number, part in enumerate((files[:40], files[40:])):
            write_parquet(part, root / 'parquet' / split / f'{number}.parquet', names=names)
    return root


def write_config(path, root, kind, workers=0, processes=1):
    data = {
        'folders': f"type='CustomDataset', data_root='{root}/folders'",
        'shards': f"type='WebDataset', data_root='{root}/shards'",
        'parquet': f"type='HuggingFaceDataset', data_root='{root}/parquet', load_options=dict(cache_dir='{root}/cache')",
    }[kind]
    path.write_text(CONFIG.format(base=TOOLBOX / DISTILLER, data=data, workers=workers, batch_size=32 // processes))
    return path


@pytest.fixture(scope='module')
def undisturbed(root, tmp_path_factory):
    """The work directory of an undisturbed run from a kind of data, in some processes."""
    folder, done = tmp_path_factory.mktemp('undisturbed'), {}

    def get(kind, processes=1):
        if (kind, processes) not in done:
            config = write_config(folder / f'{kind}{processes}.py', root, kind, 0, processes)
            training = Run(config, folder / f'{kind}{processes}', processes=processes)
            assert training.wait() == [0] * processes, training.output()
            done[kind, processes] = folder / f'{kind}{processes}'
        return done[kind, processes]

    return get


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['shards', 'parquet'])
@pytest.mark.parametrize(('processes', 'workers', 'moments'), [(1, 2, ['[1][4/4]', '[3][1/4]']), (2, 2, ['[2][3/4]'])])
def test_killed_and_resumed(kind, processes, workers, moments, root, undisturbed, tmp_path):
    config = write_config(tmp_path / 'config.py', root, kind, workers, processes)
    for moment in moments:
        training = Run(config, tmp_path / 'run', '--resume', processes=processes)
        assert training.wait_for(moment), training.output()
        training.send(signal.SIGKILL)
        assert training.wait() == [-signal.SIGKILL] * processes
    training = Run(config, tmp_path / 'run', '--resume', processes=processes)
    assert training.wait() == [0] * processes, training.output()
    assert_same_run(tmp_path / 'run', undisturbed(kind, processes))


@pytest.mark.slow
def test_equal_to_a_training_from_folders(undisturbed):
    folders, shards, parquet = (last(undisturbed(kind))['state_dict'] for kind in ('folders', 'shards', 'parquet'))
    assert_equal(shards, parquet)
    assert_equal(shards, folders)


@pytest.mark.slow
def test_teacher_stores(root, tmp_path):
    """A store and a training from it see the same images and rows from any kind of data."""
    found = {}
    options = ('--cfg-options', 'methods=[nkd]')
    for kind in ('folders', 'shards', 'parquet'):
        config = write_config(tmp_path / f'{kind}.py', root, kind)
        folder, work_dir = tmp_path / f'{kind}_store', tmp_path / kind
        run('tools/store_teacher.py', config, '--epochs', '3', '--store', folder, '--work-dir', tmp_path / 'made', *options)
        training = Run(config, work_dir, *options, f'model.teacher_store={folder}')
        assert training.wait() == [0], training.output()
        found[kind] = last(work_dir)['state_dict']
    assert_equal(found['shards'], found['folders'])
    assert_equal(found['parquet'], found['folders'])
    write_shards(files_of(root / 'folders/train'), copied := tmp_path / 'changed/shards/train', per_shard=30)
    assert len(list(copied.iterdir())) == 5
    other = write_config(tmp_path / 'other.py', tmp_path / 'changed', 'shards')
    store = f'model.teacher_store={tmp_path}/shards_store'
    done = run('tools/train.py', other, '--no-validate', '--work-dir', tmp_path / 'x', *options, store, check=False)
    assert 'does not fit this run: data_list' in done.output.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['shards', 'parquet'])
def test_other_commands(kind, root, tmp_path):
    config = write_config(tmp_path / 'config.py', root, kind)
    done = run('tools/check_data.py', config)
    assert '128' in done.stdout
    assert 'all is well' in done.stdout
    run('tools/preflight.py', config, '--work-dir', tmp_path / 'preflight')


@pytest.mark.slow
def test_faults_end_a_training_before_it_starts(root, tmp_path):
    images = fashion_folders(tmp_path / 'folders', 128, 50)
    for split in ('train', 'val'):
        write_shards(files_of(images / split), tmp_path / 'shards' / split)
    config = write_config(tmp_path / 'config.py', tmp_path, 'shards')
    shard = tmp_path / 'shards/train/s-003.tar'
    content = shard.read_bytes()
    cut(shard)
    for tool in ('train', 'check_data'):
        done = run(f'tools/{tool}.py', config, check=False)
        assert f'{shard}: the shard ends early' in done.output.splitlines()[-1 if tool == 'train' else 1]
        assert done.returncode == 1
    shard.write_bytes(content)
    files = files_of(images / 'val')
    extra = images / 'val' / 'class55' / '0.png'
    extra.parent.mkdir()
    extra.write_bytes(files[0].read_bytes())
    write_shards(files_of(images / 'val'), tmp_path / 'shards/val')
    done = run('tools/train.py', config, check=False)
    assert 'class55_0.png' in done.output.splitlines()[-1]
    done = run('tools/check_data.py', config, check=False)
    assert f"{tmp_path}/shards/val: other classes than train: only here: 'class55'" in done.stdout
    assert 'class55_0.png)' in done.stdout
