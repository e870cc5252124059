"""The teacher of plain PyTorch: its images, classes and mean against oracles; what it shares with the distiller."""

import copy
import io

import numpy as np
import pytest
import torch
from kit import assert_close
from PIL import Image
from small_networks import CLASSES, CNN, Encoder, FunctionalHead, ViT, WithLogits, batch, pair
from torch import nn
from torch.nn import functional as F

from mmcls_kd import Distiller, DistillLoss, TeacherSpec
from mmcls_kd.distiller import load_network
from mmcls_kd.distillers.classification import build_student
from mmcls_kd.networks.sources import find_network
from mmcls_kd.patches import left_out_in_eval_mode
from mmcls_kd.teachers import FrozenTeacher

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


class Probe(DistillLoss):
    """Keeps the teacher's logits; 0 itself."""

    def forward(self, logit_s, logit_t):
        self.logit_t = logit_t
        return 0 * logit_s.sum()


class HeadProbe(DistillLoss):
    """Reads nothing of the teacher but its head."""

    def forward(self, feat_s, teacher_head):
        self.logit = teacher_head(feat_s)
        return self.logit.square().mean()


def logits_seen(teacher, images, labels, student=None, **keywords):
    """The teacher's logits as a loss gets them."""
    probe = Probe()
    Distiller(student or CNN(), teacher, probe, **keywords)(images, labels)
    return probe.logit_t


def images_seen(network, spec, images, **keywords):
    """The images as the teacher gets them."""
    seen = []
    handle = network.register_forward_pre_hook(lambda _module, args: seen.append(args[0].clone()))
    logits_seen(spec, images, torch.arange(len(images)), **keywords)
    handle.remove()
    return seen[-1]


class TestImages:
    def raw(self, size=32):
        return torch.randint(0, 256, (4, 3, size, size), generator=torch.Generator().manual_seed(3)).float()

    def test_mean_and_std(self):
        raw, network = self.raw(), CNN(8)
        ours = (raw - torch.tensor([125.0, 123.0, 114.0])[:, None, None]) / torch.tensor([63.0, 62.0, 67.0])[:, None, None]
        inputs = dict(mean=[125, 123, 114], std=[63, 62, 67])
        mean, std = (torch.tensor(IMAGENET[key])[:, None, None] for key in ('mean', 'std'))
        seen = images_seen(network, TeacherSpec(network, inputs=IMAGENET), ours, inputs=inputs)
        torch.testing.assert_close(seen, (raw - mean) / std)
        torch.testing.assert_close(images_seen(network, TeacherSpec(network), ours, inputs=inputs), ours)

    def test_scale_of_one_and_order_of_channels(self):
        raw, network = self.raw(), CNN(8)
        spec = TeacherSpec(network, inputs=dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], to_rgb=False))
        seen = images_seen(network, spec, raw / 255, inputs=dict(mean=0.0, std=255.0))
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        torch.testing.assert_close(seen, (raw.flip(1) / 255 - mean[:, None, None]) / std[:, None, None])

    @pytest.mark.parametrize('size', [24, 48])
    def test_size(self, size):
        """As Pillow makes them, but for its fixed-point weights: each of two roundings may go the other way."""
        raw, network = self.raw(), CNN(8)
        spec = TeacherSpec(network, inputs=dict(size=size, **IMAGENET))
        seen = images_seen(network, spec, (raw - 127.5) / 127.5, inputs=dict(mean=127.5, std=127.5))
        resized = [
            np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy().astype(np.uint8)).resize((size, size), Image.BILINEAR))
            for image in raw
        ]
        mean, std = (torch.tensor(IMAGENET[key])[:, None, None] for key in ('mean', 'std'))
        values = seen * std + mean
        expected = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()
        off = (values - expected).abs()
        assert off.max() < 2.01
        assert off.mean() < 0.11


class TestClasses:
    @pytest.mark.parametrize('as_tensor', [False, True])
    def test_class_map(self, as_tensor):
        images, labels = batch(classes=3)
        teacher, chosen = CNN(8), [7, 0, 4]
        spec = TeacherSpec(teacher, class_map=torch.tensor(chosen) if as_tensor else chosen)
        seen = logits_seen(spec, images, labels, CNN(4, 3))
        torch.testing.assert_close(seen, teacher(images)[:, chosen])

    def test_several_teachers_by_the_formula(self):
        images, labels = batch()
        one, two, three = CNN(8).eval(), CNN(4).eval(), CNN(4).eval()
        seen = logits_seen([one, TeacherSpec(two, weight=2.0), three], images, labels)
        mean = (one(images).softmax(1) + 2 * two(images).softmax(1) + three(images).softmax(1)) / 4
        torch.testing.assert_close(seen, mean.log())
        swapped = TeacherSpec(two, class_map=list(range(9, -1, -1)), weight=3)
        seen = logits_seen((one, swapped), images, labels)
        torch.testing.assert_close(seen.exp(), (one(images).softmax(1) + 3 * two(images).softmax(1).flip(1)) / 4)


class TestSharing:
    def test_a_loss_may_read_the_head_alone(self):
        student, teacher = pair()
        student = CNN(8)  # whose maps the teacher's head takes
        probe = HeadProbe()
        distiller = Distiller(student, teacher, probe)
        images, labels = batch()
        distiller(images, labels)['loss'].backward()
        with torch.no_grad():
            torch.testing.assert_close(probe.logit, teacher.fc(student.features(images).mean(dim=(2, 3))))
        assert teacher.fc.weight.grad is None
        assert student.stem.weight.grad.abs().sum()

    def test_the_teacher_is_in_no_list(self):
        student, teacher = pair()
        distiller = Distiller(student, teacher, ['kd', 'mgd', 'srrl'])
        own = {id(tensor) for tensor in [*teacher.parameters(), *teacher.buffers()]}
        assert not own & {id(tensor) for tensor in [*distiller.parameters(), *distiller.buffers()]}
        assert {key.split('.')[0] for key in distiller.state_dict()} == {'student', 'distill_losses'}
        assert len(distiller.state_dict()) == len(student.state_dict()) + len(distiller.distill_losses.state_dict())

    def test_state_dict_by_a_file(self):
        distiller = Distiller(*pair(), ['kd', 'mgd', dict(type='kd', name='ctkd', curriculum={})])
        file = io.BytesIO()
        torch.save(distiller.state_dict(), file)
        file.seek(0)
        _, teacher = pair()
        other = Distiller(pair(seed=5)[0], teacher, ['kd', 'mgd', dict(type='kd', name='ctkd', curriculum={})])
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
        for one in (distiller, other):
            torch.manual_seed(0)
            one.out = one(*batch())['loss'].detach()
        assert torch.equal(distiller.out, other.out)

    def test_a_deep_copy_shares_the_teacher(self):
        distiller = Distiller(*pair(), ['kd', 'mgd', dict(type='dist', loss_weight=dict(value=1.0, warmup=5))])
        average = torch.optim.swa_utils.AveragedModel(distiller)
        other = average.module
        assert other.teacher is distiller.teacher
        assert other.student is not distiller.student
        before = copy.deepcopy(other.student.state_dict())
        out = other(*batch())
        out['loss'].backward()
        assert distiller.student.fc.weight.grad is None
        assert other.student.fc.weight.grad.abs().sum()
        other.set_epoch(3)
        assert distiller.progress.epoch == 0  # a place of its own
        with torch.no_grad():
            distiller.student.fc.bias += 1
        average.update_parameters(distiller)
        average.update_parameters(distiller)
        assert not torch.equal(other.student.fc.bias, before['fc.bias'])

    def test_type_and_device_take_the_teacher_along(self):
        student, teacher = pair()
        distiller = Distiller(student, teacher, ['kd', 'mgd', 'srrl'])
        images, labels = batch()
        distiller(images, labels)
        assert distiller.double() is distiller
        assert teacher.fc.weight.dtype == student.fc.weight.dtype == torch.float64
        out = distiller(images.double(), labels)
        assert {value.dtype for value in out.values()} == {torch.float64}
        distiller.to('meta')
        assert teacher.fc.weight.device.type == 'meta'

    @pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
    def test_losses_are_built_in_the_students_type(self, dtype):
        student, teacher = (network.to(dtype) for network in pair())
        distiller = Distiller(student, teacher, ['kd', 'mgd', 'srrl', 'vid'])
        out = distiller(batch()[0].to(dtype), batch()[1])
        out['loss'].backward()
        assert {value.dtype for value in out.values()} == {torch.promote_types(dtype, torch.float32)}

    @pytest.mark.parametrize('role', ['student', 'teacher'])
    @pytest.mark.parametrize('mode', ['eval', 'train'])
    @pytest.mark.parametrize('autocast', [False, True])
    def test_one_network_may_be_in_half_precision(self, role, mode, autocast):
        images, labels = batch()
        student, teacher = pair()
        expected = Distiller(student, teacher, ['nkd', 'mgd'], teacher_mode=mode)(images, labels)
        student, teacher = pair()
        (student if role == 'student' else teacher).bfloat16()
        distiller = Distiller(student, teacher, ['nkd', 'mgd'], teacher_mode=mode)
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            out = distiller(images.bfloat16() if role == 'student' else images, labels)
        assert {value.dtype for value in out.values()} == {torch.float32}
        torch.testing.assert_close(out['nkd'], expected['nkd'], rtol=0.02, atol=0)
        out['loss'].backward()
        assert all(p.grad is not None for p in distiller.student.parameters())

    def test_networks_whose_train_returns_nothing(self, monkeypatch):
        images, labels = batch()
        methods = ['kd', 'mgd', 'srrl', 'simkd']
        expected = Distiller(*pair(), methods).eval()(images, labels)
        networks = pair()
        monkeypatch.setattr(type(networks[0]), 'train', lambda network, mode=True: nn.Module.train(network, mode) and None)
        distiller = Distiller(*networks, methods).eval()
        assert not distiller.student.training
        for name, value in distiller(images, labels).items():
            assert torch.equal(value, expected[name]), name

    @pytest.mark.parametrize('momentum', [None, 0.1, 0.9997])
    def test_a_student_that_would_go_by_its_last_batch_alone(self, momentum, caplog):
        student, teacher = pair()
        norms = [part for part in student.modules() if isinstance(part, nn.BatchNorm2d)]
        for part in norms:
            part.momentum = momentum
        Distiller(student, teacher, 'kd')
        told = f'{len(norms)} batch norms of the student have a momentum of 0.9997' in caplog.text
        assert told == (momentum == 0.9997)

    def test_adapters_in_encoder_layers_of_torch_teach(self):
        images, labels = batch()
        teacher = Encoder(['linear1'])
        expected = teacher.train()(images).detach()  # nothing in it is random
        assert_close(logits_seen(teacher, images, labels), expected)
        assert torch.backends.mha.get_fastpath_enabled()
        with torch.no_grad():
            assert (teacher(images) - expected).abs().max() > 0.01  # torch by itself leaves the adapter out
        plain = Encoder()
        assert torch.equal(logits_seen(plain, images, labels), plain(images))

    @pytest.mark.parametrize('adapted', [[], ['linear1'], ['linear2', 'linear1']])
    def test_a_student_with_adapters_that_eval_mode_leaves_out(self, adapted, caplog):
        Distiller(Encoder(adapted), CNN(), 'kd')
        assert ('would leave out' in caplog.text) == bool(adapted)
        assert all(f'encoder.layers.1.{name}' in caplog.text for name in adapted)

    @pytest.mark.parametrize('adapted', [[], ['linear1']])
    def test_such_a_student_of_a_config(self, adapted, monkeypatch):
        logged = []
        monkeypatch.setattr('mmcls_kd.distillers.classification.print_log', lambda text, *_: logged.append(text))
        build_student(find_network(dict(type='small_networks.Encoder', adapted=adapted)), None)
        assert any('encoder.layers.1.linear1 of the student' in text for text in logged) == bool(adapted)

    @pytest.mark.parametrize('way', ['method', 'scale', 'attention', 'replaced', 'parametrised'])
    def test_other_parts_of_encoder_layers_teach(self, way):
        class Doubled(nn.TransformerEncoderLayer):
            def _ff_block(self, x):
                return 2 * super()._ff_block(x)

        class Attention(nn.MultiheadAttention):
            def forward(self, *args, **keywords):
                attended, weights = super().forward(*args, **keywords)
                return 2 * attended, weights

        teacher = Encoder(layer=Doubled if way == 'method' else nn.TransformerEncoderLayer)
        part = teacher.encoder.layers[0]
        if way == 'scale':
            part.dropout2 = nn.Hardtanh()
        elif way == 'attention':
            part.self_attn = Attention(8, 2, batch_first=True)
        elif way == 'replaced':
            forward = part.linear1.forward
            part.linear1.forward = lambda x: 2 * forward(x)
        elif way == 'parametrised':
            nn.utils.parametrizations.weight_norm(part.linear1)
        expected = teacher.train()(batch()[0]).detach()
        assert_close(logits_seen(teacher, *batch()), expected)
        assert bool(left_out_in_eval_mode(teacher)) == (way != 'parametrised')

    def test_encoder_layers_that_call_their_parts_in_eval_mode(self):
        class Own(nn.TransformerEncoderLayer):
            def forward(self, src, *_, **__):
                return self.linear2(self.linear1(src).relu())

        without_dropout = Encoder(['linear1'])
        without_dropout.encoder.layers[0].dropout1 = nn.Identity()
        assert left_out_in_eval_mode(without_dropout) == ['encoder.layers.1.linear1']
        assert left_out_in_eval_mode(Encoder(['linear1']).encoder.layers[1]) == ['linear1']
        assert not left_out_in_eval_mode(Encoder(['linear1'], Own))
        assert not left_out_in_eval_mode(Encoder(['linear1'], batch_first=False))

    def test_it_stays_in_eval_mode_whoever_else_holds_it(self):
        images, labels = batch()
        expected = Distiller(*pair(), ['dist', 'srrl'])(images, labels)
        student, teacher = pair()
        distiller = Distiller(student, teacher, ['dist', 'srrl'])
        Distiller(CNN(), teacher, 'dist', teacher_mode='train')
        assert teacher.training
        statistics = {name: value.clone() for name, value in teacher.named_buffers()}
        assert torch.equal(distiller(images, labels)['loss'], expected['loss'])
        nn.ModuleList([distiller, teacher]).train()
        distiller(images, labels)
        assert all(torch.equal(value, statistics[name]) for name, value in teacher.named_buffers())

    def test_a_device_without_autocast(self):
        teacher = FrozenTeacher(pair()[1])
        teacher.network.to('meta')
        assert teacher(torch.zeros(2, 3, 32, 32, device='meta'), None, ['logit'])['logit'].shape == (2, CLASSES)

    def test_half_precision_leaves_the_losses_in_float32(self):
        images, labels = batch()
        distiller = Distiller(*pair(), ['kd', 'mgd', 'srrl', 'simkd']).to(torch.bfloat16)
        assert distiller.student.fc.weight.dtype == distiller.teacher.network.fc.weight.dtype == torch.bfloat16
        assert {parameter.dtype for parameter in distiller.distill_losses.parameters()} == {torch.float32}
        out = distiller(images.bfloat16(), labels)
        out['loss'].backward()
        assert {value.dtype for value in out.values()} == {torch.float32}
        assert distiller.predict(images.bfloat16()).isfinite().all()

    @pytest.mark.parametrize('mode', ['eval', 'train'])
    def test_modes_do_not_reach_the_teacher(self, mode):
        student, teacher = pair()
        distiller = Distiller(student, teacher, 'kd', teacher_mode=mode)
        for call in (distiller.train, distiller.eval, distiller.train):
            call()
            assert {part.training for part in teacher.modules()} == {mode == 'train'}
        statistics = copy.deepcopy(teacher.layer1[1].running_mean)
        distiller(*batch())
        assert torch.equal(statistics, teacher.layer1[1].running_mean) == (mode == 'eval')


class TestPredictions:
    def test_the_students(self):
        student, teacher = pair()
        distiller = Distiller(student, teacher, 'kd')
        images, _ = batch()
        statistics = copy.deepcopy(student.layer1[1].running_mean)
        found = distiller.predict(images)
        assert student.training
        assert torch.equal(statistics, student.layer1[1].running_mean)
        assert not found.requires_grad
        assert torch.equal(found, student.eval()(images))

    def test_simkds(self):
        student, teacher = pair(norm=False)
        distiller = Distiller(student, teacher, 'simkd')
        images, labels = batch()
        out = distiller(images, labels)
        assert out['task'] == 0
        assert torch.equal(out['loss'], out['simkd'])
        distiller.eval()
        predictor = distiller.distill_losses['simkd'].predictor
        with torch.no_grad():
            expected = teacher.fc(predictor.projector(student.features(images)).mean(dim=(2, 3)))
        torch.testing.assert_close(distiller.predict(images), expected)


class TestOutputs:
    @pytest.mark.parametrize('kind', [FunctionalHead, WithLogits])
    def test_logits_may_be_made_by_functions_or_stand_in_an_object(self, kind):
        student, teacher = pair(kind)
        probe = Probe()
        distiller = Distiller(student, teacher, dict(probe=probe, mgd='mgd', dist='dist'))
        images, labels = batch()
        out = distiller(images, labels)
        out['loss'].backward()
        found = teacher(images)
        torch.testing.assert_close(probe.logit_t, getattr(found, 'logits', found))
        assert student.fc.weight.grad.abs().sum()
        assert student.stem.weight.grad.abs().sum()
        assert distiller.predict(images).shape == (8, CLASSES)

    def test_a_tuple_is_refused(self):
        class Tuple(CNN):
            def forward(self, images):
                return (super().forward(images),)

        with pytest.raises(ValueError, match='student does not run .* returns .*tuple'):
            Distiller(Tuple(), CNN(), 'kd')

    def test_inference_mode_is_named(self):
        class Alone(CNN):
            forward = torch.inference_mode()(CNN.forward)

        with pytest.raises(ValueError, match=r'^the teacher runs under torch\.inference_mode\(\), .*leave that out'):
            Distiller(CNN(), Alone(), 'kd')
        student, teacher = CNN(), CNN(8)
        with torch.inference_mode(), pytest.raises(ValueError, match=r'^the student runs under torch\.inference_mode\(\)'):
            Distiller(student, teacher, 'kd')

    def test_taps_of_ones_own(self):
        student, teacher = pair()
        taps = dict(feat_s='layer3', feat_t=dict(path='layer2'))
        distiller = Distiller(student, teacher, 'mgd', taps=taps)
        loss = distiller.distill_losses['mgd']
        assert (loss.student_channels, loss.teacher_channels) == (16, 16)

    def test_a_loss_without_the_base_class(self):
        class Plain(nn.Module):
            def forward(self, logit_s, logit_t, temp=2.0):
                return F.mse_loss(logit_s / temp, logit_t / temp)

        out = Distiller(*pair(), dict(plain=Plain))(*batch())
        assert out['plain'] > 0

    def test_taps_with_names_of_ones_own(self):
        class Between(DistillLoss):
            sizes = {'width': ('early_t', 1)}

            def __init__(self, width):
                super().__init__()
                self.project = nn.Conv2d(4, width, 1)

            def forward(self, early_s, early_t):
                return F.mse_loss(self.project(early_s), early_t)

        out = Distiller(*pair(), dict(between=Between), taps=dict(early_s='stem', early_t='stem'))(*batch())
        assert out['between'].isfinite()


class TestSizes:
    def test_images_that_are_not_square(self):
        """Two rows of eight patches are as many as four rows of four."""
        images, labels = torch.randn(8, 3, 16, 64), batch()[1]
        distiller = Distiller(*pair(ViT), 'fitnet')
        with pytest.raises(ValueError, match=r'images are 16 × 64, and tokens .* 32 × 32: .*input_size=\(16, 64\)'):
            distiller(images, labels)
        distiller = Distiller(*pair(ViT), 'fitnet', input_size=(16, 64))
        assert distiller(images, labels)['fitnet'].isfinite()
        assert distiller.teacher.shapes['feat'] == (2, 16, 2, 8)
        for kind in (CNN, ViT):
            assert Distiller(*pair(kind), 'kd' if kind is ViT else 'fitnet')(images, labels)['loss'].isfinite()

    def test_a_network_of_one_size(self):
        def network(width):
            return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(38 * 38 * width, 10))

        with pytest.raises(ValueError, match=r'the student does not run on .* by Distiller\(input_size=\.\.\.\)'):
            Distiller(network(2), network(4), 'kd')
        distiller = Distiller(network(2), network(4), ['kd', 'fitnet', 'rkd'], input_size=40)
        out = distiller(torch.randn(8, 3, 40, 40), batch()[1])
        assert out['loss'].isfinite()

    def test_weights_loaded_into_the_teacher_afterwards_count(self):
        student, teacher = pair()
        probe = Probe()
        distiller = Distiller(student, teacher, probe)
        images, labels = batch()
        distiller(images, labels)
        teacher.load_state_dict(pair(seed=7)[1].state_dict())
        distiller(images, labels)
        with torch.no_grad():
            torch.testing.assert_close(probe.logit_t, teacher(images))


class TestNames:
    def test_libraries_give_their_networks_with_weights(self, monkeypatch):
        """Without downloading them."""
        for function in ('timm.create_model', 'torchvision.models.get_model'):
            monkeypatch.setattr(function, lambda name, **keywords: (name, keywords))
        monkeypatch.setattr('transformers.AutoModelForImageClassification.from_pretrained', lambda name: name)
        monkeypatch.setattr('mmcls_kd.teachers.libraries.is_tower', lambda *_: False)  # its config is not here
        monkeypatch.setattr('mmcls_kd.teachers.libraries.make_trainable', lambda network: network)
        assert load_network('timm:resnet18.a1_in1k') == ('resnet18.a1_in1k', dict(pretrained=True))
        assert load_network('torchvision:resnet18') == ('resnet18', dict(weights='DEFAULT'))
        assert load_network('hf:owner/name') == 'owner/name'
        monkeypatch.setattr('timm.create_model', lambda name, pretrained: CNN(8))
        assert Distiller(CNN(), 'timm:any', 'kd')(*batch())['kd'].isfinite()

    @pytest.mark.parametrize('name', ['timm:resnet19zz', 'torchvision:resnet19zz'])
    def test_unknown_networks_are_refused_in_one_line(self, name):
        with pytest.raises(ValueError, match=f'^teacher={name!r}: .*Unknown model .*resnet19zz') as caught:
            Distiller(CNN(), name, 'kd')
        assert '\n' not in str(caught.value)

    def test_a_library_that_is_not_installed_is_named(self, monkeypatch):
        monkeypatch.setattr('mmcls_kd.errors.find_spec', lambda name: None)
        with pytest.raises(ValueError, match=r"teacher='timm:resnet18' needs timm, .* pip install 'mmcls_kd\[timm\]'"):
            Distiller(CNN(), 'timm:resnet18', 'kd')


def test_channels_last():
    images, labels = batch()
    expected = Distiller(*pair(), ['kd', 'fitnet', 'at'])(images, labels)
    distiller = Distiller(*pair(), ['kd', 'fitnet', 'at']).to(memory_format=torch.channels_last)
    assert distiller.teacher.network.layer2[0].weight.is_contiguous(memory_format=torch.channels_last)
    out = distiller(images.contiguous(memory_format=torch.channels_last), labels)
    for name, value in expected.items():
        torch.testing.assert_close(out[name], value, rtol=1e-4, atol=1e-5)
