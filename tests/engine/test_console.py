"""What is shown of a run, and what is made for it."""

import numpy as np
from mmpretrain.visualization import UniversalVisualizer


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
