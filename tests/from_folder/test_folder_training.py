"""From a folder of images to a student: the made config, its training, and inference from what is saved."""

import errno
import os
import re
import shlex
import shutil
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from folders import class_folders
from libraries import hugging_face
from mmengine.config import Config
from mmpretrain.models.classifiers import TimmClassifier
from PIL import Image

import mmcls_kd
from mmcls_kd.command import predict, store, test, train
from mmcls_kd.command.from_folder.making import Order, chosen_methods, fit_methods, make
from mmcls_kd.command.from_folder.runs import next_commands
from mmcls_kd.command.from_folder.writing import folder_gone
from mmcls_kd.command.training import parser
from mmcls_kd.distillers.classification import ClassificationDistiller
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.files.plain_data import read_plain_config
from mmcls_kd.networks.cost import count_flops, count_parameters

NET = 'timm:test_resnet'
CLASSES = ('ant', 'bee', 'cat')
PUBLISHED = timm.create_model('test_resnet').pretrained_cfg


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Class folders whose images differ in colour."""
    root = tmp_path_factory.mktemp('images') / 'insects'
    random = np.random.RandomState(0)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(10):
            pixels = random.randint(0, 120, (36, 40, 3)) + 120 * (np.arange(3) == number)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f'{i}.png')
    return root


def weights(path, count=3, names=None):
    """A file of weights of :data:`NET`, with the names of its classes if any are given."""
    network = timm.create_model('test_resnet', num_classes=count)
    meta = dict(dataset_meta=dict(classes=names)) if names else {}
    torch.save(dict(state_dict=network.state_dict(), meta=meta), path)
    return str(path)


def order(images, tmp_path, **changes):
    return Order(**{**dict(data=str(images), student=NET, size=32, epochs=1, work_dir=str(tmp_path / 'out')), **changes})


def model_of(made):
    return Config.fromfile(next(iter(made.configs.values()))).model


class TestMade:
    def test_a_student_alone(self, images, tmp_path):
        made = make(order(images, tmp_path))
        cfg = Config.fromfile(tmp_path / 'out' / 'out.py')
        assert made.configs == dict(student=tmp_path / 'out' / 'out.py')
        assert cfg.model == dict(type='TimmClassifier', model_name='test_resnet', num_classes=3)
        assert cfg.train_dataloader.dataset.metainfo.classes == list(CLASSES)
        assert cfg.test_dataloader == cfg.val_dataloader
        assert len((tmp_path / 'out' / 'train.txt').read_text().splitlines()) == 24
        assert (tmp_path / 'out' / 'val.txt').read_text().splitlines()[0].endswith(' 0')
        assert cfg.data_preprocessor.mean == pytest.approx([255 * value for value in PUBLISHED['mean']])

    def test_it_has_the_normalisation_of_the_students_library(self, images, tmp_path):
        make(order(images, tmp_path, student='timm:test_vit', size=None))
        cfg = Config.fromfile(tmp_path / 'out' / 'out.py')
        known = timm.create_model('test_vit').pretrained_cfg
        assert cfg.data_preprocessor.mean == pytest.approx([255 * value for value in known['mean']])
        assert cfg.train_dataloader.dataset.pipeline[1].scale == known['input_size'][1]  # the only one that it takes
        assert cfg.optim_wrapper.optimizer.type == 'AdamW'

    @pytest.mark.parametrize('kind', ['torchvision', 'zoo', 'config', 'hf'])
    def test_names_of_any_library(self, images, tmp_path, kind):
        names = dict(
            torchvision='torchvision:shufflenet_v2_x0_5',
            zoo='resnet18_8xb16_cifar10',
            config='configs/mobilenet_v1/mobilenet_v1.py',
            hf=f'hf:{tmp_path / "vit"}',
        )
        if kind == 'hf':
            hugging_face(tmp_path / 'vit')
        taught = dict(teachers=[NET], teacher_weights=[weights(tmp_path / 'teacher.pth')])
        student = model_of(make(order(images, tmp_path, student=names[kind], methods=['dist'], **taught))).student_cfg
        count = dict(torchvision='num_classes', hf='num_labels').get(kind)
        assert (student[count] if count else student.head.num_classes) == 3
        if not count:
            assert max(student.head.get('topk', (1,))) <= 3

    def test_a_teacher_has_the_classes_of_its_weights(self, images, tmp_path):
        names = ['zebra', 'Cat', 'bee', 'ant']
        file = weights(tmp_path / 'four.pth', 4, names)
        model = model_of(make(order(images, tmp_path, teachers=[NET], teacher_weights=[file])))
        assert (model.teacher_cfg.num_classes, model.student_cfg.num_classes) == (4, 3)
        assert [e.methods[0].name for e in model.distill_cfg if e.methods[0].use_this] == ['loss_dist']

    def test_several_teachers_and_weights_published_with_one(self, images, tmp_path):
        file = weights(tmp_path / 'one.pth')
        made = make(order(images, tmp_path, teachers=[NET, 'timm:resnet18'], teacher_weights=[file, 'pretrained']))
        assert model_of(made).teacher_pretrained == [file, True]
        assert [one.get('num_classes') for one in model_of(made).teacher_cfg] == [3, None]

    def test_two_teachers_of_one_network_have_their_own_weights(self, images, tmp_path):
        files = [weights(tmp_path / f'{name}.pth') for name in ('one', 'two')]
        made = make(order(images, tmp_path, teachers=[NET, NET], teacher_weights=files))
        assert model_of(made).teacher_pretrained == files

    def test_the_baseline_differs_in_the_model_alone(self, images, tmp_path):
        file = weights(tmp_path / 'one.pth')
        made = make(order(images, tmp_path, teachers=[NET], teacher_weights=[file], baseline=True))
        one, other = (Config.fromfile(made.configs[name]) for name in ('distilled', 'alone'))
        assert {key for key in one if one[key] != other[key]} == {'model', 'work_dir'}
        assert other.model == one.model.student_cfg

    def test_the_baseline_starts_from_the_same_weights(self, images, tmp_path):
        """All but the classifier, which is of other classes."""
        given = dict(student_weights=weights(tmp_path / 'start.pth', 7), teacher_weights=[weights(tmp_path / 'one.pth')])
        made = make(order(images, tmp_path, teachers=[NET], baseline=True, **given))
        assert model_of(made).student_pretrained == given['student_weights']
        alone = torch.load(Config.fromfile(made.configs['alone']).load_from)['state_dict']
        source = torch.load(given['student_weights'])['state_dict']
        assert all(torch.equal(alone[name], value) for name, value in source.items() if not name.startswith('fc.'))
        assert alone['fc.weight'].shape[0] == 3

    def test_another_config_replaces_it_only_before_a_training(self, images, tmp_path):
        make(order(images, tmp_path))
        make(order(images, tmp_path, epochs=2))
        (tmp_path / 'out' / 'student').mkdir()
        (tmp_path / 'out' / 'student' / 'last_checkpoint').touch()
        make(order(images, tmp_path, epochs=2, command='another word'))
        with pytest.raises(ValueError, match='belongs to a training that has begun.*or name another --work-dir'):
            make(order(images, tmp_path, epochs=3))


@pytest.mark.own_process  # it trains
@pytest.mark.filterwarnings('ignore')
def test_of_a_folder_that_has_moved_the_command_is_named_that_goes_on(images, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
    old, new = tmp_path / 'here', tmp_path / 'my images'
    shutil.copytree(images, old)
    words = ['--student', NET, '--size', '32', '--epochs', '2', '--work-dir', str(tmp_path / 'out')]
    train_step = TimmClassifier.train_step

    def interrupted(self, *args, **keywords):
        if (tmp_path / 'out' / 'student' / 'epoch_1.pth').exists():
            raise KeyboardInterrupt
        return train_step(self, *args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(TimmClassifier, 'train_step', interrupted)
        with pytest.raises(SystemExit):
            train.main(['--data', str(old), *words])
    old.rename(new)
    with pytest.raises(SystemExit, match=f'on the images of {old}, which is no longer there: ') as ended:
        train.main(['--data', str(new), *words, '--resume'])
    command = shlex.split(re.search('go on by `(.+)`', str(ended.value))[1])
    train.main(command[command.index('train') + 1 :])
    assert (tmp_path / 'out' / 'student' / 'epoch_2.pth').is_file()
    old.mkdir()
    with pytest.raises(SystemExit, match='differs from what this command makes: train it as it is'):
        train.main(['--data', str(new), *words, '--resume'])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(student='timm:resnet81'), "timm has no model 'resnet81'; did you mean 'resnet18'"),
        (dict(student='torchvision:resnet81'), "no classifier 'resnet81'; did you mean"),
        (dict(student='resnet18_8xb32_in1kk'), "no model of that name; did you mean 'resnet18_8xb32_in1k'"),
        (dict(teachers=['timm:resnet81']), "--teacher: timm has no model 'resnet81'"),
        (dict(teachers=[NET, 'timm:Test_ResNet']), "--teacher: timm has no model 'Test_ResNet'; did you mean 'test_resnet'"),
        (dict(teachers=[NET], teacher_weights=['nowhere.pth']), 'teacher weights nowhere.pth: no such file'),
        (dict(teachers=[NET], teacher_weights=['a', 'b']), 'names 2 files for 1 teachers'),
        (dict(teachers=['configs/fashion_mnist/resnet18-w16_9e.py']), 'no weights are published with it'),
        (dict(teachers=[NET], methods=['nkdd']), "--method: no method 'nkdd'; did you mean 'nkd'"),
        (dict(methods=['nkd']), '--method nkd needs --teacher NAME'),
        (dict(teachers=[NET], methods=['uskd']), 'needs no teacher'),
        (dict(baseline=True), '--baseline: without --teacher'),
        (
            dict(student='out/student.pth'),
            '--student out/student.pth is a file of weights: .*by --student-weights out/student.pth',
        ),
        (
            dict(teachers=['t.safetensors']),
            '--teacher t.safetensors is a file of weights: .*by --teacher-weights t.safetensors',
        ),
        (dict(student='resnet18'), 'no model of that name.* begin with the library: timm:NAME, '),
        (dict(student='timm:test_vit', size=33), '--size: the student does not run'),
    ],
)
def test_refusals(images, tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        make(order(images, tmp_path, **changes))
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'out').exists()


def test_a_folder_of_results_that_would_be_a_class_or_is_a_file_is_refused(images, tmp_path):
    with pytest.raises(ValueError, match='inside of --data: name another --work-dir'):
        make(order(images, tmp_path, work_dir=str(images / 'out')))
    (tmp_path / 'out').touch()
    with pytest.raises(ValueError, match='--work-dir .*out is a file: name a folder'):
        make(order(images, tmp_path))


@pytest.mark.parametrize('number', [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_of_results_that_cannot_be_written_is_named(images, tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('mmcls_kd.command.from_folder.writing.atomic_path', refuse)
    with pytest.raises(ValueError, match=rf'--work-dir .*out cannot be written .*{os.strerror(number)}.*: name a folder'):
        make(order(images, tmp_path))


def test_a_folder_of_results_below_a_file_is_refused(images, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(ValueError, match=r'--work-dir .*file/out cannot be written \(.*Not a directory'):
        make(order(images, tmp_path, work_dir=str(tmp_path / 'file' / 'out')))


def test_results_may_be_beside_train_and_val(tmp_path):
    for part in ('train', 'val'):
        class_folders(tmp_path / part, ant=4, bee=4)
    assert make(order(tmp_path, tmp_path)).folder == tmp_path / 'out'
    assert make(order(tmp_path, tmp_path)).images.classes == ['ant', 'bee']


def test_repeated_options_add_up():
    weights = ['--teacher-weights', 'e', '--teacher-weights', 'f']
    args = train.parse_args(['--data', 'a', '--student', 'b', '--teacher', 'c', '--teacher', 'd', *weights])
    assert (args.teacher, args.teacher_weights) == (['c', 'd'], ['e', 'f'])


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['a.JPG', 'b.pth'], 'a.JPG is an image, and the student comes before the images: b.pth a.JPG'),
        (['c.py', 'a.png', 'b.pth', 'd.png'], 'comes before the images: b.pth a.png d.png'),
        (['a.png', 'd.png'], 'STUDENT a.png d.png'),
        (['b.pth', 'c.py', 'a.png'], 'c.py is a config, which comes before the student: CONFIG STUDENT IMAGE'),
    ],
)
def test_words_in_another_order(words, message, capsys):
    with pytest.raises(SystemExit):
        predict.parse_args(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(('images', 'size'), [(2, 2), (24, 8), (100, 32), (4095, 1024), (4096, 2048), (10**6, 8192)])
def test_the_queue_has_a_quarter_to_half_of_the_images(images, size):
    entries = chosen_methods(Order('folder', NET, teachers=[NET], methods=['queue', 'dist']))
    fit_methods(entries, images, 2, 10)
    (queue,) = [e['methods'][0] for e in entries if e['methods'][0]['type'] == 'QueueLoss']
    assert queue['queue_size'] == size
    assert 'queue_size' not in next(e['methods'][0] for e in entries if e['methods'][0]['type'] == 'DISTLoss')


@pytest.mark.parametrize(
    ('images', 'epochs', 'steps', 'warmup'), [(8, 3, 3, 1), (100, 30, 375, 2), (400, 100, None, 8), (400, 240, None, 20)]
)
def test_phases_and_warm_ups_are_shares_of_a_short_training(images, epochs, steps, warmup):
    entries = chosen_methods(Order('folder', NET, teachers=[NET], methods=['ft', 'luminet', 'dist', 'rld']))
    fit_methods(entries, images, 2, epochs)
    ft, luminet, dist, rld = (
        next(e['methods'][0] for e in entries if e['methods'][0]['type'] == f'{kind}Loss')
        for kind in ('FT', 'LumiNet', 'DIST', 'RLD')
    )
    assert ft.get('paraphraser_steps') == steps
    assert luminet['loss_weight'] == dict(value=0.5, warmup=warmup)
    assert rld['loss_weight'] == dict(value=1.0, warmup=1)
    assert 'loss_weight' not in dist or not isinstance(dist['loss_weight'], dict)


def test_self_distillation_needs_no_teacher():
    entries = chosen_methods(Order('folder', NET, methods=['tfnkd']))
    assert [e['methods'][0]['name'] for e in entries if e['methods'][0]['use_this']] == ['loss_tfnkd']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'give a CONFIG, or --data FOLDER'),
        (['config.py', '--data', 'a'], 'exactly one of both'),
        (['--data', 'a'], '--data needs --student NAME'),
        (['config.py', '--epochs', '3'], '--epochs goes with --data FOLDER; in a config, it is a key'),
        (['--data', 'a', '--student', 'b', '--teacher-weights', 'c'], '--teacher-weights needs --teacher'),
        (['--data', 'a', '--student', 'b', '--launcher', 'pytorch'], '--config-only'),
        (['--data', 'a', '--student', 'b', '--no-validate'], '--no-validate'),
        (['--data', 'a', '--student', 'b', '--seed', '-1'], '--seed -1: give 0 or more'),
        (['--data', 'a', '--student', 'b', '--config-only', '--cfg-options', 'a=1'], 'give --cfg-options'),
    ],
)
def test_options_that_do_not_go_together(words, message, capsys):
    with pytest.raises(SystemExit):
        train.parse_args(words)
    assert message in capsys.readouterr().err


@pytest.fixture(scope='module')
def trained(images, tmp_path_factory):
    """A teacher that is trained by one command, then a student by another; what they printed."""
    root = tmp_path_factory.mktemp('trained')
    small = ['--size', '32', '--data', str(images)]
    patch = pytest.MonkeyPatch()
    with patch.context() as changed:
        changed.setattr(sys, 'argv', ['mmcls_kd train'])
        train.main([*small, '--student', NET, '--epochs', '3', '--work-dir', str(root / 'teacher')])
        words = [*small, '--student', NET, '--teacher', NET, '--teacher-weights', str(root / 'teacher' / 'student.pth')]
        words += ['--epochs', '2', '--baseline', '--work-dir', str(root / 'student')]
        with (root / 'shown').open('w') as file, changed.context() as inner:
            inner.setattr(sys, 'stdout', file)
            train.main(words)
    return root, words, (root / 'shown').read_text()


@pytest.mark.filterwarnings('ignore')
class TestTrained:
    def test_the_files_and_the_table(self, trained):
        root, _, shown = trained
        for name in ('student.py', 'student_alone.py', 'train.txt', 'val.txt', 'student.pth', 'curves.png'):
            assert (root / 'student' / name).stat().st_size > 0
        rows = {line.split('│')[1].strip(): line.split('│')[2:-1] for line in shown.splitlines() if line.startswith('│')}
        assert list(rows) == ['teacher', 'student alone', 'student, distilled']
        network = timm.create_model('test_resnet', num_classes=3)
        assert all(f'{sum(p.numel() for p in network.parameters()):,}' == cells[1].strip() for cells in rows.values())
        logged = re.findall(
            r'accuracy/top1: ([\d.]+)', (root / 'student' / 'distilled').rglob('*.log').__next__().read_text()
        )
        assert float(rows['student, distilled'][0]) == pytest.approx(float(logged[-1]), abs=0.01)

    def test_the_next_commands_run(self, trained, monkeypatch, capsys):
        _, _, shown = trained
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd'])
        commands = [shlex.split(line) for line in shown[shown.index('Next:') :].splitlines()[1:4]]
        assert [command[:4] for command in commands] == [
            ['python', '-m', 'mmcls_kd', v] for v in ('predict', 'export', 'test')
        ]
        predict.main(commands[0][4:])
        assert re.fullmatch(r'\S+png: (\w+ [\d.]+ %(, )?){3}\n', capsys.readouterr().out)

    def test_predict_takes_the_images_of_a_folder(self, trained, images, tmp_path, capsys):
        student = str(trained[0] / 'student' / 'student.pth')
        predict.main([student, str(images / 'bee'), str(next((images / 'ant').iterdir()))])
        named = [line.partition(': ')[0] for line in capsys.readouterr().out.splitlines()]
        assert named[:-1] == sorted(str(path) for path in (images / 'bee').iterdir())
        assert '/ant/' in named[-1]
        with pytest.raises(SystemExit, match='there is no image in it or below it'):
            predict.main([student, str(tmp_path)])

    def test_the_next_commands_have_the_options_of_the_training(self, images, monkeypatch):
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
        words = ['data_preprocessor.mean=[0,0.5,0]', 'model.it.name=a b', 'x.y=true', 'z=[(a,1),none]', 'n=None']
        options = parser().parse_args(['--cfg-options', *words]).cfg_options
        made = SimpleNamespace(lacks_classes=False, images=SimpleNamespace(root=images, val=[('bee/0.png', 0)]))
        classify, *others = next_commands(made, SimpleNamespace(config='a.py', student_file='a.pth'), options)
        assert '--cfg-options' not in classify  # the file of the student has them
        for command in others:
            given = command[command.index('--cfg-options') :]
            assert parser().parse_args(given).cfg_options == options
        assert not any(
            '--cfg-options' in command
            for command in next_commands(made, SimpleNamespace(config='a', student_file='b'), None)
        )

    def test_three_lines_of_inference(self, trained, images):
        root, _, _ = trained
        predictor = mmcls_kd.Predictor(root / 'teacher' / 'student.pth')
        found = predictor(images / 'bee' / '0.png')
        assert {name for name, _ in found} == set(CLASSES)
        assert sum(probability for _, probability in found) == pytest.approx(1, abs=1e-5)
        assert found == sorted(found, key=lambda pair: -pair[1])

    @pytest.mark.parametrize(
        ('image', 'kind'),
        [
            (np.zeros((32, 32, 3), np.uint8), 'ndarray'),
            (Image.new('RGB', (32, 32)), 'Image'),
            (torch.zeros(3, 32, 32), 'Tensor'),
            (['a.png', 'b.png'], 'list'),
            (b'a.png', 'bytes'),
        ],
        ids=lambda value: value if isinstance(value, str) else '',
    )
    def test_what_is_no_path_is_refused(self, trained, image, kind):
        predictor = mmcls_kd.Predictor(trained[0] / 'teacher' / 'student.pth')
        with pytest.raises(TypeError, match=f'image: a {kind}, and a Predictor takes the path of one image file: '):
            predictor(image)

    def test_the_probabilities_are_those_of_the_plain_network(self, trained, images):
        """The oracle: timm's network, and the pipeline by hand."""
        root, _, _ = trained
        file = root / 'student' / 'student.pth'
        network = timm.create_model('test_resnet', num_classes=3).eval()
        state = torch.load(file, weights_only=True)['state_dict']
        network.load_state_dict({key.removeprefix('model.'): value for key, value in state.items()})
        image = Image.new('RGB', (32, 32), (10, 200, 90))  # of one colour: its size alone changes
        path = root / 'green.png'
        image.save(path)
        mean, std = (255 * np.array(PUBLISHED[key]) for key in ('mean', 'std'))
        inputs = torch.tensor((np.asarray(image) - mean) / std).permute(2, 0, 1)[None].float()
        expected = network(inputs)[0].softmax(0)
        found = dict(mmcls_kd.Predictor(file)(path))
        assert [found[name] for name in CLASSES] == pytest.approx(expected.tolist(), rel=1e-4)
        by_config = dict(mmcls_kd.Predictor(file, root / 'student' / 'student.py')(path))
        assert by_config == pytest.approx(found)

    def test_the_made_config_trains_by_itself(self, trained, monkeypatch, tmp_path):
        root, _, _ = trained
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
        options = ['--cfg-options', 'train_cfg.max_epochs=1', 'param_scheduler=None']
        train.main([str(root / 'student' / 'student.py'), '--work-dir', str(tmp_path), *options])
        assert (tmp_path / 'epoch_1.pth').is_file()
        assert read_plain_config(tmp_path / 'student.py').model.student_cfg.num_classes == 3

    def test_resume_of_a_finished_one_gives_the_same_result(self, trained, monkeypatch, capsys):
        _, words, shown = trained
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
        train.main([*words, '--resume'])
        again = capsys.readouterr().out
        cells = [[line.split('│')[1:5] for line in text.splitlines() if line.startswith('│')] for text in (shown, again)]
        assert cells[0] == cells[1]

    @pytest.mark.parametrize(
        ('words', 'message'),
        [
            (['student.pth', 'nowhere.png'], 'image nowhere.png: no such file'),
            (['student.pth', 'broken.png'], 'image broken.png cannot be read: no image that can be identified'),
            (['nowhere.pth', 'broken.png'], 'student weights nowhere.pth: no such file'),
            (['bare.pth', 'broken.png'], 'bare.pth has no config in it, and its folder has 2'),
        ],
    )
    def test_predict_refuses_in_a_line(self, trained, monkeypatch, words, message):
        monkeypatch.chdir(trained[0] / 'student')
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd predict'])
        (trained[0] / 'student' / 'broken.png').write_bytes(b'x')
        torch.save(timm.create_model('test_resnet', num_classes=3).state_dict(), 'bare.pth')
        with pytest.raises(SystemExit, match=message):
            predict.main(words)

    def test_predict_goes_on_after_a_broken_image(self, trained, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd predict'])
        for name in 'ac':
            Image.new('RGB', (40, 40), 'red').save(tmp_path / f'{name}.png')
        (tmp_path / 'b.png').write_bytes(b'x')
        with pytest.raises(SystemExit, match=rf'error: 1 of 3 images: image {tmp_path}/b.png cannot be read: no image'):
            predict.main([str(trained[0] / 'student' / 'student.pth'), str(tmp_path)])
        assert [line.partition(':')[0] for line in capsys.readouterr().out.splitlines()] == [
            f'{tmp_path}/{name}.png' for name in 'ac'
        ]


def same_weights(*paths):
    first, *others = [torch.load(path, weights_only=True)['state_dict'] for path in paths]
    return all(first.keys() == one.keys() and all(torch.equal(first[key], one[key]) for key in first) for one in others)


@pytest.mark.slow
@pytest.mark.own_process  # it trains
@pytest.mark.filterwarnings('ignore')
def test_after_ctrl_c_the_same_command_resumes(images, tmp_path, monkeypatch, capsys):
    """In the second epoch, and in the baseline: it ends as undisturbed."""
    monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
    words = ['--data', str(images), '--size', '32', '--student', NET, '--teacher', NET, '--epochs', '2', '--baseline']
    words += ['--teacher-weights', weights(tmp_path / 'teacher.pth'), '--work-dir']
    train.main([*words, str(tmp_path / 'whole')])
    step, seen = ClassificationDistiller.train_step, []
    alone = TimmClassifier.train_step

    def interrupted(original, at):
        def train_step(*args, **keywords):
            seen.append(at)
            if seen.count(at) == at:
                raise KeyboardInterrupt
            return original(*args, **keywords)

        return train_step

    moments = dict(later=(ClassificationDistiller, step, 5), base=(TimmClassifier, alone, 3))
    for name, (kind, original, at) in moments.items():
        with monkeypatch.context() as patch:
            patch.setattr(kind, 'train_step', interrupted(original, at))
            with pytest.raises(SystemExit) as ended:
                train.main([*words, str(tmp_path / name)])
        assert ended.value.code == 130
        assert 'interrupted; the same command with --resume resumes' in capsys.readouterr().err
        seen.clear()
        train.main([*words, str(tmp_path / name), '--resume'])
        for file in ('student.pth', 'alone/epoch_2.pth'):
            assert same_weights(tmp_path / 'whole' / file, tmp_path / name / file)


def in_three_parts(images, root):
    """The images in train, val, and test, which lacks a class."""
    for part, of in dict(train='012345', val='67', test='89').items():
        for name in CLASSES[: 2 if part == 'test' else 3]:
            (root / part / name).mkdir(parents=True)
            for i in of:
                (root / part / name / f'{i}.png').symlink_to(images / name / f'{i}.png')


@pytest.mark.own_process  # it trains
@pytest.mark.filterwarnings('ignore')
def test_a_request_to_end_between_two_trainings_counts(images, tmp_path, monkeypatch):
    def end(*lines, code):
        raise SystemExit(f'{code}: {lines[0]}')

    monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
    monkeypatch.setattr('mmcls_kd.command.from_folder.summary.measure', lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr('mmcls_kd.command.exits._end_at_once', end)  # which takes the process with it
    words = ['--data', str(images), '--size', '32', '--student', NET, '--teacher', NET, '--epochs', '1', '--baseline']
    words += ['--teacher-weights', weights(tmp_path / 'teacher.pth'), '--work-dir', str(tmp_path / 'out')]
    with pytest.raises(SystemExit, match='75: .*asked to end; the same command with --resume resumes'):
        train.main(words)
    assert len([*tmp_path.glob('out/*/epoch_1.pth')]) == 1


@pytest.mark.own_process  # it trains
@pytest.mark.filterwarnings('ignore')
def test_a_test_set_is_measured_at_the_end(images, tmp_path, monkeypatch, capsys):
    """The oracle: each image of it by the predictor, and the made config's own test."""
    in_three_parts(images, tmp_path / 'data')
    monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
    out = tmp_path / 'out'
    words = ['--data', str(tmp_path / 'data'), '--student', NET, '--teacher', NET, '--teacher-weights']
    words += [weights(tmp_path / 'teacher.pth'), '--size', '32', '--epochs', '2', '--work-dir', str(out)]
    train.main(words)
    shown = capsys.readouterr().out
    assert "test: no images of 'cat'" in shown
    assert '18 training, 6 validation and 4 test images of 3 classes' in shown
    assert '6 validation and 4 test images' in shown
    rows = {line.split('│')[1].strip(): line.split('│')[2:-1] for line in shown.splitlines() if line.startswith('│')}
    for name, file in {'teacher': tmp_path / 'teacher.pth', 'student, distilled': out / 'student.pth'}.items():
        predictor = mmcls_kd.Predictor(file, out / 'out.py') if name == 'teacher' else mmcls_kd.Predictor(file)
        lines = (out / 'test.txt').read_text().splitlines()
        right = [predictor(tmp_path / 'data' / line[:-2])[0][0] == line.split('/')[1] for line in lines]
        assert float(rows[name][4]) == pytest.approx(100 * np.mean(right), abs=0.01)
    test.main([str(out / 'out.py'), str(out / 'student.pth'), '--work-dir', str(tmp_path / 'tested')])
    log = ''.join(path.read_text() for path in (tmp_path / 'tested').rglob('*.log'))
    assert f'accuracy/top1: {float(rows["student, distilled"][4]):.4f}' in log


@pytest.mark.filterwarnings('ignore')
class TestMeasured:
    """What is measured after a training is checked before it, and costs no student."""

    @pytest.fixture
    def refused(self, tmp_path, monkeypatch):
        """Function that trains, and returns the message of the refusal; nothing is trained."""
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])

        def call(data, *words):
            given = ['--data', str(data), '--student', NET, '--size', '32', '--epochs', '1', '--work-dir']
            with pytest.raises(SystemExit) as ended:
                train.main([*given, str(tmp_path / 'out'), *words])
            assert not list((tmp_path / 'out').rglob('*.pth'))
            return str(ended.value)

        return call

    def test_a_damaged_image_of_the_test_set(self, images, tmp_path, refused):
        in_three_parts(images, tmp_path / 'data')
        path = tmp_path / 'data' / 'test' / 'bee' / '8.png'
        whole = path.read_bytes()
        path.unlink()
        path.write_bytes(whole[: len(whole) // 2])
        assert f'error: test_dataloader: the image {path} cannot be read (' in refused(tmp_path / 'data')

    @pytest.mark.parametrize(
        ('words', 'given'),
        [
            (['val_evaluator.type=SingleLabelMetric', 'val_evaluator._delete_=True'], 'SingleLabelMetric'),
            (['val_evaluator.topk=2'], 'Accuracy'),
            (['val_evaluator.thrs=0.1,0.2'], 'Accuracy'),
            (['val_cfg=None', 'val_dataloader=None', 'val_evaluator=None'], 'none'),
        ],
    )
    def test_without_the_metric_of_the_table(self, images, tmp_path, refused, words, given):
        message = refused(images, '--cfg-options', *words)
        assert f'val_evaluator: the table after a training on a folder needs accuracy/top1, and the metrics are {given}' in (
            message
        )
        config = re.search(r'or train (\S+) with your change', message)[1]
        train.main([config, '--cfg-options', *words, 'train_cfg.max_epochs=1'])
        assert (tmp_path / 'out' / 'student' / 'epoch_1.pth').is_file()

    def test_a_metric_of_the_test_set_alone(self, images, tmp_path, refused):
        in_three_parts(images, tmp_path / 'data')
        message = refused(tmp_path / 'data', '--cfg-options', 'test_evaluator.topk=2')
        assert 'test_evaluator: the table after a training on a folder needs accuracy/top1' in message

    def test_a_stored_teacher_has_no_row(self, images, tmp_path):
        taught = dict(teachers=[NET], teacher_weights=[weights(tmp_path / 'teacher.pth')])
        config = make(order(images, tmp_path, work_dir=str(tmp_path / 'stored'), **taught)).configs['distilled']
        store.main([str(config), '--epochs', '1', '--store', str(tmp_path / 'store')])
        _, result = mmcls_kd.distill(
            NET, NET, images, epochs=1, size=32, work_dir=tmp_path / 'stored', teacher_weights=taught['teacher_weights'],
            options={'model.teacher_store': str(tmp_path / 'store')},
        )  # fmt: skip
        assert list(result.rows) == ['distilled']
        assert result.student_file.is_file()
        log = ''.join(path.read_text() for path in (tmp_path / 'stored' / 'distilled').rglob('*.log'))
        assert 'the table has no row of the teacher: a stored one knows the training images alone' in log

    def test_a_student_of_simkd_costs_what_its_file_holds(self, images, tmp_path):
        network, result = mmcls_kd.distill(
            NET, NET, images, 'simkd', epochs=1, size=32, work_dir=tmp_path / 'out',
            teacher_weights=weights(tmp_path / 'teacher.pth'),
        )  # fmt: skip
        row, alone = result.rows['distilled'], TimmClassifier('test_resnet', num_classes=3).eval()
        image = torch.zeros(1, 3, 32, 32)
        assert row.parameters == sum(parameter.numel() for parameter in network.parameters())
        channels, height, width = alone.model.forward_features(image).shape[1:]
        inside = channels // 2
        projector = height * width * inside * (channels + 9 * inside + channels)
        assert row.macs == count_flops(alone, image) // 2 + projector + 3 * channels

    def test_the_student_is_written_first(self, images, tmp_path, monkeypatch):
        def fail(*_):
            raise RuntimeError('while it measures')

        monkeypatch.setattr('mmcls_kd.command.from_folder.summary.measure', fail)
        with pytest.raises(RuntimeError, match='while it measures'):
            mmcls_kd.distill(NET, None, images, epochs=1, size=32, work_dir=tmp_path / 'first')
        assert mmcls_kd.Predictor(tmp_path / 'first' / 'student.pth').classes == list(CLASSES)


@pytest.mark.filterwarnings('ignore')
def test_from_python(images, tmp_path, monkeypatch):
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD')
    before = dict(os.environ)
    student, result = mmcls_kd.distill(
        NET, NET, images, epochs=1, teacher_weights=weights(tmp_path / 'teacher.pth'), size=32, work_dir=tmp_path / 'out'
    )
    assert type(student).__module__.startswith('timm.')
    assert not student.training
    assert student(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert result.student_file == tmp_path / 'out' / 'student.pth'
    assert result.config.is_file()
    assert result.curves == dict(distilled=[(1, result.top1)])
    assert 0 <= result.rows['teacher'].top1 <= 100
    assert result.test_top1 is None
    assert os.environ == before
    again, _ = mmcls_kd.distill(
        NET, None, images, epochs=1, size=32, student_weights=result.student_file, work_dir=tmp_path / 'again',
        options={'optim_wrapper.optimizer.lr': 0.0},
    )  # fmt: skip
    for mine, first in zip(again.parameters(), student.parameters(), strict=True):
        assert torch.equal(mine, first)


@pytest.mark.filterwarnings('ignore')
def test_a_run_that_early_stopping_ended_stays_so(images, tmp_path):
    options = {
        'custom_hooks': [dict(type='EarlyStoppingHook', monitor='accuracy/top1', stopping_threshold=-1)],  # at once
        'default_hooks.checkpoint.save_best': 'accuracy/top1',
    }
    for resume in (False, True):
        _, result = mmcls_kd.distill(
            NET, None, images, epochs=3, size=32, work_dir=tmp_path / 'out', resume=resume, options=options
        )
        assert [epoch for epoch, _ in result.curves['student']] == [1]


@pytest.mark.filterwarnings('ignore')
def test_classes_of_a_teacher_are_found_by_name_and_others_refused_before_training(images, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['mmcls_kd train'])
    common = ['--data', str(images), '--student', NET, '--teacher', NET, '--size', '32', '--epochs', '1']
    other = weights(tmp_path / 'other.pth', 4, ['yak', 'emu', 'bee', 'ant'])
    with pytest.raises(SystemExit, match=r"none with the name of 2 'cat'.*model.teacher_classes.*the keys are in .*out.py"):
        train.main([*common, '--teacher-weights', other, '--work-dir', str(tmp_path / 'out')])
    names = ['Cat', 'emu', 'BEE', 'ant']  # case does not matter
    train.main([*common, '--teacher-weights', weights(tmp_path / 'b.pth', 4, names), '--work-dir', str(tmp_path / 'out')])
    log = ''.join(path.read_text() for path in (tmp_path / 'out' / 'distilled').rglob('*.log'))
    assert "taken in the order of the data’s, by name: 'ant' is class 0 of the data and 3 of the teacher" in log


def test_a_student_of_grey_images_in_memory_takes_files_too(tmp_path):
    """The oracle: the network itself, on the pixels normalised by hand."""
    pixels = np.random.RandomState(0).randint(0, 256, (28, 28)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'grey.png')
    config, weights = (TOOLBOX / 'configs/fashion_mnist' / name for name in ('resnet18-w16_9e.py', 'teacher.pth'))
    predictor = mmcls_kd.Predictor(weights, config)
    normal = Config.fromfile(config).data_preprocessor
    inputs = (torch.tensor(pixels)[None, None].float() - normal.mean[0]) / normal.std[0]
    expected = predictor.classifier(inputs)[0].softmax(0).sort(descending=True).values
    found = predictor(tmp_path / 'grey.png')
    assert [probability for _, probability in found] == pytest.approx(expected.tolist(), rel=1e-4)
    assert 'Ankle boot' in dict(found)


def test_costs():
    """The oracle: a linear layer and a convolution by hand."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Linear(4, 5)

        def forward(self, inputs, mode='tensor'):
            return self.fc(self.conv(inputs).mean((2, 3)))

    assert count_flops(Net(), torch.zeros(1, 3, 8, 8)) == 2 * (8 * 8 * 4 * 3 * 9 + 4 * 5)
    assert count_parameters(Net()) == 4 * 3 * 9 + 4 + 4 * 5 + 5


@pytest.mark.parametrize('fused', [True, False])
def test_attention_costs_as_well(fused):
    """By hand, of two kinds of modules that torch fuses: 9 tokens of 8 numbers, two heads of 4, projections and products."""

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.part = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval() if fused else None
            self.qkv, self.out = torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)

        def forward(self, images, mode='tensor'):
            tokens = images.flatten(2).transpose(1, 2)
            if self.part is not None:
                return self.part(tokens, tokens, tokens, need_weights=False)[0]
            query, key, value = self.qkv(tokens).view(1, 9, 3, 2, 4).permute(2, 0, 3, 1, 4)
            mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
            return self.out(mixed.transpose(1, 2).flatten(2))

    projections, products = 9 * 8 * (24 + 8), 2 * 2 * 9 * 9 * 4
    assert count_flops(Attention(), torch.zeros(1, 8, 3, 3)) == 2 * (projections + products)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize('wrapped', [True, False])
def test_the_folder_of_an_edited_config_is_found(wrapped, tmp_path):
    dataset = dict(type='CustomDataset', data_root=str(tmp_path / 'gone'))
    dataset = dict(type='RepeatDataset', dataset=dataset, times=2) if wrapped else dataset
    Config(dict(train_dataloader=dict(dataset=dataset))).dump(tmp_path / 'made.py')
    assert folder_gone(tmp_path / 'made.py') == str(tmp_path / 'gone')
    (tmp_path / 'gone').mkdir()
    assert folder_gone(tmp_path / 'made.py') is None
    Config(dict(train_dataloader=dict(dataset=dict(type='Other')))).dump(tmp_path / 'made.py')
    assert folder_gone(tmp_path / 'made.py') is None
