"""Data that a training cannot use as it is: refused in one line before the first step, or put right and said."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import libraries
import pytest
import torch
import yaml
from commands import tool
from containers import files_of, write_parquet
from folders import class_folders
from mmengine.registry import init_default_scope
from mmpretrain.evaluation import Accuracy, MultiLabelMetric
from mmpretrain.registry import DATASETS, MODELS
from networks import resnet
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from mmcls_kd.checks.data import DataCheck
from mmcls_kd.checks.images import check_images, opened
from mmcls_kd.checks.training import check_batches, check_top_k, one_image_somewhere
from mmcls_kd.command.arguments import training_parser
from mmcls_kd.configs.reading import read_config
from mmcls_kd.engine.config import training_config
from mmcls_kd.engine.runtime import build_runner

pytestmark = pytest.mark.filterwarnings('ignore:.*instance named of')
ENDINGS = ('.jpg', '.tiff', '.webp')
CONFIG = """
default_scope = 'mmpretrain'
log_level = 'WARNING'
randomness = dict(seed=0)
data_preprocessor = dict(num_classes=3, mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='{root}/train', pipeline=pipeline, serialize_data=False))
val_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='{root}/val', pipeline=pipeline, serialize_data=False))
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader, test_evaluator = val_dataloader, val_evaluator
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
train_cfg, val_cfg, test_cfg = dict(by_epoch=True, max_epochs=1), dict(), dict()
model = dict(type='ClassificationDistiller', student_cfg={student!r}, teacher_cfg={teacher!r}, teacher_pretrained=False,
    distill_cfg=[dict(methods=[dict(type='KDLoss', name='loss_kd')])])
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Images of three classes, six each, and a teacher’s weights that name them in another order."""
    root = tmp_path_factory.mktemp('animals')
    for split in ('train', 'val'):
        class_folders(root / split, ant=4, bee=4, cat=4)
    meta = dict(dataset_meta=dict(classes=('cat', 'bee', 'ant')))
    init_default_scope('mmpretrain')
    torch.save(dict(meta=meta, state_dict=MODELS.build(resnet(8, 3)).state_dict()), root / 'teacher.pth')
    return root


@pytest.fixture
def run(root, tmp_path, monkeypatch, capfd):
    """Runs a tool on a config; returns its error, without the tool's name, or all that it said."""

    def call(*options, name='train', more='', words=(), teacher=None, data=None):
        config = tmp_path / 'config.py'
        text = CONFIG.format(root=data or root, student=resnet(4, 3), teacher=teacher or resnet(8, 3))
        config.write_text(text + more)
        options = ['--cfg-options', f'experiment_name={tmp_path.name}', *options]
        argv = [f'{name}.py', str(config), *map(str, words), '--work-dir', str(tmp_path / 'run'), *options]
        monkeypatch.setattr('sys.argv', argv)
        capfd.readouterr()
        try:
            tool(name)()
        except SystemExit as stopped:
            message = str(stopped.code)
            assert message.startswith(f'{name}.py: error: ')
            assert '\n' not in message
            assert not list((tmp_path / 'run').glob('*.pth'))
            return message.split(': error: ')[1]
        return capfd.readouterr().err

    return call


def built(root, tmp_path, more='', **model):
    """The runner of the config."""
    config = tmp_path / 'config.py'
    text = CONFIG.format(root=root, student=resnet(4, 3), teacher=model.pop('teacher_cfg', resnet(8, 3)))
    config.write_text(f'{text}model.update({model!r})\n{more}\n')
    words = [str(config), '--work-dir', str(tmp_path / 'w'), '--cfg-options', f'experiment_name={tmp_path.name}']
    return build_runner(training_config(training_parser('').parse_args(words)))


class TestClassOrder:
    def logits(self, holder, images):
        return holder(images, [], ['logit'])['logit']

    def test_of_the_teachers_weights(self, root, tmp_path):
        runner = built(root, tmp_path, teacher_pretrained=str(root / 'teacher.pth'))
        images = torch.randn(2, 3, 32, 32)
        teacher = runner.model.teacher
        torch.testing.assert_close(
            self.logits(runner.model.teacher_holder, images), teacher(images)[:, [2, 1, 0]], rtol=1e-4, atol=1e-5
        )
        (log,) = (tmp_path / 'w').glob('*/*.log')
        assert 'WARNING - the teacher’s classes are taken in the order of the data’s, by name' in log.read_text()

    def test_of_hugging_face(self, root, tmp_path):
        libraries.hugging_face(tmp_path / 'hf', labels=['CAT', 'dog', 'bee_', 'ant, emmet'])
        runner = built(root, tmp_path, teacher_cfg=f'hf:{tmp_path / "hf"}', teacher_pretrained=True)
        assert runner.model.teacher_holder.by_name == [3, 2, 0]

    def test_of_numbers_alone_is_assumed_and_said(self, root, tmp_path):
        files = files_of(root / 'train')
        write_parquet(files, tmp_path / 'train.parquet', [i % 3 for i in range(len(files))])
        data = f"train_dataloader['dataset'].update(type='HuggingFaceDataset', data_root={str(tmp_path)!r})"
        runner = built(root, tmp_path, data, teacher_pretrained=str(root / 'teacher.pth'))
        assert runner.model.teacher_holder.by_name is None
        (log,) = (tmp_path / 'w').glob('*/*.log')
        assert "taken in the order of the teacher’s ('cat', 'bee', 'ant')" in log.read_text()

    def test_of_the_config_that_a_teacher_comes_from(self, root, tmp_path):
        data = dict(dataset=dict(type='CustomDataset', classes=['bee', 'ant', 'cat']))
        teacher = dict(model=resnet(8, 3), test_dataloader=data)
        assert built(root, tmp_path, teacher_cfg=teacher).model.teacher_holder.by_name == [1, 0, 2]

    def test_a_student_that_will_predict_by_the_teachers_head(self, root, tmp_path):
        with pytest.raises(ValueError, match=r'loss_simkd: .* another order .*: set model.teacher_classes=\[2,1,0\]'):
            built(
                root,
                tmp_path,
                teacher_pretrained=str(root / 'teacher.pth'),
                distill_cfg=[dict(methods=[dict(type='SimKD', name='loss_simkd')])],
            )

    def test_a_split_without_a_class(self, root, run, tmp_path):
        data = tmp_path / 'data'
        class_folders(data / 'train', ant=4, bee=4, cat=4)
        class_folders(data / 'val', bee=1, cat=1)
        message = run(data=data)
        assert message.startswith("val_dataloader: other classes than train_dataloader: missing: 'ant'; 'bee' is class 0 of")
        assert 'an empty one keeps the numbers' in message

    def test_a_checkpoint_of_other_classes_in_test(self, root, run):
        student = MODELS.build(resnet(4, 3)).state_dict()
        for classes, refused in ((('cat', 'bee', 'ant'), True), (('Ant', 'bee', 'cat'), False)):
            torch.save(dict(meta=dict(dataset_meta=dict(classes=classes)), state_dict=student), root / 'student.pth')
            said = run(name='test', words=[root / 'student.pth'])
            assert ('was trained for classes in another order than the data’s' in said) is refused


@MODELS.register_module()
class SpreadLoss(nn.Module):
    """Compares how widely logits spread over a batch, which one image does not tell."""

    def forward(self, logit_s, logit_t):
        spread_s, spread_t = (((z - z.mean(dim=0)) ** 2).sum(dim=0) / (len(z) - 1) for z in (logit_s, logit_t))
        return (spread_s - spread_t).abs().mean()


SPREAD = dict(type='SpreadLoss', name='loss_spread')
NECK = dict(type='LinearNeck', in_channels=32, out_channels=32, norm_cfg=dict(type='BN1d'), act_cfg=None)


class TestBatches:
    @pytest.mark.parametrize('more', ['', 'train_cfg = dict(by_epoch=False, max_iters=2)\n'])
    def test_no_batch(self, more, run):
        assert run('train_dataloader.batch_size=64', 'train_dataloader.drop_last=True', more=more) == (
            'train_dataloader: not one batch in an epoch, of 12 images, batch_size=64 and drop_last=True: set '
            'train_dataloader.drop_last=False, or a batch_size below 64'
        )

    def test_no_batch_in_validation(self, run):
        assert run('val_dataloader.batch_size=64', 'val_dataloader.drop_last=True').startswith('val_dataloader: not one')

    def test_an_endless_sampler_fills_its_batches(self, root, tmp_path):
        loader = dict(batch_size=64, drop_last=True, sampler=dict(type='InfiniteSampler'))
        runner = built(root, tmp_path, f'train_dataloader.update({loader})\ntrain_cfg = dict(by_epoch=False, max_iters=1)')
        check_batches(runner, {'train_dataloader': runner.train_dataloader})

    def test_processes_that_differ(self, root, tmp_path, monkeypatch):
        runner = built(root, tmp_path)
        loaders = {'train_dataloader': runner.train_dataloader}
        monkeypatch.setattr('mmcls_kd.checks.training.all_gather_object', lambda value: [value, 0])
        with pytest.raises(ValueError, match='not one batch in an epoch, of 12 images in 2 processes'):
            check_batches(runner, loaders)
        monkeypatch.setattr('mmcls_kd.checks.training.all_gather_object', lambda value: [value, value - 1])
        with pytest.raises(ValueError, match=r'they have \[3, 2\] batches in an epoch: leave sampler.round_up=False out'):
            check_batches(runner, loaders)

    @pytest.mark.parametrize(
        ('model', 'message'),
        [
            ({}, None),
            (
                dict(distill_cfg=[dict(methods=[SPREAD])]),
                'of which loss_spread is NaN or infinite: set train_dataloader.drop',
            ),
            (
                dict(student_cfg=resnet(4, 3) | dict(neck=[resnet()['neck'], NECK])),
                'which does not go through .*more than 1',
            ),
        ],
        ids=['all well', 'loss', 'batch norm'],
    )
    def test_a_last_batch_of_one(self, model, message, root, tmp_path):
        runner = built(root, tmp_path, f'train_dataloader["batch_size"] = 11\nmodel.update({model})')
        loaders = {'train_dataloader': runner.train_dataloader}
        before = [buffer.clone() for buffer in runner.model.buffers()]
        if message is None:
            check_batches(runner, loaders)
        else:
            with pytest.raises(ValueError, match=f'the last batch of an epoch would be one image, {message}'):
                check_batches(runner, loaders)
        assert all(map(torch.equal, before, runner.model.buffers()))
        assert not one_image_somewhere(torch.utils.data.DataLoader(range(12), batch_size=4))


class TestTopK:
    def test_before_training_and_in_test(self, root, run):
        message = 'val_evaluator: Accuracy with topk=(1, 5), but there are 3 classes: set val_evaluator.topk=(1,)'
        assert run(more='val_evaluator["topk"] = (1, 5)\n') == message
        torch.save(MODELS.build(resnet(4, 3)).state_dict(), root / 'plain.pth')
        assert run(
            more='test_evaluator = dict(type="Accuracy", topk=(1, 5))\n', name='test', words=[root / 'plain.pth']
        ).startswith('test_evaluator')
        own = "test_evaluator = dict(type='SingleLabelMetric')\n"
        assert 'error' not in run(more=own, name='test', words=[root / 'plain.pth', '--metrics', 'accuracy'])

    @pytest.mark.parametrize(('metric', 'wrong'), [(Accuracy((1, 3)), False), (MultiLabelMetric(topk=4), True)])
    def test_metrics(self, metric, wrong):
        with pytest.raises(ValueError, match='topk=4, but .*: set x.topk=1') if wrong else nullcontext():
            check_top_k([metric], 3, 'x')


class TestImages:
    @pytest.fixture
    def data(self, tmp_path):
        for split in ('train', 'val'):
            class_folders(tmp_path / 'data' / split, ant=2, bee=2, cat=2)
        return tmp_path / 'data'

    def damaged(self, path, kind):
        whole = path.read_bytes()
        if kind == 'png':  # of whose end Pillow takes no notice, and OpenCV does
            path.unlink()
            path = path.with_suffix('.png')
            Image.new('RGB', (32, 32)).save(path)
            path.write_bytes(path.read_bytes()[:-6])
        else:
            path.write_bytes({'text': b'no image', 'empty': b'', 'cut': whole[: len(whole) // 2]}[kind])
        return path

    @pytest.mark.parametrize('kind', ['text', 'empty', 'cut', 'png'])
    def test_one_of_validation_that_cannot_be_read(self, kind, data, run):
        path = self.damaged(data / 'val' / 'bee' / '1.jpg', kind)
        assert run(data=data).startswith(f'val_dataloader: the image {path} cannot be read (')

    @pytest.mark.parametrize('kind', ['32 bits', 'cut webp', 'cut tiff in a jpg'])
    def test_one_of_validation_that_the_pipeline_does_not_decode(self, kind, data, run):
        path = data / 'val' / 'bee' / '0.tiff'
        if kind == '32 bits':
            Image.new('F', (32, 32)).save(path)
        else:
            path = path.with_suffix('.webp' if 'webp' in kind else '.jpg')
            Image.effect_noise((32, 32), 50).convert('RGB').save(path, 'WEBP' if 'webp' in kind else 'TIFF')
            path.write_bytes(path.read_bytes()[:-300])
        more = f"for loader in (val_dataloader, test_dataloader):\n    loader['dataset'].update(extensions={ENDINGS!r})\n"
        assert run(data=data, more=more).startswith(f'val_dataloader: the image {path} cannot be read (')

    @pytest.mark.parametrize('split', ['val', 'train'])
    def test_one_of_another_size(self, split, data, run):
        class_folders(data / split, size=40, cat=1)
        message = run(data=data)
        assert message.startswith(f'{split}_dataloader: images of 2 sizes do not go into one batch, such as {data}/{split}/')
        assert f'{data}/{split}/cat/0.jpg (40 × 40)' in message
        assert 'Resize' in message

    def test_sizes_that_the_pipeline_makes_alike(self, data, root, tmp_path):
        class_folders(data / 'val', size=40, cat=1)
        runner = built(data, tmp_path, "pipeline.insert(1, dict(type='Resize', scale=32))")
        check_images(runner.val_dataloader, 'val')
        runner = built(data, tmp_path, 'val_dataloader["batch_size"] = 1')
        check_images(runner.val_dataloader, 'val')

    def test_one_that_lies_on_its_side(self, data, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        for i in range(2):
            Image.new('RGB', (48, 32)).save(data / 'val' / 'cat' / f'{i}.jpg', exif=exif)
        assert opened(None, 0, str(data / 'val' / 'cat' / '0.jpg')).size == (32, 48)

    def test_what_the_check_of_the_data_says(self, data, tmp_path):
        class_folders(data / 'val', size=40, cat=1)
        config = tmp_path / 'config.py'
        config.write_text(CONFIG.format(root=data, student=resnet(4, 3), teacher=resnet(8, 3)))
        lines = []
        check = DataCheck(read_config(str(config)), workers=1)
        check.console = SimpleNamespace(out=lambda line, **_: lines.append(line), is_terminal=False)
        check._check_lists()
        check._check_sizes()
        assert sum('images of 2 sizes do not go into one batch' in line for line in lines) == check.faults == 1


class TestFilesOfATest:
    @pytest.fixture
    def weights(self, tmp_path):
        torch.save(MODELS.build(resnet(4, 3)).state_dict(), tmp_path / 'student.pth')
        return tmp_path / 'student.pth'

    @pytest.mark.parametrize(('ending', 'read'), [('json', json.loads), ('yaml', yaml.safe_load)])
    def test_a_matrix_among_the_metrics(self, ending, read, weights, run, tmp_path):
        out = tmp_path / f'metrics.{ending}'
        both = "test_evaluator = [dict(type='ConfusionMatrix'), dict(type='Accuracy')]\n"
        run(more=both, name='test', words=[weights, '--out', out, '--out-item', 'metrics'])
        found = read(out.read_text())
        matrix = found['confusion_matrix/result']
        assert [sum(row) for row in matrix] == [4, 4, 4]
        assert found['accuracy/top1'] == pytest.approx(100 * sum(matrix[i][i] for i in range(3)) / 12)

    @pytest.mark.parametrize('given', ['', "visualizer = dict(type='Visualizer', vis_backends=[])\n"])
    def test_predictions_are_drawn_whatever_the_configs_visualizer(self, given, weights, run, tmp_path):
        run(more=given, name='test', words=[weights, '--show-dir', tmp_path / 'drawn', '--interval', 5])
        assert len(list((tmp_path / 'drawn').iterdir())) == 3


@DATASETS.register_module()
class Streamed(IterableDataset):
    """Images one after another."""

    def __iter__(self):
        return iter(())


@DATASETS.register_module()
class Uncounted(Dataset):
    """Images by their number, without the number of all."""

    def __getitem__(self, index):
        raise IndexError(index)


class TestKinds:
    @pytest.mark.parametrize('kind', ['Streamed', 'Uncounted'])
    @pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
    def test_a_data_set_without_access_by_number(self, kind, sampler, run):
        given = f"dict(type='RepeatDataset', times=2, dataset=dict(type='{kind}'))"
        message = run(more=f"train_dataloader.update(dataset={given}, sampler=dict(type='{sampler}'))\n")
        assert message.startswith(f'train_dataloader: {kind} is not supported: a data set needs `__getitem__` and `__len__`')

    def test_one_of_validation_and_of_a_test(self, run):
        for name in ('train', 'test'):
            more = "val_dataloader['dataset'] = test_dataloader['dataset'] = dict(type='Streamed')\n"
            message = run(more=more, name=name, words=['student.pth'] * (name == 'test'))
            assert message.startswith(f'{"val" if name == "train" else "test"}_dataloader: Streamed is not supported')

    def test_a_runner_of_another_kind(self, run):
        message = run('runner_type=FlexibleRunner')
        assert message == (
            "runner_type='FlexibleRunner': only mmengine's Runner, and classes derived from it, are supported: leave "
            'runner_type out'
        )
