"""The benchmark of training steps: what it measures, and what it makes of the times."""

import importlib.util
import json

import folders
import numpy as np
import pytest
import torch
from commands import DISTILLER, STUDENT, TOOLBOX, run

from benchmark.step import KINDS, Bench, Request, measure_memory, measure_steps, profile, ratios, show_steps
from benchmark.timing import Timing
from mmcls_kd.command import bench as bench_command
from mmcls_kd.command.arguments import training_parser
from mmcls_kd.configs.reading import read_config
from mmcls_kd.engine.config import training_config
from mmcls_kd.files import paths
from mmcls_kd.teachers.fast import FastNetwork
from mmcls_kd.teachers.store import Shard, is_whole

with_timm = importlib.util.find_spec('timm') is not None
pytestmark = pytest.mark.own_process
SELF = 'configs/distillers/cifar100/res18_sd_cifar.py'
each_setting = pytest.mark.parametrize('setting', ['plain', 'channels_last', 'amp,channels_last,bf16'])


@pytest.fixture(scope='module')
def bench():
    cfg = training_config(training_parser(None).parse_args([str(TOOLBOX / DISTILLER)]))
    student = read_config(str(TOOLBOX / STUDENT)).model
    student.backbone.update(base_channels=16, stem_channels=16)  # docs/performance.md says why not fewer, channels-last
    student.head.in_channels = 128
    cfg.model.student_cfg = student
    with Bench(cfg, image_size=28) as bench:
        yield bench


class TestRequests:
    def test_all_kinds_are_measured_in_each_setting(self, bench):
        chosen = bench.requests([4], ['plain', 'channels_last'], [''], timm=True)
        assert {r.kind for r in chosen} == set(KINDS)
        assert [r.setting for r in chosen if r.kind == 'stand-in'] == ['plain']
        assert [r.setting for r in chosen if r.kind == 'distiller'] == ['plain', 'channels_last']
        assert len({r.name for r in chosen}) == len(chosen)

    def test_where_features_are_needed_there_is_no_stand_in_and_no_store(self, bench):
        kinds = {(r.kind, r.methods) for r in bench.requests([4], ['plain'], ['nkd', 'mgd,nkd'], timm=False)}
        assert {('stand-in', 'nkd'), ('stored teacher', 'nkd'), ('distiller', 'mgd,nkd')} <= kinds
        assert not {('stand-in', 'mgd,nkd'), ('stored teacher', 'mgd,nkd')} & kinds

    def test_without_a_teacher_student_and_distiller_are_left(self):
        cfg = training_config(training_parser(None).parse_args([str(TOOLBOX / SELF)]))
        with Bench(cfg, image_size=32) as bench:
            chosen = bench.requests([2], ['plain'], ['tfnkd'], timm=True)
            assert [r.kind for r in chosen] == ['student alone', 'distiller']
            bench.work(chosen[1])()

    def test_a_plain_students_config_is_refused(self):
        cfg = training_config(training_parser(None).parse_args([str(TOOLBOX / STUDENT)]))
        with pytest.raises(ValueError, match='trains no distiller; its steps are those of mmpretrain'):
            Bench(cfg, image_size=28)

    def test_an_unknown_setting_or_method_is_refused(self, bench):
        with pytest.raises(ValueError, match="'fast' is none of plain, amp, channels_last, bf16, fp16, compile"):
            bench.requests([4], ['amp,fast'], [''], timm=False)
        with pytest.raises(ValueError, match='one precision, bf16 or fp16'):
            bench.requests([4], ['bf16,fp16'], [''], timm=False)
        with pytest.raises(ValueError, match="unknown method 'nkdd'"):
            bench.requests([4], ['plain'], ['nkdd'], timm=False)


def trained_tensors(work):
    """The parameters that a step's closure holds."""
    held = [cell.cell_contents for cell in work.__closure__]
    return [p for part in held if isinstance(part, torch.nn.Module) for p in part.parameters()]


@each_setting
@pytest.mark.parametrize('kind', ['student alone', 'distiller', 'stored teacher'])
def test_a_step_trains(kind, setting, bench):
    work = bench.work(Request(kind, 4, setting))
    weights = trained_tensors(work)
    before = [w.detach().clone() for w in weights]
    work()
    assert sum(not torch.equal(w, b) for w, b in zip(weights, before, strict=True)) > 10


@each_setting
class TestOtherKinds:
    def made(self, bench, monkeypatch, request):
        """A kind of work, and the networks that were made for it."""
        made, make = [], bench._network
        monkeypatch.setattr(bench, '_network', lambda *args: made.append(make(*args)) or made[-1])
        return bench.work(request), made

    def test_the_teachers_forward_is_in_eval_mode(self, setting, bench, monkeypatch):
        work, (teacher,) = self.made(bench, monkeypatch, Request('teacher forward', 4, setting))
        seen = []
        teacher.head.register_forward_hook(lambda module, _, output: seen.append((module.training, len(output))))
        work()
        assert seen == [(False, 4)]

    def test_the_fast_teacher_is_the_distillers(self, setting, bench, monkeypatch):
        seen, call = [], FastNetwork.__call__
        monkeypatch.setattr(FastNetwork, '__call__', lambda self, *args: seen.append(call(self, *args)) or seen[-1])
        logit = bench.work(Request('fast teacher', 4, setting))()
        assert logit is seen[0]['logit']
        assert logit.shape == (4, 10)

    def test_storing_writes_a_file_that_is_whole(self, setting, bench, tmp_path, monkeypatch):
        monkeypatch.setattr(bench, '_folder', lambda: tmp_path)
        bench.work(Request('storing', 4, setting))()
        assert is_whole(tmp_path, Shard(0, 0, 0))
        assert len(np.load(tmp_path / Shard(0, 0, 0).path)) == 4

    @pytest.mark.skipif(not with_timm, reason='timm is not installed')
    def test_timms_task_trains_its_student_alone(self, setting, bench, monkeypatch):
        work, (student, teacher) = self.made(bench, monkeypatch, Request("timm's task", 4, setting))
        before = [[p.detach().clone() for p in network.parameters()] for network in (student, teacher)]
        work()
        changed = [
            sum(not torch.equal(p, b) for p, b in zip(network.parameters(), copies, strict=True))
            for network, copies in zip((student, teacher), before, strict=True)
        ]
        assert changed[0] > 10
        assert changed[1] == 0


def test_the_stand_ins_teacher_is_in_train_mode_and_its_student_trains(bench, monkeypatch):
    made, make = [], bench._network

    def network(*args):
        made.append(make(*args))
        return made[-1]

    monkeypatch.setattr(bench, '_network', network)
    work = bench.work(Request('stand-in', 4))
    student, teacher = made
    before = [p.detach().clone() for p in (*student.parameters(), *teacher.parameters())]
    work()
    changed = [not torch.equal(p, b) for p, b in zip((*student.parameters(), *teacher.parameters()), before, strict=True)]
    assert teacher.training
    assert any(changed[: len(list(student.parameters()))])
    assert not any(changed[len(list(student.parameters())) :])


def test_ratios_compare_like_with_like():
    def timings(*pairs):
        return {Request(kind, 4, setting): Timing((seconds,)) for kind, setting, seconds in pairs}

    found = dict(
        ratios(
            timings(
                ('stand-in', 'plain', 4.0),
                ('student alone', 'plain', 1.0),
                ('teacher forward', 'plain', 1.0),
                ('distiller', 'plain', 3.0),
                ('student alone', 'amp', 0.5),
                ('teacher forward', 'amp', 0.3),
                ('fast teacher', 'amp', 0.2),
                ('storing', 'amp', 0.25),
                ('distiller', 'amp', 1.0),
                ('stored teacher', 'amp', 0.6),
                ("timm's task", 'plain', 5.0),
                ("timm's task", 'amp', 2.0),
            )
        )
    )
    assert found == {
        'distiller, batch 4, plain / (student alone + teacher forward)': 1.5,
        'distiller, batch 4, plain / stand-in': 0.75,
        "distiller, batch 4, plain / timm's best": 1.5,
        'storing, batch 4, amp: speed / fast teacher': 0.8,
        'distiller, batch 4, amp / (student alone + teacher forward)': 1.25,
        'distiller, batch 4, amp / stand-in': 0.25,
        "distiller, batch 4, amp / timm's best": 0.5,
        'stored teacher, batch 4, amp / student alone': 1.2,
    }


def test_times_are_measured_and_shown(bench, capsys):
    chosen = [Request('student alone', 2), Request('distiller', 2)]
    timings = measure_steps(bench, chosen, rounds=2)
    show_steps(timings)
    shown = capsys.readouterr().out
    assert all(len(timings[r].seconds) == 2 and timings[r].median > 0 for r in chosen)
    assert all(r.name in shown for r in chosen)


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(bench):
    kept = bytearray(2**30)  # would count if the measured process inherited this one's
    peaks = measure_memory(bench, [Request('student alone', 2), Request('student alone', 512)])
    del kept
    small, large = peaks.values()
    assert 100 * 2**20 < small < 2**30
    assert large - small > 20 * 2**20


def test_a_profile_names_operators_and_adds_up(bench):
    shares = profile(bench.work(Request('distiller', 2)), steps=1, top=3)
    assert len(shares) == 4
    assert shares[-1][0] == 'all others'
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert any(name.startswith('aten::') for name, _ in shares)


@pytest.mark.slow
@pytest.mark.parametrize('part', ['step', 'losses', 'data', 'store'])
def test_the_program_measures_and_writes(part, data, tmp_path):
    words = dict(
        step=[DISTILLER, '--image-size', 28, '--batch-sizes', 2, '--settings', 'plain', '--rounds', 1, '--no-memory'],
        losses=['--batch-size', 4, '--classes', 10, '--rounds', 1],
        data=[DISTILLER, '--workers', 0, 1, '--rounds', 1, '--cfg-options', f'train_dataloader.dataset.data_root={data}'],
        store=[tmp_path / 'logits.npz'],
    )[part]
    if part == 'store':
        given = dict(logit_s=torch.randn(4, 12), logit_t=torch.randn(4, 12), gt_label=torch.arange(4))
        np.savez(tmp_path / 'logits.npz', **{name: tensor.numpy() for name, tensor in given.items()})
    done = run('tools/benchmark.py', part, *words, '--json', tmp_path / 'out.json')
    written = json.loads((tmp_path / 'out.json').read_text())
    assert written['machine']['torch'] == torch.__version__
    assert written['results']
    assert written['command'][0] == part
    assert '│' in done.stdout


def test_data_files_are_checked_before_they_are_measured(tmp_path):
    root = folders.fashion_mnist(tmp_path / 'data', train=64, test=10)
    file = root / 'train-labels-idx1-ubyte'
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SystemExit, match='71 bytes long, and should be 72; move it away'):
        bench_command.main(['data', DISTILLER, '--cfg-options', f'train_dataloader.dataset.data_root={root}'])


def test_an_installed_package_has_no_benchmark_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, 'TOOLBOX', tmp_path)
    with pytest.raises(SystemExit, match='error: the benchmark needs a clone of the toolbox'):
        bench_command.main(['losses'])
