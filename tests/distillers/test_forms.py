"""One form of features made of another: which place goes where, which tokens are dropped, what is refused."""

import pytest
import torch

from mmcls_kd.features.layouts import FORMS, Layout, as_class_token, as_flat, as_map, as_pooled, as_tokens, grid, tensors_in

N, C, H, W = 2, 3, 2, 2


def numbered(*shape):
    """A tensor whose entries are 0, 1, 2, ..., so that each place is known by its number."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


@pytest.fixture
def feat():
    """A map; each entry says by its digits sample, channel, row and column."""
    n, c, h, w = (torch.arange(size) for size in (N, C, 3, 3))
    return (1000.0 * n[:, None, None, None] + 100 * c[:, None, None] + 10 * h[:, None] + w).float()


class TestLayout:
    @pytest.mark.parametrize(
        ('shape', 'kind', 'extra'),
        [
            ((2, 64, 7, 7), 'map', 0),
            ((2, 64, 1, 1), 'map', 0),
            ((2, 7, 7, 7), 'map', 0),  # nothing tells: the order that most have
            ((2, 7, 7, 64), 'map_last', 0),
            ((2, 1, 1, 64), 'map_last', 0),
            ((2, 196, 64), 'tokens', 0),
            ((2, 197, 64), 'tokens', 1),
            ((2, 198, 64), 'tokens', 2),
            ((2, 201, 64), 'tokens', 5),
            ((2, 64), 'vector', 0),
            ((2,), 'other', 0),
            ((2, 3, 4, 5, 6), 'other', 0),
        ],
    )
    def test_of_square_images(self, shape, kind, extra):
        assert Layout.of(shape, (224, 224)) == Layout(kind, extra)

    @pytest.mark.parametrize(
        ('shape', 'kind', 'extra'),
        [
            ((2, 64, 14, 10), 'map', 0),
            ((2, 14, 10, 64), 'map_last', 0),
            ((2, 64, 4, 2), 'map', 0),  # rounded
            ((2, 4, 2, 64), 'map_last', 0),
            ((2, 140, 64), 'tokens', 0),
            ((2, 141, 64), 'tokens', 1),
            ((2, 145, 64), 'tokens', 5),
            ((2, 20, 64), 'other', 20),  # fewer than one grid of that ratio has
        ],
    )
    def test_of_others(self, shape, kind, extra):
        assert Layout.of(shape, (224, 160)) == Layout(kind, extra, (7, 5))

    def test_the_networks_own_count_decides_where_the_number_allows_two(self):
        assert Layout.of((2, 9, 64)).extra == 0
        assert Layout.of((2, 9, 64), extra=5).extra == 5
        assert Layout.of((2, 16, 64), extra=1).extra == 0  # 15 lie on no grid: these tokens have none in front

    @pytest.mark.parametrize(
        ('count', 'ratio', 'sides'),
        [(9, (1, 1), (3, 3)), (140, (7, 5), (14, 10)), (8, (1, 1), None), (121, (7, 5), None), (0, (1, 1), (0, 0))],
    )
    def test_grids(self, count, ratio, sides):
        assert grid(count, ratio) == sides


class TestMapsAndTokens:
    def test_a_map_read_row_by_row(self, feat):
        tokens = as_tokens(feat, Layout('map'))
        assert tokens.shape == (N, 9, C)
        assert tokens[1, :, 2].tolist() == [1200, 1201, 1202, 1210, 1211, 1212, 1220, 1221, 1222]
        assert tokens[0, 5].tolist() == [12, 112, 212]

    def test_channels_last(self, feat):
        last = feat.permute(0, 2, 3, 1).contiguous()
        assert as_map(last, Layout('map_last')).equal(feat)
        assert as_tokens(last, Layout('map_last')).equal(as_tokens(feat, Layout('map')))
        assert as_pooled(last, Layout('map_last')).equal(as_pooled(feat, Layout('map')))

    @pytest.mark.parametrize('extra', [0, 1, 2, 5])
    def test_tokens_behind_extra_ones_become_the_map_they_came_of(self, feat, extra):
        tokens = torch.cat([torch.full((N, extra, C), -1.0), as_tokens(feat, Layout('map'))], dim=1)
        layout = Layout.of(tuple(tokens.shape), extra=extra)
        assert as_map(tokens, layout).equal(feat)
        assert as_tokens(tokens, layout).equal(as_tokens(feat, Layout('map')))
        torch.testing.assert_close(as_pooled(tokens, layout), feat.mean((2, 3)))

    def test_on_a_grid_that_is_not_square(self):
        wide = numbered(N, C, 2, 6)
        assert as_map(as_tokens(wide, Layout('map')), Layout('tokens', 0, (1, 3))).equal(wide)

    def test_a_map_and_other_things_stay_as_they_are(self, feat):
        vector = numbered(N, C)
        assert as_map(feat, Layout('map')) is feat
        assert as_pooled(vector, Layout('vector')) is vector
        assert FORMS['raw'](vector, Layout('other')) is vector

    @pytest.mark.parametrize('shape', [(2, 8), (2, 8, 1), (2, 1, 8), (2, 8, 1, 1), (2, 2, 2, 2)])
    def test_flat(self, shape):
        feat = torch.randn(shape)
        assert as_flat(feat, Layout.of(shape)).equal(feat.reshape(2, -1))

    def test_the_class_token_is_the_first(self):
        tokens = numbered(N, 6, C)
        assert as_class_token(tokens, Layout('tokens', 2)).equal(tokens[:, 0])

    def test_gradients_reach_what_was_taken_and_nothing_else(self):
        tokens = numbered(N, 6, C).requires_grad_()
        as_map(tokens, Layout('tokens', 2)).sum().backward()
        assert tokens.grad[:, :2].eq(0).all()
        assert tokens.grad[:, 2:].eq(1).all()


class TestRefused:
    @pytest.mark.parametrize('form', [as_map, as_tokens, as_pooled])
    @pytest.mark.parametrize(('shape', 'kind'), [((2, 3, 4, 5, 6), 'other'), ((2,), 'other')])
    def test_another_form(self, form, shape, kind):
        with pytest.raises(ValueError, match='has neither a feature map nor tokens'):
            form(torch.zeros(shape), Layout(kind))

    @pytest.mark.parametrize('form', [as_map, as_tokens])
    def test_a_vector_has_no_places(self, form):
        with pytest.raises(ValueError, match=r'shape \(2, 3\) has neither a feature map nor tokens'):
            form(torch.zeros(2, 3), Layout('vector'))

    def test_tokens_that_lie_on_no_grid(self):
        with pytest.raises(ValueError, match='8 patch tokens lie on no grid of 1 to 1, the ratio of the images'):
            as_map(torch.zeros(2, 8, 3), Layout('tokens'))

    @pytest.mark.parametrize(('shape', 'layout'), [((2, 4, 3), Layout('tokens')), ((2, 3, 2, 2), Layout('map'))])
    def test_no_class_token(self, shape, layout):
        with pytest.raises(ValueError, match='has no class token'):
            as_class_token(torch.zeros(shape), layout)


def test_the_tensors_of_an_output_in_their_order():
    a, b = torch.zeros(1), torch.ones(1)
    assert tensors_in(a) == [a]
    for output in ((a, None, 3, b), [a, 'text', b], dict(loss=None, first=a, second=b)):
        found = tensors_in(output)
        assert [found[0] is a, found[1] is b, len(found)] == [True, True, 2]
    assert tensors_in(None) == tensors_in(3) == tensors_in(()) == []
