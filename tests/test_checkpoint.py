"""Reading without running code, weights as other programs save them, and the student out of every kind of checkpoint."""

import argparse
import json
import os
import pickle
import re
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import mmengine
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OneCycleLR
from mmpretrain import get_model
from mmpretrain.registry import MODELS
from networks import build, method, resnet, vit

from mmcls_kd.checks.training import check_some_fit
from mmcls_kd.files.atomic import save_atomically, sha256
from mmcls_kd.files.checkpoint import check_end, read_checkpoint, read_start
from mmcls_kd.networks import loading as loading_module
from mmcls_kd.networks import weights as weights_module
from mmcls_kd.networks.loading import _load_from_local, fetch, load_strictly
from mmcls_kd.networks.sources import network_cfg
from mmcls_kd.networks.transfer import transfer

SRRL = method('SRRLLoss', student_channels=32, teacher_channels=64)


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def training_checkpoint(distiller=None, **more):
    """What mmengine's Runner saves."""
    distiller = distiller or build(SRRL)
    buffer = HistoryBuffer(np.array([1.0, 2.0]), np.array([1, 1]))
    return dict(
        meta=dict(epoch=3, dataset_meta=dict(classes=('cat', 'dog')), seed=np.int64(1), cfg='model = ...'),
        state_dict=distiller.state_dict(),
        optimizer=dict(state={}, param_groups=[]),
        message_hub=dict(log_scalars={'train/loss': buffer}, runtime_info=dict(lr=np.float64(0.1))),
        **more,
    )


class TestReading:
    def test_a_training_checkpoint(self, tmp_path):
        torch.save(training_checkpoint(), tmp_path / 'a.pth')
        content = read_checkpoint(tmp_path / 'a.pth')
        assert content['message_hub']['log_scalars']['train/loss'].current() == 2.0
        assert content['meta']['seed'] == 1

    def test_where_a_run_starts_is_read_once_and_let_go(self, tmp_path):
        file, link = tmp_path / 'a.pth', tmp_path / 'b.pth'
        torch.save(training_checkpoint(), file)
        link.symlink_to(file)
        content = read_start(file)
        assert read_start(link) is content
        assert _load_from_local(str(link))['state_dict'] is content['state_dict']
        assert _load_from_local(str(file))['state_dict'] is not content['state_dict']
        with pytest.raises(FileNotFoundError, match='none'):
            read_start(tmp_path / 'none.pth')

    def test_where_a_run_starts_is_read_anew_if_it_changes(self, tmp_path):
        torch.save(training_checkpoint(), tmp_path / 'a.pth')
        assert 'more' not in read_start(tmp_path / 'a.pth')
        torch.save(training_checkpoint(more=1), tmp_path / 'a.pth')
        assert 'more' in read_start(tmp_path / 'a.pth')
        assert 'more' in _load_from_local(str(tmp_path / 'a.pth'))

    @pytest.mark.parametrize('strategy', ['cos', 'linear'])
    def test_a_one_cycle_schedule(self, tmp_path, strategy):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
        schedule = OneCycleLR(optimizer, eta_max=0.1, total_steps=10, by_epoch=False, anneal_strategy=strategy)
        torch.save(training_checkpoint(param_schedulers=[schedule.state_dict()]), tmp_path / 'a.pth')
        assert read_checkpoint(tmp_path / 'a.pth')['param_schedulers'][0]['total_steps'] == 10

    def test_numpy_under_its_old_name(self, tmp_path):
        torch.save(dict(x=np.float64(0.25), y=np.arange(3)), tmp_path / 'new.pth')
        with zipfile.ZipFile(tmp_path / 'new.pth') as new, zipfile.ZipFile(tmp_path / 'old.pth', 'w') as old:
            for name in new.namelist():
                old.writestr(name, new.read(name).replace(b'numpy._core.multiarray', b'numpy.core.multiarray'))
        content = read_checkpoint(tmp_path / 'old.pth')
        assert content['x'] == 0.25
        assert content['y'].tolist() == [0, 1, 2]

    def test_code_is_not_run(self, tmp_path):
        torch.save(dict(state_dict={}, evil=Malicious(tmp_path / 'ran')), tmp_path / 'a.pth')
        with pytest.raises(ValueError, match=r'a\.pth holds \w+\.mkdir, which could run code .* --trust'):
            read_checkpoint(tmp_path / 'a.pth')
        assert not (tmp_path / 'ran').exists()
        read_checkpoint(tmp_path / 'a.pth', trust=True)
        assert (tmp_path / 'ran').exists()

    def test_getattr_reaches_the_log_history_alone(self, tmp_path):
        class Reach:
            def __reduce__(self):
                return getattr, (HistoryBuffer, '__init__')

        torch.save(dict(evil=Reach()), tmp_path / 'a.pth')
        with pytest.raises(ValueError, match='not allowed'):
            read_checkpoint(tmp_path / 'a.pth')

    def test_what_is_allowed_here_stays_forbidden_elsewhere(self, tmp_path):
        torch.save(training_checkpoint(), tmp_path / 'a.pth')
        read_checkpoint(tmp_path / 'a.pth')
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / 'a.pth', weights_only=True)

    @pytest.mark.parametrize('content', [b'', b'no checkpoint', None, b'PK\x03\x04 broken', b'abc', b'G\x04'])
    def test_damaged_files(self, tmp_path, content):
        torch.save(training_checkpoint(), tmp_path / 'a.pth')
        whole = (tmp_path / 'a.pth').read_bytes()
        (tmp_path / 'a.pth').write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(ValueError, match=r'a\.pth is (truncated, or )?no PyTorch checkpoint'):
            read_checkpoint(tmp_path / 'a.pth')

    def test_the_ends_tell_a_file_that_is_cut_off(self, tmp_path):
        for name, as_archive in (('a.pth', True), ('old.pth', False)):
            torch.save(training_checkpoint(), tmp_path / name, _use_new_zipfile_serialization=as_archive)
            check_end(tmp_path / name)
        whole = (tmp_path / 'a.pth').read_bytes()
        for content in (b'', whole[:100], whole[: len(whole) // 2]):
            (tmp_path / 'a.pth').write_bytes(content)
            with pytest.raises(ValueError, match=r'a\.pth is truncated'):
                check_end(tmp_path / 'a.pth')

    def test_other_content_and_no_file(self, tmp_path):
        torch.save([1, 2], tmp_path / 'list.pth')
        with pytest.raises(ValueError, match='holds a list instead of weights'):
            read_checkpoint(tmp_path / 'list.pth')
        with pytest.raises(FileNotFoundError, match=r'none\.pth: no such file'):
            read_checkpoint(tmp_path / 'none.pth')


@pytest.fixture(scope='module')
def weights():
    return MODELS.build(resnet()).state_dict()


class TestOtherPrograms:
    """Weights under the names of other libraries and training scripts."""

    @pytest.fixture
    def said(self, monkeypatch):
        lines = []
        for module in (loading_module, weights_module):
            monkeypatch.setattr(module, 'print_log', lambda text, *_: lines.append(text))
        return lines

    def loaded(self, content, tmp_path, network=None, role='teacher', **keywords):
        """What a network holds after it was given a file; it starts as zeros."""
        network = network or MODELS.build(resnet())
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        torch.save(content, tmp_path / 'w.pth')
        load_strictly(network, str(tmp_path / 'w.pth'), role, **keywords)
        return network.state_dict()

    def same(self, found, wanted):
        return all(torch.equal(value, wanted[key]) for key, value in found.items())

    @pytest.mark.parametrize('place', ['state_dict', 'model', 'net', 'network', 'model_state_dict'])
    @pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'model.'])
    def test_places_and_wrappers(self, weights, place, prefix, tmp_path):
        content = {place: {prefix + k: v for k, v in weights.items()}, 'accuracy': 0.9, 'epoch': 3, 'optimizer': {}}
        assert self.same(self.loaded(content, tmp_path), weights)
        assert self.same(self.loaded(dict(content[place], epoch=torch.tensor(3)), tmp_path), weights)

    def test_a_compiled_part(self, weights, tmp_path):
        compiled = {k.replace('backbone.', 'backbone._orig_mod.'): v for k, v in weights.items()}
        assert self.same(self.loaded(compiled, tmp_path), weights)

    @pytest.mark.parametrize('places', [('state_dict', 'state_dict_ema'), ('model', 'model_ema')])
    def test_the_average_is_taken_as_timm_takes_it(self, places, tmp_path, said):
        network = timm.create_model('test_resnet', num_classes=5)
        average = {k: v + 1 if v.is_floating_point() else v for k, v in network.state_dict().items()}
        content = {places[0]: network.state_dict(), places[1]: average}
        classifier = MODELS.build(dict(type='TimmClassifier', model_name='test_resnet', num_classes=5))
        found = self.loaded(content, tmp_path, classifier)
        theirs = timm.create_model('test_resnet', num_classes=5, checkpoint_path=str(tmp_path / 'w.pth'))
        assert self.same(found, theirs.state_dict())
        assert re.search(f'{places[1]!r}, the moving average, is taken, as timm does, not {places[0]!r}', said[0])

    def test_the_average_of_torchvisions_training_script(self, weights, tmp_path):
        average = torch.optim.swa_utils.AveragedModel(MODELS.build(resnet()))
        content = dict(model=weights, model_ema=average.state_dict())  # it counts its steps
        assert self.same(self.loaded(content, tmp_path), average.module.state_dict())

    def test_what_stands_beside_the_network_is_said(self, weights, tmp_path, said):
        content = {**{f'model.{k}': v for k, v in weights.items()}, 'criterion.weight': torch.ones(3)}
        assert self.same(self.loaded(dict(state_dict=content), tmp_path), weights)
        assert said == [f"teacher weights {tmp_path / 'w.pth'}: the network is under 'model.'; left out is criterion.weight"]

    def test_two_networks_in_a_file(self, weights, tmp_path):
        twice = {f'{name}.{k}': v for name in ('net1', 'net2') for k, v in weights.items()}
        with pytest.raises(ValueError, match=r"more than once, under 'net1\.' and 'net2\.'"):
            self.loaded(twice, tmp_path)

    @pytest.mark.parametrize('name', ['densenet121', 'mnasnet1_0'])
    def test_torchvisions_own_files(self, name, tmp_path):
        state = torchvision.models.get_model(name, num_classes=5).state_dict()
        published = {re.sub(r'(denselayer\d+\.\w+)([12])\.', r'\1.\2.', k): v for k, v in state.items()}
        assert (published.keys() == state.keys()) == (name != 'densenet121')
        classifier = MODELS.build(dict(type='TorchvisionClassifier', model_name=name, num_classes=5))
        found = self.loaded(published, tmp_path, classifier)
        assert self.same({k.removeprefix('model.'): v for k, v in found.items()}, state)

    @pytest.mark.parametrize(
        ('content', 'match'),
        [
            (dict(epoch=1, optimizer={}), "has no weights .* It has: 'epoch', 'optimizer'$"),
            (dict(acc=torch.tensor(1.0), mine=dict(a=torch.ones(1), b=torch.ones(1))), "2 tensors by name, is under 'mine'"),
        ],
    )
    def test_weights_that_are_not_found(self, content, match, tmp_path):
        with pytest.raises(ValueError, match=match):
            self.loaded(content, tmp_path)
        with pytest.raises(ValueError, match=match):
            _load_from_local(str(tmp_path / 'w.pth'))

    def test_mmengines_own_loading_finds_them_too(self, weights, tmp_path):
        torch.save(dict(model={f'_orig_mod.{k}': v for k, v in weights.items()}), tmp_path / 'w.pth')
        found = _load_from_local(str(tmp_path / 'w.pth'))
        assert self.same(found['state_dict'], weights)
        assert found['state_dict'].keys() == weights.keys()
        torch.save(dict(state_dict=dict(weights, _extra_state=[1])), tmp_path / 'w.pth')  # its own stay as they are
        assert _load_from_local(str(tmp_path / 'w.pth'))['state_dict']['_extra_state'] == [1]

    @pytest.mark.parametrize('kind', ['mmpretrain', 'timm'])
    def test_another_number_of_classes(self, kind, tmp_path, said):
        def build_for(classes):
            if kind == 'timm':
                return MODELS.build(dict(type='TimmClassifier', model_name='test_resnet', num_classes=classes))
            return MODELS.build(resnet(classes=classes))

        weights, network = build_for(7).state_dict(), build_for(5)
        with pytest.raises(
            ValueError, match=r'are of 7 classes and this network has 5 \(.*fc\.weight.*model\.teacher_classes'
        ):
            self.loaded(weights, tmp_path, network)
        found = self.loaded(weights, tmp_path, network, 'student', classes=5)
        fresh = {key for key, value in found.items() if value.shape != weights[key].shape}
        assert {key.rsplit('.', 2)[-2] for key in fresh} == {'fc'}
        assert self.same({k: v for k, v in found.items() if k not in fresh}, weights)
        assert 'are of 7 classes, not 5: all but the classifier' in said[-1]
        assert kind == 'timm' or found['head.fc.weight'].std() > 0  # as mmpretrain starts it

    def test_another_width_is_no_other_number_of_classes(self, weights, tmp_path):
        other = dict(weights, **{'backbone.conv1.weight': torch.zeros(1, 3, 3, 3)})
        with pytest.raises(ValueError, match=r'do not fit this ResNet_CIFAR; other shapes: .*backbone\.conv1\.weight'):
            self.loaded(other, tmp_path, role='student', classes=10)

    def test_options_of_a_script_are_plain_data(self, weights, tmp_path):
        args = argparse.Namespace(lr=0.1, output=Path('out'), device=torch.device('cpu'), inner=argparse.Namespace(a=[1]))
        torch.save(dict(model=weights, args=args), tmp_path / 'w.pth')
        torch.serialization.add_safe_globals([argparse.Namespace])
        before = set(torch.serialization.get_safe_globals())
        assert read_checkpoint(tmp_path / 'w.pth')['args'].inner == argparse.Namespace(a=[1])
        assert set(torch.serialization.get_safe_globals()) == before  # its own are gone, the caller's are there
        args.evil = Malicious(tmp_path / 'ran')
        torch.save(dict(model=weights, args=args), tmp_path / 'w.pth')
        with pytest.raises(ValueError, match='could run code'):
            read_checkpoint(tmp_path / 'w.pth')
        assert not (tmp_path / 'ran').exists()

    def test_a_whole_network_in_a_trusted_file(self, tmp_path):
        network = torch.nn.Sequential(torch.nn.Linear(1, 1))
        for content in (network, dict(model=network)):
            torch.save(content, tmp_path / 'w.pth')
            with pytest.raises(ValueError, match='could run code'):
                read_checkpoint(tmp_path / 'w.pth')
            assert weights_module.weights_of(read_checkpoint(tmp_path / 'w.pth', trust=True)).keys() == {
                '0.weight',
                '0.bias',
            }


class TestIndex:
    """Weights in several files."""

    @pytest.mark.parametrize(
        ('places', 'match'),
        [
            (dict(a='model.safetensors.index.json'), r'no index: it names model\.safetensors\.index\.json'),
            (dict(a='../1.bin'), 'no index: it names'),
            (dict(a='1.bin', b='2.bin'), r'of the 2 files that it names 1 are not here: 2\.bin: no such file'),
            (dict(a='1.bin', b='1.bin'), r'1\.bin does not hold what it should: b'),
        ],
    )
    def test_one_that_cannot_be(self, places, match, tmp_path):
        torch.save(dict(a=torch.ones(1)), tmp_path / '1.bin')
        (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=places)))
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            read_checkpoint(tmp_path / 'model.safetensors.index.json')


class TestFetching:
    @pytest.fixture
    def site(self, tmp_path, monkeypatch):
        """A folder, and the address under which a server has its files."""
        monkeypatch.setattr(SimpleHTTPRequestHandler, 'log_message', lambda *_: None)
        (tmp_path / 'site').mkdir()
        handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / 'site'))
        with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            yield tmp_path / 'site', f'http://127.0.0.1:{server.server_port}'
            server.shutdown()
            thread.join()

    def test_an_address_is_downloaded_once_into_torchs_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv('TORCH_HOME', str(tmp_path))
        calls = []

        def download(url, target, digest):
            calls.append((url, digest))
            torch.save(build(SRRL).teacher.state_dict(), target)

        monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
        address = 'https://example.org/resnet_20210831-f257d4e6.pth'
        for _ in range(2):
            load_strictly(build(SRRL).teacher, address, 'teacher')
        assert calls == [(address, 'f257d4e6')]

    def test_files_of_one_name_are_kept_apart(self, site, tmp_path, monkeypatch):
        folder, address = site
        monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
        for value, part in enumerate('AB'):
            (folder / part).mkdir()
            torch.save(dict(a=torch.tensor(value)), folder / part / 'pytorch_model.bin')
        safetensors.torch.save_file(dict(a=torch.tensor(2)), folder / 'model.safetensors')
        names = ['A/pytorch_model.bin', 'B/pytorch_model.bin', 'model.safetensors?download=true']
        for _ in range(2):
            assert [read_checkpoint(fetch(f'{address}/{name}', 'teacher'))['a'].item() for name in names] == [0, 1, 2]
            for path in [*folder.rglob('*.*')]:
                path.unlink()  # from now on they are in the cache

    def test_a_name_with_a_hash_is_that_of_torchs_cache(self, site, tmp_path, monkeypatch):
        folder, address = site
        monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
        torch.save(dict(a=torch.tensor(0)), folder / 'file')
        name = f'net-{sha256(folder / "file")[:8]}.pth'
        (folder / 'file').rename(folder / name)
        for query in ('', '?download=true'):
            assert fetch(f'{address}/{name}{query}', 'teacher') == tmp_path / 'cache' / 'hub' / 'checkpoints' / name

    def test_a_failed_download_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.setenv('TORCH_HOME', str(tmp_path))
        with pytest.raises(
            ValueError, match=r'teacher weights http://127\.0\.0\.1:9/a\.pth could not be downloaded.*give its path'
        ):
            fetch('http://127.0.0.1:9/a.pth', 'teacher')


class TestTransfer:
    def export(self, checkpoint, tmp_path):
        torch.save(checkpoint, tmp_path / 'in.pth')
        done = transfer(tmp_path / 'in.pth', tmp_path / 'folder' / 'out.pth')
        return done, torch.load(tmp_path / 'folder' / 'out.pth', weights_only=True)

    def test_the_student_alone_with_its_meta(self, tmp_path):
        distiller = build(SRRL)
        done, content = self.export(training_checkpoint(distiller), tmp_path)
        assert set(content) == {'meta', 'state_dict'}
        assert content['meta']['dataset_meta'] == dict(classes=['cat', 'dog'])
        assert (content['meta']['epoch'], content['meta']['seed']) == (3, 1)
        weights = distiller.student.state_dict()
        assert content['state_dict'].keys() == weights.keys()
        assert all(torch.equal(v, weights[k]) for k, v in content['state_dict'].items())
        assert (done.left_out, done.dropped) == (['distill_losses', 'message_hub', 'optimizer'], [])
        assert not done.ema
        assert not done.deit3

    def test_a_checkpoint_of_the_original_and_a_parallel_wrappers_prefix(self, tmp_path):
        distiller = build(SRRL)
        state = {f'module.{k}': v for k, v in distiller.state_dict().items()}
        state |= {f'module.teacher.{k}': v for k, v in distiller.teacher.state_dict().items()}
        for saved in (dict(state_dict=state), dict(state, n_averaged=torch.tensor(3))):  # neither meta nor optimizer
            done, content = self.export(saved, tmp_path)
            assert content['state_dict'].keys() == distiller.student.state_dict().keys()
            assert done.left_out == ['distill_losses', 'teacher']

    def test_the_moving_average_is_taken(self, tmp_path):
        distiller = build(SRRL)
        average = ExponentialMovingAverage(distiller, momentum=0.5)
        torch.nn.init.ones_(average.module.student.head.fc.weight)
        # as EMAHook saves it: the average under `state_dict`, the raw weights under `ema_state_dict`
        raw = {f'module.{k}': v for k, v in distiller.state_dict().items()}
        done, content = self.export(training_checkpoint(average.module, ema_state_dict=raw), tmp_path)
        assert done.ema
        assert (content['state_dict']['head.fc.weight'] == 1).all()

    def test_swins_norms_for_distillation_are_dropped_and_listed(self, tmp_path):
        swin = MODELS.build(network_cfg('configs/swin_transformer/swin-tiny_16xb64_in1k.py'))
        state = {f'student.{k}': v for k, v in swin.state_dict().items()}
        done, content = self.export(dict(state_dict=state), tmp_path)
        assert done.dropped == [f'backbone.norm{i}.{p}' for i in range(3) for p in ('weight', 'bias')]
        plain = MODELS.build(network_cfg('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'))
        plain.load_state_dict(content['state_dict'], strict=True)
        # testing takes either file with either config
        load_strictly(swin, str(tmp_path / 'folder' / 'out.pth'), 'test')
        load_strictly(plain, str(tmp_path / 'in.pth'), 'test')

    @pytest.mark.parametrize(('kind', 'expected'), [('DeiT3', True), ('VisionTransformer', False)])
    def test_a_deit3_student_is_noticed(self, tmp_path, kind, expected):
        distiller = build(method('NKDLoss'), student=vit(16, kind))
        assert self.export(training_checkpoint(distiller), tmp_path)[0].deit3 == expected

    def test_another_programs_average(self, tmp_path):
        state = build(SRRL).state_dict()
        average = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
        done, content = self.export(dict(model=state, model_ema=average, epoch=1), tmp_path)
        assert done.ema
        assert torch.equal(content['state_dict']['head.fc.weight'], average['student.head.fc.weight'])
        assert done.left_out == ['distill_losses', 'epoch', 'model']

    def test_without_a_student(self, tmp_path):
        weights = MODELS.build(resnet()).state_dict()
        with pytest.raises(ValueError, match=r'has no student weights .* but backbone\.conv1\.weight'):
            self.export(dict(state_dict=weights), tmp_path)
        assert not (tmp_path / 'folder').exists()
        with pytest.raises(ValueError, match="has no weights by name .* is under 'mine'"):
            self.export(dict(epoch=3, mine=weights), tmp_path)

    def test_weights_that_no_network_would_load(self, tmp_path):
        state = build(SRRL).state_dict()
        state['student.head.fc.bias'][0] = float('inf')
        with pytest.raises(ValueError, match=r'in\.pth holds NaN or infinite numbers: head\.fc\.bias$'):
            self.export(dict(state_dict=state), tmp_path)
        assert not (tmp_path / 'folder').exists()

    def test_no_file_of_torch_is_named_as_one_of_safetensors(self, tmp_path):
        torch.save(training_checkpoint(build(SRRL)), tmp_path / 'in.pth')
        with pytest.raises(
            ValueError, match=r'out\.safetensors: a checkpoint of PyTorch is written: let the name end in \.pth'
        ):
            transfer(tmp_path / 'in.pth', tmp_path / 'out.safetensors')
        assert not (tmp_path / 'out.safetensors').exists()

    def test_the_checkpoint_itself_is_not_overwritten(self, tmp_path):
        path = tmp_path / 'epoch_1.pth'
        torch.save(dict(state_dict={'student.fc.weight': torch.ones(1)}, optimizer={}), path)
        (tmp_path / 'link.pth').symlink_to(path)
        whole = path.read_bytes()
        for same in (path, tmp_path / 'link.pth'):
            with pytest.raises(ValueError, match='is the checkpoint itself, from which no run could resume then'):
                transfer(path, same)
        with pytest.raises(ValueError, match='is a folder: name a file in it'):
            transfer(path, tmp_path)
        assert path.read_bytes() == whole

    def test_a_failure_leaves_the_old_file_whole(self, tmp_path, monkeypatch):
        path = tmp_path / 'out.pth'
        path.write_text('old')

        def fail(file, content):
            file.write_text('half')
            raise OSError('No space left on device')

        monkeypatch.setattr(Path, 'write_bytes', fail)
        with pytest.raises(OSError, match='No space left'):
            save_atomically({}, path)
        assert path.read_text() == 'old'
        assert list(tmp_path.iterdir()) == [path]


def test_load_from_of_which_nothing_fits(weights):
    network = MODELS.build(resnet())
    check_some_fit(network, 'a.pth', dict(model={'backbone.conv1.weight': torch.zeros(1)}))  # mmengine names what does not
    of_a_distiller = dict(state_dict={f'student.{k}': v for k, v in weights.items()})
    with pytest.raises(ValueError, match=r'a\.pth has no weights of this network .*student\.backbone.*mmcls_kd transfer'):
        check_some_fit(network, 'a.pth', of_a_distiller)


@pytest.mark.skipif(
    mmengine.__version__ == '0.10.7',
    reason='mmengine 0.10.7 opens no training checkpoint with torch 2.6 or newer',
)
def test_mmpretrain_says_that_nothing_of_a_training_checkpoint_fits(weights, tmp_path, capfd):
    """As docs/deploy.md says of its inferencers and ``init_model``; the names are what tells."""
    torch.save(training_checkpoint(), tmp_path / 'epoch_3.pth')
    get_model(Config(dict(model=resnet())), pretrained=str(tmp_path / 'epoch_3.pth'), device='cpu')
    said = ''.join(capfd.readouterr())
    assert 'The model and loaded state dict do not match exactly' in said
    assert 'unexpected key in source state_dict: student.backbone.conv1.weight' in said
    transfer(tmp_path / 'epoch_3.pth', tmp_path / 'student.pth')
    get_model(Config(dict(model=resnet())), pretrained=str(tmp_path / 'student.pth'), device='cpu')
    assert 'do not match' not in ''.join(capfd.readouterr())
