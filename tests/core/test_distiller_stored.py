"""Stored teachers in plain PyTorch: the live teacher's logits by the index of each sample, and wrong stores refused."""

import copy

import pytest
import torch
from small_networks import CLASSES, CNN, Encoder, batch, pair
from torch.utils.data import DataLoader, Subset, TensorDataset

from mmcls_kd import Distiller, DistillLoss, EmbeddingNetwork, StoredTeacher, TeacherSpec
from mmcls_kd.teachers import FrozenTeacher, store_logits
from mmcls_kd.teachers.records import encode, mark_missing, missing_rows, sizes_of
from mmcls_kd.teachers.store import Manifest, Shard, save
from mmcls_kd.teachers.stored import is_vector, names_to_store

COUNT = 23


class Probe(DistillLoss):
    """Keeps the teacher's logits; 0 itself."""

    def forward(self, logit_s, logit_t):
        self.logit_t = logit_t
        return 0 * logit_s.sum()


@pytest.fixture
def data():
    """Images, labels and indices."""
    images, labels = batch(COUNT)
    return TensorDataset(images, labels, torch.arange(COUNT))


def seen(teacher, data, indices):
    """The teacher's logits of some samples, as a loss gets them."""
    probe = Probe()
    images, labels, _ = data[indices]
    Distiller(CNN(), teacher, probe)(images, labels, indices)
    return probe.logit_t


def test_a_teacher_that_returns_probabilities_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match='the teacher returns probabilities'):
        store_logits(torch.nn.Sequential(CNN(), torch.nn.Softmax(1)), DataLoader(data, 5), tmp_path / 'store')


def test_the_logits_are_the_live_teachers(tmp_path, data):
    teacher = CNN(8)
    for module in teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    stored = store_logits(teacher, DataLoader(data, 5, shuffle=True), tmp_path / 'store')
    assert teacher.training  # as it was
    indices = torch.randperm(COUNT)[:9]
    expected = seen(teacher, data, indices)
    first = seen(stored, data, indices)
    assert torch.equal(first, first.half().float())
    # the live ones are of another batch, whose sums may round otherwise: then half precision may, too
    torch.testing.assert_close(first, expected, rtol=2**-10, atol=1e-6)
    for store in (StoredTeacher(tmp_path / 'store'), StoredTeacher(str(tmp_path / 'store'))):
        assert torch.equal(seen(store, data, indices), first)
    for form in (indices.tolist(), indices.numpy(), indices.int()):
        assert torch.equal(seen(stored, data, form), first)
    assert sum(path.stat().st_size for path in (tmp_path / 'store').rglob('*.npy')) < 2 * COUNT * CLASSES + 200


@pytest.mark.parametrize('kind', [torch.float16, torch.bfloat16, torch.float64])
def test_a_teacher_of_another_type_is_stored_as_it_is_used(kind, tmp_path, data):
    teacher = CNN(8).to(kind)
    stored = store_logits(teacher, DataLoader(data, 5), tmp_path / 'store', features=['vector'])
    indices = torch.arange(9)
    torch.testing.assert_close(seen(stored, data, indices), seen(teacher, data, indices).float(), rtol=2**-7, atol=1e-2)


def test_what_is_no_teacher_or_no_loader(tmp_path, data):
    with pytest.raises(ValueError, match='teacher: give the module itself, not TeacherSpec'):
        store_logits(TeacherSpec(CNN(8)), DataLoader(data, 5), tmp_path)
    with pytest.raises(ValueError, match='loader: give a DataLoader of a data set that has a length'):
        store_logits(CNN(8), [data[:5]], tmp_path)


def test_epochs_repeat_and_images_do_not_matter(tmp_path, data):
    stored = store_logits(CNN(8), DataLoader(data, 5), tmp_path / 'store')
    probe = Probe()
    distiller = Distiller(CNN(), stored, probe)
    images, labels, indices = data[:4]
    distiller(images, labels, indices)
    first = probe.logit_t
    distiller.set_epoch(7)
    distiller(images.flip(3) + 1, labels, indices)
    assert torch.equal(probe.logit_t, first)


def test_top_k_keeps_the_rest_of_the_probability(tmp_path, data):
    teacher = CNN(8)
    stored = store_logits(teacher, DataLoader(data, 5), tmp_path / 'store', k=3)
    indices = torch.arange(COUNT)
    logit = seen(teacher, data, indices)
    found = seen(stored, data, indices)
    top, classes = logit.topk(3)
    torch.testing.assert_close(found.gather(1, classes), top.half().float())
    rest = logit.exp().sum(1) - top.exp().sum(1)
    expected = (rest / (CLASSES - 3)).log()
    others = found.scatter(1, classes, torch.nan)
    others = others[~others.isnan()].view(COUNT, CLASSES - 3)
    torch.testing.assert_close(others, expected[:, None].expand(-1, CLASSES - 3))


def test_a_stored_teacher_in_a_group(tmp_path, data):
    one, two = CNN(8).eval(), CNN(4).eval()
    stored = store_logits(one, DataLoader(data, 5), tmp_path / 'store')
    indices = torch.arange(6)
    found = seen([TeacherSpec(stored, weight=3), two], data, indices)
    images = data[indices][0]
    expected = (3 * one(images).half().float().softmax(1) + two(images).softmax(1)) / 4
    torch.testing.assert_close(found.exp(), expected)
    with pytest.raises(ValueError, match='index of each sample is needed'):
        Distiller(CNN(), [stored, two], 'kd')(*batch())


def test_nothing_to_store(tmp_path, data):
    with pytest.raises(ValueError, match='the data set of the loader is empty'):
        store_logits(CNN(8), DataLoader(Subset(data, []), 5), tmp_path / 'store')


def test_what_is_missing(tmp_path, data):
    student, teacher = pair()
    images, labels, _indices = data[:4]
    with pytest.raises(ValueError, match='13 of 23 samples are not in the batches .* the first of index 10'):
        store_logits(teacher, DataLoader(data, 10, sampler=range(10)), tmp_path / 'partial')
    assert not (tmp_path / 'partial').exists()
    with pytest.raises(FileNotFoundError, match='no manifest.json there; .* or mmcls_kd.teachers.store_logits'):
        StoredTeacher(tmp_path / 'nowhere')
    stored = store_logits(teacher, DataLoader(data, 5), tmp_path / 'store')
    with pytest.raises(ValueError, match='holds a store already: choose another folder'):
        store_logits(teacher, DataLoader(data, 5), tmp_path / 'store')
    with pytest.raises(ValueError, match='top-k of 11 logits: choose from 1 to 10'):
        store_logits(teacher, DataLoader(data, 5), tmp_path / 'other', k=11)
    with pytest.raises(ValueError, match="holds logit_t, and mgd needs 'feat_t': make a store that holds it"):
        Distiller(student, stored, 'mgd')
    with pytest.raises(ValueError, match='student has 7 classes and the teacher 10'):
        Distiller(CNN(classes=7), stored, 'kd')
    with pytest.raises(ValueError, match='a StoredTeacher does not heed teacher_precision'):
        Distiller(student, stored, 'kd', teacher_precision='bf16')
    distiller = Distiller(student, stored, 'kd')
    with pytest.raises(ValueError, match='index of each sample is needed'):
        distiller(images, labels)
    for wrong in (COUNT, -1):
        with pytest.raises(IndexError, match=f'has 23 records an epoch and none for place {wrong}'):
            distiller(images, labels, torch.tensor([0, 1, wrong, 2]))
    (tmp_path / 'store' / 'epoch_0' / 'rank_0' / '00000.npy').unlink()
    with pytest.raises(FileNotFoundError, match='00000.npy is missing'):
        StoredTeacher(tmp_path / 'store')


@pytest.mark.parametrize('first', [10, -3])
def test_indices_outside_of_the_loaders_data_set(first, tmp_path, data):
    images, labels, indices = data.tensors
    loader = DataLoader(TensorDataset(images, labels, indices + first), 5)
    with pytest.raises(
        ValueError, match=rf'indices from {first} to {first + 4}, and its data set has 23 samples|from 20 to 24'
    ):
        store_logits(CNN(8), loader, tmp_path / 'store')
    assert not (tmp_path / 'store').exists()


def test_a_store_in_the_order_of_a_run_is_refused(tmp_path):
    records = encode(torch.randn(COUNT, CLASSES), CLASSES)
    save(tmp_path, Shard(0, 0, 0), records)
    Manifest(dict(sampler='DefaultSampler'), {}, CLASSES, CLASSES, 1, COUNT, COUNT, epochs=1).write(tmp_path)
    with pytest.raises(ValueError, match='for a run of mmengine, .*: use it there .*teacher_store.*, or .*store_logits'):
        StoredTeacher(tmp_path)


def test_logits_that_float16_cannot_hold(tmp_path, data):
    teacher = CNN(8)
    with torch.no_grad():
        teacher.fc.bias[3] = 1e6
    with pytest.raises(ValueError, match='float16 cannot hold'):
        store_logits(teacher, DataLoader(data, 5), tmp_path / 'store')
    assert not (tmp_path / 'store').exists()


class RoundedTeacher(FrozenTeacher):
    """A live teacher whose outputs are rounded to float16."""

    def __call__(self, *arguments, **keywords):
        return {name: rounded(read) for name, read in super().__call__(*arguments, **keywords).items()}


def rounded(read):
    return tuple(map(rounded, read)) if isinstance(read, tuple) else read.half().float()


ON_MAPS = ['mgd', 'at', 'fitnet', 'reviewkd', 'vid', 'sp', 'catkd', 'sdd']
MORE = dict(crd=dict(nce_k=5))
ON_VECTORS = ['rkd', 'pkt', 'cc', 'crd', 'srd', 'srd_correlation', 'pefd', 'vkd', 'embedding', 'queue']


class TestVectors:
    """Vectors beside the logits, and methods that need no more."""

    @pytest.mark.parametrize('k', [None, CLASSES - 1])
    def test_losses_gradients_and_steps_are_those_of_a_live_teacher_in_float16(self, tmp_path, data, k):
        """With some of the logits, those of losses that read vectors alone."""
        student, teacher = pair()
        stored = store_logits(teacher, DataLoader(data, COUNT), tmp_path / 'store', k, features=['logit', 'vector'])
        assert stored.shapes == {'logit': (2, CLASSES), 'vector': (2, 64)}
        names = [name for name in ON_VECTORS if k is None or name != 'srd']
        self.compare(student, stored, teacher, data, names)

    def test_maps(self, tmp_path, data):
        student, teacher = pair()
        stored = store_logits(teacher, DataLoader(data, 5), tmp_path / 'store', features=['feat_t', 'stages', 'vector'])
        stages = ((2, 8, 16, 16), (2, 16, 8, 8), (2, 32, 4, 4), (2, 64, 2, 2))
        assert stored.shapes == dict(logit=(2, CLASSES), feat=stages[-1], stages=stages, vector=(2, 64))
        self.compare(student, stored, teacher, data, ON_MAPS)

    def test_the_classifier_is_read_where_a_loss_needs_it(self, tmp_path, data):
        stored = store_logits(CNN(8), DataLoader(data, 5), tmp_path / 'store', features=['feat'])
        (tmp_path / 'store' / 'teacher_bias.npy').unlink()
        assert Distiller(CNN(), stored, 'kd')(*data[:4])['kd'] > 0
        with pytest.raises(ValueError, match='teacher_bias.npy is missing or damaged'):
            Distiller(CNN(), stored, 'catkd')
        manifest = stored.store.manifest
        manifest.facts.pop('teacher_bias')  # as in a store of an earlier version
        manifest.write(tmp_path / 'store')
        with pytest.raises(ValueError, match="holds no linear classifier .*, and catkd needs 'teacher_weight': the same"):
            Distiller(CNN(), StoredTeacher(tmp_path / 'store'), 'catkd')

    def compare(self, student, stored, teacher, data, names):
        """Compare a training under a stored teacher with that under the live one, rounded."""
        runs = []
        for given in (stored, RoundedTeacher(teacher)):
            torch.manual_seed(0)
            chosen = {name: dict(type=name, **MORE.get(name, {})) for name in names}
            distiller = Distiller(copy.deepcopy(student), given, chosen, num_samples=COUNT)
            optimizer = torch.optim.SGD(distiller.parameters(), lr=1e-3)
            found = []
            for _ in range(3):
                optimizer.zero_grad()
                out = distiller(*data[:])
                out['loss'].backward()
                found += [*out.values(), *(parameter.grad.clone() for parameter in distiller.parameters())]
                optimizer.step()
            assert set(out) == {'loss', 'task', *names}
            runs.append([*found, *distiller.parameters()])
        for one, other in zip(*runs, strict=True):
            assert torch.equal(one, other)

    def test_a_teacher_without_classes(self, tmp_path, data):
        network = CNN(8, norm=False)
        network.fc = torch.nn.Identity()
        teacher = EmbeddingNetwork(network)
        stored = store_logits(teacher, DataLoader(data, 5), tmp_path / 'store', features=['vector_t'])
        assert stored.shapes == {'vector': (2, 64)}
        images, labels, indices = data[:6]
        with torch.no_grad():
            expected = network(images)
        torch.testing.assert_close(
            stored(images, [(0, i) for i in range(6)], ['vector'])['vector'], expected, rtol=1e-3, atol=1e-6
        )
        assert Distiller(CNN(), stored, ['embedding', 'rkd'])(images, labels, indices)['rkd'] > 0
        with pytest.raises(ValueError, match="kd .KDLoss. needs 'logit_t', and the teacher has no classes"):
            Distiller(CNN(), stored, 'kd')

    def test_adapters_in_encoder_layers_of_torch_take_part(self, tmp_path, data):
        teacher, images = Encoder(['linear1']).train(), data[:][0]
        expected = teacher(images).detach()  # nothing in it is random
        stored = store_logits(teacher, DataLoader(data, 5), tmp_path / 'store')
        found = stored(images, [(0, i) for i in range(COUNT)], ['logit'])['logit']
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)

    def test_of_two_views(self, tmp_path, data):
        """Of the strong view the vector alone is read."""

        class StrongProbe(DistillLoss):
            def forward(self, vector_s, vector_t_strong):
                self.seen = vector_t_strong
                return 0 * vector_s.sum()

        teacher = CNN(8, norm=False)
        pairs = [((image, image.flip(2)), label, index) for image, label, index in data]
        stored = store_logits(teacher, DataLoader(pairs, 5), tmp_path / 'store', features=['vector'])
        images, labels, indices = data[3:9]
        seen = []
        for given in (stored, RoundedTeacher(teacher)):
            probe = StrongProbe()
            Distiller(CNN(), given, probe)((images, images.flip(3)), labels, indices)
            seen.append(probe.seen)
        torch.testing.assert_close(*seen, rtol=2**-9, atol=1e-6)
        assert seen[0].std(dim=0).max() > 0
        other = store_logits(teacher, DataLoader(data, 5), tmp_path / 'other', features=['vector'])
        with pytest.raises(ValueError, match='one view of each image, and .* reads vector_t_strong'):
            Distiller(CNN(), other, StrongProbe())

    def test_stored_and_live_ones_in_a_group(self, tmp_path, data):
        one, two = CNN(8, norm=False), CNN(4, norm=False)
        stored = store_logits(one, DataLoader(data, 5), tmp_path / 'store', features=['vector'])
        out = Distiller(CNN(), [stored, two], 'embedding')(*data[:4])
        assert out['embedding'] > 0

    @pytest.mark.parametrize('shape', [(), (2,), (1, 8), (8, 8), ((2, 8), (8, 8))])
    def test_what_has_no_row_for_each_image(self, shape):
        assert not is_vector(shape)
        with pytest.raises(ValueError, match="--with: 'x' cannot be stored: of two images its shape is .*, and a store"):
            names_to_store(['x_t'], dict(x=shape), '--with')
        assert names_to_store(['x_t', 'logit', 'x'], dict(logit=(2, 10), x=(2, 3, 4)), '--with') == ['x']

    def test_maps_alone(self):
        """Of a teacher without classes: the map of an image that could not be read is found."""
        feature = dict(stages=(torch.ones(3, 2, 2, 2), torch.ones(3, 4, 1, 1)))
        records = encode(None, None, feature)
        assert sizes_of(feature) == dict(stages=['2x2x2', '4x1x1'])
        mark_missing(records[1:2])
        assert missing_rows(records).tolist() == [1]

    def test_what_cannot_be(self, tmp_path, data):
        teacher, loader = CNN(8), DataLoader(data, 5)
        with pytest.raises(
            ValueError, match="features: the teacher has no feature 'vektor'; did you mean 'vector'.; it has"
        ):
            store_logits(teacher, loader, tmp_path / 'store', features=['vektor'])
        with torch.no_grad():
            teacher.eval().layer4[1].bias += 1e6
            teacher.fc.weight.mul_(1e-6)
        with pytest.raises(ValueError, match="gives a feature 'vector' that float16 cannot hold"):
            store_logits(teacher, loader, tmp_path / 'store', features=['vector'])
        assert not (tmp_path / 'store').exists()
        stored = store_logits(CNN(8), loader, tmp_path / 'store')
        with pytest.raises(ValueError, match=r"vitkd needs 'tokens_low_t': .*--with tokens_low tokens_high`; .*_high'\]\)"):
            Distiller(CNN(), stored, 'vitkd')
        with pytest.raises(ValueError, match=r'--with feat vector`; .*features=\[.feat., .vector.\]'):
            Distiller(CNN(), stored, ['kd', 'mgd', 'rkd'])
        for name, part in (
            ('simkd', 'head'),
            ('ofd', 'norms'),
            ('scalekd', 'tail'),
        ):  # at first
            with pytest.raises(ValueError, match=f"{name} needs 'teacher_{part}', a part of the network; leave one of"):
                Distiller(CNN(), stored, name)
        with pytest.raises(
            ValueError, match=r"holds logit_t, and rkd needs 'vector_t': make .*store_logits\(.*features=\['vector'\]"
        ):
            Distiller(CNN(), stored, 'rkd')
