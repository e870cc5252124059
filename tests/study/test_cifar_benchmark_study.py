"""The study of the CIFAR-100 distillation benchmark: its plan, and published numbers beside results by their epoch rule."""

import pytest
from studies_kit import made_up

from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.study import flops
from mmcls_kd.study.plan import Planner
from mmcls_kd.study.report import blocks
from mmcls_kd.study.steps import steps_of
from mmcls_kd.study.study_file import Published, read_study

FILE = TOOLBOX / 'studies/cifar100_benchmark.py'
STANDARD, UNEQUAL = 'resnet32x4-resnet8x4', 'wrn_40_2-vgg8'


@pytest.fixture(scope='module')
def study():
    return read_study(FILE)


@pytest.fixture(scope='module')
def planner(study):
    """The plan of two of its pairs."""
    return Planner(study.model_copy(update=dict(pairs={name: study.pairs[name] for name in (STANDARD, UNEQUAL)})))


def row(table, title):
    (line,) = [line for line in table.splitlines() if line.startswith(f'| {title} |')]
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_all_pairs_five_seeds_and_a_source_and_an_epoch_of_every_number(study):
    shipped = (TOOLBOX / 'configs/distillers/cifar100_benchmark').glob('*.py')
    distillers = {path: name for name, pair in study.pairs.items() for path in pair.distillers}
    assert set(distillers) == {str(path.relative_to(TOOLBOX)) for path in shipped}
    assert all(
        path.removesuffix('_two-views.py').removesuffix('.py').endswith(name.replace('-', '_distill_'))
        for path, name in distillers.items()
    )
    assert study.seeds == (0, 1, 2, 3, 4)
    numbers = [one for pair in study.pairs.values() for one in pair.published.values()]
    assert all(one.source and one.epoch for one in numbers)
    assert {one.epoch for one in numbers if 'RepDistiller' in one.source} == {'last'}
    assert {one.epoch for one in numbers if one.source.startswith(('mdistiller', 'LSKD'))} == {'best'}
    assert study.pairs[STANDARD].published['crd'].top1 == 75.51
    assert study.pairs['wrn_40_2-ShuffleV1'].published['nst'].top1 == 74.89
    assert study.pairs['resnet110-resnet20'].published['dkd'].top1 == 71.06
    assert study.pairs['wrn_40_2-MobileNetV2'].published['mlkd'].top1 == 70.78
    assert study.pairs['wrn_40_2-MobileNetV2'].published['ctkd+ls'].top1 == 69.53
    assert 'ab' not in study.pairs['vgg13-MobileNetV2'].published  # its stages end without a ReLU


def test_rows_without_a_number(study):
    """Seventeen methods are in every pair they fit, and others in the pairs of their settings."""
    everywhere = set(study.pairs['ResNet50-vgg8'].methods) & set(study.pairs['wrn_40_2-vgg8'].methods)
    assert len(everywhere) == 16 + len({'sdd'})  # and reviewkd, where there are as many stages
    standard = [name for name in study.pairs if 'normkd' in study.pairs[name].methods]
    assert len(standard) == 13
    for name, pair in study.pairs.items():
        further = {'normkd', 'rld', 'srd', 'ickd', 'pefd', 'afd'} & set(pair.methods)
        assert len(further) == (6 if name in standard else 0)
        assert ('crld' in pair.methods) == ('mlkd' in pair.rows) == (len(pair.distillers) == 2)
        assert set(pair.rows) <= set(pair.published)


def test_mlkd_has_its_published_budget(study):
    options = [study.pairs[name].rows['mlkd'].options for name in (STANDARD, 'resnet32x4-ShuffleV2')]
    assert options[0] == ('train_cfg.max_epochs=480', 'optim_wrapper.optimizer.lr=0.025')
    assert options[1] == ('train_cfg.max_epochs=960', 'optim_wrapper.optimizer.lr=0.001')


def test_plan(planner, study):
    runs = planner.runs()
    methods = study.pairs[STANDARD].methods
    wanted = {
        f'{STANDARD}/{name}/seed{seed}' for name in ('baseline', *methods, *study.pairs[STANDARD].rows) for seed in range(5)
    }
    keys = {run.key for run in runs}
    assert {key for key in keys if key.startswith(STANDARD)} == {*wanted, f'{STANDARD}/teacher/seed0'}
    assert f'{STANDARD}/reviewkd/seed0' in keys
    assert f'{UNEQUAL}/reviewkd/seed0' not in keys
    (teacher,) = [run for run in runs if run.key == f'{STANDARD}/teacher/seed0']
    assert (teacher.config, teacher.weights) == (
        'configs/cifar100_benchmark/resnet32x4.py',
        'data/cifar_teachers/resnet32x4_vanilla/ckpt_epoch_240.pth',
    )


def test_a_run_trains_with_the_published_teacher(planner, tmp_path):
    (run,) = [run for run in planner.runs() if run.key == f'{STANDARD}/dkd/seed1']
    _, words = next(steps_of(run, tmp_path))
    command = ' '.join(map(str, words))
    assert 'model.teacher_pretrained=data/cifar_teachers/resnet32x4_vanilla/ckpt_epoch_240.pth' in command
    assert 'resnet32x4_distill_resnet8x4.py' in command
    assert '--methods dkd' in command


def test_hours(planner):
    text = flops.estimate(planner, planner.runs(), flops.TFLOPS * 1e12)
    cells = row(text, f'`{STANDARD}`')
    # 0.177 and 1.083 billion multiply-adds in the facts of the benchmark, each of which is two operations
    assert [float(cell) for cell in cells[1:3]] == pytest.approx([2 * 0.1771, 2 * 1.083], abs=0.02)
    assert cells[3] == '240'
    assert '+ forward pass of the teacher), twice that with two views of an image.' in text


def test_two_views_count_twice(planner):
    runs = {run.row: run for run in planner.runs() if run.pair == STANDARD}
    kd, crld, mlkd = (flops.training_flops(runs[row], planner.models[STANDARD]) for row in ('kd', 'crld', 'mlkd'))
    assert (crld / kd, mlkd / kd) == (2, 4)  # MLKD has twice the epochs, too


def test_best_epoch_numbers_are_lowered_and_said_so(planner):
    accuracy = {'dkd': 76.0, 'kd': 73.40, 'lskd': 75.5, 'teacher': 79.40}
    records = [{**made_up(run), **({'last': accuracy[run.row]} if run.row in accuracy else {})} for run in planner.runs()]
    made = blocks(planner.study, records)
    table = made[STANDARD]
    assert row(table, 'KD')[-4:] == ['73.33 ± 0.30', '+0.07', 'last', 'RepDistiller, README']
    assert row(table, '`dkd`')[-4:] == ['76.32 − 0.30 ± 0.50', '-0.02', 'best', 'mdistiller, README']
    assert row(table, '`lskd`')[-4:] == ['76.62 − 0.30 ± 0.50', '**-0.82, outside**', 'best', 'LSKD, README']
    assert row(table, '`srrl`')[-2:] == ['unknown', 'NORM, README']
    assert 'A published number of the best epoch on the test images is lowered by 0.30 before it is compared' in table
    assert 'Published of the teacher: 79.42 ± 0.05; minus published: -0.02.' in table
    listed = made['published']
    assert 'its epoch' in listed.splitlines()[0]
    assert listed.count('lowered by 0.30') == 1


def test_a_study_without_epoch_rules_has_no_further_columns():
    one = Published(top1=70.0, tolerance=0.5, source='a paper')
    assert one.of_last_epoch == 70.0
    assert Published(top1=70.0, tolerance=0.5, source='a paper', epoch='best').of_last_epoch == pytest.approx(69.7)
