"""Export to int8: quantised by onnxruntime with the images that the test pipeline makes, measured beside float."""

import re
import sys

import folders
import numpy as np
import pytest
import torch
from commands import DISTILLER, accuracy, data_options, run
from kit import assert_close
from mmengine.config import Config
from networks import resnet
from onnx_files import about_onnx, onnx_session, run_onnx
from PIL import Image
from test_export_student import NETWORKS, PIPELINE, SWIN, classifier, pictures, write

from mmcls_kd.export import calibration_images, image_format, measured_images
from mmcls_kd.export.calibration import Images
from mmcls_kd.export.int8 import Reader, Row, compare, lost, table
from mmcls_kd.recipe.fake_quant import quantised_weight

pytestmark = pytest.mark.filterwarnings('ignore:Fail to import')
CLASSES = list('abcdefghij')


def images_of(paths_or_array):
    """Calibration or test images out of an array (N, C, H, W)."""
    return Images('a test', len(paths_or_array), True, lambda: iter(zip(paths_or_array, range(10), strict=False)))


def class_folders(root, size=36, count=2):
    """Image files in a folder for each class: (N, 3, 32, 32) as a user has them, RGB, and labels."""
    images, labels = [], []
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.RandomState(label * count + i).randint(0, 256, (4, 4, 3))
            image = np.kron(pixels, np.ones((9, 9, 1))).astype(np.uint8)
            Image.fromarray(image).resize((size, size), Image.NEAREST).save(root / name / f'{i}.png')
            images.append(image[2:-2, 2:-2])
            labels.append(label)
    return np.stack(images).transpose(0, 3, 1, 2), labels


def opened(path):
    """The nodes and initial values of an ONNX file."""
    import onnx

    graph = onnx.load(str(path)).graph
    return graph.node, {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}


class TestImages:
    def cfg(self, folder, pipeline=PIPELINE, dataset='CustomDataset'):
        return Config.fromfile(write(folder, resnet(), pipeline, dataset).config)

    def test_of_a_folder_are_those_of_the_test_pipeline_in_rgb(self, tmp_path):
        cfg = self.cfg(tmp_path)
        expected, labels = class_folders(tmp_path / 'images')
        found = calibration_images(cfg, str(tmp_path / 'images'), image_format(cfg), CLASSES, 300)
        assert (found.count, found.labelled) == (20, True)
        [(images, given)] = found.batches(32)
        assert np.array_equal(images, expected)
        assert given.tolist() == labels

    @pytest.mark.parametrize('suffix', ['gif', 'avif'])
    def test_of_each_suffix_that_a_training_reads(self, suffix, tmp_path):
        cfg = self.cfg(tmp_path)
        (tmp_path / 'images').mkdir()
        Image.new('RGB', (36, 36), (200, 40, 120)).save(tmp_path / 'images' / f'0.{suffix}')
        found = calibration_images(cfg, str(tmp_path / 'images'), image_format(cfg), CLASSES, 300)
        [(image, _)] = found.read()
        assert abs(image.mean((1, 2)) - (200, 40, 120)).max() < 5

    def test_of_another_size_are_brought_to_that_of_the_pipeline_and_it_is_said(self, tmp_path):
        cfg = self.cfg(tmp_path)
        class_folders(tmp_path / 'images', size=72)
        Image.new('RGB', (50, 40)).save(tmp_path / 'images' / 'a' / '9.jpg')
        found = calibration_images(cfg, str(tmp_path / 'images'), image_format(cfg), CLASSES, 300)
        assert found.source == f'{tmp_path / "images"}, 40 × 50 to 72 × 72, brought to 32 × 32 by the test pipeline'
        assert {image.shape for image, _ in found.read()} == {(3, 32, 32)}

    def test_of_a_folder_for_a_data_set_in_memory(self, tmp_path):
        cfg = self.cfg(tmp_path, [dict(type='PackInputs')], 'CIFAR10')
        expected, _ = class_folders(tmp_path / 'images')
        for path, image in zip(sorted((tmp_path / 'images').rglob('*.png')), expected, strict=True):
            Image.fromarray(image.transpose(1, 2, 0)).save(path)
        found = calibration_images(cfg, str(tmp_path / 'images'), image_format(cfg), CLASSES, 300)
        assert np.array_equal(next(found.batches(32))[0], expected)

    def test_spread_over_the_folder_if_there_are_more(self, tmp_path):
        cfg = self.cfg(tmp_path)
        class_folders(tmp_path / 'images')
        found = calibration_images(cfg, str(tmp_path / 'images'), image_format(cfg), CLASSES, 10)
        assert found.count == 10
        assert len({label for _, label in found.read()}) >= 9

    def test_without_class_folders_have_no_labels(self, tmp_path):
        cfg = self.cfg(tmp_path)
        pictures(tmp_path)
        found, reason = measured_images(cfg, str(tmp_path), image_format(cfg), CLASSES, None)
        assert found is None
        assert 'nowhere' in reason

    def test_of_the_training_data(self, tmp_path):
        root = folders.fashion_mnist(tmp_path / 'data', train=30, test=20)
        cfg = self.cfg(tmp_path, [dict(type='PackInputs')], 'FashionMNIST')
        cfg.test_dataloader.dataset.data_root = str(root)
        augmented = dict(
            type='FashionMNIST', data_root=str(root), pipeline=[dict(type='RandomFlip'), dict(type='PackInputs')]
        )
        cfg.train_dataloader = dict(dataset=dict(type='RepeatDataset', times=2, dataset=augmented))
        form = image_format(cfg)
        found = calibration_images(cfg, None, form, None, 7)
        raw = np.frombuffer((root / 'train-images-idx3-ubyte').read_bytes()[16:], np.uint8).reshape(30, 1, 28, 28)
        assert np.array_equal(next(found.batches(7))[0], raw[[0, 5, 10, 14, 19, 24, 29]])
        tested, reason = measured_images(cfg, None, form, None, None)
        assert (tested.count, tested.labelled, reason) == (20, True, '')

    def test_of_the_training_data_that_end_early(self, tmp_path):
        cfg = self.cfg(tmp_path)
        bad = folders.class_folders(tmp_path / 'images', ant=1, bee=1) / 'bee' / '0.jpg'
        bad.write_bytes(bad.read_bytes()[:-300])
        cfg.train_dataloader = dict(dataset=dict(type='CustomDataset', data_root=str(tmp_path / 'images'), pipeline=[]))
        with pytest.raises(ValueError, match=f'^image {bad} of train_dataloader cannot be read .*: mend or remove it$'):
            calibration_images(cfg, None, image_format(cfg), None, 7).held()


class TestRefusals:
    """One line before any work, and no file."""

    @pytest.fixture
    def at(self, tmp_path):
        made = write(tmp_path, resnet())
        yield made
        assert not list(tmp_path.glob('*.onnx'))

    def refused(self, main, at, *words):
        said = main(at.config, at.weights, '--int8', *words)
        assert said.startswith('export_student.py: error: ')
        assert len(said.splitlines()) == 1
        return said

    def test_an_empty_folder(self, at, main):
        (at.folder / 'empty').mkdir()
        assert 'empty: there is no image in it or below it (.jpg, ' in self.refused(
            main, at, '--calibrate', at.folder / 'empty'
        )

    def test_a_folder_that_is_none(self, at, main):
        assert 'none: there is no such folder' in self.refused(main, at, '--calibrate', at.folder / 'none')
        assert 'config.py: a file, not a folder' in self.refused(main, at, '--calibrate', at.config)

    def test_no_folder_and_no_training_data(self, at, main):
        assert 'name a folder by --calibrate FOLDER (the config has no data set in train_data' in self.refused(main, at)

    def test_a_damaged_image(self, at, main):
        (at.folder / 'images').mkdir()
        bad = at.folder / 'images' / 'bad.png'
        bad.write_bytes(b'nothing')
        said = self.refused(main, at, '--calibrate', bad.parent)
        assert f'calibration image {bad} cannot be read (no image that can be identified): mend or remove it' in said

    def test_an_image_that_ends_early(self, at, main):
        bad = folders.class_folders(at.folder / 'images', ant=2) / 'ant' / '1.jpg'
        bad.write_bytes(bad.read_bytes()[:-300])
        said = self.refused(main, at, '--calibrate', at.folder / 'images')
        assert f'calibration image {bad} cannot be read (image file is truncated' in said
        assert said.endswith('mend or remove it')

    def test_images_that_the_pipeline_does_not_resize(self, tmp_path, main):
        at = write(tmp_path, resnet(), [PIPELINE[0], dict(type='PackInputs')])
        pictures(tmp_path)
        said = self.refused(main, at, '--calibrate', tmp_path, '--size', 32)
        assert 'in the shape (3, 36, 36), and the export takes (3, 32, 32)' in said

    def test_a_library_that_is_missing(self, at, main, monkeypatch):
        monkeypatch.setitem(sys.modules, 'onnxruntime', None)
        assert "needs onnxruntime: pip install 'mmcls_kd[onnx]'" in self.refused(main, at, '--calibrate', at.folder)

    def test_options_that_do_not_go_together(self, at, main):
        assert 'add onnx to --format' in main(at.config, at.weights, '--int8', '--format', 'torchscript')
        assert '--calibrate needs --int8' in main(at.config, at.weights, '--calibrate', at.folder)


def test_the_table_and_the_loss():
    rows = [Row('float', 93.0, 100.0, 400_000, 1.5), Row('int8', 91.75, 97.0, 100_000, 0.5)]
    assert lost(rows) == 1.25
    assert lost([Row('float', None, 100.0, 1, 1.0), Row('int8', None, 97.5, 1, 1.0)]) == 2.5
    assert table(rows).splitlines()[2].split() == ['int8', '91.75', '97.00', '100.0', '0.500']


def mean_plus(path, shifts, batch='n'):
    """An ONNX file whose logits are the means of an image's channels, each with a shift; of a fixed batch size, or any."""
    import onnx
    from onnx import helper

    images, logits = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, len(shifts), *size])
        for name, size in (('images', (2, 2)), ('logits', ()))
    )
    constants = [
        onnx.numpy_helper.from_array(np.array(shifts, np.float32), 'shifts'),
        onnx.numpy_helper.from_array(np.array([2, 3]), 'axes'),
    ]
    nodes = [
        helper.make_node('ReduceMean', ['images', 'axes'], ['means'], keepdims=0),
        helper.make_node('Add', ['means', 'shifts'], ['logits']),
    ]
    graph = helper.make_graph(nodes, 'means', [images], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9), str(path))
    return path


@pytest.mark.parametrize(
    ('sigmoid', 'means', 'labels', 'shifts', 'top1', 'agreement'),
    [
        # one logit, on above 0: float says 0, 0, 1, 1; int8, half a unit lower, 0, 0, 0, 1
        (True, [[-2.0], [-0.6], [0.3], [1.0]], [0, 1, 1, 1], [-0.5], (75, 50), 75),
        # two labels an image: the third's second label is lost, the largest logits stay
        (True, [[1.0, -1.0], [2.0, 1.0], [3.0, 0.2], [-1.0, -2.0]], [0, 0, 0, 0], [0.0, -0.5], (None, None), 75),
        # two classes, of which an image has one
        (False, [[1.0, -1.0], [2.0, 1.0], [3.0, 3.2], [-1.0, -2.0]], [0, 1, 1, 0], [0.0, -0.5], (75, 50), 75),
    ],
)
def test_one_logit_and_several_labels_are_predicted_above_0(tmp_path, sigmoid, means, labels, shifts, top1, agreement):
    pixels = np.broadcast_to(np.array(means, np.float32)[:, :, None, None], (4, len(shifts), 2, 2))
    images = Images('a test', 4, True, lambda: iter(zip(pixels, labels, strict=True)))
    files = dict(
        float=mean_plus(tmp_path / 'float.onnx', [0.0] * len(shifts)), int8=mean_plus(tmp_path / 'int8.onnx', shifts)
    )
    rows = compare(files, images, sigmoid)
    assert tuple(row.top1 for row in rows) == top1
    assert [row.agreement for row in rows] == [100, agreement]


@pytest.mark.parametrize(('count', 'top1'), [(13, 100 * 9 / 13), (5, 60)])
def test_a_fixed_batch_size_measures_every_image_once(tmp_path, count, top1):
    pixels = np.ones((count, 2, 2, 2), np.float32) * np.array([1, 0], np.float32)[:, None, None]
    labels = [0, 1, 0, 1, 0] + [0] * 6 + [1, 1]  # class 0 is predicted for each
    images = Images('a test', count, True, lambda: iter(zip(pixels, labels[:count], strict=True)))
    shifts = dict(float=[0.0, 0.0], int8=[0.0, 2.0])
    files = {name: mean_plus(tmp_path / f'{name}.onnx', each, 7) for name, each in shifts.items()}
    in_float, in_int8 = compare(files, images)
    assert (in_float.top1, in_float.agreement) == (pytest.approx(top1), 100)
    assert (in_int8.top1, in_int8.agreement) == (pytest.approx(100 - top1), 0)


def test_a_fixed_batch_size_calibrates_with_every_image():
    pixels = np.arange(13, dtype=np.float32)[:, None, None, None]
    reader = Reader(Images('a test', 13, True, lambda: iter((image, 0) for image in pixels)), 7)
    read = [reader.get_next()['images'].flatten().tolist() for _ in range(len(reader))]
    assert read == [list(range(7)), [*range(7, 13), 7]]
    assert reader.get_next() is None


@pytest.mark.slow
@pytest.mark.own_process
def test_a_quantised_file(tmp_path):
    at = write(tmp_path, NETWORKS['resnet'])
    images, labels = class_folders(tmp_path / 'images')
    words = [at.config, at.weights, '--int8', '--calibrate', tmp_path / 'images']
    done = run('tools/export_student.py', *words)
    assert f'calibration images: 20 of {tmp_path / "images"}, 36 × 36, brought to 32 × 32 by the test' in done.stdout
    nodes, values = opened(tmp_path / 'w.int8.onnx')
    assert f'w.int8.onnx: {sum(n.op_type in ("Conv", "Gemm") for n in nodes)} layers in 8 bits' in done.stdout
    assert {'QuantizeLinear', 'DequantizeLinear'} <= {node.op_type for node in nodes}
    weights = [v for v in values.values() if v.dtype == np.int8 and v.ndim == 4]
    assert weights
    assert all(np.abs(w.astype(int)).reshape(len(w), -1).max(1).min() == 127 for w in weights)  # a scale for each channel
    session, in_float = onnx_session(tmp_path / 'w.int8.onnx'), onnx_session(tmp_path / 'w.onnx')
    about = about_onnx(session)
    assert (about['precision'], about['classes']) == ('int8', CLASSES)
    assert about['calibration']['images'] == 20
    logits, expected = (run_onnx(one, torch.from_numpy(images).float()) for one in (session, in_float))
    assert (logits - expected).abs().mean() < 0.1 * expected.std()
    row = next(line for line in done.stdout.splitlines() if line.startswith('int8')).split()
    assert float(row[1]) == 100 * np.mean(logits.argmax(1).numpy() == labels)
    assert float(row[2]) == 100 * np.mean((logits.argmax(1) == expected.argmax(1)).numpy())
    assert float(row[3]) == round((tmp_path / 'w.int8.onnx').stat().st_size / 1e3, 1)


@pytest.mark.slow
@pytest.mark.own_process
def test_a_symmetric_file_has_zero_points_of_0_and_the_weights_of_fake_quantisation(tmp_path):
    at = write(tmp_path, NETWORKS['resnet'])
    pictures(tmp_path)
    done = run('tools/export_student.py', at.config, at.weights, '--int8', '--calibrate', tmp_path, '--symmetric')
    assert 'activations symmetric' in done.stdout
    assert 'the test data are not used: ' in done.stdout
    nodes, values = opened(tmp_path / 'w.int8.onnx')
    zeros = [values[n.input[2]] for n in nodes if n.op_type in ('QuantizeLinear', 'DequantizeLinear') and len(n.input) > 2]
    assert zeros
    assert not any(zero.any() for zero in zeros)
    folded = [v for v in opened(tmp_path / 'w.onnx')[1].values() if v.ndim == 4]
    made = {n.output[0]: n.input for n in nodes if n.op_type == 'DequantizeLinear'}
    quantised = [made[n.input[1]] for n in nodes if n.op_type == 'Conv']
    assert len(folded) == len(quantised)
    for inputs in quantised:
        weight, scale = values[inputs[0]].astype(np.float32), values[inputs[1]].reshape(-1, 1, 1, 1)
        real = next(v for v in folded if v.shape == weight.shape and np.abs(v - weight * scale).max() <= scale.max())
        assert_close(torch.from_numpy(weight * scale), quantised_weight(torch.from_numpy(real.copy())))


@pytest.mark.slow
@pytest.mark.own_process
@pytest.mark.parametrize('method', ['minmax', 'percentile'])
def test_a_file_for_single_images(method, tmp_path):
    at = write(tmp_path, classifier(SWIN, 16))
    pictures(tmp_path)
    words = ['--int8', '--calibrate', tmp_path, '--calibrate-method', method]
    done = run('tools/export_student.py', at.config, at.weights, *words)
    assert 'takes batches of 1 alone' in done.stdout
    assert f'ranges by {method}' in done.stdout
    assert run_onnx(onnx_session(tmp_path / 'w.int8.onnx'), pictures(tmp_path)[1][:1]).isfinite().all()


@pytest.mark.slow
@pytest.mark.own_process
def test_a_network_that_cannot_be_quantised(tmp_path):
    at = write(tmp_path, dict(type='CountingClassifier'))
    pictures(tmp_path)
    text = (tmp_path / 'config.py').read_text()
    (tmp_path / 'config.py').write_text(f"custom_imports = dict(imports=['test_export_student'])\n{text}")
    done = run('tools/export_student.py', at.config, at.weights, '--int8', '--calibrate', tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('export_student.py: error: ')
    assert 'finds no convolution or matrix product to quantise' in done.stderr
    assert not (tmp_path / 'w.int8.onnx').exists()


@pytest.mark.slow
def test_a_student_of_quantisation_aware_distillation_keeps_its_accuracy(tmp_path):
    data, student = folders.textures(tmp_path / 'data', train=1280, test=1000), tmp_path / 'student.pth'
    schedule = ['train_cfg.max_epochs=6', 'param_scheduler.total_steps=240', 'fake_quant.start_epoch=3']  # 40 an epoch
    trained = run('tools/train.py', DISTILLER, '--work-dir', tmp_path, '--cfg-options', *data_options(data), *schedule)
    assert '22 layers of the student compute in training as in int8 (FakeQuantHook)' in trained.output
    run('pth_transfer.py', '--dis_path', tmp_path / 'epoch_6.pth', '--output_path', student)
    done = run('tools/export_student.py', DISTILLER, student, '--int8', '--cfg-options', *data_options(data)[:3])
    rows = {name: float(top1) for name, top1 in re.findall(r'^(float|int8) +([\d.]+)', done.stdout, re.MULTILINE)}
    assert rows['float'] == pytest.approx(accuracy(trained.output), abs=0.11)
    assert rows['float'] > 90
    assert rows['int8'] > rows['float'] - 1
    assert 'warning' not in done.stdout
    assert sum(node.op_type == 'QuantizeLinear' for node in opened(tmp_path / 'student.int8.onnx')[0]) > 20


def make_channels_unequal(path, most=500):
    """Scale the channels between the convolutions of each block up, and back behind them: the same student in float."""
    saved = torch.load(path, weights_only=True)
    weights, generator = saved['state_dict'], torch.Generator().manual_seed(0)
    for name in [name for name in weights if name.endswith('bn1.weight') and '.layer' in name]:
        block, count = name.removesuffix('bn1.weight'), len(weights[name])
        factors = torch.logspace(0, np.log10(most), count)[torch.randperm(count, generator=generator)]
        weights[name] *= factors
        weights[f'{block}bn1.bias'] *= factors
        weights[f'{block}conv2.weight'] /= factors[:, None, None]
    torch.save(saved, path)


@pytest.mark.slow
def test_quantisation_aware_distillation_mends_a_student_that_int8_breaks(tmp_path):
    data, broken, mended = folders.textures(tmp_path / 'data', 1280, 1000), tmp_path / 'broken.pth', tmp_path / 'mended.pth'
    options = data_options(data)

    def trained(folder, *more):
        run('tools/train.py', DISTILLER, '--work-dir', tmp_path / folder, '--cfg-options', *options, *more)

    def exported(student):
        done = run('tools/export_student.py', DISTILLER, student, '--int8', '--cfg-options', *options[:3])
        top1 = dict(re.findall(r'^(float|int8) +([\d.]+)', done.stdout, re.MULTILINE))
        return float(top1['float']), float(top1['int8']), done.stdout

    trained('float', 'train_cfg.max_epochs=4', 'param_scheduler.total_steps=160')  # 40 an epoch
    run('pth_transfer.py', '--dis_path', tmp_path / 'float' / 'epoch_4.pth', '--output_path', broken)
    make_channels_unequal(broken)
    in_float, in_int8, said = exported(broken)
    assert in_float > 90
    assert in_int8 < in_float - 10
    assert f'fake_quant=True model.student_pretrained={broken}' in said
    schedule = ['train_cfg.max_epochs=6', 'param_scheduler.total_steps=240', 'param_scheduler.eta_max=0.04']
    trained('int8', *schedule, 'fake_quant=True', f'model.student_pretrained={broken}')
    run('pth_transfer.py', '--dis_path', tmp_path / 'int8' / 'epoch_6.pth', '--output_path', mended)
    after_float, after_int8, said = exported(mended)
    assert after_int8 > after_float - 1
    assert after_int8 > in_int8 + 5
    assert after_int8 > 90
    assert 'warning' not in said


@pytest.mark.slow
def test_a_loss_of_more_than_a_point_is_followed_by_the_next_command(tmp_path, main, monkeypatch):
    at = write(tmp_path, resnet())
    class_folders(tmp_path / 'images')
    monkeypatch.setattr('mmcls_kd.export.ACCEPTED', -1.0)
    said = main(at.config, at.weights, '--int8', '--calibrate', tmp_path / 'images').splitlines()
    warned = next(i for i, line in enumerate(said) if line.startswith('warning: int8 loses '))
    assert said[warned + 1].endswith(
        f'train.py DISTILLER_CONFIG --work-dir work_dirs/config_int8 --cfg-options fake_quant=True '
        f'model.student_pretrained={at.weights}'
    )
