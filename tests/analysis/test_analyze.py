"""tools/analyze.py, run in this process on work directories; and its page in a browser."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from analysis_kit import made_up, write_run
from commands import DISTILLER, STUDENT, tool
from mmpretrain.registry import MODELS
from stores import run

from mmcls_kd.analysis.compare import notes_on
from mmcls_kd.analysis.figures import FIGURES
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.loading import load_strictly
from mmcls_kd.networks.sources import network_cfg

pytestmark = pytest.mark.filterwarnings('ignore:.*instance named of')
TEACHER = ('configs/fashion_mnist/resnet18-w16_9e.py', 'configs/fashion_mnist/teacher.pth')


@pytest.fixture(scope='module')
def made(data, tmp_path_factory):
    """A student alone, and one distilled by KD with NKD."""
    folder = tmp_path_factory.mktemp('made')
    return [write_run(folder / 'alone', data, seed=1), write_run(folder / 'both', data, ['kd', 'nkd'], seed=2)]


@pytest.fixture(autouse=True)
def _few_points(monkeypatch):
    """t-SNE is what takes long."""
    monkeypatch.setattr('mmcls_kd.analysis.figures.TSNE_IMAGES', 20)


@pytest.fixture
def analyze(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, 'argv', ['analyze.py', *map(str, words)])
        tool('analyze')()
        return capsys.readouterr().out

    return call


@pytest.fixture
def refusal(monkeypatch, tmp_path):
    def call(*words):
        monkeypatch.setattr(sys, 'argv', ['analyze.py', '--out', str(tmp_path / 'out'), *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            tool('analyze')()
        assert not (tmp_path / 'out').exists()
        message = str(stopped.value.code)
        assert message.startswith('analyze.py: error: ')
        assert '\n' not in message
        return message

    return call


def logits(config, weights, data, count):
    """A network's logits of the first test images, without the toolbox's readers."""
    network = MODELS.build(network_cfg(config)).eval()
    load_strictly(network, str(weights), 'network')
    images = torch.frombuffer(bytearray((data / 't10k-images-idx3-ubyte').read_bytes()[16:]), dtype=torch.uint8)
    with torch.no_grad():
        return network((images.view(-1, 1, 28, 28)[:count].float() - 72.94) / 90.02).double()


@pytest.fixture
def _one_figure(monkeypatch):
    """Drawing takes long."""
    monkeypatch.setattr('mmcls_kd.analysis.figures.FIGURES', FIGURES[2:3])


@pytest.mark.usefixtures('_one_figure')
def test_page_and_numbers(made, data, analyze, tmp_path):
    said = analyze(*made, '--out', tmp_path / 'out')
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'over_training.png', 'numbers.json', 'report.html'}
    assert f'report: {tmp_path / "out" / "report.html"}' in said
    numbers = json.loads((tmp_path / 'out' / 'numbers.json').read_text())
    teacher, alone, both = numbers['networks']
    assert [row['name'] for row in numbers['networks']] == ['teacher', 'alone', 'both']
    label = torch.arange(100) % 10
    logit_t, logit_s = logits(*TEACHER, data, 100), logits(STUDENT, made[1] / 'epoch_2.pth', data, 100)
    assert teacher['accuracy'] == pytest.approx(float((logit_t.argmax(1) == label).double().mean()))
    assert both['agreement'] == pytest.approx(float((logit_t.argmax(1) == logit_s.argmax(1)).double().mean()))
    log_t, log_s = logit_t.log_softmax(1), logit_s.log_softmax(1)
    assert both['divergence'] == pytest.approx(float((log_t.exp() * (log_t - log_s)).sum(1).mean()), rel=1e-4)
    apart = np.corrcoef(logit_s.T) - np.corrcoef(logit_t.T)
    assert both['correlation_distance'] == pytest.approx(np.abs(apart).sum() / 90, rel=1e-4)
    assert [point['step'] for point in numbers['history']['both']] == [1, 2]
    assert numbers['history']['both'][1]['agreement'] == both['agreement']
    assert numbers['history']['both'][0] != numbers['history']['both'][1]
    assert alone['teacher'] == 'teacher'
    assert 'alone had no teacher in training' in said


@pytest.mark.usefixtures('_one_figure')
def test_without_a_teacher_and_by_other_names(made, data, analyze, tmp_path):
    words = ['--no-teacher', '--names', 'x', 'y', '--images', '30', '--checkpoints', '1', '--data-root', data]
    analyze(*made, '--out', tmp_path / 'out', *words)
    numbers = json.loads((tmp_path / 'out' / 'numbers.json').read_text())
    assert [row['name'] for row in numbers['networks']] == ['x', 'y']
    assert numbers['images'] == 30
    assert [point['step'] for point in numbers['history']['y']] == [2]
    assert not (tmp_path / 'out' / 'over_training.png').exists()


@pytest.mark.usefixtures('_one_figure')
def test_its_place_is_the_first_work_directory_and_a_run_may_be_called_teacher(made, analyze, tmp_path):
    copied = shutil.copytree(made[1], tmp_path / 'teacher')
    (copied / 'epoch_1.pth').unlink()
    said = analyze(copied, '--images', '20')
    assert (copied / 'analysis' / 'report.html').is_file()
    assert 'teacher kept one checkpoint' in said.replace('\n', ' ')
    network, run = json.loads((copied / 'analysis' / 'numbers.json').read_text())['networks']
    assert (network['name'], run['name'], run['teacher']) == ('teacher network', 'teacher', 'teacher network')
    assert run['agreement'] < 1


def test_notes_say_what_each_run_learnt_from():
    found = made_up('is compared', 'b', 'stored', 'c')
    del found.runs[1].cfg.model['teacher_cfg']
    found.runs[2].cfg.model.update(teacher_cfg=None, teacher_store='store')
    assert list(notes_on(found, 12)) == [
        'is compared and b had no teacher in training, and are compared with teacher.',
        'stored learnt from a store of a teacher’s outputs, and is compared with teacher.',
    ]


def test_a_run_without_validation_is_noted():
    found = made_up('alone', 'kd')
    found.runs[1].validation.clear()
    assert 'kd logged no validation, so it has no learning curve.' in list(notes_on(found, 12))


#: Validation images of the demo whose labels are left aside.
UNLABELLED = dict(_delete_=True, type='WithoutLabels')


def unlabelled(data, *parts):
    """Changes of a config to such images in some of its parts."""
    images = dict(type='FashionMNIST', data_root=str(data), split='test', test_mode=True, pipeline=[dict(type='PackInputs')])
    return {f'{part}_dataloader': dict(dataset=dict(UNLABELLED, dataset=images)) for part in parts}


@pytest.mark.usefixtures('_one_figure')
def test_validation_without_labels_has_no_accuracy_and_the_test_images_count(made, data, analyze, tmp_path):
    numbers = []
    for name, student in dict(usual={}, none=unlabelled(data, 'val')).items():
        folder = write_run(tmp_path / name, data, ['kd'], epochs=(1,), student=student)
        said = analyze(folder, '--images', '50', '--no-teacher')
        numbers.append(json.loads((folder / 'analysis' / 'numbers.json').read_text())['networks'][0]['accuracy'])
    assert numbers[0] == numbers[1]
    assert 'none: the images are those of the test, as validation has none with labels.' in said


class TestRefusals:
    def test_images_without_labels(self, refusal, data, tmp_path):
        bare = write_run(tmp_path / 'bare', data, ['kd'], epochs=(1,), student=unlabelled(data, 'val', 'test'))
        assert 'the images of its val_dataloader and test_dataloader have no labels' in refusal(bare)

    def test_no_work_directory(self, refusal, tmp_path):
        assert 'nowhere: no such folder' in refusal(tmp_path / 'nowhere')

    def test_runs_of_other_classes(self, made, refusal, data, tmp_path):
        student = {'model.head.num_classes': 11}
        other = write_run(tmp_path / 'eleven', data, student=student)
        assert 'have 10 and 11 classes' in refusal(made[0], other)

    def test_runs_of_other_images(self, made, refusal, data, tmp_path):
        other = write_run(tmp_path / 'fewer', data, options=['val_dataloader.dataset.indices=50'])
        assert 'validate on other images' in refusal(made[0], other)

    def test_runs_counted_otherwise(self, made, refusal, tmp_path):
        copied = shutil.copytree(made[0], tmp_path / 'iterations')
        for number in (1, 2):
            (copied / f'epoch_{number}.pth').rename(copied / f'iter_{number}.pth')
        assert 'the other by iterations' in refusal(made[0], copied)

    def test_a_checkpoint_that_does_not_fit(self, made, refusal, tmp_path):
        copied = shutil.copytree(made[0], tmp_path / 'torn')
        (copied / 'epoch_2.pth').write_bytes((copied / 'epoch_2.pth').read_bytes()[:500])
        assert 'epoch_2.pth' in refusal(copied)

    @pytest.mark.parametrize('whole', [True, False])
    def test_an_earlier_checkpoint_that_is_cut_off(self, made, refusal, tmp_path, whole):
        copied = shutil.copytree(made[0], tmp_path / 'torn')
        (copied / 'epoch_1.pth').write_bytes((copied / 'epoch_1.pth').read_bytes()[:500])
        options = ['--checkpoints', '1', '--data-root', 'nowhere'] if whole else []  # the last one alone, which is whole
        assert ('epoch_1.pth is truncated' in refusal(copied, *options)) is not whole

    def test_a_folder_that_cannot_be_made(self, made, refusal, tmp_path):
        (tmp_path / 'file').touch()
        assert 'file/new: the folder can’t be made' in refusal(made[0], '--out', tmp_path / 'file' / 'new')

    def test_missing_data(self, made, refusal):
        assert 'folder nowhere does not exist' in refusal(made[0], '--data-root', 'nowhere')

    def test_a_missing_teacher(self, made, refusal, data, tmp_path):
        gone = write_run(tmp_path / 'gone', data, ['kd'], options=['model.teacher_pretrained=nowhere.pth'])
        message = refusal(gone)
        assert 'nowhere.pth' in message
        assert '--no-teacher leaves it out' in message

    def test_names_that_are_too_few(self, made, refusal):
        assert '1 names for 2' in refusal(*made, '--names', 'x')

    def test_a_missing_library(self, made, refusal, monkeypatch):
        monkeypatch.setattr('mmcls_kd.errors.find_spec', lambda name: None if name == 'sklearn' else True)
        assert "needs sklearn, which is not installed: pip install 'mmcls_kd[analysis]'" in refusal(made[0])


LOADED = """<script>
const images = [...document.images];
document.body.dataset.loaded = images.filter(image => image.complete && image.naturalWidth > 500).length;
document.body.dataset.wide = document.documentElement.scrollWidth;
</script></body>"""


def browse(page, *options):
    """What headless Chromium prints of a page: its document, and its log."""
    command = ['chromium', '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={page.parent / "profile"}']
    command += ['--enable-logging=stderr', '--window-size=1200,900', '--dump-dom', f'file://{page}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if 'CONSOLE' in line or 'ERR_' in line]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('chromium') is None, reason='there is no chromium to open the page in')
def test_a_browser_opens_the_page_without_errors(made, analyze, tmp_path):
    analyze(*made, '--out', tmp_path / 'out')
    names = [f'{name}.png' for name, _, _ in FIGURES]
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {*names, 'numbers.json', 'report.html'}
    page = tmp_path / 'out' / 'report.html'
    _, log = browse(page)
    assert log == []
    asking = tmp_path / 'asking.html'  # the page itself has no script that could ask
    asking.write_text(page.read_text().replace('</body>', LOADED))
    document, log = browse(asking)
    assert log == []
    assert re.search(r'data-loaded="(\d+)"', document)[1] == str(len(FIGURES))
    assert int(re.search(r'data-wide="(\d+)"', document)[1]) <= 1200  # nothing has to be scrolled to sideways


@pytest.mark.slow
def test_runs_of_the_training_tool(data, analyze, monkeypatch, tmp_path):
    data_root = [f'{loader}_dataloader.dataset.data_root={data}' for loader in ('train', 'val', 'test')]
    options = [*data_root, 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=64']
    options.append('default_hooks.checkpoint.max_keep_ckpts=2')
    run('train', TOOLBOX / STUDENT, tmp_path / 'alone', options=options)
    run('train', TOOLBOX / DISTILLER, tmp_path / 'simkd', '--methods', 'simkd', options=options)
    said = analyze(tmp_path / 'alone', tmp_path / 'simkd', '--out', tmp_path / 'out')
    numbers = json.loads((tmp_path / 'out' / 'numbers.json').read_text())
    for row in numbers['networks'][1:]:
        (path,) = (tmp_path / row['name']).glob('*/vis_data/scalars.json')
        lines = map(json.loads, path.read_text().splitlines())
        logged = [line['accuracy/top1'] for line in lines if 'accuracy/top1' in line]
        assert 100 * row['accuracy'] == pytest.approx(logged[-1], abs=1e-4)
    assert 'report.html' in said
