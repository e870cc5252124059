"""Bad input ends with one line that names what is wrong and what to do, before training starts."""

import sys

import folders
import pytest
import torch
from commands import DISTILLER, STUDENT, data_options, run, tool
from mmengine.config import Config
from mmpretrain.datasets import CIFAR100
from mmpretrain.registry import MODELS
from networks import resnet

from mmcls_kd.engine.config import merge_options
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.sources import network_cfg

# the tools run in this process, where mmengine warns of a second run in the same second
pytestmark = pytest.mark.filterwarnings('ignore:.*instance named of')

SELF = 'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py'


@pytest.fixture
def refusal(data, tmp_path, monkeypatch):
    """Calls a tool that must refuse, and returns what it says."""

    def call(name, *arguments, options=(), root=data):
        work_dir = tmp_path / 'work_dir'
        words = [*map(str, arguments), '--work-dir', str(work_dir), '--cfg-options', *data_options(root), *options]
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *words])
        with pytest.raises(SystemExit) as stopped:
            tool(name)()
        assert stopped.value.code not in (0, None)
        assert not list(work_dir.glob('*.pth'))
        return str(stopped.value.code)

    return call


@pytest.fixture
def weights(tmp_path):
    """Writes weights of a network and returns the path."""

    def write(cfg, name='weights.pth'):
        torch.save(dict(state_dict=MODELS.build(cfg).state_dict()), tmp_path / name)
        return tmp_path / name

    return write


def test_missing_config(refusal):
    assert refusal('train', 'configs/nowhere.py').startswith('train.py: error: config configs/nowhere.py: neither in')


def test_a_config_of_the_older_branch(refusal, tmp_path):
    (tmp_path / 'old.py').write_text(f"_base_ = '{TOOLBOX / STUDENT}'\ndistiller = dict(type='ClassificationDistiller')\n")
    assert "put its methods into model = dict(type='ClassificationDistiller'" in refusal('train', tmp_path / 'old.py')


def test_starting_from_another_student(refusal, tmp_path):
    states = {f'student.{k}': v for k, v in MODELS.build(resnet(16)).state_dict().items()}
    torch.save(dict(state_dict=states), tmp_path / 'other.pth')
    message = refusal('train', SELF, options=[f'load_from={tmp_path / "other.pth"}'])
    assert 'other.pth holds another student: backbone.bn1.bias and' in message
    torch.save(dict(state_dict=MODELS.build(resnet(4)).state_dict()), tmp_path / 'plain.pth')
    message = refusal('train', SELF, options=[f'load_from={tmp_path / "plain.pth"}'])
    assert 'set model.student_pretrained instead' in message
    assert 'nowhere.pth: no such file' in refusal('train', SELF, options=['load_from=nowhere.pth', 'resume=True'])


def test_a_network_that_does_not_fit_together(refusal):
    message = refusal('train', SELF, options=['model.student_cfg.head.in_channels=99'])
    assert 'the student does not run on 1-channel images' in message
    message = refusal('train', SELF, options=['model.student_cfg.backbone.type=ResNett'])
    assert "model.student_cfg: there is no model 'ResNett'; did you mean 'ResNet'" in message


def test_missing_teacher_config(refusal):
    message = refusal('train', DISTILLER, options=['model.teacher_cfg=configs/nowhere.py'])
    assert 'config configs/nowhere.py: neither in' in message


def test_misspelt_keys(refusal):
    message = refusal('train', SELF, options=['train_cfg.max_epochz=3'])
    assert message.startswith('train.py: error: train_cfg: ')
    assert message.endswith("an unexpected keyword argument 'max_epochz'; did you mean 'max_epochs'?")
    message = refusal('train', SELF, options=['val_cfg.fp61=True'])
    assert message.endswith("an unexpected keyword argument 'fp61'; did you mean 'fp16'?")
    message = refusal('train', SELF, options=['optim_wraper.optimizer.lr=3'])
    assert message == "train.py: error: --cfg-options: the config has no 'optim_wraper'; did you mean 'optim_wrapper'?"
    message = refusal('test', STUDENT, 'a.pth', options=['test_evaluators=1'])
    assert "the config has no 'test_evaluators'; did you mean 'test_evaluator'" in message


def test_options_for_keys_that_the_config_lacks():
    cfg = Config(dict(train_dataloader=dict(batch_size=2), default_hooks={}))
    merge_options(cfg, {'test_dataloader.batch_size': 3, 'default_scope': 'mmpretrain', 'my_own': 1, 'default_hooks.a': 2})
    assert (cfg.test_dataloader.batch_size, cfg.my_own, cfg.default_hooks.a) == (3, 1, 2)
    merge_options(cfg, None)
    merge_options(cfg, {'model.prompts': ['{} in the dark', 'a {}'], 'names': ('dict', '{3}')})


@pytest.mark.parametrize('value', ["dict(type='X')", ["dict(type='X')"], '{"type": 1}', ("{ 'a': 1}",)])
def test_the_text_of_a_dict_is_refused(value):
    with pytest.raises(ValueError, match=r'--cfg-options custom_hooks: .+ is read as text, not as a dict; set its keys'):
        merge_options(Config(dict(custom_hooks=[])), {'custom_hooks': value})


@pytest.mark.parametrize('epochs', [1, 2])
def test_a_warm_up_that_is_longer_than_the_training(refusal, tmp_path, epochs):
    warm_up = "dict(type='LinearLR', start_factor=0.01, end=2, by_epoch=True, convert_to_iter_based=True)"
    then = "dict(type='CosineAnnealingLR', begin=2, by_epoch=True, convert_to_iter_based=True)"
    (tmp_path / 'short.py').write_text(f"_base_ = '{TOOLBOX / SELF}'\nparam_scheduler = [{warm_up}, {then}]\n")
    message = refusal('train', tmp_path / 'short.py', options=[f'train_cfg.max_epochs={epochs}'])
    assert message.startswith('train.py: error: param_scheduler: end should be larger than begin')
    assert message.endswith(
        f'train_cfg.max_epochs={epochs} leaves no epoch after the warm-up; train longer or shorten the warm-up'
    )
    assert len(message) < 300


def test_missing_teacher_weights(refusal):
    message = refusal('train', DISTILLER, options=['model.teacher_pretrained=nowhere.pth'])
    assert 'nowhere.pth: no such file' in message


def test_no_teacher_weights(refusal):
    message = refusal('train', DISTILLER, options=['model.teacher_pretrained=None'])
    assert 'set model.teacher_pretrained to a file' in message


def test_missing_data(refusal, tmp_path):
    message = refusal('train', DISTILLER, root=tmp_path / 'nowhere')
    assert 'nowhere does not exist' in message
    assert 'train-images-idx3-ubyte' in message
    assert 'python tools/fetch_fashion_mnist.py' in message


def test_missing_imagenet(refusal, tmp_path):
    config = 'configs/distillers/imagenet/res18_sd_img.py'
    assert 'train/CLASS/*.JPEG' in refusal('train', config, root=tmp_path / 'nowhere')
    folder = folders.imagenet(tmp_path / 'imagenet', train=1, val=1)
    (folder / 'val' / '0.JPEG').unlink()
    (folder / 'val').rmdir()
    message = refusal('train', config, root=folder)
    assert 'val_dataloader: the data set folder' in message
    assert f'{folder}/val does not exist' in message


def test_a_data_set_that_cannot_be_downloaded(refusal, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR100, 'url', 'http://127.0.0.1:9/cifar-100-python.tar.gz')
    message = refusal('train', 'configs/resnet/resnet18_8xb16_cifar100.py', root=tmp_path / 'cifar100')
    assert 'the data could not be loaded' in message
    assert 'cifar-100-python/{train,test,meta}' in message


def test_truncated_weights(refusal, weights):
    path = weights(network_cfg(STUDENT))
    path.write_bytes(path.read_bytes()[:5000])
    message = refusal('train', DISTILLER, options=[f'model.teacher_pretrained={path}'])
    assert f'{path} is truncated, or no PyTorch checkpoint' in message


def test_teacher_weights_of_another_architecture(refusal, weights):
    path = weights(resnet(16))
    message = refusal('train', DISTILLER, options=[f'model.teacher_pretrained={path}'])
    assert 'teacher weights' in message
    assert 'do not fit' in message
    assert 'size mismatch for backbone.conv1.weight' in message
    vgg = weights(dict(type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=10), head=dict(type='ClsHead')))
    message = refusal('train', DISTILLER, options=[f'model.teacher_pretrained={vgg}'])
    assert 'missing: backbone.conv1.weight' in message
    assert 'unexpected: backbone.features.0.weight' in message


def test_student_weights_of_another_architecture(refusal, weights):
    path = weights(resnet(16))
    message = refusal('train', SELF, options=[f'model.student_pretrained={path}'])
    assert 'student weights' in message
    assert 'size mismatch' in message


def test_other_class_counts(refusal, weights, tmp_path):
    teacher = network_cfg('configs/fashion_mnist/resnet18-w16_9e.py')
    teacher['head']['num_classes'] = 7
    path = weights(teacher)
    config = tmp_path / 'teacher.py'
    config.write_text(f'model = {teacher.to_dict()!r}')
    options = [f'model.teacher_cfg={config}', f'model.teacher_pretrained={path}']
    assert 'the student has 10 classes and the teacher 7' in refusal('train', DISTILLER, options=options)


def test_label_outside_of_the_classes(refusal, tmp_path):
    root = folders.fashion_mnist(tmp_path / 'data', train=64, test=10, wrong_label=12)
    message = refusal('train', SELF, root=root)
    assert 'train_dataloader: 1 of 64 labels are outside of the network’s 10 classes' in message
    assert 'the first is 12, of sample 17' in message


def test_unknown_method(refusal):
    message = refusal('train', DISTILLER, '--methods', 'nkdd')
    assert "unknown method 'nkdd'; did you mean 'nkd'" in message
    assert 'this config offers: srrl, mgd, wsld, dkd, kd, nkd' in message


@pytest.mark.parametrize('option', ['methods=[]', "methods=['mgdd']"])
def test_methods_among_the_options(refusal, option):
    assert 'this config offers: srrl, mgd, wsld, dkd, kd, nkd' in refusal('train', DISTILLER, options=[option])


def test_methods_for_a_plain_classifier(refusal):
    assert 'distiller config only' in refusal('train', STUDENT, '--methods', 'kd')


@pytest.mark.parametrize('methods', ['[]', "['nkdd']"])
def test_methods_in_the_file(refusal, tmp_path, methods):
    text = (TOOLBOX / DISTILLER).read_text().replace("['nkd']", methods).replace('../../', f'{TOOLBOX}/configs/')
    (tmp_path / 'mine.py').write_text(text)
    assert 'this config offers: srrl, mgd, wsld, dkd, kd, nkd' in refusal('train', tmp_path / 'mine.py')


def test_unknown_loss_type(refusal):
    message = refusal('train', SELF, options=['model.distill_cfg.0.methods.0.type=USKLoss'])
    assert "loss_uskd: unknown loss type 'USKLoss'; did you mean 'USKDLoss'" in message


def test_a_tensor_that_nobody_provides(refusal, tmp_path):
    text = (TOOLBOX / DISTILLER).read_text().replace('../../', f'{TOOLBOX}/configs/')
    vitkd = "[dict(methods=[dict(type='ViTKDLoss', name='loss_vitkd', student_dims=4, teacher_dims=4)])]"
    (tmp_path / 'mine.py').write_text(f"{text}model['distill_cfg'] = {vitkd}\n")
    message = refusal('train', tmp_path / 'mine.py')
    assert "unknown input 'tokens_low_s'" in message
    assert (
        'available inputs: gt_label, sample_idx, feat_s, tokens_high_s, stages_s, stages_preact_s, feat_mid_s, logit_s, '
        in message
    )


@pytest.mark.parametrize(
    ('method', 'option', 'right'),
    [
        (
            'mgd',
            'model.distill_cfg.1.methods.0.student_channels=64',
            'loss_mgd: student_channels=64 is wrong, feat_s has the shape (N, 32, 4, 4): set student_channels=32',
        ),
        ('srrl', 'model.distill_cfg.0.methods.0.teacher_channels=64', 'set teacher_channels=128'),
        ('wsld', 'model.distill_cfg.2.methods.0.num_classes=100', 'set num_classes=10'),
    ],
)
def test_widths_that_do_not_fit(refusal, weights, method, option, right):
    path = weights(network_cfg('configs/fashion_mnist/resnet18-w16_9e.py'))
    options = [option, f'model.teacher_pretrained={path}']
    assert right in refusal('train', DISTILLER, '--methods', method, options=options)


def test_self_distillation_width_that_does_not_fit(refusal):
    message = refusal('train', SELF, options=['model.distill_cfg.0.methods.0.channel=99'])
    assert 'loss_uskd: channel=99 is wrong, feat_mid has the shape (N, 16): set channel=16' in message


def test_testing_a_missing_or_foreign_checkpoint(refusal, weights):
    assert 'test weights nowhere.pth: no such file' in refusal('test', STUDENT, 'nowhere.pth')
    message = refusal('test', STUDENT, weights(resnet(16)))
    assert 'do not fit this ResNet_CIFAR' in message


@pytest.mark.slow
def test_transfer_without_a_student(weights, tmp_path):
    done = run('pth_transfer.py', '--dis_path', weights(resnet()), '--output_path', tmp_path / 'out.pth', check=False)
    assert done.returncode == 1
    assert 'has no student weights' in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'out.pth').exists()
    done = run('pth_transfer.py', '--dis_path', 'nowhere.pth', '--output_path', tmp_path / 'out.pth', check=False)
    assert 'nowhere.pth: no such file' in done.stderr.splitlines()[-1]


def test_the_exit_code_and_the_last_line(tmp_path):
    done = run('tools/train.py', 'configs/nowhere.py', check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('train.py: error: config configs/nowhere.py')
    assert 'Traceback' not in done.output


def test_memory_that_does_not_suffice(refusal, monkeypatch):
    def asks_for_too_much(cfg):
        torch.empty(2**60)

    monkeypatch.setattr('mmcls_kd.engine.runtime.build_runner', asks_for_too_much)
    message = refusal('train', STUDENT)
    assert message.startswith('train.py: error: the memory does not suffice (')
    assert message.endswith('lower train_dataloader.batch_size and go on by the same command')
