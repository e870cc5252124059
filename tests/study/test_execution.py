"""Studies end as if nothing had been: interrupted, killed, with runs that fail. The steps are stand-ins for the tools."""

import json
import os
import random
import shlex
import signal
import sys
import time
from functools import cache
from pathlib import Path
from threading import Thread

import pytest
from commands import tool
from studies_kit import DOCUMENT, FILE, write_study

from mmcls_kd.files.locks import locked
from mmcls_kd.study import contents, execution
from mmcls_kd.study import steps as steps_module
from mmcls_kd.study.execution import Place, remaining
from mmcls_kd.study.plan import Run
from mmcls_kd.study.records import RUNNING, read_records
from mmcls_kd.study.steps import Steps

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
#: Two methods, so that a study has 16 runs before what its sweep brings.
ONLY = ('cnn/baseline/*', 'cnn/kd/*', 'cnn/nkd*', 'cnn/teacher/*')


#: Reading a config takes half a second, and each call of the tool reads several.
known_config = cache(contents.read_config)


#: In the place of a tool: leaves the accuracy that it is given, after a moment; fails where a file says so.
STEP = """
folder=$1 key=$2 accuracy=$3 name=$(basename "$0" .sh)
sleep 0.02
if grep -qsF "$key" fails; then
    echo 'train.py: error: out of luck'
    exit 1
elif grep -qsF "$key" diverges; then
    echo 'train.py: error: loss_kd became NaN or infinite in epoch 1, iteration 75 (images: sample 4, ...'
    exit 3
elif [ "$name" = train ]; then
    printf '%s' "$key" > "$folder/epoch_2.pth"
    printf '%s' "$folder/epoch_2.pth" > "$folder/last_checkpoint"
else
    printf '{"accuracy/top1": %s}' "$accuracy" > "$folder/$name.json"
fi
"""


def steps(run, folder, data_root=None, devices=1):
    """The steps of a run, with an accuracy that its key decides."""
    drawn = round(random.Random(run.key).gauss(80, 1), 2)
    for name in ('train', 'test', *(['held_out'] if run.held_out else [])):
        accuracy = 99.0 if name == 'held_out' and '-x3' in run.key else drawn
        yield str(Path(f'{name}.sh').resolve()), [str(folder), run.key, str(accuracy)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a study, whose runs are stand-ins; the working directory."""
    write_study(tmp_path)
    (tmp_path / 'results.md').write_text(DOCUMENT)
    for name in ('train', 'test', 'held_out'):
        (tmp_path / f'{name}.sh').write_text(STEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execution, 'steps_of', steps)
    monkeypatch.setattr(execution, 'surroundings', dict)
    monkeypatch.setattr(contents, 'read_config', known_config)
    return tmp_path


def study(*arguments, only=ONLY):
    """Call the tool; returns its exit code or message, 0 where all went well."""
    sys.argv = ['study.py', 'studies/small.py', *arguments, *(['--only', *only] if only else [])]
    try:
        return tool('study')() or 0
    except SystemExit as ended:
        return ended.code


def in_child(*arguments):
    """Start the tool in a child process; returns its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(os.devnull, 'w') as nothing:  # noqa: PTH123
                os.dup2(nothing.fileno(), 1)
            code = study(*arguments)
        finally:
            os._exit(code if isinstance(code, int) else 1)
    return child


def results():
    return read_records(Path('studies/results/small.jsonl'))


def numbers():
    return {record['key']: record['last'] for record in results()}


def report():
    assert study('--report', only=()) == 0
    return Path('results.md').read_text()


def test_a_document_that_is_not_there_is_made_with_its_places(folder):
    assert study() == 0
    (folder / 'results.md').unlink()
    made = report()
    assert made.startswith('# Small\n')
    assert [line for line in made.splitlines() if line.startswith('<!-- study')] == [
        f'<!-- study small: {part} -->' for part in ('summary', 'cnn', 'cnn weights', 'mode')
    ]
    assert report() == made


def test_results_of_another_study_are_not_reported(folder):
    assert study() == 0
    before = report()
    write_study(folder, FILE.replace('max_epochs=2', 'max_epochs=50'))
    message = study('--report', only=())
    assert 'plan otherwise now; --drop-outdated drops them' in message
    assert Path('results.md').read_text() == before


def test_a_document_without_a_place_is_refused_before_the_runs(folder):
    (folder / 'results.md').write_text(DOCUMENT.replace('study small: mode', 'study small: node'))
    assert "has 0 places for 'mode'" in study(only=())
    assert not results()


@pytest.fixture
def undisturbed(folder):
    """What a study gives that nothing happens to: its results by key, and its report."""
    assert study() == 0
    found = numbers(), report()
    (folder / 'results.md').write_text(DOCUMENT)
    for path in folder.glob('studies/results/*.jsonl'):
        path.unlink()
    (folder / 'work_dirs').rename(folder / 'undisturbed')
    return found


def without_time(text):
    """The report but for the hours."""
    return '\n'.join(line for line in text.splitlines() if 'hours of one core' not in line)


def test_a_training_that_diverged_is_a_result(folder, capsys):
    Path('diverges').write_text('cnn/kd/seed2')
    only = ('cnn/baseline/*', 'cnn/kd/*')
    assert study(only=only) == 0
    assert 'cnn/kd/seed2  diverged' in capsys.readouterr().out
    (record,) = [r for r in results() if r['key'] == 'cnn/kd/seed2']
    assert (record['last'], record['best']) == (None, None)
    assert record['diverged'] == 'loss_kd became NaN or infinite in epoch 1, iteration 75'
    assert '| KD (1 diverged) |' in report()
    capsys.readouterr()
    assert study(only=only) == 0
    assert 'cnn/kd' not in capsys.readouterr().out  # not tried again
    assert study('--check', 'cnn/kd/seed2', only=()) == 0
    assert 'recorded diverged, afresh diverged: the same' in capsys.readouterr().out


def test_every_run_is_done_once_and_the_sweep_brings_more(folder, capsys):
    assert study() == 0
    done = results()
    assert len({r['key'] for r in done}) == len(done)
    assert {r['seed'] for r in done if r['row'] == 'nkd-x3'} == {0, 1, 2}
    assert [r['seed'] for r in done if r['row'] == 'nkd-x0.333'] == [1]
    logs = list(Path('work_dirs').rglob('train.log'))
    assert len(logs) == len(done)
    assert all(len(log.read_text().splitlines()) == 1 for log in logs)
    capsys.readouterr()
    assert study() == 0
    assert capsys.readouterr().out.strip() == ''  # nothing to do


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_report(undisturbed):
    for seconds in (0.15, 0.3, 0.45):
        before, child = len(results()), in_child('--jobs', '2')
        end = time.monotonic() + 60
        while len(results()) < before + 3 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(seconds / 10)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert 0 < len(results()) < len(undisturbed[0])
    time.sleep(0.2)  # steps that were left behind end
    assert study() == 0
    assert numbers() == undisturbed[0]
    assert without_time(report()) == without_time(undisturbed[1])


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_it_ends_its_steps_and_goes_on_later(undisturbed, number):
    child = in_child('--jobs', '2')
    while len(results()) < 3:
        time.sleep(0.01)
    os.kill(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    assert study() == 0
    assert numbers() == undisturbed[0]


def test_a_result_that_was_not_written_down_is_taken_from_its_folder(folder):
    assert study(only=['cnn/kd/seed0']) == 0
    before = results()
    Path('studies/results/small.jsonl').unlink()
    assert study(only=['cnn/kd/seed0']) == 0
    assert results() == before
    assert len(Path('work_dirs/studies/small/cnn/kd/seed0/train.log').read_text().splitlines()) == 1


def test_a_folder_of_other_settings_is_not_taken_for_this_run(folder):
    assert study(only=['cnn/kd/seed0']) == 0
    Path('studies/results/small.jsonl').unlink()
    write_study(folder, FILE.replace('max_epochs=2', 'max_epochs=3'))
    Path('work_dirs/studies/small/cnn/kd/seed0/left').touch()
    assert study(only=['cnn/kd/seed0']) == 0
    assert not Path('work_dirs/studies/small/cnn/kd/seed0/left').exists()


def test_the_student_alone_is_kept_too(folder):
    assert study(only=['cnn/baseline/seed0']) == 0
    kept = Path('work_dirs/studies/small/cnn/baseline/seed0')
    assert (kept / 'student.pth').read_text() == 'cnn/baseline/seed0'
    assert not (kept / 'epoch_2.pth').exists()
    assert not (kept / 'last_checkpoint').exists()


def test_another_work_directory_does_not_share_the_results_at_once(folder):
    with locked(Path('studies/results/.small'), RUNNING):
        assert 'this study is running already' in study('--work-dir', 'elsewhere')
        assert 'this study is running already' in study('--collect', only=())
    assert study(only=['cnn/kd/seed0']) == 0


def test_failures_are_told_at_the_end_and_the_others_go_on(folder, capsys):
    Path('fails').write_text('cnn/kd/seed1')
    message = study()
    assert 'study.py: 1 runs failed' in message
    told = capsys.readouterr().err
    assert 'cnn/kd/seed1 failed: train.py: error: out of luck' in told
    assert 'work_dirs/studies/small/cnn/kd/seed1/train.log' in told
    assert 'cnn/kd/seed1' not in numbers()
    assert {'cnn/kd/seed0', 'cnn/kd/seed2', 'cnn/nkd-train/seed2'} < set(numbers())
    Path('fails').unlink()
    assert study() == 0
    assert 'cnn/kd/seed1' in numbers()


def test_results_of_other_settings_are_refused_until_they_are_dropped(folder):
    assert study(only=['cnn/kd/*', 'cnn/mgd/*']) == 0
    write_study(folder, FILE.replace('alpha_mgd=0.5', 'alpha_mgd=0.7'))
    message = study(only=['cnn/kd/*'])
    assert '3 results, cnn/mgd/seed0 the first, are of runs that the study file or the configs plan otherwise' in message
    assert study('--drop-outdated', only=['cnn/mgd/seed[01]']) == 0
    assert set(numbers()) == {'cnn/mgd/seed2', *(f'cnn/kd/seed{seed}' for seed in range(3))}
    assert study('--drop-outdated', only=()) == 0
    assert set(numbers()) == {f'cnn/kd/seed{seed}' for seed in range(3)}
    assert study(only=['cnn/kd/*']) == 0


def test_two_at_once_are_refused(folder):
    child = in_child()
    while not results():
        time.sleep(0.01)
    assert 'this study is running already' in study()
    os.waitpid(child, 0)


def test_check_compares_with_a_fresh_run(folder, capsys):
    assert study(only=['cnn/kd/seed0']) == 0
    assert study('--check', 'cnn/kd/seed0', only=()) == 0
    assert 'the same in every epoch' in capsys.readouterr().out
    path = Path('studies/results/small.jsonl')
    path.write_text(path.read_text().replace(f'"last": {results()[0]["last"]}', '"last": 1.0'))
    assert study('--check', 'cnn/kd/seed0', only=()) == 1
    assert 'has no result of that name' in study('--check', 'cnn/kd/seed9', only=())


@pytest.mark.parametrize('words', [[], ['--list'], ['--commands', 'runs.sh']], ids=['run', 'list', 'commands'])
def test_an_unknown_name_is_refused(folder, words):
    assert 'no planned run has such a name' in study(*words, only=['cnn/kdd/*'])


def test_the_list_counts_among_the_selected_runs(folder, capsys):
    assert study(only=['cnn/kd/seed0']) == 0
    capsys.readouterr()
    assert study('--list', only=['cnn/kd/seed[01]']) == 0
    assert capsys.readouterr().out.splitlines() == ['cnn/kd/seed1 kd', '1 of 2 runs to do']


def test_where_it_ran_is_not_in_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execution.socket, 'gethostname', lambda: 'our-machine')
    folder = tmp_path / 'runs' / 'seed0'
    folder.mkdir(parents=True)
    (folder / 'train.log').write_text(f'{tmp_path}/runs {execution.TOOLBOX}/configs/a.py our-machine {tmp_path}/images')
    (folder / 'a.py').write_text(f'{tmp_path}/runs our-machine')
    for name in ('epoch_2.pth', 'student.pth', 'last_checkpoint'):
        (folder / name).touch()
    execution.tidy(folder, str(tmp_path / 'images'))
    assert (folder / 'train.log').read_text() == 'runs configs/a.py HOST images'
    assert (folder / 'a.py').read_text() == 'runs our-machine'  # a word that a machine may be called, too
    assert sorted(path.name for path in folder.iterdir()) == ['a.py', 'student.pth', 'train.log']


def test_the_time_left_is_estimated_by_pair():
    runs = [Run('row', pair, 'kd', 0, 'a.py', 'b.py') for pair in ('cnn', 'vit', 'vit')]
    assert remaining(runs, dict(cnn=[10.0, 20.0], vit=[60.0]), 2) == (15 + 60 + 60) / 2
    assert remaining(runs, dict(cnn=[10.0]), 1) == 30
    assert remaining([], dict(cnn=[10.0]), 2) == 0


def test_the_place_of_a_run():
    run = Run('row', 'cnn', 'kd', 3, 'a.py', 'b.py')
    assert Place(Path('work_dirs/studies/s')).of(run) == Path('work_dirs/studies/s/cnn/kd/seed3')


class TestJobs:
    """Runs that go by themselves, many at once."""

    def written(self, *arguments):
        assert study('--commands', 'jobs.sh', *arguments, only=['cnn/kd/*']) == 0
        return [shlex.split(line) for line in Path('jobs.sh').read_text().splitlines()]

    def test_a_command_does_its_run_whose_result_is_collected(self, folder):
        for words in self.written('--gpus', '2'):
            assert words[:3] == ['python', 'study.py', 'studies/small.py']
            assert words[-2:] == ['--gpus', '2']
            assert study(*words[3:], only=()) == 0
        assert results() == []
        assert study('--collect', only=()) == 0
        keys = [f'cnn/kd/seed{seed}' for seed in range(3)]
        assert numbers() == {key: round(random.Random(key).gauss(80, 1), 2) for key in keys}
        assert self.written('--gpus', '2') == []
        assert study('--collect', only=()) == 0
        assert len(results()) == 3

    def test_trust_reaches_every_step(self, folder):
        (words, *_) = self.written('--trust')
        assert words[-1] == '--trust'
        assert study(*words[3:], only=()) == 0
        logs = [path.read_text().splitlines()[0] for path in folder.rglob('*.log')]
        assert len(logs) > 1
        assert all(line.endswith(' --trust') for line in logs)

    def test_slurm_gets_a_job_for_each(self, folder):
        jobs = self.written('--gpus', '4', '--slurm', 'night shift', '--data-root', "it's here")
        assert len(jobs) == 3
        for words in jobs:
            assert words[0] == 'sbatch'
            assert words[words.index('-p') + 1] == 'night shift'
            assert {'--gres=gpu:4', '--ntasks=1', '--cpus-per-task=20', '--signal=B:TERM@120'} < set(words)
            assert words[-2] == '--wrap'
            inner = shlex.split(words[-1])
            assert inner[:4] == ['exec', 'python', 'study.py', 'studies/small.py']
            assert inner[inner.index('--data-root') + 1] == "it's here"
            assert inner[inner.index('--job') + 1] in words[words.index('-p') + 2]

    def test_what_failed_or_never_ended_is_not_collected(self, folder, capsys):
        Path('fails').write_text('cnn/kd/seed1')
        assert study('--job', 'cnn/kd/seed1', only=()) == 1
        assert 'cnn/kd/seed1 failed: train.py: error: out of luck' in capsys.readouterr().err
        assert study('--job', 'cnn/kd/seed0', only=()) == 0
        assert study('--collect', only=()) == 0
        assert set(numbers()) == {'cnn/kd/seed0'}

    def test_a_result_of_other_settings_is_not_collected(self, folder):
        assert study('--job', 'cnn/mgd/seed0', only=()) == 0
        write_study(folder, FILE.replace('alpha_mgd=0.5', 'alpha_mgd=0.7'))
        assert study('--collect', only=()) == 0
        assert results() == []

    def test_jobs_go_beside_each_other_and_not_beside_the_study(self, folder):
        with locked(Path('work_dirs/studies/small'), RUNNING, shared=True):  # another job
            assert study('--job', 'cnn/kd/seed0', only=()) == 0
            assert 'running already' in study()
        with locked(Path('work_dirs/studies/small'), RUNNING):
            assert 'running already' in study('--job', 'cnn/kd/seed1', only=())
        with locked(Path('work_dirs/studies/small/jobs/cnn/kd/seed2'), RUNNING):
            assert 'running already' in study('--job', 'cnn/kd/seed2', only=())

    def test_an_unknown_job(self, folder):
        assert "no planned run has this name; did you mean 'cnn/kd/seed0'" in study('--job', 'cnn/kd/sed0', only=())

    def test_options_that_contradict(self, folder, capsys):
        for words in (['--gpus', '0'], ['--gpus', '2', '--jobs', '2'], ['--slurm', 'day'], ['--hours', '-1']):
            assert study(*words, only=()) == 2
        assert 'as all would take the same devices' in capsys.readouterr().err


def test_a_script_is_asked_to_end_too(tmp_path):
    """SIGTERM to a step is for the script that does its work, which saves its state."""
    script = tmp_path / 'script.sh'
    script.write_text(
        f'cd {tmp_path}\ntrap "touch saved; exit 75" TERM\necho $PORT $1 > started\nwhile :; do sleep 0.05; done\n'
    )
    steps, codes = Steps(1), []
    step = Thread(target=lambda: codes.append(steps.perform(str(script), ['word'], tmp_path)))
    step.start()
    port, word = words(tmp_path / 'started')
    steps.end()
    step.join()
    assert codes == [75]
    assert (tmp_path / 'saved').exists()
    assert int(port) > 0
    assert word == 'word'
    with pytest.raises(InterruptedError):  # no step begins after the end
        steps.perform(str(script), ['word'], tmp_path)


def words(file):
    """The words of a line that another process writes."""
    while not file.exists() or not file.read_text().endswith('\n'):
        time.sleep(0.02)
    return file.read_text().split()


#: A worker that imports no libraries.
LIGHT = 'import sys; del sys.path[0]; from mmcls_kd.study.worker import main; main(lambda: None)'
linux = pytest.mark.skipif(sys.platform != 'linux', reason='there each step is a new interpreter')


@linux
def test_a_killed_study_leaves_no_step_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(steps_module, 'WORKER', LIGHT)
    script = tmp_path / 'script.py'
    script.write_text(f'import os, time\nopen("{tmp_path}/started", "w").write(f"{{os.getpid()}}\\n")\ntime.sleep(60)\n')
    child = os.fork()
    if child == 0:
        Steps(1).perform(str(script), [], tmp_path)
        os._exit(0)
    (step,) = map(int, words(tmp_path / 'started'))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    end = time.monotonic() + 10
    while Path(f'/proc/{step}').exists() and Path(f'/proc/{step}/stat').read_text().split()[2] != 'Z':
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_processor_time_of_a_steps_own_children_counts(tmp_path):
    script = tmp_path / 'script.sh'
    script.write_text(f'{sys.executable} -c "import time; [1 for _ in iter(lambda: time.process_time() < 0.3, False)]"')
    assert Steps(3).perform(str(script), [], tmp_path) == 0
    (taken,) = map(json.loads, (tmp_path / 'times.jsonl').read_text().splitlines())
    assert (taken['step'], taken['code']) == ('script', 0)
    assert taken['cpu'] > 0.3


@pytest.fixture
def light(monkeypatch):
    """Steps whose workers import no libraries."""
    monkeypatch.setattr(steps_module, 'WORKER', LIGHT)
    steps = Steps(3)
    yield steps
    steps.end()


def program(folder, text):
    """Write a program; returns its path."""
    (folder / 'program.py').write_text(text)
    return str(folder / 'program.py')


@linux
class TestWorkers:
    """A step is a fork of a worker, and as good as a new interpreter."""

    def test_the_forks_of_one_worker_know_nothing_of_each_other(self, light, tmp_path):
        text = (
            'import os, sys, json\nprint(os.getppid(), hasattr(json, "mark"), *sys.argv[1:], os.environ["OMP_NUM_THREADS"])'
        )
        path = program(tmp_path, f'{text}\njson.mark = 1\n')
        assert light.perform(path, ['first'], tmp_path) == light.perform(path, ['second'], tmp_path) == 0
        first, second = [line.split() for line in (tmp_path / 'program.log').read_text().splitlines()[1::2]]
        assert first[0] == second[0]  # the worker
        assert first[1:] == ['False', 'first', '3']
        assert second[1:] == ['False', 'second', '3']

    @pytest.mark.parametrize(
        ('end', 'code', 'last'),
        [
            ('sys.exit(3)', 3, None),
            ('sys.exit("program: error: out of luck")', 1, 'program: error: out of luck'),
            ('sys.exit()', 0, None),
            ('1 / 0', 1, 'ZeroDivisionError: division by zero'),
            ('os._exit(75)', 75, None),
            ('os.kill(os.getpid(), 9)', -9, None),
        ],
    )
    def test_exit_code_and_last_line_are_the_programs(self, light, tmp_path, end, code, last):
        path = program(tmp_path, f'import atexit, os, sys\natexit.register(print, "closed", flush=True)\n{end}\n')
        assert light.perform(path, [], tmp_path) == code
        lines = (tmp_path / 'program.log').read_text().splitlines()
        assert last is None or last in lines
        assert ('closed' in lines) == ('os.' not in end)

    def test_a_step_is_asked_to_end(self, light, tmp_path):
        started, saved = tmp_path / 'started', tmp_path / 'saved'
        handler = f'import signal, sys, time\ndef end(*_):\n    open("{saved}", "w").close()\n    sys.exit(75)\n'
        path = program(
            tmp_path, f'{handler}signal.signal(15, end)\nopen("{started}", "w").write("now\\n")\ntime.sleep(60)\n'
        )
        codes = []
        step = Thread(target=lambda: codes.append(light.perform(path, [], tmp_path)))
        step.start()
        words(started)
        light.end()
        step.join()
        assert codes == [75]
        assert saved.exists()

    def test_a_worker_that_is_killed_ends_its_step_alone(self, light, tmp_path):
        path = program(tmp_path, 'import os\nos.kill(os.getppid(), 9)\n')
        assert light.perform(path, [], tmp_path) == -9
        assert light.perform(program(tmp_path, ''), [], tmp_path) == 0  # by a new worker

    def test_the_error_of_an_import_is_in_the_log(self, light, tmp_path, monkeypatch):
        monkeypatch.setattr(steps_module, 'WORKER', 'raise ImportError("no such library")')
        assert light.perform(program(tmp_path, ''), [], tmp_path) == 1
        assert (tmp_path / 'program.log').read_text().splitlines()[-1] == 'ImportError: no such library'


@pytest.mark.skipif(not Path('/proc/cpuinfo').is_file(), reason='Linux alone tells more than a name')
def test_processors_of_one_name_are_told_apart(monkeypatch):
    text = 'processor\t: 0\ncpu family\t: 25\nmodel\t\t: {}\nmodel name\t: AMD EPYC\nprocessor\t: 1\nmodel\t\t: 9\n'
    monkeypatch.setattr(execution.os, 'cpu_count', lambda: 2)
    for model in (1, 17):
        monkeypatch.setattr(execution.Path, 'read_text', lambda _path, model=model: text.format(model))
        assert execution.surroundings()['cpu'] == f'AMD EPYC, family 25, model {model}, 2 cores'
