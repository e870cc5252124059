"""Figures: what is drawn is what was measured, each run looks the same in all, and nothing is drawn of nothing."""

import dataclasses
from argparse import Namespace

import matplotlib
import numpy as np
import pytest
import torch
from analysis_kit import made_up
from commands import tool
from matplotlib.text import Text
from mmengine.config import Config
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from PIL import Image

from mmcls_kd.analysis import figures
from mmcls_kd.analysis.compare import notes_on
from mmcls_kd.analysis.measures import calibration, class_accuracies, class_correlation


@pytest.fixture
def found():
    return made_up('alone', 'kd', 'nkd')


def curves(axes):
    """The lines of some axes with a label of their own: label, colour, x, y."""
    lines = [line for line in axes.get_lines() if not line.get_label().startswith('_')]
    return {line.get_label(): (line.get_color(), *map(list, line.get_data())) for line in lines}


def test_a_run_has_one_colour_in_all_figures(found):
    style = figures.line_styles(found)
    assert len({of['color'] for of in style.values()}) == 4
    learning = curves(figures.learning_curves(found).axes[0])
    over = curves(figures.over_training(found).axes[0])
    classes = curves(figures.class_differences(found).axes[0])
    assert learning['kd (40.00)'][0] == over['kd'][0] == classes['kd'][0] == style['kd']['color']
    assert learning['nkd (40.00)'][0] == over['nkd'][0] == classes['nkd'][0] == style['nkd']['color']


def test_more_runs_than_colours_differ_in_lines():
    style = figures.line_styles(made_up(*(f'run{i}' for i in range(14))))
    assert len({(of['color'], of['linestyle']) for of in style.values()}) == 15
    assert len({(of['color'], of['marker']) for of in style.values()}) == 15


def test_learning_curves_are_what_was_logged(found):
    drawn = curves(figures.learning_curves(found).axes[0])
    assert drawn['alone (40.00)'][1:] == ([1, 2], [20.0, 40.0])
    teacher = next(values for label, values in drawn.items() if label.startswith('teacher'))
    row = next(row for row in found.rows() if row.name == 'teacher')
    assert teacher[2] == [100 * row.accuracy] * 2


def test_a_learning_curve_of_another_metric_says_so(found):
    found.runs[1].validation[:] = [{'knn/agreement': 70.0, 'time': 0.1, 'step': 1}]
    axes = figures.learning_curves(found).axes[0]
    assert {'alone (40.00)', 'kd, knn/agreement (70.00)'} <= curves(axes).keys()
    assert axes.get_ylabel() == 'validation (%)'
    assert 'kd logged no top-1 accuracy in validation: its learning curve is that of knn/agreement.' in [
        *notes_on(found, 12)
    ]


def test_loss_terms_are_over_epochs(found):
    drawn = curves(figures.loss_terms(found).axes[1])
    assert drawn['task loss'][1] == [0.5, 1.0, 1.5, 2.0]
    assert drawn['loss_kd'][2] == [1 / 2, 1 / 4, 1 / 6, 1 / 8]


def test_class_differences_are_those_to_the_run_without_teacher(found):
    assert found.reference == 'alone'
    axes = figures.class_differences(found).axes[0]
    classes = [int(label.get_text().split()[1]) for label in axes.get_yticklabels()]
    of = {name: 100 * class_accuracies(o.logit, o.label) for name, o in found.outputs.items()}
    drawn = curves(axes)
    assert set(drawn) == {'kd', 'nkd'}
    assert drawn['kd'][1] == pytest.approx((of['kd'] - of['alone'])[classes].tolist())


def test_of_many_classes_the_ends_are_shown():
    axes = figures.class_differences(made_up('alone', 'kd', classes=50, images=500)).axes[0]
    x = curves(axes)['kd'][1]
    assert len(x) == figures.MOST_CLASSES
    assert x == sorted(x)


def test_one_run_is_compared_with_its_teacher_and_without_one_with_nothing():
    assert made_up('kd').reference == 'teacher'
    alone = made_up('kd', teacher=False)
    assert alone.reference is None
    assert figures.class_differences(alone) is None
    assert figures.over_training(alone) is None
    assert len(figures.correlations(alone).axes) == 2  # the matrix and its scale


def test_a_class_without_images_is_left_out(found):
    for outputs in found.outputs.values():
        outputs.label[outputs.label == 2] = 1
    axes = figures.class_differences(found).axes[0]
    assert [label.get_text().split()[1] for label in axes.get_yticklabels()].count('2') == 0
    assert len(axes.get_yticks()) == 3


def test_reliability_bars_are_the_accuracies(found):
    figure = figures.reliability(found)
    assert [axes.get_title().split('\n')[0] for axes in figure.axes[::2]] == ['teacher', 'alone', 'kd', 'nkd']
    expected = calibration(found.outputs['alone'].logit, found.outputs['alone'].label)
    heights = [bar.get_height() for bar in figure.axes[2].patches]
    assert heights == pytest.approx(expected.accuracies.nan_to_num().tolist())
    assert [bar.get_height() for bar in figure.axes[3].patches] == pytest.approx((expected.counts / 200).tolist())


def test_correlations_and_their_differences(found):
    figure = figures.correlations(found)
    shown = {axes.get_title().split('\nmean')[0]: axes.images[0].get_array() for axes in figure.axes if axes.images}
    teacher, student = (class_correlation(found.outputs[name].logit).numpy() for name in ('teacher', 'kd'))
    np.testing.assert_allclose(shown['kd'], student)
    np.testing.assert_allclose(shown['kd\n− teacher'], student - teacher)
    assert not any('teacher\n− ' in title for title in shown)


@pytest.mark.parametrize(('runs', 'teacher', 'shape'), [(5, True, (2, 6)), (6, True, (4, 4)), (13, False, (3, 5))])
def test_many_matrices_stand_in_several_rows(runs, teacher, shape):
    found = made_up(*(f'run{i}' for i in range(runs)), teacher=teacher)
    axes = figures.correlations(found).axes[:-1]
    assert axes[0].get_gridspec().get_geometry() == shape
    titles = [one.get_title() for one in axes if one.images]
    assert sorted(title for title in titles if '−' not in title) == sorted(found.outputs)
    assert sum('mean distance' in title for title in titles) == (runs if teacher else 0)
    for one in axes:
        if '−' in one.get_title():
            above = axes[axes.index(one) - shape[1]]
            assert one.get_title().startswith(f'{above.get_title()}\n')


def test_a_long_name_keeps_the_end_that_tells_it_from_others():
    assert figures.short('resnet18_kd_seed1', 17) == 'resnet18_kd_seed1'
    assert figures.short('resnet18_kd_seed1', 6) == '…seed1'


def test_features_are_the_same_each_time_and_groups_stay_apart(found):
    vectors = found.outputs['kd'].vector[:25]
    vectors = torch.cat([vectors, vectors + 100])
    places = figures.embedded(vectors)
    np.testing.assert_array_equal(figures.embedded(vectors), places)
    gap = places[:25].mean(0) - places[25:].mean(0)
    side = places @ gap - places.mean(0) @ gap
    assert (side[:25] > 0).all()
    assert (side[25:] < 0).all()


def test_without_vectors_there_are_no_features(found):
    found.outputs = {name: type(o)(o.logit, o.label) for name, o in found.outputs.items()}
    assert figures.features(found) is None


def test_ten_of_many_classes_have_features():
    assert figures.chosen_classes(10) == list(range(10))
    assert figures.chosen_classes(1000) == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]


NAMES = ['$\\frac{$', '_x', 'cash $5 to $10', '<b>&amp;</b>']


def texts(figure):
    return {text.get_text().strip() for text in figure.findobj(Text) if text.get_visible()}


def test_names_are_text_whatever_is_in_them(tmp_path, monkeypatch):
    named = dataclasses.replace(made_up('$alone', '_kd', 'a_$b$'), class_names=NAMES)
    drawn, save = {}, figures.save
    monkeypatch.setattr(figures, 'save', lambda figure, path: drawn.update({path.stem: figure}) or save(figure, path))
    figures.draw(named, tmp_path, log=lambda _: None)
    for name in ('class_differences', 'correlations', 'features'):
        assert all(any(of in text for text in texts(drawn[name])) for of in NAMES), name
    for name in ('over_training', 'class_differences'):
        assert {'_kd', 'a_$b$'} <= texts(drawn[name])
    assert {'_kd (40.00)', '$alone (40.00)'} <= texts(drawn['learning_curves'])


def test_files(found, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, 'FIGURES', figures.FIGURES[:2])
    files = figures.draw(found, tmp_path / 'new', log=lambda _: None)
    assert list(files) == [name for name, _, _ in figures.FIGURES]
    for path in files.values():
        with Image.open(path) as image:
            image.load()
            assert 1050 <= image.width <= 1150
    assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == sorted(p.name for p in files.values())


def test_names_of_classes_are_text_in_drawn_predictions(tmp_path):
    cfg = Config(dict(default_hooks={}))
    with matplotlib.rc_context():
        tool('test').__globals__['add_drawing'](cfg, Namespace(show=False, show_dir=str(tmp_path), wait_time=0, interval=1))
        sample = DataSample().set_gt_label(0).set_pred_score(torch.tensor([0.1, 0.9]))
        drawn = UniversalVisualizer().visualize_cls(np.zeros((64, 64, 3), np.uint8), sample, classes=['$\\frac{$', '_$x$'])
    assert drawn.any()
