"""What is shown of a run, and what is made for it."""

from pathlib import Path

import numpy as np
import pytest
from mmpretrain.visualization import UniversalVisualizer
from toy_runs import toy_config

from mmcls_kd.engine.runtime import build_runner


def test_a_figure_is_made_with_the_first_image():
    visualizer = UniversalVisualizer(name='a test')
    assert visualizer.fig_save_canvas is None
    image = np.arange(60 * 40 * 3, dtype=np.uint8).reshape(60, 40, 3)
    for _ in range(2):
        visualizer.set_image(image)
        np.testing.assert_array_equal(visualizer.get_image(), image)
    canvas = visualizer.fig_save_canvas
    visualizer.set_image(image[:30])
    assert visualizer.fig_save_canvas is canvas
    assert visualizer.get_image().shape == (30, 40, 3)


@pytest.mark.parametrize('named', ['experiment_name', 'filename', None])
def test_runs_of_one_name_keep_their_logs_apart(named, tmp_path):
    for number in range(3):  # two of them begin within one second
        cfg = toy_config(tmp_path / str(number), launcher='none', log_level='INFO')
        cfg.experiment_name = 'mine' if named == 'experiment_name' else None
        if named == 'filename':
            cfg.dump(tmp_path / 'mine.py')
            cfg = type(cfg).fromfile(tmp_path / 'mine.py')
        runner = build_runner(cfg)
        runner.logger.info('number %d', number)
        log = Path(runner.log_dir, f'{runner.timestamp}.log')
        assert log.is_relative_to(tmp_path / str(number))
        assert f'number {number}' in log.read_text()
        assert Path(runner.visualizer.get_backend('LocalVisBackend')._save_dir).is_relative_to(tmp_path / str(number))
