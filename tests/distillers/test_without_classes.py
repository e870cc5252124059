"""Teachers and students without classes: towers and backbones of each library, their embeddings, taps and refusals."""

import shutil

import pytest
import timm
import torch
from kit import assert_close, seeded
from mmpretrain.registry import MODELS
from networks import build, images, method, resnet, samples, vit
from small_networks import CNN
from towers import EXPECTED, made, own_embedding, processor

from mmcls_kd import Distiller, EmbeddingNetwork, TeacherSpec
from mmcls_kd.distiller import load_network
from mmcls_kd.errors import MissingLibraryError
from mmcls_kd.features.embedding import Pooling

EMBEDDING, QUEUE = method('EmbeddingLoss'), method('QueueLoss', queue_size=8)
SAME = dict(teacher_pixels=dict(mean=0.0, std=1.0))


@pytest.fixture(scope='module')
def towers(tmp_path_factory):
    """The folder of each tower, and the library's own model."""
    folder, found = tmp_path_factory.mktemp('towers'), {}
    for name in EXPECTED:
        found[name] = (folder / name, made(name))
        found[name][1].save_pretrained(folder / name)
    return found


def check_losses(distiller, names, teacher_images=None):
    """One step in training mode: the names of the losses, all finite, and gradients in the student's first weights."""
    losses = distiller.train().loss(images(seed=3) if teacher_images is None else teacher_images, samples())
    assert set(losses) == set(names)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in distiller.student.parameters())


class TestTowers:
    @pytest.mark.parametrize('student', [resnet(4), vit(16)], ids=['cnn', 'vit'])
    @pytest.mark.parametrize('name', EXPECTED)
    def test_it_teaches_with_the_embedding_of_its_library(self, towers, name, student):
        folder, own = towers[name]
        losses = EMBEDDING, QUEUE, method('FitNetLoss'), method('PKTLoss')
        distiller = build(*losses, teacher=f'hf:{folder}', student=student, teacher_pretrained=True)
        teacher, (extra, width) = distiller.teacher_holder, EXPECTED[name]
        assert teacher.num_classes == 0
        assert 'logit' not in teacher.shapes
        assert teacher.shapes['vector'] == (2, width)
        assert teacher.shapes['feat'] == (2, 16, 4, 4)
        assert teacher.taps['tokens_high'].view.layouts[0].extra == extra
        given = images()
        with torch.no_grad():
            assert_close(teacher(given, None, ['vector'])['vector'], own_embedding(name, own, teacher.adapt(given)))
        check_losses(distiller, ['ori_loss', 'loss_embedding', 'loss_queue', 'loss_fitnet', 'loss_pkt'])

    @pytest.mark.parametrize('name', EXPECTED)
    def test_weights_by_their_folder_are_those_of_the_library(self, towers, name):
        folder, own = towers[name]
        teacher = build(EMBEDDING, teacher=f'hf:{folder}', teacher_pretrained=str(folder)).teacher_holder
        with torch.no_grad():
            found = teacher(images(), None, ['vector'])['vector']
            assert_close(found, own_embedding(name, own, teacher.adapt(images())))

    def test_prefix_tokens_are_known_where_their_number_fits_another_grid(self, tmp_path):
        """Four patches and five prefix tokens, which could be nine patches."""
        made('dinov3', patch_size=16).save_pretrained(tmp_path)
        teacher = build(EMBEDDING, teacher=f'hf:{tmp_path}', teacher_pretrained=True).teacher_holder
        assert teacher.shapes['feat'] == (2, 16, 2, 2)

    def test_patches_of_a_masked_autoencoder_are_in_row_order(self, towers):
        """transformers shuffles them even where it hides none, and says how."""
        folder, own = towers['mae']
        teacher = build(EMBEDDING, teacher=f'hf:{folder}', teacher_pretrained=True).teacher_holder
        own.vit.config.mask_ratio = 0.0
        with torch.no_grad():
            output = own.vit(teacher.adapt(images()))
            place = output.ids_restore[:, :, None].expand(-1, -1, 16)
            in_order = output.last_hidden_state[:, 1:].gather(1, place)
            assert_close(teacher(images(), None, ['tokens_high'])['tokens_high'], in_order)

    @pytest.mark.parametrize('name', ['dinov2', 'dinov3', 'clip', 'siglip', 'mae'])
    def test_its_images_are_those_of_its_image_processor(self, towers, name, tmp_path):
        folder, own = towers[name]
        shutil.copytree(folder, tmp_path / name)
        own_processor = processor(name)
        own_processor.save_pretrained(tmp_path / name)
        distiller = build(EMBEDDING, teacher=f'hf:{tmp_path / name}', teacher_pretrained=True, rgb_images=True)
        pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=seeded(0))
        with torch.no_grad():
            given = own_processor(images=list(pixels), return_tensors='pt')['pixel_values']
            expected = own_embedding(name, own, given)
            found = distiller.teacher_holder(pixels.float(), None, ['vector'])['vector']
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize('name', ['dinov3', 'clip', 'mae'])
    def test_plain_pytorch_loads_it_by_name(self, towers, name):
        folder, own = towers[name]
        network = load_network(f'hf:{folder}').eval()
        with torch.no_grad():
            assert_close(network(images()), own_embedding(name, own, images()))
        out = Distiller(CNN(), f'hf:{folder}', ['embedding', 'queue'], input_size=32)(images(), torch.arange(4))
        assert set(out) == {'loss', 'task', 'embedding', 'queue'}

    def test_a_bare_model_teaches_too(self, towers):
        """As the library returns it, without a wrapper."""
        model = made('dinov2')
        distiller = Distiller(CNN(), model, 'embedding')
        with torch.no_grad():
            assert_close(distiller.teacher(images(), None, ['vector'])['vector'], model(images()).pooler_output)

    def test_an_unknown_pair_of_halves_is_refused(self, tmp_path):
        (tmp_path / 'config.json').write_text('{"model_type": "blip", "architectures": ["BlipModel"], "vision_config": {}}')
        with pytest.raises(ValueError, match=r"the image tower of a 'blip' model is not known here, but those of clip"):
            build(EMBEDDING, teacher=f'hf:{tmp_path}', teacher_pretrained=True)

    def test_a_missing_library_names_the_extra(self, monkeypatch):
        monkeypatch.setattr('mmcls_kd.errors.find_spec', lambda name: None)
        with pytest.raises(MissingLibraryError, match=r"pip install 'mmcls_kd\[hf\]'"):
            MODELS.build(dict(type='HuggingFaceTower', model_name='x'))


class TestOtherLibraries:
    @pytest.mark.parametrize('name', ['test_resnet', 'test_vit'])
    def test_timm(self, name):
        teacher = dict(type='TimmClassifier', model_name=name, num_classes=0)
        distiller = build(EMBEDDING, QUEUE, teacher=teacher)
        holder = distiller.teacher_holder
        with torch.no_grad():
            given = images()
            assert_close(holder(given, None, ['vector'])['vector'], distiller.teacher.model(holder.adapt(given)))
        check_losses(distiller, ['ori_loss', 'loss_embedding', 'loss_queue'])

    @pytest.mark.parametrize('whole', [resnet(8), vit(16)], ids=['cnn', 'vit'])
    @pytest.mark.parametrize('form', ['backbone', 'classifier without a head'])
    def test_mmpretrain(self, whole, form, tmp_path):
        """The weights are those of a classifier; its own vector is the embedding."""
        network = MODELS.build(whole).eval()
        torch.save(network.state_dict(), tmp_path / 'whole.pth')
        teacher = whole['backbone'] if form == 'backbone' else {**whole, 'head': None}
        distiller = build(EMBEDDING, teacher=teacher, teacher_pretrained=str(tmp_path / 'whole.pth'))
        with torch.no_grad():
            own = network.extract_feat(images())[-1]
            assert_close(distiller.teacher_holder(images(), None, ['vector'])['vector'], own)
        check_losses(distiller, ['ori_loss', 'loss_embedding'])

    def test_any_module(self):
        backbone = CNN().requires_grad_(False)
        backbone.fc = torch.nn.Identity()
        out = Distiller(CNN(), EmbeddingNetwork(backbone), ['embedding', 'rkd'])(images(), torch.arange(4))
        assert set(out) == {'loss', 'task', 'embedding', 'rkd'}

    @pytest.mark.parametrize(
        ('output', 'class_token', 'expected'),
        [
            (torch.arange(16.0).view(1, 2, 2, 4), False, [[3.5, 11.5]]),
            (torch.arange(6.0).view(1, 3, 2), False, [[2.0, 3.0]]),
            (torch.arange(6.0).view(1, 3, 2), True, [[0.0, 1.0]]),
            ((torch.zeros(1, 3), torch.ones(1, 2)), False, [[1.0, 1.0]]),
        ],
    )
    def test_pooling(self, output, class_token, expected):
        assert Pooling(class_token)(output).tolist() == expected


class TestSeveral:
    """Several teachers, with and without classes: each has a projection of its own."""

    def test_in_a_config(self, towers):
        teachers = [f'hf:{towers["dinov2"][0]}', f'hf:{towers["clip"][0]}', resnet(8)]
        distiller = build(EMBEDDING, teacher=teachers, teacher_pretrained=[True, True, False])
        holder = distiller.teacher_holder
        assert holder.shapes == dict(vector=((2, 16), (2, 12), (2, 64)))
        assert [layer.out_features for layer in distiller.distill_losses['loss_embedding'].project] == [16, 12, 64]
        with torch.no_grad():
            vectors = holder(images(), None, ['vector'])['vector']
        for vector, teacher in zip(vectors, holder.teachers, strict=True):
            assert_close(vector, teacher(images(), None, ['vector'])['vector'])
        check_losses(distiller, ['ori_loss', 'loss_embedding'])

    def test_logits_and_embeddings_of_classifiers(self):
        distiller = Distiller(CNN(), [CNN(8), CNN(6)], ['kd', 'embedding'])
        assert set(distiller(images(), torch.arange(4))) == {'loss', 'task', 'kd', 'embedding'}

    def test_other_losses_of_embeddings_are_refused(self):
        for make in (
            lambda: build(QUEUE, teacher=[resnet(8), resnet(8)], teacher_pretrained=False),
            lambda: Distiller(CNN(), [CNN(8), CNN(6)], 'queue'),
        ):
            with pytest.raises(ValueError, match=r"several teachers have no common features, and \w+ needs 'vector_t'"):
                make()

    def test_logits_of_several_of_which_one_has_no_classes(self):
        student = timm.create_model('test_resnet', num_classes=0)
        with pytest.raises(ValueError, match="nkd .* needs 'logit_t', and the teacher has no classes"):
            Distiller(CNN(), [CNN(8), student], 'nkd')


class TestStudents:
    """Students without classes: they learn embeddings alone."""

    def test_in_a_config(self):
        student = dict(type='TimmClassifier', model_name='test_resnet', num_classes=0)
        distiller = build(EMBEDDING, QUEUE, student=student)
        unlabelled = [sample.new() for sample in samples()]
        losses = distiller.train().loss(images(), [type(sample)() for sample in unlabelled])
        assert set(losses) == {'loss_embedding', 'loss_queue'}
        distiller.eval()
        found = distiller(images(), samples(), mode='predict')
        assert_close(torch.stack([sample.embedding for sample in found]), distiller.student.model(images()))
        assert 'pred_score' not in found[0]

    def test_in_plain_pytorch(self):
        student = timm.create_model('test_resnet', num_classes=0)
        distiller = Distiller(student, CNN(8), 'embedding')
        out = distiller.train()(images())
        assert set(out) == {'loss', 'embedding'}
        out['loss'].backward()
        assert_close(distiller.predict(images()), student.eval()(images()).detach())

    def test_it_needs_a_loss(self):
        with pytest.raises(ValueError, match='the student has no classes, so nothing teaches it: choose one'):
            Distiller(timm.create_model('test_resnet', num_classes=0))


class TestRefusals:
    @pytest.mark.parametrize('kind', ['KDLoss', 'NKDLoss', 'DISTLoss', 'SRRLLoss', 'SimKD'])
    def test_losses_of_logits_are_refused_with_those_that_fit(self, kind):
        teacher = dict(type='TimmClassifier', model_name='test_resnet', num_classes=0)
        with pytest.raises(ValueError, match=rf'^loss_\w+ \({kind}\) needs .*, and the teacher has no classes: ') as refused:
            build(method(kind), teacher=teacher)
        fitting = str(refused.value).partition('of which these fit: ')[2].split(', ')
        assert {'embedding', 'queue', 'fitnet', 'mgd', 'at', 'sp', 'rkd', 'pkt', 'cc', 'crd', 'vid'} <= {*fitting}
        assert not {'kd', 'nkd', 'dist', 'simkd', 'srrl', 'ofa', 'wkdlogit'} & {*fitting}

    def test_a_student_without_classes_has_no_logits(self):
        student = dict(type='TimmClassifier', model_name='test_resnet', num_classes=0)
        with pytest.raises(ValueError, match="loss_nkd .* needs 'logit_s', and the student has no classes"):
            build(method('NKDLoss'), student=student)
        with pytest.raises(ValueError, match="tfnkd .* needs 'logit_s', and the student has no classes"):
            Distiller(timm.create_model('test_resnet', num_classes=0), losses='tfnkd')

    def test_a_class_map_of_no_classes(self):
        teacher = dict(type='TimmClassifier', model_name='test_resnet', num_classes=0)
        with pytest.raises(ValueError, match='teacher_classes: the teacher has no classes: leave it out'):
            build(EMBEDDING, teacher=teacher, teacher_classes=[0] * 10)
        network = timm.create_model('test_resnet', num_classes=0)
        with pytest.raises(ValueError, match='class_map: the teacher has no classes: leave it out'):
            Distiller(CNN(), TeacherSpec(network, class_map=[0]), 'embedding')

    def test_an_output_without_an_embedding(self):
        class Two(torch.nn.Module):
            def forward(self, images):
                return images, torch.randn(2, generator=seeded(0))

        with pytest.raises(ValueError, match=r'without classes into mmcls_kd\.EmbeddingNetwork'):
            Distiller(CNN(), Two(), 'embedding')
