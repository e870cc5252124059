"""Train, transfer, test: the commands of README on a small data set."""

import os
import shutil

import pytest
import torch
from commands import DISTILLER, STUDENT, accuracy, data_options, metrics, run
from mmengine.config import Config
from mmpretrain.registry import MODELS
from processes import free_port

from mmcls_kd.analysis.runs import read_run
from mmcls_kd.command.arguments import training_parser
from mmcls_kd.engine.config import training_config
from mmcls_kd.files.checkpoint import read_checkpoint
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.sources import network_cfg


class TestTraining:
    def test_the_log_names_each_loss_speed_and_time_left(self, trained):
        lines = [line for line in trained.output.splitlines() if 'Epoch(train)' in line]
        assert len(lines) == 4
        for word in ('ori_loss:', 'loss_kd:', 'loss_srrl:', 'eta:', ' time:'):
            assert all(word in line for line in lines)
        assert 'loss_nkd' not in trained.output.split('Epoch(train)', 1)[1]  # the file's own default is replaced

    def test_the_checkpoint_holds_student_and_losses_and_no_teacher(self, trained):
        checkpoint = read_checkpoint(trained.checkpoint)
        for part in ('state_dict', 'ema_state_dict'):
            names = [n.removeprefix('module.') for n in checkpoint[part]]
            assert {n.split('.')[0] for n in names} <= {'student', 'distill_losses', 'steps'}
        shapes = [tuple(s['momentum_buffer'].shape) for s in checkpoint['optimizer']['state'].values()]
        assert (10, 128) not in shapes  # the teacher's head

    @pytest.mark.slow
    def test_the_dumped_config_runs_alone_from_another_directory(self, trained, tmp_path):
        dumped = tmp_path / 'elsewhere' / 'config.py'
        dumped.parent.mkdir()
        shutil.copy(trained.work_dir / 'with_ema.py', dumped)
        cfg = Config.fromfile(dumped)
        assert [m['name'] for g in cfg.model.distill_cfg for m in g['methods'] if m['use_this']] == ['loss_srrl', 'loss_kd']
        assert isinstance(cfg.model.student_cfg, dict)
        assert isinstance(cfg.model.teacher_cfg, dict)
        done = run(TOOLBOX / 'tools' / 'train.py', 'config.py', '--work-dir', 'again', cwd=dumped.parent)
        assert accuracy(done.output) == accuracy(trained.output)  # same seed, same machine: the same run

    @pytest.mark.slow
    def test_a_run_repeats_itself_and_a_seed_changes_it(self, data, tmp_path):
        options = ['--cfg-options', *data_options(data)]
        weights = []
        for name, more in (('a', []), ('b', []), ('c', ['randomness.seed=1'])):
            run('tools/train.py', DISTILLER, '--work-dir', tmp_path / name, *options, *more)
            weights.append(read_checkpoint(tmp_path / name / 'epoch_1.pth')['state_dict']['student.head.fc.weight'])
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    @pytest.mark.slow
    def test_resume_amp_and_the_other_options(self, data, tmp_path):
        options = ['--no-validate', '--auto-scale-lr', '--no-pin-memory', '--no-persistent-workers', '--amp']
        command = ['tools/train.py', DISTILLER, '--work-dir', tmp_path, *options, '--cfg-options', *data_options(data)]
        first = run(*command)
        assert 'Epoch(val)' not in first.output
        second = run(*command, 'train_cfg.max_epochs=2', '--resume')
        assert 'Epoch(train) [2]' in second.output
        assert 'Epoch(train) [1]' not in second.output.split('resumed epoch: 1')[1]

    @pytest.mark.slow
    def test_two_processes_without_cuda(self, data, tmp_path):
        env = {**os.environ, 'PORT': str(free_port()), 'CUDA_VISIBLE_DEVICES': ''}
        options = ['--cfg-options', *data_options(data)]
        done = run('tools/dist_train.sh', DISTILLER, 2, '--work-dir', tmp_path, *options, env=env)
        assert 'Epoch(train) [1][4/4]' in done.output  # 256 images in batches of 32 on each of two
        env['PORT'] = str(free_port())
        tested = run(
            'tools/dist_test.sh', DISTILLER, tmp_path / 'epoch_1.pth', 2, '--cfg-options', *data_options(data), env=env
        )
        alone = run('tools/test.py', DISTILLER, tmp_path / 'epoch_1.pth', '--cfg-options', *data_options(data))
        assert accuracy(tested.output) == accuracy(alone.output) == accuracy(done.output)


class TestTransferAndTest:
    def test_the_plain_config_loads_it_strictly(self, exported, trained):
        checkpoint = torch.load(exported.path, weights_only=True)
        assert set(checkpoint) == {'meta', 'state_dict'}
        assert len(checkpoint['meta']['dataset_meta']['classes']) == 10
        MODELS.build(network_cfg(STUDENT)).load_state_dict(checkpoint['state_dict'], strict=True)
        assert 'moving average (EMA)' in exported.output
        assert 'optimizer' in exported.output

    def test_it_scores_what_validation_said(self, exported, trained, tmp_path):
        out = tmp_path / 'metrics.json'
        options = ['--metrics', 'accuracy', 'precision', 'recall', 'f1-score', '--out', out, '--out-item', 'metrics']
        run('tools/test.py', STUDENT, exported.path, *options, '--cfg-options', *data_options(trained.data))
        assert metrics(out)['accuracy/top1'] == accuracy(trained.output)
        assert set(metrics(out)) == {f'single-label/{m}' for m in ('precision', 'recall', 'f1-score')} | {'accuracy/top1'}

    def test_a_distiller_config_tests_the_student_without_a_teacher(self, trained, tmp_path):
        options = data_options(trained.data)
        no_teacher = ['model.teacher_pretrained=nowhere.pth', 'model.teacher_cfg=nowhere.py']
        done = run(
            'tools/test.py', DISTILLER, trained.checkpoint, '--work-dir', tmp_path, '--cfg-options', *options, *no_teacher
        )
        assert accuracy(done.output) == accuracy(trained.output)

    @pytest.mark.slow
    def test_the_training_data_are_not_needed(self, exported, trained, tmp_path):
        options = [*data_options(trained.data), 'train_dataloader.dataset.data_root=nowhere']
        done = run('tools/test.py', STUDENT, exported.path, '--work-dir', tmp_path, '--cfg-options', *options)
        assert accuracy(done.output) == accuracy(trained.output)

    @pytest.mark.slow
    def test_predictions_tta_and_drawing(self, exported, trained, tmp_path):
        out, drawn = tmp_path / 'pred.pkl', tmp_path / 'drawn'
        options = ['--out', out, '--tta', '--amp', '--work-dir', tmp_path, '--cfg-options', *data_options(trained.data)]
        run('tools/test.py', STUDENT, exported.path, *options)
        assert out.stat().st_size > 0
        options[2:4] = ['--show-dir', drawn, '--interval', 50]
        run('tools/test.py', STUDENT, exported.path, *options[2:])
        assert len(list(drawn.iterdir())) == 2

    def test_tta_of_two_data_sets_beside_a_hook_of_embeddings(self, exported, trained, tmp_path):
        images = f"dict(type='FashionMNIST', data_root={str(trained.data)!r}, split='test', test_mode=True, pipeline=PACK)"
        (tmp_path / 'two.py').write_text(
            f'_base_ = [{str(TOOLBOX / STUDENT)!r}]\n'
            "PACK = [dict(type='PackInputs')]\n"
            f"test_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[{images}] * 2))\n"
            f'train_dataloader = dict(dataset=dict(data_root={str(trained.data)!r}))\n'
            "custom_hooks = [dict(type='KNNHook')]\n"
        )
        done = run('tools/test.py', tmp_path / 'two.py', exported.path, '--tta', '--work-dir', tmp_path)
        cfg = Config.fromfile(TOOLBOX / STUDENT)
        network = MODELS.build(cfg.model).eval()
        network.load_state_dict(read_checkpoint(exported.path)['state_dict'])
        raw = {part: (trained.data / f't10k-{part}-ubyte').read_bytes() for part in ('images-idx3', 'labels-idx1')}
        labels = torch.frombuffer(bytearray(raw['labels-idx1'][8:]), dtype=torch.uint8)
        images = torch.frombuffer(bytearray(raw['images-idx3'][16:]), dtype=torch.uint8).view(len(labels), 1, 28, 28)
        images = (images - torch.tensor(cfg.data_preprocessor.mean)) / torch.tensor(cfg.data_preprocessor.std)
        with torch.no_grad():
            scores = sum(network(one, mode='tensor').softmax(1) for one in (images, images.flip(3)))
        assert accuracy(done.output) == pytest.approx(100 * (scores.argmax(1) == labels).float().mean().item(), abs=0.01)
        assert 'KNNHook: embeddings are not measured with test-time augmentation' in done.output

    @pytest.mark.slow
    def test_an_unknown_metric_lists_the_known(self, exported):
        done = run('tools/test.py', STUDENT, exported.path, '--metrics', 'auc', check=False)
        assert done.returncode != 0
        for metric in ('accuracy', 'precision', 'recall', 'f1-score'):
            assert metric in done.stderr.splitlines()[-1]


LEGACY = """
_base_ = ['../../resnet/resnet18_8xb16_cifar100.py']
sd = False
kd, nkd, mgd = False, True, True
find_unused_parameters = False
model = dict(
    _delete_=True,
    type='ClassificationDistiller',
    use_logit=True,
    is_vit=False,
    sd=sd,
    teacher_pretrained=None,
    teacher_cfg='configs/resnet/resnet34_8xb16_cifar100.py',
    student_cfg='configs/resnet/resnet18_8xb16_cifar100.py',
    distill_cfg=[
        dict(methods=[dict(type='MGDLoss', name='loss_mgd', use_this=mgd, student_channels=512, teacher_channels=512)]),
        dict(methods=[dict(type='KDLoss', name='loss_kd', use_this=kd, temp=3.0, alpha=0.5)]),
        dict(methods=[dict(type='NKDLoss', name='loss_nkd', use_this=nkd, temp=3.0, gamma=3.5)]),
    ],
)
"""


@pytest.mark.slow
def test_a_config_of_the_original_works_from_its_place(tmp_path):
    shutil.copytree(TOOLBOX / 'configs', tmp_path / 'configs')
    (tmp_path / 'configs' / 'distillers' / 'cifar100' / 'mine.py').write_text(LEGACY)
    cfg = Config.fromfile(tmp_path / 'configs/distillers/cifar100/mine.py')
    cfg.model.teacher_pretrained = False
    distiller = MODELS.build(cfg.model)
    assert list(distiller.distill_losses) == ['loss_mgd', 'loss_nkd']
    assert distiller.teacher.backbone.depth == 34
    assert cfg.param_scheduler.milestones == [60, 120, 160]
    done = run(TOOLBOX / 'tools/train.py', 'configs/distillers/cifar100/mine.py', cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert 'set model.teacher_pretrained' in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_training_by_iterations_with_an_endless_sampler(data, tmp_path):
    """Such a sampler can be read only once; the checks before the training must not touch it."""
    (tmp_path / 'config.py').write_text(
        f"_base_ = '{TOOLBOX / DISTILLER}'\n"
        'train_cfg = dict(_delete_=True, by_epoch=False, max_iters=12, val_interval=12)\n'
        "train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))\n"
        'default_hooks = dict(checkpoint=dict(by_epoch=False, interval=6))\n'
        'log_processor = dict(by_epoch=False)\n'
    )
    options = [option for option in data_options(data) if 'max_epochs' not in option]
    run('tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert torch.load(tmp_path / 'run' / 'iter_12.pth', weights_only=False)['meta']['iter'] == 12
    assert [step for step, _ in read_run(tmp_path / 'run', 'run').accuracies()] == [12]


def test_a_config_that_inherits_chooses_its_own_methods(tmp_path, monkeypatch):
    parser = training_parser('')
    (tmp_path / 'mine.py').write_text(f"_base_ = '{TOOLBOX / DISTILLER}'\nmethods = ['kd']\n")

    def active(*options):
        cfg = training_config(parser.parse_args([str(tmp_path / 'mine.py'), *options]))
        return [m['name'] for g in cfg.model.distill_cfg for m in g['methods'] if m['use_this']]

    assert active() == ['loss_kd']
    (tmp_path / 'typo.py').write_text(f"_base_ = '{TOOLBOX / DISTILLER}'\nmethods = ['kdd']\n")
    misspelt = parser.parse_args([str(tmp_path / 'typo.py')])
    with pytest.raises(ValueError, match="did you mean 'kd'"):
        training_config(misspelt)
    plain = parser.parse_args([str(TOOLBOX / STUDENT), '--methods', 'kd'])
    with pytest.raises(ValueError, match='distiller config only'):
        training_config(plain)
    assert active('--methods', 'mgd', 'nkd') == ['loss_mgd', 'loss_nkd']
    assert active('--cfg-options', 'model.distill_cfg.5.methods.0.use_this=True') == ['loss_kd', 'loss_nkd']
    with pytest.raises(ValueError, match=r'temp: loss_nkd is not in use, .*; loss_kd is model\.distill_cfg\.4\.'):
        active('--cfg-options', 'model.distill_cfg.5.methods.0.temp=2')
    assert active('--cfg-options', 'model.distill_cfg.5.methods.0.temp=2', 'methods=nkd') == ['loss_nkd']
