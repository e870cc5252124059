"""Raw networks of timm, torchvision and Hugging Face have the features that the same networks have in the adapter."""

import families
import pytest
import torch
from small_networks import CLASSES

from mmcls_kd import Distiller
from mmcls_kd.features.dry_run import dry_run, scores
from mmcls_kd.features.families import default_taps
from mmcls_kd.features.layouts import parts
from mmcls_kd.features.taps import record
from mmcls_kd.teachers.head import find_head

NAMES = [name for name in families.FAMILIES if not name.startswith('mmpretrain')]  # whose wrapper holds the raw network


def features(network, images):
    """The default features of images, by name, and the paths at which they are read."""
    found = dry_run(network, 'student', (families.SIZE, families.SIZE), whole=True)
    taps = default_taps(network, found)
    with torch.no_grad(), record(network, taps) as read:
        network(images)
    return read, {name: tap.modules for name, tap in taps.items()}, find_head(network, found, taps)


@pytest.mark.parametrize('name', NAMES)
def test_raw_and_wrapped_have_the_same_features(name):
    wrapped = families.built(name)
    images = torch.randn(2, 3, families.SIZE, families.SIZE, generator=torch.Generator().manual_seed(0))
    expected, paths, head = features(wrapped, images)
    raw = wrapped.model
    found, raw_paths, raw_head = features(raw, images)
    assert raw_paths.keys() == paths.keys()
    for key, value in expected.items():
        for one, other in zip(parts(found[key]), parts(value), strict=True):
            assert torch.equal(one, other), key
        if key != 'logit':  # the wrapper returns it itself, or the network in it
            assert raw_paths[key] == tuple(path.removeprefix('model.') for path in paths[key]), key
    assert (head is None) == (raw_head is None)
    if head is not None:
        torch.testing.assert_close(raw_head(found['feat']), head(expected['feat']))


@pytest.mark.parametrize('name', ['timm ResNet', 'torchvision ViT', 'hf ViT', 'hf ResNet'])
def test_raw_networks_train(name):
    student, teacher = families.built(name).model.train(), families.built(name).model
    distiller = Distiller(student, teacher, ['kd', 'mgd', 'fitnet', 'rkd'], input_size=families.SIZE)
    images = torch.randn(4, 3, families.SIZE, families.SIZE, generator=torch.Generator().manual_seed(0))
    out = distiller(images, torch.arange(4) % CLASSES)
    out['loss'].backward()
    assert out['loss'].isfinite()
    with torch.no_grad():
        assert torch.equal(distiller.predict(images), scores(student.eval()(images)))
    assert all(parameter.grad is None for parameter in teacher.parameters())
