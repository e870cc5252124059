"""``--cfg-options``: what a word of the command line becomes."""

import argparse

import pytest
from mmengine.config import DictAction

from mmcls_kd.command.arguments import Options


def parsed(*words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument('--cfg-options', nargs='+', action=Options)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('/my dir/t.pth', '/my dir/t.pth'),
        ('/my (old) dir/t.pth', '/my (old) dir/t.pth'),
        ('/a (b, c)/t.pth', '/a (b, c)/t.pth'),
        ("['great white shark', ' ray ', 3]", ['great white shark', 'ray', 3]),
        ('great white shark, ray', ['great white shark', 'ray']),
        ('[(a b, 1), (c, 2.5)]', [('a b', 1), ('c', 2.5)]),
        (' None ', None),
        ('a = b', 'a = b'),
    ],
)
def test_spaces_inside_of_text_stay(text, value):
    assert parsed(f'key={text}') == {'key': value}


@pytest.mark.parametrize(
    'text',
    ['1', '-2', '1e-3', 'true', 'False', 'None', 'kd', '', '[]', '()', '1,', '[1,2]', '(1,)', '[(a,b),[c]]', '[a,,b]'],
)
def test_all_else_is_as_mmengine_reads_it(text):
    assert parsed(f'key={text}') == {'key': DictAction._parse_iterable(text)}
    assert parsed(f"key='{text}'") == {'key': DictAction._parse_iterable(f"'{text}'")}


@pytest.mark.parametrize('word', ['key', 'key=[(a,b]'])
def test_other_words_are_refused(word):
    with pytest.raises(argparse.ArgumentError):
        parsed(word)
