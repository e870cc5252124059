"""Under a moving average tools/test.py gives the numbers of the validation: of the average, of the weights themselves."""

import re

import pytest
import stores
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS

from mmcls_kd.networks.transfer import transfer

VALIDATED = """
val_cfg, val_evaluator = dict(_delete_=True), dict(_delete_=True, type='MeanScore')
val_dataloader = dict(
    _delete_=True,
    batch_size=50,
    dataset=dict(type='FashionMNIST', data_root='{data}', split='test', test_mode=True, pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_cfg, test_evaluator, test_dataloader = val_cfg, val_evaluator, val_dataloader
param_scheduler = None
custom_hooks = [dict(type='EMAHook', momentum=0.3, evaluate_on_origin=True)]
"""


@METRICS.register_module()
class MeanScore(BaseMetric):
    """The mean of the first class's score, which no two networks have alike."""

    def process(self, _batch, samples):
        self.results += [float(sample['pred_score'][0]) for sample in samples]

    def compute_metrics(self, results):
        return dict(mean_score=1000 * sum(results) / len(results))


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """Config, folder and log of a training that validates both."""
    folder = tmp_path_factory.mktemp('average')
    config = stores.write_config(folder / 'average.py', data, VALIDATED.format(data=data))
    return config, folder / 'work', stores.run('train', config, folder / 'work')


def validated(log):
    return [(a, b) for a, b in re.findall(r'mean_score: ([\d.]+).*mean_score_origin: ([\d.]+)', log)]


def score(log):
    return float(re.findall(r'mean_score: ([\d.]+)', log)[-1])


def test_both_are_those_of_the_validation(trained, tmp_path):
    config, folder, log = trained
    expected = validated(log)
    assert len(expected) == 2
    assert all(a != b for a, b in expected)
    for epoch, pair in enumerate(expected, start=1):
        tested = stores.run('test', config, tmp_path / f'{epoch}', folder / f'epoch_{epoch}.pth')
        assert validated(tested) == [pair]


def test_the_weights_themselves_alone(trained, tmp_path):
    config, folder, log = trained
    only = config.with_name('only.py')
    only.write_text(
        f"_base_ = '{config}'\ncustom_hooks = [dict(type='EMAHook', evaluate_on_ema=False, evaluate_on_origin=True)]\n"
    )
    tested = stores.run('test', only, tmp_path, folder / 'epoch_1.pth')
    assert score(tested) == float(validated(log)[0][1])


def test_a_file_with_one_kind_of_weights_shows_one_number(trained, tmp_path):
    config, folder, log = trained
    transfer(folder / 'epoch_1.pth', tmp_path / 'student.pth')
    tested = stores.run('test', config, tmp_path / 'log', tmp_path / 'student.pth')
    assert score(tested) == float(validated(log)[0][0])
    assert 'origin' not in tested.rsplit('Epoch(test)', 1)[1]
