"""docs/embeddings.md: its configs build, its student learns without labels, and its head begins with that student."""

import re

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from towers import made

from mmcls_kd.command.arguments import training_parser
from mmcls_kd.engine.config import training_config
from mmcls_kd.files.paths import TOOLBOX

TEXT = (TOOLBOX / 'docs' / 'embeddings.md').read_text()
FILES = dict(re.findall(r'^```python\n# (\w+\.py)\n(.*?)^```', TEXT, re.MULTILINE | re.DOTALL))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the page's configs and a tower."""
    made('dinov3').save_pretrained(tmp_path / 'tower')
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings('ignore')
def test_its_configs(desk):
    cfg = training_config(training_parser(None).parse_args(['embeddings.py']))
    assert cfg.val_evaluator == cfg.test_evaluator == []
    distiller = MODELS.build(cfg.model).train()
    batch = dict(inputs=[torch.zeros(1, 28, 28, dtype=torch.uint8)] * 4, data_samples=[DataSample() for _ in range(4)])
    batch = distiller.data_preprocessor(batch, training=True)
    assert set(distiller(**batch, mode='loss')) == {'loss_embedding', 'loss_queue'}

    cfg = training_config(training_parser(None).parse_args(['several.py']))
    assert set(MODELS.build(cfg.model).train()(**batch, mode='loss')) == {'loss_embedding'}

    cfg = training_config(training_parser(None).parse_args(['linear.py']))
    saved = desk / cfg.model.pretrained
    saved.parent.mkdir(parents=True)
    torch.save(dict(state_dict=distiller.state_dict()), saved)
    head = MODELS.build(cfg.model)
    assert head(batch['inputs']).shape == (4, 10)
    own = distiller.student.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in head.model.backbone.state_dict().items())
