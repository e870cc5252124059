"""``python -m mmcls_kd VERB``: verbs and tools, names of the program, and imports that wait for the command line."""

import errno
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mmcls_kd import __main__ as command
from mmcls_kd import export
from mmcls_kd.command import arguments, exits, predict, test
from mmcls_kd.command.export import FORMATS
from mmcls_kd.command.study import TFLOPS
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.study import flops

#: The verb of each tool whose name is another one.
NAMES = dict(
    pth_transfer='transfer', export_student='export', store_teacher='store', inspect_model='inspect', benchmark='bench'
)


def python(code, *words):
    """Run code in a new interpreter; returns the finished process."""
    return subprocess.run([sys.executable, '-c', code, *words], capture_output=True, text=True, cwd=TOOLBOX)


HELP = """
import sys
from mmcls_kd.__main__ import VERBS, main

assert len(VERBS) == 14
for words in [['--help'], *([verb, '--help'] for verb in VERBS), ['trian'], *([verb, '--nonsense'] for verb in VERBS)]:
    sys.argv = ['mmcls_kd', *words]
    try:
        main()
    except SystemExit:
        pass
print(*sorted({'torch', 'mmengine', 'mmpretrain', 'numpy', 'rich'} & set(sys.modules)))
"""


def test_help_and_errors_of_the_command_line_import_no_library():
    done = python(HELP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ''
    assert 'unknown verb' not in done.stdout


@pytest.mark.parametrize('buffered', ['', '1'])
@pytest.mark.parametrize('words', [['--help'], ['study', 'studies/glyphs.py', '--list']], ids=' '.join)
def test_closed_output_ends_a_command_without_a_word(words, buffered):
    reader, output = os.pipe()
    os.close(reader)
    command = [sys.executable, '-m', 'mmcls_kd', *words]
    env = dict(os.environ, PYTHONUNBUFFERED=buffered)
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, cwd=TOOLBOX, env=env)
    os.close(output)
    assert (done.returncode, done.stderr) == (exits.UNREAD, '')


def test_broken_pipe_of_another_process_is_told():
    with pytest.raises(SystemExit, match='error: .*Broken pipe'), exits.errors_in_one_line():
        raise BrokenPipeError(errno.EPIPE, 'Broken pipe')


def test_options_may_stand_among_files():
    args = predict.parse_args(['config.py', 'student.pth', '--top', '1', 'a.png', 'b.png'])
    assert (args.config, args.student, args.images, args.top) == ('config.py', 'student.pth', ['a.png', 'b.png'], 1)
    args = predict.parse_args(['student.pth', 'a.png', '--trust', 'b.png'])
    assert (args.config, args.images, args.trust) == (None, ['a.png', 'b.png'], True)
    done = python('from mmcls_kd.__main__ import main; main()', 'analyze', 'no_run', '--images', '9', 'no_other')
    assert 'unrecognized' not in done.stderr


@pytest.mark.parametrize(('words', 'endings'), [([], '.pkl, .pickle'), (['--out-item', 'metrics'], '.json, .yaml, .yml')])
def test_a_file_that_cannot_be_written_in_the_end_is_refused_in_the_beginning(words, endings, capsys):
    with pytest.raises(SystemExit):
        test.parse_args(['config.py', 'student.pth', '--out', 'found.txt', *words])
    assert f'--out found.txt: name a file that ends in {endings}' in capsys.readouterr().err


ASKED = """
import os, signal, sys, time

class Asking:
    def find_spec(self, name, *_):
        if name == 'torch':
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

sys.meta_path.insert(0, Asking())
from mmcls_kd.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['train', 'config.py'], 'mmcls_kd train: asked to end; nothing had begun; the same command starts'),
        (
            ['store', 'config.py', '--epochs', '1'],
            'mmcls_kd store: asked to end; what is stored stays; the same command goes on',
        ),
        (['study', 'study.py'], 'mmcls_kd study: asked to end; the same command goes on'),
    ],
)
def test_asked_to_end_while_it_imports(words, said):
    done = python(ASKED, *words)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (75, said)


@pytest.mark.parametrize(
    ('context', 'said'),
    [
        (exits.ended_in_order(), 'train.py: interrupted; the same command with --resume resumes'),
        (exits.ended_in_order(again='by the same command'), 'train.py: interrupted; the same command resumes'),
        (exits.errors_in_one_line(), 'train.py: interrupted; the same command starts again'),
        (exits.ended_when_asked('nothing had begun'), 'train.py: interrupted; nothing had begun'),
    ],
)
def test_ctrl_c_ends_with_one_line(context, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['tools/train.py'])
    with pytest.raises(SystemExit, match='130'), context:
        raise KeyboardInterrupt
    assert capsys.readouterr().err == f'{said}\n'


class TestVerbs:
    @pytest.mark.parametrize('verb', command.VERBS)
    def test_its_help_is_that_of_its_module(self, verb, monkeypatch, capsys):
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd', verb, '--help'])
        with pytest.raises(SystemExit, match='0'):
            command.main()
        text = ' '.join(capsys.readouterr().out.split())
        assert text.startswith(f'usage: mmcls_kd {verb} [-h]')
        assert ' '.join(command.module_of(verb).__doc__.split()) in text

    def test_every_tool_is_a_door_to_one(self):
        tools = [path for path in TOOLBOX.glob('tools/*.py') if path.stem not in ('fetch_fashion_mnist', 'make_glyphs')]
        found = {}
        for path in (*tools, TOOLBOX / 'pth_transfer.py'):
            found[NAMES.get(path.stem, path.stem).replace('_', '-')] = runpy.run_path(str(path))['main']
        assert found == {verb: command.module_of(verb).main for verb in command.VERBS}

    def test_help_lists_all_with_their_purposes(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd'])
        command.main()
        usage, *lines = capsys.readouterr().out.splitlines()
        assert usage.startswith('usage: python -m mmcls_kd VERB ...')
        assert [line.split()[0] for line in lines] == list(command.VERBS)
        assert all(len(line) <= 140 for line in lines)

    @pytest.mark.parametrize('document', ['README.md', 'docs/commands.md'])
    def test_documents_list_all(self, document):
        text = (TOOLBOX / document).read_text().split('## Commands')[-1].split('# Commands')[-1]
        first = [line.split('|')[1] for line in text.split('\n## ')[0].splitlines() if line.startswith('| `')]
        assert sorted(re.findall(r'`([a-z-]+)`', ''.join(first))) == sorted(command.VERBS)

    def test_an_unknown_one_is_refused_with_close_ones(self, monkeypatch):
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd', 'trian'])
        with pytest.raises(SystemExit, match="unknown verb 'trian'; did you mean 'train'"):
            command.main()

    def test_errors_name_the_program_that_was_called(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd', 'transfer', '--dis_path', 'nowhere.pth', '--output_path', 'a.pth'])
        with pytest.raises(SystemExit, match='mmcls_kd transfer: error: .*nowhere.pth: no such'):
            command.main()
        monkeypatch.setattr(sys, 'argv', ['mmcls_kd', 'test', 'config.py'])
        with pytest.raises(SystemExit, match='2'):
            command.main()
        assert 'mmcls_kd test: error: the following arguments are required: checkpoint' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('started', 'words'),
    [
        ('mmcls_kd train', ['python', '-m', 'mmcls_kd', 'transfer', 'a']),
        ('mmcls-kd train', ['mmcls-kd', 'transfer', 'a']),
        (TOOLBOX / 'tools/train.py', ['python', str(TOOLBOX / 'pth_transfer.py'), 'a']),
        ('train.py', ['python', 'pth_transfer.py', 'a']),
    ],
)
def test_the_next_command_is_started_in_the_same_way(started, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [str(started)])
    found = arguments.command_line('transfer', 'pth_transfer.py', 'a')
    assert [found[0], *(str(Path(word).resolve()) if '/' in word else word for word in found[1:])] == words


def test_what_help_says_is_what_there_is():
    assert tuple(export.FORMATS) == FORMATS
    assert flops.TFLOPS == TFLOPS
