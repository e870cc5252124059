"""The demo: its commands, which another test does not run as they take minutes."""

import pytest

from mmcls_kd.command import demo, test, train, transfer
from mmcls_kd.files.paths import TOOLBOX


@pytest.fixture
def commands(monkeypatch, tmp_path, capsys):
    """Runs the demo without its commands; returns these and the table."""
    found = []

    def note(*command, log=None):
        found.append([str(word) for word in command])
        if 'train' in command and '--work-dir' in command:
            folder = command[command.index('--work-dir') + 1]
            folder.mkdir(parents=True)
            (folder / demo.LAST).touch()
        return 60.0

    def note_test(config, checkpoint, folder):
        note(*demo.PACKAGE, 'test', config, checkpoint, '--work-dir', folder)
        return 87.5, 1234

    monkeypatch.setattr(demo, 'run', note)
    monkeypatch.setattr(demo, 'test', note_test)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        found.clear()
        demo.main(arguments)
        return list(found), capsys.readouterr().out

    return call


def test_its_commands_can_be_parsed_and_follow_one_another(commands, tmp_path):
    (fetch, *others), shown = commands('--seeds', '0', '1')
    assert fetch == [str(TOOLBOX / 'tools' / 'fetch_fashion_mnist.py')]
    assert [words[2] for words in others] == ['test', *2 * ['train', 'test', 'train', 'transfer', 'test']]
    modules = dict(test=test, train=train, transfer=transfer)
    assert all(words[:2] == ['-m', 'mmcls_kd'] for words in others)
    parsed = [modules[words[2]].parser().parse_args(words[3:]) for words in others]
    folder = tmp_path / 'work_dirs' / 'demo'
    assert parsed[4].dis_path == str(folder / 'nkd_seed0' / 'epoch_3.pth')
    assert parsed[5].checkpoint == parsed[4].output_path
    assert parsed[6].cfg_options == {'randomness.seed': 1}
    assert shown.count('seed 1') == 2
    assert 'training 4 of 4, about 1 min left' in shown


def test_a_training_that_ended_is_not_repeated(commands):
    first, _ = commands()
    again, shown = commands()
    assert 'train' in {words[2] for words in first[1:]}
    assert 'train' not in {words[2] for words in again[1:]}
    assert shown.count('earlier run') == 2
    assert 'min' not in shown


def test_a_training_that_ended_does_not_count_in_the_estimate(commands):
    commands()
    _, shown = commands('--seeds', '0', '1', '2', '3')  # 6 trainings of a minute each are left
    assert 'training 3 of 8 ---' in shown
    assert 'training 4 of 8, about 5 min left' in shown
    assert shown.count('earlier run') == 2


def test_ctrl_c_ends_it_with_one_line(monkeypatch, tmp_path, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, 'run', interrupted)
    monkeypatch.setattr('sys.argv', ['demo.py'])
    with pytest.raises(SystemExit, match='130'):
        demo.main(['--work-dir', str(tmp_path)])
    assert capsys.readouterr().err == 'demo.py: interrupted; the same command resumes\n'
