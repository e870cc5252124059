"""A table of bad inputs: each ends with a non-zero exit code and one line that names the cause, and harms no file."""

import contextlib
import os
import pickle
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import folders
import matplotlib.backends.backend_agg  # imported once, here, and not in each child
import matplotlib.figure  # noqa: F401
import numpy as np
import pytest
import torch
from commands import DISTILLER, STUDENT, data_options, run
from interruption import fork
from mmpretrain.registry import MODELS
from networks import resnet
from PIL import Image
from processes import free_port
from torch import nn

from mmcls_kd.files.checkpoint import read_checkpoint
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.sources import network_cfg

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
SELF = 'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py'
TEACHER = 'configs/fashion_mnist/teacher.pth'
SECONDS = 60  # after which a case counts as one that hangs


@MODELS.register_module()
class AskingLoss(nn.Module):
    """Asks for a tensor that no network provides."""

    def forward(self, logit_s, attention_s):
        return logit_s.mean()


class Payload:
    """Makes a folder when it is unpickled the unsafe way."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.makedirs, (self.folder, 0o777, True)


class Command(NamedTuple):
    """A command line: the tool, its words, and changes to the environment."""

    tool: str
    words: list
    environment: dict


class Place:
    """Where a case lays out its files; what it returns is the command to run.

    Attributes:
        folder: The case's own folder.
        data: A good data set.
        checkpoint: A good checkpoint of a training with SELF.
        work_dir: A work directory in which there has been a run before.
        held: What to close or undo afterwards.
    """

    def __init__(self, folder, data, checkpoint):
        self.folder, self.data, self.checkpoint = folder, data, checkpoint
        self.held = contextlib.ExitStack()
        self.work_dir = folder / 'run'
        self.work_dir.mkdir()
        (self.work_dir / 'epoch_1.pth').write_bytes(checkpoint.read_bytes())
        (self.work_dir / 'last_checkpoint').write_text(str(self.work_dir / 'epoch_1.pth'))
        (self.work_dir / '20260101_000000.log').write_text('the log of the run before\n')
        for config in (SELF, STUDENT, DISTILLER, 'mine.py'):
            (self.work_dir / Path(config).name).write_text('# the config of the run before\n')

    # what a case writes

    def text(self, name, text):
        """A file with a text."""
        path = self.folder / name
        path.write_text(text)
        return path

    def mine(self, text, base=SELF, name='mine.py'):
        """A config that inherits from one of the toolbox's."""
        return self.text(name, f"_base_ = '{TOOLBOX / base}'\n{text}\n")

    def saved(self, content, name='bad.pth'):
        """A file as torch.save writes it."""
        torch.save(content, self.folder / name)
        return self.folder / name

    def weights(self, network, prefix=''):
        """Weights of a network, by its config."""
        return self.saved({f'{prefix}{k}': v for k, v in MODELS.build(network).state_dict().items()})

    def changed(self, path, change):
        """A copy of a checkpoint in which something is changed."""
        content = read_checkpoint(path)
        change(content)
        return self.saved(content)

    def cut(self, path, share=0.5):
        """A copy of a file that ends early."""
        whole = Path(path).read_bytes()
        (self.folder / 'cut.pth').write_bytes(whole[: int(share * len(whole))])
        return self.folder / 'cut.pth'

    def mnist(self, **settings):
        """A small data set of its own, to be damaged."""
        return folders.fashion_mnist(self.folder / 'data', train=64, test=10, **settings)

    def images(self):
        """A folder of image files with annotations, one class a folder."""
        for split in ('train', 'val'):
            for kind in ('cat', 'dog'):
                folder = self.folder / 'images' / split / kind
                folder.mkdir(parents=True)
                for i in range(2):
                    noise = np.random.RandomState(i).randint(0, 256, (32, 32, 3)).astype(np.uint8)
                    Image.fromarray(noise).save(folder / f'{i}.jpg')
        return self.folder / 'images'

    def disk(self, *options):
        """A file system of its own."""
        disk = self.folder / 'disk'
        disk.mkdir()
        mounted = subprocess.run(['mount', '-t', 'tmpfs', *options, 'tmpfs', disk], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f'a file system cannot be mounted here: {mounted.stderr.strip()}')
        self.held.callback(subprocess.run, ['umount', '-l', disk], check=True)
        return disk

    def taken_port(self):
        """A port at which another program listens."""
        listening = self.held.enter_context(socket.socket())
        listening.bind(('127.0.0.1', 0))
        listening.listen()
        return listening.getsockname()[1]

    # what a case runs

    def train(self, config, *options, words=(), data=None, work_dir=None, **environment):
        """tools/train.py; ``options`` are ``--cfg-options``."""
        given = ['--cfg-options', *data_options(data or self.data), 'train_dataloader.num_workers=0', *options]
        return Command('tools/train.py', [config, '--work-dir', work_dir or self.work_dir, *words, *given], environment)

    def teach(self, weights):
        """tools/train.py with these weights of the teacher."""
        return self.train(DISTILLER, f'model.teacher_pretrained={weights}')

    def resume(self, checkpoint):
        return self.train(SELF, words=['--resume', checkpoint])

    def launched(self, *words, options=(), **environment):
        """tools/train.py as torchrun starts it, in the second of two processes unless it is said otherwise."""
        good = dict(RANK='1', WORLD_SIZE='2', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
        environment = {k: v for k, v in {**good, **environment}.items() if v is not None}
        seconds = 'env_cfg.dist_cfg.timeout=1'
        return self.train(SELF, seconds, *options, words=words or ['--launcher', 'pytorch'], **environment)

    def distributed(self, *words, **environment):
        """tools/dist_train.sh."""
        return Command('tools/dist_train.sh', list(words), environment)

    def tested(self, *words, **environment):
        """tools/dist_test.sh."""
        return Command('tools/dist_test.sh', list(words), environment)

    def test(self, checkpoint, *options, config=STUDENT, data=None):
        words = [config, checkpoint, '--work-dir', self.work_dir]
        return Command('tools/test.py', [*words, '--cfg-options', *data_options(data or self.data), *options], {})

    def transfer(self, source, target=None):
        target = target or self.work_dir / 'epoch_1.pth'
        return Command('pth_transfer.py', ['--dis_path', source, '--output_path', target], {})

    def check(self, config):
        return Command('tools/check_data.py', [config, '--workers', '1'], {})


class Case(NamedTuple):
    """One bad input: its group and name, what the last line must be, and what prepares it."""

    group: str
    name: str
    last: str
    prepare: object

    def __str__(self):
        return f'{self.group}: {self.name}'


CASES = []


def group(name):
    """Gives what enters cases of one group into the table; the expression is what the last line begins with."""

    def enter(case, last, prepare):
        CASES.append(Case(name, case, last, prepare))

    return enter


# ------------------------------------------------------------------------------------------------------------- configs
config = group('configs')
config('missing', r'train.py: error: config configs/nowhere.py: neither in', lambda at: at.train('configs/nowhere.py'))
config('a folder', r'train.py: error: config .*run: neither in', lambda at: at.train(at.work_dir))
config('syntax error', r'train.py: error: .*mine.py.*never closed.*line 2', lambda at: at.train(at.mine('model = dict(')))
config('unknown name', r'train.py: error: .*mine.py.*classes.*not defined', lambda at: at.train(at.mine('a = classes')))
config(
    'missing base',
    r'train.py: error: .*nowhere.py',
    lambda at: at.train(at.text('mine.py', "_base_ = 'nowhere.py'\n")),
)
config(
    'custom import of a missing module',
    r'train.py: error: .*mine.py cannot be read: custom_imports: my_losses cannot be imported .*PYTHONPATH',
    lambda at: at.train(at.mine("custom_imports = dict(_delete_=True, imports=['my_losses'])")),
)
config('no model', r'train.py: error: .*mine.py.*no `model`', lambda at: at.train(at.text('mine.py', 'a = 1\n')))
config(
    'no training data',
    r'train.py: error: .*mine.py.*no `train_dataloader`',
    lambda at: Command('tools/train.py', [at.mine('train_dataloader = None'), '--work-dir', at.work_dir], {}),
)
config(
    'of the older branch',
    r'train.py: error: .*mine.py is of the original toolbox.s older branch',
    lambda at: at.train(at.mine("distiller = dict(type='ClassificationDistiller')", STUDENT)),
)
config(
    'unknown method',
    r"train.py: error: unknown method 'nkdd'; did you mean 'nkd'",
    lambda at: at.train(at.mine("methods = ['nkdd']", DISTILLER)),
)
config(
    'no method',
    r'train.py: error: no distillation method is chosen; this config offers: srrl, mgd, wsld, dkd, kd, nkd',
    lambda at: at.train(at.mine('methods = []', DISTILLER)),
)
config(
    'unknown loss',
    r"train.py: error: .*loss_uskd: unknown loss type 'USKLoss'; did you mean 'USKDLoss'",
    lambda at: at.train(SELF, 'model.distill_cfg.0.methods.0.type=USKLoss'),
)
config(
    'unknown keyword of a loss',
    r"train.py: error: .*loss_uskd: .*'temperature'",
    lambda at: at.train(SELF, 'model.distill_cfg.0.methods.0.temperature=2'),
)
config(
    'a tensor that nobody provides',
    r"train.py: error: .*loss_asking \(AskingLoss\): unknown input 'attention_s'",
    lambda at: at.train(at.mine("model = dict(distill_cfg=[dict(methods=[dict(type='AskingLoss', name='loss_asking')])])")),
)
config(
    'two methods of one name',
    r"train.py: error: .*two methods have the name 'loss_kd'",
    lambda at: at.train(
        at.mine("methods = ['kd']\nmodel = dict(distill_cfg=[dict(methods=2 * [dict(type='KDLoss', name='loss_kd')])])")
    ),
)
config(
    'wrong width',
    r'train.py: error: .*loss_mgd: student_channels=64 is wrong, feat_s has the shape \(N, 32, .*: set student_channels=32',
    lambda at: at.train(DISTILLER, "methods=['mgd']", 'model.distill_cfg.1.methods.0.student_channels=64'),
)
config(
    'unknown mode of the teacher',
    r"train.py: error: .*teacher_mode='test': choose one of 'eval', 'train'",
    lambda at: at.train(DISTILLER, 'model.teacher_mode=test'),
)
config(
    'missing config of the student',
    r'train.py: error: .*config configs/nowhere.py: neither in',
    lambda at: at.train(SELF, 'model.student_cfg=configs/nowhere.py'),
)
config(
    'other classes than the teacher',
    r'train.py: error: .*the student has 7 classes and the teacher 10',
    lambda at: at.train(DISTILLER, 'model.student_cfg.head.num_classes=7'),
)
config(
    'unknown on_nonfinite',
    r"train.py: error: .*on_nonfinite='ignore': choose one of 'stop', 'skip'",
    lambda at: at.train(SELF, 'train_cfg.on_nonfinite=ignore'),
)
config(
    'unknown on_unreadable',
    r"train.py: error: .*on_unreadable='ignore': choose one of 'stop', 'skip'",
    lambda at: at.train(SELF, 'train_cfg.on_unreadable=ignore'),
)
config(
    'unknown optimizer',
    r'train.py: error: .*SGDD',
    lambda at: at.train(SELF, 'optim_wrapper.optimizer.type=SGDD'),
)
config(
    'negative learning rate',
    r'train.py: error: .*learning rate: -1',
    lambda at: at.train(SELF, 'optim_wrapper.optimizer.lr=-1.0'),
)
config(
    'unknown hook', r'train.py: error: .*TimeHook', lambda at: at.train(at.mine("custom_hooks = [dict(type='TimeHook')]"))
)
config('empty batches', r'train.py: error: .*batch_size', lambda at: at.train(SELF, 'train_dataloader.batch_size=0'))
config(
    'an option without =',
    r"train.py: error: .*--cfg-options.*'lr'",
    lambda at: at.train(SELF, 'lr'),
)
config(
    'mixed precision without an optimizer',
    r'train.py: error: .*mine.py.*no `optim_wrapper`',
    lambda at: at.train(at.mine('optim_wrapper = None'), words=['--amp']),
)


# ----------------------------------------------------------------------------------------------------- teacher weights
teacher = group('teacher weights')


def without(key):
    return lambda content: content['state_dict'].pop(key)


teacher('missing', r'train.py: error: .*teacher weights nowhere.pth: no such file', lambda at: at.teach('nowhere.pth'))
teacher(
    'a folder',
    r'train.py: error: .*teacher weights .*run: the folder has none of model.safetensors',
    lambda at: at.teach(at.work_dir),
)
teacher('not given', r'train.py: error: .*set model.teacher_pretrained to a file', lambda at: at.teach('None'))
teacher('empty', r'train.py: error: .*empty.pth is ', lambda at: at.teach(at.text('empty.pth', '')))
teacher('a text', r'train.py: error: .*readme.pth is ', lambda at: at.teach(at.text('readme.pth', 'Weights? On request.')))
teacher('truncated', r'train.py: error: .*cut.pth is truncated', lambda at: at.teach(at.cut(TOOLBOX / TEACHER)))
teacher(
    'a list',
    r'train.py: error: .*bad.pth holds a list instead of weights by name',
    lambda at: at.teach(at.saved([torch.zeros(2)])),
)
teacher(
    'a number in the place of weights',
    r'train.py: error: .*bad.pth holds a int in its state_dict instead of weights by name',
    lambda at: at.teach(at.saved(dict(state_dict=3))),
)
teacher(
    'another architecture',
    r'train.py: error: .*bad.pth do not fit this ResNet_CIFAR; missing: backbone.conv1.weight.*unexpected: ',
    lambda at: at.teach(at.weights(dict(type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=10)))),
)
teacher(
    'other shapes',
    r'train.py: error: .*bad.pth do not fit .*size mismatch for backbone.conv1.weight',
    lambda at: at.teach(at.weights(resnet(16))),
)
teacher(
    'other classes',
    r'train.py: error: .*bad.pth are of 7 classes and this network has 10 .*num_classes.* to 7.*teacher_classes',
    lambda at: at.teach(at.changed(TEACHER, lambda c: c['state_dict'].update({'head.fc.weight': torch.zeros(7, 128)}))),
)
teacher(
    'a key too few',
    r'train.py: error: .*bad.pth do not fit .*missing: backbone.bn1.bias$',
    lambda at: at.teach(at.changed(TEACHER, without('backbone.bn1.bias'))),
)
teacher(
    'a key too many',
    r'train.py: error: .*bad.pth do not fit .*unexpected: head.extra$',
    lambda at: at.teach(at.changed(TEACHER, lambda c: c['state_dict'].update({'head.extra': torch.zeros(1)}))),
)
teacher(
    'not a number',
    r'train.py: error: .*bad.pth hold NaN or infinite numbers: head.fc.bias$',
    lambda at: at.teach(at.changed(TEACHER, lambda c: c['state_dict']['head.fc.bias'].fill_(float('nan')))),
)
teacher(
    'code to run',
    r'train.py: error: .*bad.pth holds .*makedirs, which could run code',
    lambda at: at.teach(at.saved(dict(state_dict={}, extra=Payload(at.folder / 'pwned')))),
)
teacher(
    'an address that does not answer',
    r'train.py: error: .*http://127.0.0.1:9/x.pth could not be downloaded',
    lambda at: at.teach('http://127.0.0.1:9/x.pth'),
)


# ---------------------------------------------------------------------------------------------------------------- data
data_case = group('data')


def cut_file(at, name, share=0.5):
    """Train with a file of the data set cut short."""
    root = at.mnist()
    whole = (root / name).read_bytes()
    (root / name).write_bytes(whole[: int(share * len(whole))])
    return at.train(SELF, data=root)


def without_file(at, name):
    root = at.mnist()
    (root / name).unlink()
    return at.train(SELF, data=root)


def swapped(at):
    """Labels where the images should be."""
    root = at.mnist()
    (root / 'train-images-idx3-ubyte').write_bytes((root / 'train-labels-idx1-ubyte').read_bytes())
    return at.train(SELF, data=root)


def with_images(at, damage, ann_file='', channels=3, tool='train'):
    """Train a classifier on image files that ``damage`` has been to."""
    root = at.images()
    damage(root)
    text = f"""
        model = dict(backbone=dict(in_channels={channels}), data_preprocessor=dict(num_classes=10, mean=[128], std=[64]))
        data_preprocessor = dict(_delete_=True, num_classes=10, mean=[128.0] * 3, std=[64.0] * 3)
        pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
        train_dataloader = dict(batch_size=4, dataset=dict(
            _delete_=True, type='CustomDataset', data_root='{root}', data_prefix='train', ann_file='{ann_file}',
            pipeline=pipeline))
        val_dataloader = dict(batch_size=4, dataset=dict(
            _delete_=True, type='CustomDataset', data_root='{root}', data_prefix='val', pipeline=pipeline))
        test_dataloader = val_dataloader
    """
    config = at.mine('\n'.join(line[8:] for line in text.splitlines()), STUDENT)
    if tool == 'check_data':
        return at.check(config)
    return Command('tools/train.py', [config, '--work-dir', at.work_dir], {})


def annotated(text):
    """Damage: an annotation file with this text."""
    return lambda root: (root / 'train.txt').write_text(text)


def cut_image(root):
    """Damage: every training image ends early."""
    for image in (root / 'train').rglob('*.jpg'):
        image.write_bytes(image.read_bytes()[:400])


def no_images(root):
    """Damage: no training image is left."""
    for image in (root / 'train').rglob('*.jpg'):
        image.unlink()


def larger_image(root):
    """Damage: one image is larger than the others."""
    image = root / 'train' / 'cat' / '0.jpg'
    Image.open(image).resize((48, 48)).save(image)


data_case(
    'missing folder',
    r'train.py: error: train_dataloader: the data set folder .*nowhere does not exist; expected .*train-images-idx3-ubyte',
    lambda at: at.train(SELF, data=at.folder / 'nowhere'),
)
data_case(
    'a file in the place of the folder',
    r'train.py: error: train_dataloader: the data set folder .*data.zip',
    lambda at: at.train(SELF, data=at.text('data.zip', 'PK')),
)
data_case(
    'a missing file',
    r'train.py: error: \S*data/t10k-labels-idx1-ubyte: no such file',
    lambda at: without_file(at, 't10k-labels-idx1-ubyte'),
)
data_case(
    'a truncated file of images',
    r'train.py: error: \S*data/train-images-idx3-ubyte: 25096 bytes long, and should be 50192',
    lambda at: cut_file(at, 'train-images-idx3-ubyte'),
)
data_case(
    'an empty file of labels',
    r'train.py: error: \S*data/train-labels-idx1-ubyte: no file of an array of bytes with 1 dimensions',
    lambda at: cut_file(at, 'train-labels-idx1-ubyte', 0),
)
data_case('labels in the place of images', r'train.py: error: \S*data/train-images-idx3-ubyte: no file of an array', swapped)
data_case(
    'a label outside of the classes',
    r'train.py: error: train_dataloader: 1 of 64 labels .* 10 classes .* the first is 12, of sample 17',
    lambda at: at.train(SELF, data=at.mnist(wrong_label=12)),
)
data_case('folders without images', r'train.py: error: .*images/train', lambda at: with_images(at, no_images))
data_case(
    'a missing annotation file',
    r'train.py: error: .*nowhere.txt',
    lambda at: with_images(at, lambda root: None, ann_file='nowhere.txt'),
)
data_case(
    'a label in words',
    r"train.py: error: train_dataloader: .*'cat'.*ann_file='train.txt'",
    lambda at: with_images(at, annotated('cat/0.jpg cat\n'), ann_file='train.txt'),
)
data_case(
    'an annotation without a label',
    r"train.py: error: train_dataloader: .*ann_file='train.txt'",
    lambda at: with_images(at, annotated('cat/0.jpg 0\ncat/0.jpg\n'), ann_file='train.txt'),
)
data_case(
    'an annotated image that is missing',
    r'train.py: error: .*cat/7.jpg',
    lambda at: with_images(at, annotated('cat/7.jpg 0\n'), ann_file='train.txt'),
)
data_case(
    'a truncated image',
    r'train.py: error: .*the image .*images/train/.*.jpg of the training data cannot be read',
    lambda at: with_images(at, cut_image),
)
data_case(
    'images of several sizes in a batch',
    r'train.py: error: train_dataloader: images of 2 sizes do not go into one batch, such as .*\(32 × 32\) and .*\(48 × 48',
    lambda at: with_images(at, larger_image),
)
data_case(
    'images with other channels than the network takes',
    r'train.py: error: a first batch does not go through the model: .* to have 1 channels, but got 3 channels instead',
    lambda at: with_images(at, lambda root: None, channels=1),
)
data_case(
    'faults that check_data finds',
    r'check_data.py: error: 6 faults in the data \(train 5, val 1\)',
    lambda at: with_images(at, cut_image, tool='check_data'),
)
data_case(
    'nothing to test with',
    r'test.py: error: test_dataloader: the data set folder .*nowhere does not exist',
    lambda at: at.test(at.checkpoint, data=at.folder / 'nowhere'),
)


# --------------------------------------------------------------------------------------------------------- checkpoints
checkpoint = group('checkpoints')


def other_state(content):
    """Turns the optimizer's state into that of parameters of other shapes."""
    for state in content['optimizer']['state'].values():
        state['momentum_buffer'] = torch.zeros(3, 3)


def other_student(content):
    """Turns a checkpoint into one of a wider student."""
    states = MODELS.build(resnet(16)).state_dict()
    content['state_dict'] = {f'student.{k}': v for k, v in states.items()}


def weights_alone(content):
    for key in [key for key in content if key != 'state_dict']:
        del content[key]


checkpoint('missing, to resume', r'train.py: error: .*nowhere.pth: no such file', lambda at: at.resume('nowhere.pth'))
checkpoint('truncated, to resume', r'train.py: error: .*cut.pth is truncated', lambda at: at.resume(at.cut(at.checkpoint)))
checkpoint('empty, to resume', r'train.py: error: .*a.pth is truncated', lambda at: at.resume(at.text('a.pth', '')))
checkpoint(
    'weights alone, to resume',
    r'train.py: error: .*bad.pth is no checkpoint of a training that could go on: it has weights alone; use load_from',
    lambda at: at.resume(at.changed(at.checkpoint, weights_alone)),
)
checkpoint(
    'without epoch, to resume',
    r'train.py: error: .*bad.pth is no checkpoint of a training that could go on',
    lambda at: at.resume(at.changed(at.checkpoint, lambda content: content.pop('meta'))),
)
checkpoint(
    'of another student, to resume',
    r'train.py: error: .*bad.pth holds another student: backbone.bn1.bias and',
    lambda at: at.resume(at.changed(at.checkpoint, other_student)),
)
checkpoint(
    'another optimizer state, to resume',
    r'train.py: error: .*optimizer state momentum_buffer of .* has the shape \(3, 3\)',
    lambda at: at.resume(at.changed(at.checkpoint, other_state)),
)
checkpoint(
    'code to run, to resume',
    r'train.py: error: .*bad.pth holds .*makedirs, which could run code',
    lambda at: at.resume(at.saved({**torch.load(at.checkpoint, weights_only=False), 'extra': Payload(at.folder / 'pwned')})),
)
checkpoint('missing, to start from', r'train.py: error: .*nowhere.pth', lambda at: at.train(SELF, 'load_from=nowhere.pth'))
checkpoint(
    'truncated, to start from',
    r'train.py: error: .*cut.pth is truncated',
    lambda at: at.train(SELF, f'load_from={at.cut(at.checkpoint)}'),
)
checkpoint(
    'no student, to start from',
    r'train.py: error: .*bad.pth has no student weights .*set model.student_pretrained instead',
    lambda at: at.train(SELF, f'load_from={at.weights(network_cfg(STUDENT))}'),
)
checkpoint(
    'another student, to start from',
    r'train.py: error: student weights .*bad.pth do not fit .*size mismatch',
    lambda at: at.train(SELF, f'model.student_pretrained={at.weights(resnet(16))}'),
)
checkpoint('missing, to test', r'test.py: error: test weights nowhere.pth: no such file', lambda at: at.test('nowhere.pth'))
checkpoint('a text, to test', r'test.py: error: .*a.pth is', lambda at: at.test(at.text('a.pth', 'Weights? On request.')))
checkpoint(
    'another network, to test',
    r'test.py: error: test weights .*bad.pth do not fit this ResNet_CIFAR',
    lambda at: at.test(at.weights(resnet(16))),
)
checkpoint('missing, to transfer', r'pth_transfer.py: error: .*nowhere.pth: no such', lambda at: at.transfer('nowhere.pth'))
checkpoint(
    'truncated, to transfer',
    r'pth_transfer.py: error: .*cut.pth is truncated',
    lambda at: at.transfer(at.cut(at.checkpoint)),
)
checkpoint(
    'no student, to transfer',
    r'pth_transfer.py: error: .*bad.pth has no student weights',
    lambda at: at.transfer(at.weights(resnet())),
)
checkpoint(
    'transferred into a folder',
    r'pth_transfer.py: error: .*run is a folder: name a file in it',
    lambda at: at.transfer(at.checkpoint, at.work_dir),
)
checkpoint(
    'transferred below a file',
    r"pth_transfer.py: error: .*'.*epoch_1.pth'",
    lambda at: at.transfer(at.checkpoint, at.work_dir / 'epoch_1.pth' / 'student.pth'),
)


# --------------------------------------------------------------------------------------------------------- environment
environment = group('environment')


def full_disk(at):
    """Train where there is no room for a checkpoint."""
    disk = at.disk('-o', 'size=64k')
    config = at.mine('', name='full.py')  # its own place in the work directory, as this run does start
    return at.train(config, f'default_hooks.checkpoint.out_dir={disk}')


def no_room_to_transfer(at):
    disk = at.disk('-o', 'size=64k')
    (disk / 'student.pth').write_text('the student of the run before')
    return at.transfer(at.checkpoint, disk / 'student.pth')


environment(
    'a file in the place of the work directory',
    r'train.py: error: .*/file cannot be written \(File exists\): name another folder',
    lambda at: at.train(SELF, work_dir=at.text('file', '')),
)
environment(
    'work directory below a file',
    r'train.py: error: .*/file/run cannot be written \(Not a directory\): name another folder',
    lambda at: at.train(SELF, work_dir=at.text('file', '') / 'run'),
)
environment(
    'work directory where nobody may write',
    r'train.py: error: /proc/nowhere/run cannot be written \(No such file or directory\): name another folder',
    lambda at: at.train(SELF, work_dir='/proc/nowhere/run'),
)
environment(
    'work directory on a read-only file system',
    r'train.py: error: .*/disk/run cannot be written \(Read-only file system\): name another folder',
    lambda at: at.train(SELF, work_dir=at.disk('-o', 'ro') / 'run'),
)
environment(
    'full disk',
    r'train.py: error: the checkpoint .*disk/run/epoch_1.pth cannot be written \(No space left on device\)',
    full_disk,
)
environment('full disk, to transfer', r'pth_transfer.py: error: .*student.pth', no_room_to_transfer)
environment(
    'unknown launcher',
    r"train.py: error: argument --launcher: invalid choice: 'torchrun'",
    lambda at: at.train(SELF, words=['--launcher', 'torchrun']),
)
environment(
    'no address of the first process',
    r'train.py: error: --launcher pytorch: .*MASTER_ADDR',
    lambda at: at.launched(MASTER_ADDR=None),
)
environment(
    'the port is no number',
    r"train.py: error: .*MASTER_PORT='http'",
    lambda at: at.launched(MASTER_PORT='http'),
)
environment(
    'the device is no number', r"train.py: error: .*LOCAL_RANK='cuda:0'", lambda at: at.launched(LOCAL_RANK='cuda:0')
)
environment('no process', r"train.py: error: .*WORLD_SIZE='0'", lambda at: at.launched(WORLD_SIZE='0', RANK='0'))
environment(
    'more processes than the world has',
    r"train.py: error: .*RANK='3'.*WORLD_SIZE='2'",
    lambda at: at.launched(RANK='3'),
)
environment(
    'a process that does not come',
    r'train.py: error: process 0 of 2 .*127.0.0.1:\d+.*1/2 clients joined',
    lambda at: at.launched(RANK='0'),
)
environment(
    'a first process that does not come', r'train.py: error: process 1 of 2 .*127.0.0.1:\d+', lambda at: at.launched()
)
environment(
    'the port is taken',
    r'train.py: error: process 0 of 2 .*127.0.0.1:\d+.*EADDRINUSE',
    lambda at: at.launched(RANK='0', MASTER_PORT=str(at.taken_port())),
)
environment(
    'unknown address',
    r'train.py: error: process 1 of 2 .*nowhere.invalid:\d+',
    lambda at: at.launched(MASTER_ADDR='nowhere.invalid'),
)
environment(
    'unknown network interface',
    r'train.py: error: process 0 of 1 .*nowhere0',
    lambda at: at.launched(RANK='0', WORLD_SIZE='1', GLOO_SOCKET_IFNAME='nowhere0'),
)
environment(
    'no Slurm',
    r'train.py: error: --launcher slurm: .*SLURM_NODELIST',
    lambda at: at.train(SELF, words=['--launcher', 'slurm']),
)
environment(
    'no MPI',
    r'train.py: error: --launcher mpi: .*OMPI_COMM_WORLD_RANK',
    lambda at: at.train(SELF, words=['--launcher', 'mpi']),
)
environment('no arguments', r'dist_train.sh: error: .*CONFIG.*DEVICES', lambda at: at.distributed())
environment('no devices', r"dist_train.sh: error: DEVICES.*'0'", lambda at: at.distributed(SELF, '0'))
environment('devices in words', r"dist_train.sh: error: DEVICES.*'two'", lambda at: at.distributed(SELF, 'two'))
environment(
    'restarts in words',
    r"dist_train.sh: error: MAX_RESTARTS.*'often'",
    lambda at: at.distributed(SELF, '2', MAX_RESTARTS='often'),
)
environment(
    'the port of dist_train.sh is no number',
    r"dist_train.sh: error: PORT.*'http'",
    lambda at: at.distributed(SELF, '2', PORT='http'),
)
environment(
    'the port of dist_train.sh is taken',
    r'dist_train.sh: error: another program listens at port \d+; .*PORT=',
    lambda at: at.distributed(SELF, '2', PORT=str(at.taken_port())),
)
environment(
    'no devices to test on', r'dist_test.sh: error: .*CHECKPOINT.*DEVICES', lambda at: at.tested(SELF, at.checkpoint)
)
environment(
    'devices to test on in words', r"dist_test.sh: error: DEVICES.*'two'", lambda at: at.tested(SELF, at.checkpoint, 'two')
)
environment(
    'the port of dist_test.sh is taken',
    r'dist_test.sh: error: another program listens at port \d+; .*PORT=',
    lambda at: at.tested(SELF, at.checkpoint, '2', PORT=str(at.taken_port())),
)
environment(
    'no room to download weights to',
    r"train.py: error: .*'.*file/checkpoints'|train.py: error: .*'.*file/hub.*'",
    lambda at: at.train(DISTILLER, 'model.teacher_pretrained=http://127.0.0.1:9/x.pth', TORCH_HOME=str(at.text('file', ''))),
)


# --------------------------------------------------------------------------------------------------------------- tests


@pytest.fixture(scope='module')
def good_checkpoint(data, tmp_path_factory):
    """What SELF writes after an epoch; the cases are its variations."""
    folder = tmp_path_factory.mktemp('good')
    words = [SELF, '--work-dir', folder / 'run', '--no-validate', '--cfg-options', *data_options(data)]
    code, output = finish(Command('tools/train.py', words, {}), folder)
    assert code == 0, output
    return folder / 'run' / 'epoch_1.pth'


def finish(command, folder):
    """Run a command to its end; returns its exit code and its output."""
    environment = {'CUDA_VISIBLE_DEVICES': '', **command.environment}
    if command.tool.endswith('.sh'):
        done = run(command.tool, *command.words, check=False, env={**os.environ, **environment})
        return done.returncode, done.output
    log = folder / 'output.txt'
    child = fork(command.words, log, environment, tool=command.tool)
    end = time.monotonic() + SECONDS
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail(f'still running after {SECONDS} seconds:\n{log.read_text()[-3000:]}')
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), log.read_text()


def files(*roots):
    """What all files below some folders hold, and when they were changed."""
    found = [path for root in roots for path in root.rglob('*') if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def place(tmp_path, data, good_checkpoint):
    place = Place(tmp_path, data, good_checkpoint)
    with place.held:
        yield place


@pytest.mark.parametrize('case', CASES, ids=str)
def test_bad_input(case, place):
    command = case.prepare(place)
    kept = (place.folder, place.data, place.checkpoint.parent, TOOLBOX / 'configs/fashion_mnist')
    before = files(*kept)
    assert place.work_dir / 'epoch_1.pth' in before
    code, output = finish(command, place.folder)
    assert code > 0, f'exit code {code}:\n{output[-3000:]}'
    assert re.match(case.last, output.splitlines()[-1]), output[-3000:]
    assert 'Traceback' not in output
    after = files(*kept)
    assert {path: after.get(path) for path in before} == before  # not `==` of single bytes: the message would be endless
    assert not [p for p in after if p.suffix == '.pth' and p not in before]
    assert not (place.folder / 'pwned').exists()


def test_the_table():
    sizes = Counter(case.group for case in CASES)
    assert set(sizes) == {'configs', 'teacher weights', 'data', 'checkpoints', 'environment'}
    assert min(sizes.values()) >= 8
    assert len(CASES) >= 40
    assert len({str(case) for case in CASES}) == len(CASES)


def test_the_payload_is_one(tmp_path):
    torch.save(Payload(tmp_path / 'pwned'), tmp_path / 'a.pth')
    with contextlib.suppress(pickle.UnpicklingError):
        torch.load(tmp_path / 'a.pth', weights_only=False)
    assert (tmp_path / 'pwned').exists()
