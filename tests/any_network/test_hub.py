"""Models of Hugging Face's hub by name: refused at once where the hub cannot be asked and the cache has none."""

import ssl
from email.message import Message
from urllib.error import HTTPError, URLError

import pytest
from folders import class_folders
from huggingface_hub import constants
from small_networks import CNN

from mmcls_kd import Distiller
from mmcls_kd.command.from_folder.making import Order, make
from mmcls_kd.distillers.classification import build_student
from mmcls_kd.networks.sources import find_network
from mmcls_kd.networks.towers import find_teacher
from mmcls_kd.teachers import hub, zero_shot_classifier

NAME = 'hf:owner/model'
REFUSED = r'hf:owner/model: the model is neither a folder here nor in the cache .* cannot be asked \({}\): .*give hf:FOLDER'


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A hub that does not answer, with an empty cache; the addresses that were asked."""
    addresses = []

    def fail(request, timeout):
        addresses.append((request.full_url, timeout))
        raise URLError('no such host')

    monkeypatch.setattr(hub, 'urlopen', fail)
    monkeypatch.setattr(hub, 'getproxies', dict)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    for function in ('PretrainedConfig.get_config_dict', 'AutoConfig.from_pretrained'):
        monkeypatch.setattr(f'transformers.{function}', lambda *_, **__: pytest.fail('the library asks the hub'))
    hub.unreachable.cache_clear()
    yield addresses
    hub.unreachable.cache_clear()


def folder(tmp_path):
    return dict(data=str(class_folders(tmp_path / 'data', ant=4, bee=4)), work_dir=str(tmp_path / 'out'))


@pytest.mark.parametrize(
    'use',
    [
        lambda _: find_teacher(NAME),
        lambda _: build_student(find_network(NAME), None),
        lambda _: Distiller(CNN(), NAME, 'dist'),
        lambda _: zero_shot_classifier(NAME, ['bag', 'toy'], cache=False),
        lambda tmp_path: make(Order(student=NAME, **folder(tmp_path))),
        lambda tmp_path: make(Order(student='timm:test_resnet', teachers=[NAME], **folder(tmp_path))),
    ],
    ids=['teacher', 'student', 'plain', 'zero-shot', 'student of a folder', 'teacher of a folder'],
)
def test_no_answer_is_waited_for_once(asked, tmp_path, use):
    for _ in range(2):
        with pytest.raises(ValueError, match=REFUSED.format('no such host')) as caught:
            use(tmp_path)
        assert '\n' not in str(caught.value)
    assert asked == [('https://huggingface.co', hub.PATIENCE)]
    assert not (tmp_path / 'out').exists()


def test_offline_nothing_is_asked(asked, monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(ValueError, match=REFUSED.format('HF_HUB_OFFLINE is set')):
        hub.check_hub('owner/model')
    assert asked == []


def test_a_cached_model_and_a_folder_are_taken(asked, tmp_path, caplog):
    stored = tmp_path / 'cache' / 'models--owner--model'
    for name, text in {'refs/main': 'abc', 'snapshots/abc/config.json': '{}'}.items():
        (stored / name).parent.mkdir(parents=True)
        (stored / name).write_text(text)
    hub.check_hub('owner/model')
    assert 'HF_HUB_OFFLINE=1 saves waiting' in caplog.text
    assert len(asked) == 1
    hub.check_hub(str(tmp_path))
    hub.check_hub('no name of a model')


@pytest.mark.parametrize(
    'error',
    [HTTPError('https://huggingface.co', 404, 'not found', Message(), None), URLError(ssl.SSLError('a certificate'))],
)
def test_a_server_that_answers_is_left_to_the_library(asked, monkeypatch, error):
    def answer(*_, **__):
        raise error

    monkeypatch.setattr(hub, 'urlopen', answer)
    hub.check_hub('owner/model')


def test_a_proxy_that_is_not_known_here_is_left_to_the_library(asked, monkeypatch):
    monkeypatch.setattr(hub, 'getproxies', lambda: dict(all='socks5://proxy'))
    hub.check_hub('owner/model')
    assert asked == []
