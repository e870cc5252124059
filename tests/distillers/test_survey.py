"""The dry run: it shows what a network does and leaves no trace in it."""

import copy
import re

import pytest
import torch
import torchvision
from mmpretrain.registry import MODELS
from networks import images, resnet, vit
from torch import nn

from mmcls_kd.features.dry_run import dry_run


class Net(nn.Module):
    """A small classifier; ``step`` is what happens to its features."""

    def __init__(self, step=None, channels=3):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)
        self.step = step or nn.Identity()

    def forward(self, images):
        return self.fc(self.step(self.norm(self.conv(images))).mean(dim=(2, 3)))


class TestWithoutATrace:
    @pytest.mark.parametrize('training', [True, False])
    def test_in_modes_parameters_statistics_hooks_and_gradients(self, training):
        network = MODELS.build(dict(resnet(4), backbone=dict(resnet(4)['backbone'], norm_eval=True, frozen_stages=1)))
        network.train(training)
        network.backbone.layer2[0].eval()  # one that is in another mode than those around it
        modes = [module.training for module in network.modules()]
        frozen = [parameter.requires_grad for parameter in network.parameters()]
        before = copy.deepcopy(network.state_dict())
        dry_run(network, 'student')
        assert [module.training for module in network.modules()] == modes
        assert [parameter.requires_grad for parameter in network.parameters()] == frozen
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert not any(module._forward_hooks for module in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_also_where_it_fails(self):
        network = Net(nn.Linear(5, 5)).train()
        with pytest.raises(ValueError, match='does not run'):
            dry_run(network, 'student')
        assert all(module.training for module in network.modules())
        assert not any(module._forward_hooks for module in network.modules())

    def test_nothing_is_drawn_also_not_by_the_network(self):
        class Noise(nn.Module):
            def forward(self, value):
                return value + torch.randn_like(value)

        network = Net(nn.Sequential(Noise(), nn.Dropout(0.5)))
        state = torch.get_rng_state()
        dry_run(network, 'student')
        assert torch.get_rng_state().equal(state)

    def test_nor_by_one_that_makes_buffers_anew_for_each_size(self):
        class Table(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer('table', torch.zeros(62), persistent=False)

            def forward(self, value):
                if len(self.table) != value.shape[2]:
                    self.register_buffer('table', torch.zeros(value.shape[2]))
                return value + self.table[:, None]

        network = Net(Table())
        found = dry_run(network, 'student', (64, 64))
        assert found.growing('step') == (2,)
        assert network.step.table.shape == (62,)
        assert 'step.table' not in network.state_dict()

    def test_what_it_keeps_has_no_values(self):
        found = dry_run(Net(), 'student')
        assert {tensor.device.type for tensors in found.outputs.values() for tensor in tensors} == {'meta'}
        assert found.logit.device.type == 'meta'


class TestWhatItShows:
    def test_shapes_order_and_calls(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.relu = nn.ReLU()

            def forward(self, value):
                return self.relu(value), self.relu(value[:, :2])

        class Both(Net):
            def forward(self, images):
                return self.fc(self.step(self.norm(self.conv(images)))[0].mean(dim=(2, 3)))

        found = dry_run(Both(Twice()), 'student', (16, 12))
        assert list(found.outputs) == ['conv', 'norm', 'step.relu', 'step', 'fc']
        assert [tuple(tensor.shape) for tensor in found.outputs['step']] == [(2, 8, 14, 10), (2, 2, 14, 10)]
        assert found.calls == dict(conv=1, norm=1, step=1, fc=1) | {'step.relu': 2}
        assert (found.size, found.num_classes, found.logit_paths) == ((16, 12), 10, ['fc'])

    def test_the_outermost_of_those_that_return_the_scores_comes_first(self):
        network = MODELS.build(dict(type='ModuleClassifier', model=nn.Sequential(nn.Sequential(Net(), nn.Identity()))))
        assert dry_run(network, 'student').logit_paths == ['model', 'model.0', 'model.0.0', 'model.0.1', 'model.0.0.fc']

    def test_scores_beside_other_things(self):
        class Answer(Net):
            def forward(self, images):
                return type('Output', (), dict(logits=super().forward(images), loss=None))()

        assert dry_run(Answer(), 'student').logit_paths == ['fc']

    def test_what_a_later_step_changes_in_place(self):
        found = dry_run(Net(nn.ReLU(inplace=True)), 'student')
        assert found.overwritten == {'norm'}
        assert dry_run(Net(nn.ReLU()), 'student').overwritten == set()

    @pytest.mark.parametrize('channels', [1, 3, 4])
    def test_images_of_the_networks_channels(self, channels):
        assert dry_run(Net(channels=channels), 'student').channels == channels
        assert dry_run(Net(channels=channels), 'student').size == (64, 64)

    def test_a_network_of_one_size(self):
        network = MODELS.build(dict(type='TimmClassifier', model_name='vit_tiny_patch16_224', img_size=96, depth=1))
        assert dry_run(network, 'student').size == (96, 96)
        with pytest.raises(ValueError, match='the teacher does not run on 3-channel images. 64 × 64: AssertionError'):
            dry_run(network, 'teacher', (64, 64))


class TestKindsOfNetworks:
    @pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
    def test_of_another_precision(self, dtype):
        found = dry_run(Net().to(dtype), 'student')
        assert found.logit.dtype == dtype

    def test_with_batch_norm_over_processes(self):
        network = nn.SyncBatchNorm.convert_sync_batchnorm(Net()).train()
        assert dry_run(network, 'student').num_classes == 10

    def test_with_drop_path_and_dropout(self):
        cfg = vit(16)
        cfg['backbone'] |= dict(drop_rate=0.5, drop_path_rate=0.5)
        assert dry_run(MODELS.build(cfg).train(), 'student').num_classes == 10

    def test_compiled_in_place(self):
        network = Net()
        network.step.compile(backend='eager')
        assert dry_run(network, 'student').outputs['step'][0].shape == (2, 8, 62, 62)

    def test_it_does_not_matter_what_was_surveyed_before(self):
        network = MODELS.build(resnet(4)).eval()
        with torch.no_grad():
            first = network(images())
            dry_run(network, 'student')
            assert network(images()).equal(first)


class TestRefused:
    def test_a_network_that_runs_at_no_size_names_each_reason_once(self):
        with pytest.raises(ValueError, match='the student does not run on 3-channel images') as caught:
            dry_run(Net(nn.Linear(5, 5)), 'student')
        reasons = re.findall(r'(\d+) × \d+: RuntimeError: (?:addmm: )?mat1 and mat2', str(caught.value))
        assert reasons == ['64', '224', '32', '384']

        class Never(Net):
            def forward(self, images):
                raise AssertionError('not today')

        with pytest.raises(ValueError, match=r'images\. 64 × 64: AssertionError: not today$'):
            dry_run(Never(), 'student')

    @pytest.mark.parametrize(
        ('answer', 'message'),
        [
            (lambda logit: dict(scores=logit), 'has to return a tensor of class scores'),
            (lambda logit: (logit, logit), 'has to return a tensor of class scores'),
            (lambda logit: logit[:, :, None], r'have the shape \(2, 10, 1\) instead of \(N, C\)'),
            (lambda logit: logit[:1], r'have the shape \(1, 10\) instead of \(N, C\)'),
            (lambda logit: logit * 1, 'no module in it returns its class scores'),
        ],
    )
    def test_a_network_without_class_scores(self, answer, message):
        class Other(Net):
            def forward(self, images):
                return answer(super().forward(images))

        with pytest.raises(ValueError, match=message):
            dry_run(Other(), 'student')


class TestMapsOfOddSizes:
    """Where the shape alone would take columns, or rows, for channels."""

    def test_inputs_are_told_by_their_growth(self):
        """The map in front of the last ReLU is (64, 88, 120): 64 to 88 is nearer to 350 to 480 than 88 to 120 is."""
        found = dry_run(torchvision.models.resnet18(num_classes=2), 'student', (350, 480))
        assert found.inputs['layer1.1.relu'][0].shape == (2, 64, 88, 120)
        assert found.layout('layer1.1.relu', goes_in=True).kind == 'map'

    @pytest.mark.parametrize('size', [(24, 48), (48, 24), (48, 48)])
    def test_outputs_of_a_network_of_one_size_by_the_layers_that_read_them(self, size):
        """With as many channels as columns of a map twice as wide as high."""

        class Fixed(Net):
            def __init__(self):
                super().__init__()
                height, width = size[0] // 2, size[1] // 2
                self.stem, self.place = nn.Conv2d(3, 48, 2, 2), nn.Parameter(torch.randn(height, width, 48))
                self.shape, self.step, self.fc = (48, height, width), nn.Identity(), nn.Linear(48, 10)
                self.norm, self.mix = nn.LayerNorm(48), nn.Linear(48, 48)

            def forward(self, images):
                value = self.step(self.stem(images).permute(0, 2, 3, 1) + self.place)
                return self.fc(self.mix(self.norm(value)).mean(dim=(1, 2)))

        found = dry_run(Fixed(), 'student', size)
        assert found.growing('step') is None
        assert found.layout('step').kind == found.layout('mix').kind == 'map_last'
