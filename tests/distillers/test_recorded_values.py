"""The whole distiller against recorded values of both CIFAR-100 configs."""

import json
from pathlib import Path

import formula
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.recipe.methods import MethodList

GOLDEN = json.loads((Path(__file__).parents[1] / 'data' / 'models_cifar100.json').read_text())
DEFAULT = ('nkd', 'uskd')  # the others are slow


@pytest.mark.parametrize(
    'key', [pytest.param(key, marks=() if key.endswith(DEFAULT) else pytest.mark.slow) for key in GOLDEN]
)
def test_loss_dict_of_the_cifar100_configs(key):
    path, name = key.split('|')
    cfg = Config.fromfile(TOOLBOX / path)
    cfg.model.teacher_pretrained = False
    MethodList(cfg.model.distill_cfg).select([name.removeprefix('loss_')])
    distiller = MODELS.build(cfg.model)
    for part in (distiller.student, distiller.distill_losses, *([distiller.teacher] if distiller.teacher else [])):
        formula.fill(part)
    weights = {k: v.clone() for k, v in distiller.state_dict().items()}

    for mode, recorded in GOLDEN[key]['values'].items():
        distiller.load_state_dict(weights)  # a step in train mode moves the batch statistics
        distiller.train(mode.startswith('train'))
        data_samples = []
        for i in range(2):
            sample = DataSample().set_gt_label(formula.hard_label(i))
            data_samples.append(sample.set_gt_score(formula.soft_label(i)) if mode.endswith('soft') else sample)
        torch.manual_seed(5)
        losses = distiller.loss(formula.images(), data_samples)
        assert set(losses) == set(recorded)
        for term, value in recorded.items():
            assert losses[term].item() == pytest.approx(value, rel=2e-4), (mode, term)
