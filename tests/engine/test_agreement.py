"""Several processes go on from one checkpoint and start from the same weights, or are refused; a folder has one training."""

import fcntl
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import DISTILLER, data_options, tool
from mmengine.config import Config
from networks import build, method
from processes import run_in_two
from torch.nn.parallel import DistributedDataParallel

from mmcls_kd.engine import setup
from mmcls_kd.engine.setup import decided_by_first, find_resume_point
from mmcls_kd.engine.termination import SameStartHook
from mmcls_kd.errors import TrainingError
from mmcls_kd.files.atomic import sha256
from mmcls_kd.files.locks import locked


def refusal(call, *arguments):
    """What a call is refused with; None if it is not."""
    try:
        call(*arguments)
    except (ValueError, TrainingError, OSError) as error:
        return str(error)
    return None


def resume(work_dir, **settings):
    """What a process finds to go on from in its work directory: refusal, file and seed."""
    cfg = Config(dict(work_dir=str(work_dir), resume=True, **settings))
    message = refusal(find_resume_point, cfg)
    return message, cfg.get('load_from'), (cfg.get('randomness') or {}).get('seed')


def save(path, epoch):
    path.parent.mkdir(exist_ok=True)
    torch.save(dict(optimizer={}, meta=dict(epoch=epoch, iter=epoch, seed=7)), path)


def work(rank, folder):
    """What each of two processes does, with a work directory of its own that the other one cannot read."""
    own, found = folder / str(rank), {}
    setup.sha256 = lambda path: sha256(path) if own in path.parents else 'out of reach'
    found['nobody has one'] = resume(own)
    if rank == 1:
        save(own / 'epoch_1.pth', 1)
    torch.distributed.barrier()
    found['the second has a stale one'] = resume(own)
    if rank == 0:
        save(own / 'epoch_2.pth', 2)
    torch.distributed.barrier()
    found['the first alone has it'] = resume(own)
    if rank == 1:
        save(own / 'epoch_2.pth', 3)
    found['the second has another of that name'] = resume(own)
    if rank == 1:
        shutil.copy(folder / '0/epoch_2.pth', own)
    found['both have it'] = resume(own)
    found['a missing file'] = resume(own, load_from='nowhere.pth')
    found['what the first decides'] = decided_by_first(lambda: f'by {rank}')
    found |= starts(rank)
    torch.save(found, folder / f'{rank}.pth')


def starts(rank):
    """How a start is refused where the second process has something else."""
    torch.manual_seed(0)
    distiller = build(method('KDLoss'))
    loop = SimpleNamespace(seed=7)
    runner = SimpleNamespace(train_dataloader=[0] * 4, train_loop=loop, epoch=1, iter=4)
    runner.model = DistributedDataParallel(distiller, broadcast_buffers=False)
    said = {}

    def start(what):
        said[what] = refusal(SameStartHook().before_train, runner)

    start('the same')
    with torch.no_grad():
        for what, tensor in (('teacher', distiller.teacher.head.fc.bias), ('weights', distiller.student.head.fc.bias)):
            tensor[0] += rank
            start(what)
            tensor[0] -= rank
    runner.iter += rank
    start('iteration')
    runner.iter, runner.train_dataloader = 4, [0] * (4 + rank)
    start('batches')
    return said


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    run_in_two(work, folder)
    return folder, [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


class TestTheFirstDecides:
    def test_what_is_resumed(self, found):
        folder, both = found
        for rank, one in enumerate(both):
            assert one['nobody has one'] == one['the second has a stale one'] == (None, None, None)
            assert one['both have it'] == (None, str(folder / str(rank) / 'epoch_2.pth'), 7)
            assert one['what the first decides'] == 'by 0'

    @pytest.mark.parametrize('case', ['the first alone has it', 'the second has another of that name'])
    def test_a_file_that_not_all_have_is_refused_in_all(self, found, case):
        folder, both = found
        first, second = (one[case][0] for one in both)
        assert first == second
        assert f'the first process resumes from {folder / "0/epoch_2.pth"}, and 1 others (' in first
        assert 'or copy the file into the work directory of each' in first

    def test_its_error_is_everybody_s(self, found):
        _, both = found
        assert {one['a missing file'][0] for one in both} == {both[0]['a missing file'][0]}
        assert 'nowhere.pth: no such file' in both[0]['a missing file'][0]


@pytest.mark.parametrize(
    ('what', 'said'),
    [
        ('teacher', 'the teacher (teacher_pretrained) of process 1'),
        ('weights', 'the weights (load_from, student_pretrained) of process 1'),
        ('iteration', 'the epoch and iteration of process 1'),
        ('batches', 'the number of batches in an epoch of process 1'),
    ],
)
def test_a_start_from_something_else_is_refused_in_all(found, what, said):
    _, both = found
    for one in both:
        assert one['the same'] is None
        assert one[what].startswith(said)


class TestOneInAFolder:
    @pytest.mark.parametrize(
        ('name', 'arguments', 'said'),
        [
            ('train', [], 'another training is running in this folder; wait for its end, or give this one'),
            ('store_teacher', ['--epochs', '1', '--store'], 'another program is storing into this folder; wait'),
        ],
    )
    def test_a_second_one_is_refused(self, name, arguments, said, data, tmp_path, monkeypatch):
        words = [*arguments, str(tmp_path)] if arguments else []
        options = ['--work-dir', str(tmp_path), *words, '--methods', 'kd', '--cfg-options', *data_options(data)]
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', DISTILLER, *options])
        with locked(tmp_path, 'busy'), pytest.raises(SystemExit) as refused:
            tool(name)()
        assert refused.value.code.startswith(f'{name}.py: error: {tmp_path}: {said}')

    @pytest.mark.parametrize('call', ['open', 'flock'])
    def test_a_folder_that_its_holder_removes_is_made_again(self, call, tmp_path, monkeypatch):
        """The removal falls between two of the steps that take the lock."""
        folder, before = tmp_path / 'folder', []

        def removing(function):
            def perform(*given):
                if not before:
                    before.append(shutil.rmtree(folder))
                return function(*given)

            return perform

        place = (Path, 'open') if call == 'open' else (fcntl, 'flock')
        with monkeypatch.context() as patched:
            patched.setattr(*place, removing(getattr(*place)))
            with locked(folder, 'busy'), pytest.raises(ValueError, match='busy'), locked(folder, 'busy'):
                pass
        assert before

    def test_one_that_cannot_be_written_is_named(self, tmp_path, monkeypatch):
        (tmp_path / 'file').touch()
        with pytest.raises(ValueError, match=r'/file cannot be written \(File exists\): name another folder'):
            locked(tmp_path / 'file', 'busy').__enter__()
        monkeypatch.setattr(Path, 'open', lambda path, *_: (_ for _ in ()).throw(PermissionError(13, 'No', str(path))))
        with pytest.raises(ValueError, match=rf'^{tmp_path} cannot be written \(No\)'):
            locked(tmp_path, 'busy').__enter__()

    def test_a_child_that_lives_on_does_not_hold_the_folder(self, tmp_path):
        (ended, end), (began, begin) = os.pipe(), os.pipe()
        with locked(tmp_path, 'busy'):
            child = os.fork()
            if child == 0:
                os.close(end)
                os.write(begin, b'!')
                os.read(ended, 1)
                os._exit(0)
            os.read(began, 1)
            with pytest.raises(ValueError, match='busy'), locked(tmp_path, 'busy'):
                pass
        with locked(tmp_path, 'busy'):
            pass
        for pipe in (end, ended, began, begin):
            os.close(pipe)
        os.waitpid(child, 0)
