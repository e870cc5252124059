"""No file that the toolbox opens runs code, unless the user says so."""

import io
import json
import os
import pickle
import subprocess
import sys
import weakref
from collections import OrderedDict
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
import torch
import yaml
from analysis_kit import records, write_lines
from commands import DISTILLER, STUDENT, data_options
from interruption import Run
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmpretrain.registry import MODELS

from mmcls_kd.analysis.runs import read_run
from mmcls_kd.configs.reading import read_config, read_left_config
from mmcls_kd.distillers.recipe import Recipe
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.files.plain_data import PlainUnpickler, refuse_calls
from mmcls_kd.networks.loading import guard_loading
from mmcls_kd.networks.sources import network_cfg

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
SELF = 'configs/distillers/fashion_mnist/res18-w4_sd_fmnist.py'


class Payload:
    """Makes a folder when it is unpickled the unsafe way."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.makedirs, (self.folder, 0o777, True)


@pytest.fixture
def malicious(tmp_path):
    """Writes a file of weights that fit, with a payload beside them; returns the file and the folder it would make."""

    def write(weights, name='malicious.pth', **more):
        torch.save(dict(state_dict=weights, extra=Payload(tmp_path / 'pwned'), **more), tmp_path / name)
        return tmp_path / name, tmp_path / 'pwned'

    return write


def student_state():
    return MODELS.build(network_cfg(STUDENT)).state_dict()


def refused(run, pwned):
    assert run.wait() == [1], run.output()
    assert not pwned.exists(), 'the file ran its code'
    message = run.output().splitlines()[-1]
    assert 'which could run code when it is read' in message
    assert 'makedirs' in message


def pretrained(part, file):
    return [f'{part}.init_cfg.checkpoint={file}', f'{part}.init_cfg.type=Pretrained']


def places(file):
    """How each place that opens a file is given one: config, and the options."""
    return {
        'teacher_pretrained': (DISTILLER, [f'model.teacher_pretrained={file}']),
        'student_pretrained': (SELF, [f'model.student_pretrained={file}']),
        'load_from': (SELF, [f'load_from={file}']),
        'Pretrained, student': (
            SELF,
            [f'model.student_cfg.init_cfg.checkpoint={file}', 'model.student_cfg.init_cfg.type=Pretrained'],
        ),
        'Pretrained, backbone': (
            STUDENT,
            [f'model.backbone.init_cfg.checkpoint={file}', 'model.backbone.init_cfg.type=Pretrained'],
        ),
    }


@pytest.mark.parametrize('place', [p if p == 'load_from' else pytest.param(p, marks=pytest.mark.slow) for p in places('')])
def test_in_training(place, malicious, data, tmp_path):
    state = student_state()
    weights = {f'student.{k}': v for k, v in state.items()} if place == 'load_from' else state
    if place == 'teacher_pretrained':
        weights = torch.load(TOOLBOX / 'configs/fashion_mnist/teacher.pth')['state_dict']
    file, pwned = malicious(weights)
    config, options = places(file)[place]
    arguments = ['--cfg-options', *data_options(data), *options]
    refused(Run(TOOLBOX / config, tmp_path / 'run', *arguments), pwned)
    trusting = Run(TOOLBOX / config, tmp_path / 'trusting', '--trust', *arguments)
    assert trusting.wait() == [0], trusting.output()
    assert pwned.exists()  # so the file is one that would have run its code


@pytest.mark.slow
@pytest.mark.parametrize('named', [True, False], ids=['--resume FILE', '--resume'])
def test_on_resume(named, malicious, data, tmp_path):
    weights = {f'student.{k}': v for k, v in student_state().items()}
    (tmp_path / 'run').mkdir()
    file, pwned = malicious(weights, 'run/epoch_1.pth', optimizer={}, meta=dict(epoch=1, iter=8))
    run = Run(TOOLBOX / SELF, tmp_path / 'run', '--resume', *([file] if named else []), '--cfg-options', *data_options(data))
    if named:
        refused(run, pwned)
    else:  # passed over, as any file that cannot be read
        assert run.wait() == [0], run.output()
        assert not pwned.exists()
        assert 'epoch_1.pth is passed over: ' in run.output()


@pytest.mark.parametrize('tool', [pytest.param('tools/test.py', marks=pytest.mark.slow), 'pth_transfer.py'])
def test_in_testing_and_transfer(tool, malicious, data, tmp_path):
    file, pwned = malicious({f'student.{k}': v for k, v in student_state().items()})
    arguments = [STUDENT, file, '--work-dir', tmp_path, '--cfg-options', *data_options(data)]
    if tool == 'pth_transfer.py':
        arguments = ['--dis_path', file, '--output_path', tmp_path / 'out.pth']
    words = [sys.executable, '-W', 'ignore', tool, *map(str, arguments)]
    done = subprocess.run(words, cwd=TOOLBOX, capture_output=True, text=True)
    assert done.returncode == 1
    assert not pwned.exists()
    assert 'which could run code when it is read' in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'out.pth').exists()


def test_a_plain_pickle_is_no_checkpoint(data, tmp_path):
    (tmp_path / 'a.pth').write_bytes(pickle.dumps(Payload(tmp_path / 'pwned')))
    run = Run(TOOLBOX / SELF, tmp_path / 'run', '--cfg-options', *data_options(data), f'load_from={tmp_path / "a.pth"}')
    assert run.wait() == [1], run.output()
    assert not (tmp_path / 'pwned').exists()
    assert 'a.pth' in run.output().splitlines()[-1]


YAML_CALL = '!!python/object/apply:os.makedirs [{}]'


class TestDataFiles:
    """YAML files, pickles and what a training leaves; each would make a folder."""

    @pytest.fixture(params=['.yaml', '.yml', '.pkl', '.pickle'])
    def listing(self, request, tmp_path):
        """Writes an annotation list that has something beside its entries."""

        def write(beside):
            path = tmp_path / f'annotations{request.param}'
            content = dict(metainfo=dict(classes=('a', 'b')), data_list=[dict(img_path='a.png', gt_label=0)])
            if request.param.startswith('.p'):
                path.write_bytes(pickle.dumps(dict(content, beside=beside)))
            else:
                call = YAML_CALL.format(beside.folder) if isinstance(beside, Payload) else ''
                path.write_text(f'{yaml.dump(content)}beside: {call}\n')
            return path

        return write

    def load(self, path, trust=False):
        guard_loading(trust)
        return BaseDataset(ann_file=str(path), data_prefix=dict(img_path=''), pipeline=[])

    def test_annotation_lists(self, listing, tmp_path):
        path = listing(Payload(tmp_path / 'pwned'))
        with pytest.raises(ValueError, match=r'holds .*makedirs.*which could run code when it is read.*--trust'):
            self.load(path)
        assert not (tmp_path / 'pwned').exists()
        assert len(self.load(path, trust=True)) == 1
        assert (tmp_path / 'pwned').exists()

    def test_plain_ones_are_read_as_mmengine_reads_them(self, listing):
        path = listing(None)
        found, theirs = self.load(path), self.load(path, trust=True)
        assert found[0] == theirs[0]
        assert found.metainfo == theirs.metainfo == dict(classes=('a', 'b'))

    @pytest.mark.parametrize('protocol', range(6))
    def test_plain_pickles(self, protocol):
        content = dict(
            a=np.arange(3), b=np.float64(1.5), c={1, 2}, d=OrderedDict(x=b'y'), e=np.array(['u']), f=1j, g=(None,)
        )
        found = PlainUnpickler(io.BytesIO(pickle.dumps(content, protocol))).load()
        assert repr(found) == repr(content)

    @pytest.mark.parametrize('suffix', ['.yaml', '.yml'])
    def test_configs(self, suffix, tmp_path):
        (tmp_path / f'c{suffix}').write_text(f'a: {YAML_CALL.format(tmp_path / "pwned")}\n')
        (tmp_path / 'child.py').write_text(f"_base_ = 'c{suffix}'\n")
        for name in (f'c{suffix}', 'child.py'):
            with pytest.raises(ValueError, match=r'config .* cannot be read: .* holds !!python.*makedirs in line 1'):
                read_config(str(tmp_path / name))
        assert not (tmp_path / 'pwned').exists()
        (tmp_path / f'c{suffix}').write_text('a: !!python/tuple [1, 2]\n')  # as mmengine writes them
        assert read_config(str(tmp_path / f'c{suffix}')).a == (1, 2)

    def test_types_that_are_calls(self, tmp_path):
        call = dict(model=dict(type='os.makedirs', name=str(tmp_path / 'pwned')))
        for name, text in (('c.yaml', yaml.dump(call)), ('c.json', json.dumps(call))):
            (tmp_path / name).write_text(text)
            with pytest.raises(ValueError, match=r"type='os\.makedirs', which could run code.*--trust"):
                read_config(str(tmp_path / name))

    @pytest.mark.parametrize(
        ('kind', 'known'),
        [
            ('ResNet', True),
            ('mmpretrain.ResNet', True),
            ('torchvision.models.resnet18', True),
            ('timm.create_model', True),
            ('torch.nn.Linear', True),
            ('torch.hub.load', False),
            ('mmengine.fileio.copyfile', False),
            ('torchvision.datasets.utils.download_url', False),
            ('torch.utils.data.dataloader.threading.Thread', True),  # no class is there, so mmengine finds none either
            ('subprocess.Popen', False),
        ],
    )
    def test_which_types_a_plain_config_may_name(self, kind, known):
        if known:
            refuse_calls([dict(a=dict(type=kind))], 'x')
        else:
            with pytest.raises(ValueError, match='could run code'):
                refuse_calls([dict(a=dict(type=kind))], 'x')


class TestWorkDirectory:
    """The config in it is Python that mmengine wrote: read, not run."""

    def run_in(self, folder, text):
        write_lines(folder / 'x' / 'vis_data', records())
        (folder / 'x' / 'vis_data' / 'config.py').write_text(text)
        torch.save(dict(meta={}, state_dict={}), folder / 'epoch_1.pth')
        return folder

    @pytest.mark.parametrize(
        'line',
        [
            "import os; os.makedirs('{}')",
            "model = __import__('os').makedirs('{}')",
            "model = dict(type='ImageClassifier', a=[open('{}', 'w')])",
            "model = dict(**dict(type='x'))",
            'model.a = 1',
        ],
    )
    def test_a_program_is_refused(self, line, tmp_path):
        folder = self.run_in(tmp_path, f'a = 1\n{line.format(tmp_path / "pwned")}\n')
        with pytest.raises(ValueError, match=r'config\.py is a program \(line 2: .*could run code.*--trust'):
            read_run(folder, 'x')
        assert not (tmp_path / 'pwned').exists()

    def test_with_trust_it_is_run(self, tmp_path):
        folder = self.run_in(tmp_path, f"__import__('os').makedirs('{tmp_path / 'pwned'}')\nmodel = dict()\n")
        guard_loading(trust=True)
        read_run(folder, 'x')
        assert (tmp_path / 'pwned').exists()

    @pytest.mark.parametrize(
        ('model', 'match'),
        [
            ("dict(type='os.makedirs', name='{}')", r"type='os\.makedirs'"),
            ("dict(type='ClassificationDistiller', student_cfg='evil.py')", r"student_cfg='evil\.py', another config"),
        ],
    )
    def test_values_that_call(self, model, match, tmp_path):
        with pytest.raises(ValueError, match=match):
            read_run(self.run_in(tmp_path, f'model = {model}\n'), 'x')

    def test_a_whole_config_is_read_as_mmengine_reads_it(self, tmp_path):
        cfg = read_config(DISTILLER)
        Recipe(cfg.model).inline_networks()
        cfg.more = {'a-b': (1, -2.5, None, {3}), 'c': [True, {'d': 'it’s\n'}], 4: ()}
        cfg.dump(tmp_path / 'config.py')
        found = read_left_config(tmp_path / 'config.py')
        assert found._cfg_dict == Config.fromfile(tmp_path / 'config.py')._cfg_dict == cfg._cfg_dict


class TestCustomImports:
    def test_which_and_why(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / 'own_layers.py').write_text('import not_installed_here\n')
        for name, why in (('own_layers', 'not_installed_here'), ('own_lyers', 'own_lyers')):
            text = f"custom_imports = dict(imports=['mmcls_kd', '{name}'], allow_failed_imports=False)\n"
            (tmp_path / 'c.py').write_text(text)
            for read in (lambda path: read_config(str(path)), read_left_config):
                expected = rf"custom_imports: {name} cannot be imported \(ModuleNotFoundError: No module named '{why}'\)"
                with pytest.raises(ValueError, match=expected):
                    read(tmp_path / 'c.py')

    @pytest.mark.parametrize('line', ['1 / 0', 'None.a', 'raise RuntimeError("no")'])
    def test_a_config_that_raises(self, line, tmp_path, monkeypatch):
        (tmp_path / 'c.py').write_text(f'{line}\n')
        copies = []

        def remember(*args, **kwargs):
            file = NamedTemporaryFile(*args, **kwargs)  # noqa: SIM115 (it is about who closes it)
            copies.append(weakref.ref(file))
            return file

        monkeypatch.setattr('tempfile.NamedTemporaryFile', remember)
        with pytest.raises(ValueError, match=r'config .*c\.py cannot be read: \w+Error: ') as raised:
            read_config(str(tmp_path / 'c.py'))
        assert raised.value.__cause__  # it is closed while the error is still held
        assert [copy() for copy in copies] == [None]
