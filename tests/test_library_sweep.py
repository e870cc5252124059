"""The table of families in docs/teachers.md: that it is whole, and that some of its rows come out again."""

import pytest
from library_sweep import COLUMNS, LIBRARIES, MANUAL, REFUSED, RIGHT, row_of, rows_in, table

#: Of each library some that run in a second or two: convolutions, tokens, maps with channels last, branches, poolings.
SAMPLE = dict(
    timm=('test_resnet', 'test_convnext', 'test_vit', 'test_efficientnet', 'hrnet_w18_small'),
    torchvision=('squeezenet1_1', 'shufflenet_v2_x0_5'),
    transformers=('HieraConfig', 'ImageGPTConfig', 'SiglipConfig', 'SwinConfig'),
    mmpretrain=('shufflenet-v1-1x_16xb64_in1k', 'edgenext-xxsmall_3rdparty_in1k'),
)


def test_no_row_is_wrong_and_there_are_enough():
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in rows_in(MANUAL.read_text())]
    assert len({(row[0], row[1]) for row in rows}) >= 150
    assert {cell for row in rows for cell in row[3:]} <= {RIGHT, REFUSED}
    assert {row[0] for row in rows} == set(LIBRARIES)


@pytest.mark.slow
@pytest.mark.parametrize('library', LIBRARIES)
def test_rows_come_out_again(library, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    written = rows_in(MANUAL.read_text())
    families = [*LIBRARIES[library](SAMPLE[library])]
    assert [family.network for family in families] == [*SAMPLE[library]]
    for family in families:
        row = row_of(family)
        assert table([row]).splitlines()[-1] in written, {name: row[name] for name in COLUMNS}
        assert all(row[name] in (RIGHT, REFUSED) for name in COLUMNS), row
