"""The report of a study: from raw results alone, the same each time, whatever of the study there is."""

import json
import random

import pytest
from scipy.stats import spearmanr
from studies_kit import DOCUMENT, FILE, lost, made_up, small_study, write_study

from mmcls_kd.study.plan import sweep_results
from mmcls_kd.study.plots import draw
from mmcls_kd.study.records import add_record, read_records, write_records
from mmcls_kd.study.report import NOTHING, blocks, put, table
from mmcls_kd.study.results import Results, agreement
from mmcls_kd.study.statistics import compare
from mmcls_kd.study.study_file import read_study


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A study and results of all of its runs, those after the sweep too."""
    study, planner = small_study(tmp_path_factory.mktemp('report'))
    records = [made_up(run) for run in planner.runs()]
    runs = planner.runs(sweep_results(records))
    return study, [made_up(run) for run in runs]


def cells(table, row):
    """The cells of a row of a table."""
    (line,) = [line for line in table.splitlines() if line.startswith((f'| {row} |', f'| {row} ('))]
    return [cell.strip() for cell in line.strip('|').split('|')]


def constant(records, **rows):
    """The results with other accuracies: for a row one of each seed."""
    return [{**r, 'last': rows[r['row']][r['seed']]} if r['row'] in rows else r for r in records]


def test_a_cell_is_one_cell_whatever_is_in_it():
    assert table(['', 'a|b'], [['`x|y`', 'two\nlines']]).splitlines() == [
        '|  | a\\|b |',
        '| --- | --- |',
        '| `x\\|y` | two lines |',
    ]


class TestTables:
    def test_means_differences_and_what_is_significant(self, whole):
        study, records = whole
        values = dict(baseline=[80.0, 81.0, 82.0], kd=[90.0, 91.0, 92.001], nkd=[80.0, 81.5, 81.5])
        table = blocks(study, constant(records, **values))['cnn']
        assert cells(table, 'student alone')[1] == '81.00 ± 1.00'
        assert cells(table, 'KD')[3:5] == ['**+10.00 [+10.00, +10.00]**', '< 0.001']
        assert cells(table, '`nkd`')[3] == '+0.00 [-1.24, +1.24]'
        assert cells(table, '`nkd`')[4] == '1.000'
        assert '`kd`' in next(line for line in table.splitlines() if line.startswith('Better than the student alone: '))
        assert '`nkd`' in table.split('Not told apart from the student alone: ')[1].splitlines()[0]

    def test_what_is_worse_is_said_as_plainly(self, whole):
        study, records = whole
        table = blocks(study, constant(records, baseline=[80.0, 81.0, 82.0], kd=[70.0, 71.0, 72.001]))['cnn']
        assert 'Worse than the student alone: `kd`.' in table

    def test_nothing_is_compared_with_a_row_that_diverged(self, whole):
        study, records = whole
        some = [lost(r) if r['key'] == 'cnn/kd/seed1' else r for r in records]
        table = blocks(study, some)['cnn']
        assert cells(table, '`nkd`')[3:5] != ['', '']
        assert cells(table, '`nkd`')[5:] == ['', '']
        assert cells(table, 'KD')[3:5] == ['', '']

    def test_a_row_that_diverged_is_the_last(self, whole):
        study, records = whole
        some = [lost(r) if r['key'] == 'cnn/nkd/seed1' else {**r, 'last': 99.0} if r['row'] == 'nkd' else r for r in records]
        assert Results(study, some).of('cnn', 'row')[-1].row == 'nkd'

    def test_a_row_without_any_result_but_that_it_diverged(self, whole):
        study, records = whole
        table = blocks(study, [lost(r) if r['row'] == 'nkd' else r for r in records])['cnn']
        assert cells(table, '`nkd`')[1] == 'diverged'
        assert 'survivors' not in table

    def test_a_row_that_scatters_is_called_unstable(self, whole):
        study, records = whole
        values = dict(baseline=[80.0, 81.0, 82.0], kd=[80.0, 85.0, 90.0], nkd=[10.0, 80.0, 85.0])
        table = blocks(study, constant(records, **values))['cnn']
        assert '`nkd` is unstable: from 10.00 to 85.00.' in table
        assert '`kd` is unstable' not in table

    def test_weights_that_stay_are_not_compared_a_second_time(self, whole):
        study, records = whole
        held = {1 / 3: 80.0, 1.0: 90.0, 3.0: 80.0}
        some = [{**r, 'held_out_accuracy': held[r['factor']]} if r['held_out'] else r for r in records]
        row = cells(blocks(study, some)['cnn weights'], '`nkd`')
        assert row[4] == '× 1'
        assert row[5:] == [''] * 5

    def test_the_correction_counts_every_comparison_of_a_column(self, whole):
        study, records = whole
        results = Results(study, records)
        rows = {line.row for line in results.lines.values()} - {'baseline', 'kd'}
        ablations = {'nkd-train'}
        assert results.comparisons == 1 + 2 * len(rows - ablations) + len(ablations)
        for kind in ('row', 'weight'):
            column = [line for line in results.lines.values() if line.kind == kind and line.against]
            assert len(column) > 5
            own = {line.row: compare(line.accuracies, results.lines['cnn', 'baseline'].accuracies).p for line in column}
            smallest, largest = (of(column, key=lambda line: own[line.row]) for of in (min, max))
            assert smallest.against['baseline'].p == pytest.approx(min(1, own[smallest.row] * len(column)))
            assert largest.against['baseline'].p >= own[largest.row]
        (ablated,) = [line for line in results.lines.values() if line.row == 'nkd-train']
        alone = compare(ablated.accuracies, results.lines['cnn', 'nkd'].accuracies)
        assert ablated.against['nkd'].p == pytest.approx(alone.p)

    def test_a_row_with_fewer_seeds_is_marked(self, whole):
        study, records = whole
        some = [r for r in records if not (r['row'] == 'nkd' and r['seed'] > 0)]
        table = blocks(study, some)['cnn']
        assert cells(table, '`nkd`')[0] == '`nkd` (1 of 3 seeds)'
        assert cells(table, 'KD')[0] == 'KD'

    @pytest.mark.parametrize('row', ['nkd', 'baseline'])
    def test_without_all_seeds_nothing_is_tested(self, row, whole):
        study, records = whole
        some = [r for r in records if not (r['pair'] == 'cnn' and r['row'] == row and r['seed'] == 2)]
        complete, partial = (cells(blocks(study, found)['cnn'], '`nkd`') for found in (records, some))
        assert '[' in complete[3]
        assert complete[4]
        assert float(partial[3]) == pytest.approx(float(complete[3].strip('*').split()[0]), abs=1)
        assert partial[4] == ''

    def test_the_rows_that_another_study_has_too(self, whole, tmp_path):
        _, records = whole
        brief = write_study(tmp_path, FILE.replace("title = 'Small'", "title = 'Brief'"), 'brief')
        study = read_study(write_study(tmp_path, f"{FILE}\ncompared_with = 'brief.py'"))
        assert blocks(study, records)['cnn compared'] == NOTHING
        there = dict(baseline=[70, 71, 72], kd=[75, 76.1, 76.9], nkd=[74, 75, 77], dkd=[60, 61, 62])
        here = dict(baseline=[80, 81, 82], kd=[80, 81, 82], nkd=[84, 86, 86], dkd=[82, 82, 85], mgd=[81, 81, 83])
        found = [[r for r in constant(records, **rows) if r['kind'] == 'row' and r['row'] in rows] for rows in (there, here)]
        read_study(brief).results.parent.mkdir()
        write_records(read_study(brief).results, [r for r in found[0] if (r['row'], r['seed']) != ('dkd', 0)])
        table = blocks(study, found[1])['cnn compared']
        assert table.splitlines()[0] == '|  | minus alone, Brief | minus alone, Small | place there | place here |'
        assert [cells(table, f'`{row}`')[3:] for row in ('nkd', 'dkd')] == [['2', '1'], ['3', '2']]
        assert cells(table, 'KD') == ['KD', '**+5.00 [+4.75, +5.25]**', '+0.00 [+0.00, +0.00]', '1', '3']
        assert cells(table, '`dkd`')[1] == '-10.00 (2 of 3 seeds)'
        assert 'mgd' not in table
        expected = spearmanr([5, 13 / 3, -10], [0, 13 / 3, 2]).statistic
        assert table.endswith(f'Rank correlation of the 3 rows (Spearman): {expected:.2f}.')

    def test_the_rank_correlation_of_rows_with_equal_means(self, whole, tmp_path):
        _, records = whole
        brief = read_study(write_study(tmp_path, FILE.replace("title = 'Small'", "title = 'Brief'"), 'brief'))
        study = read_study(write_study(tmp_path, f"{FILE}\ncompared_with = 'brief.py'"))
        there = dict(
            baseline=[70, 71, 72], kd=[71, 72, 73], nkd=[71, 72, 73], dkd=[70.5, 71.5, 72.5], mgd=[70.2, 71.2, 72.2]
        )
        here = dict(
            baseline=[80, 81, 82], kd=[80.1, 81.1, 82.1], nkd=[81, 82, 83], dkd=[80.4, 81.4, 82.4], mgd=[80.3, 81.3, 82.3]
        )
        found = [[r for r in constant(records, **rows) if r['kind'] == 'row' and r['row'] in rows] for rows in (there, here)]
        brief.results.parent.mkdir()
        write_records(brief.results, found[0])
        expected = spearmanr([1, 1, 0.5, 0.2], [0.1, 1, 0.4, 0.3]).statistic
        assert blocks(study, found[1])['cnn compared'].endswith(f'of the 4 rows (Spearman): {expected:.2f}.')

    def test_a_row_with_a_training_that_diverged_is_compared_with_nothing(self, whole):
        study, records = whole
        kept = [lost(r) if r['row'] == 'nkd' and r['seed'] == 2 else r for r in records]
        table = blocks(study, constant(kept, nkd=[90.0, 92.0, None]))['cnn']
        assert cells(table, '`nkd`')[:2] == ['`nkd` (1 diverged)', '91.00 ± 1.41']
        assert cells(table, '`nkd`')[3:] == ['', '', '', '']
        assert '`nkd` diverged (seed 2: loss_kd became NaN or infinite in epoch 1, iteration 7)' in table
        assert '`nkd`' not in ''.join(line for line in table.splitlines() if line.startswith(('Better', 'Worse', 'Not')))

    def test_a_row_of_which_every_training_diverged(self, whole):
        study, records = whole
        made = blocks(study, [lost(r) if r['row'] in ('nkd', 'nkd-train') else r for r in records])
        assert cells(made['cnn'], '`nkd`')[:3] == ['`nkd` (3 diverged)', 'diverged', 'diverged']
        assert cells(made['mode'], '`nkd-train`')[1:] == ['diverged', 'diverged', '', '']

    def test_a_weight_that_diverged_is_not_chosen(self, whole):
        study, records = whole
        kept = [lost(r) if r['row'] in ('nkd', 'nkd-x3') and r['seed'] == 1 else r for r in records]
        cell = cells(blocks(study, kept)['cnn weights'], '`nkd`')
        assert cell[2:5] == ['diverged', 'diverged', '× 1/3']

    def test_weights(self, whole):
        study, records = whole
        swept = {('nkd', 1): 80.0, ('nkd-x0.333', 1): 79.0, ('nkd-x3', 1): 99.0}
        changed = [
            {**r, 'held_out_accuracy': swept.get((r['row'], r['seed']), r['held_out_accuracy']), 'last': 70.0 + r['seed']}
            for r in records
        ]
        cell = cells(blocks(study, changed)['cnn weights'], '`nkd`')
        assert cell[1:5] == ['79.00', '80.00', '99.00', '× 3']

    def test_a_weight_that_was_not_chosen_is_no_row(self, whole):
        study, records = whole
        results = Results(study, records)
        weights = {row for _, row in results.lines if '-x' in row}
        swept = {name.split('/')[1]: results.chosen(*name.split('/')) for name in results.sweep}
        assert weights == {f'{name}-x{factor:.3g}' for name, factor in swept.items() if factor != 1}

    def test_what_is_not_as_published_is_said(self, whole):
        study, records = whole
        assert 'Otherwise than published: `mgd` has mgd.alpha_mgd=0.5.' in blocks(study, records)['cnn']

    def test_an_ablation_is_compared_with_its_row(self, whole):
        study, records = whole
        values = {'nkd': [80.0, 81.0, 82.0], 'nkd-train': [79.0, 79.9, 81.1]}
        table = blocks(study, constant(records, **values))['mode']
        assert cells(table, '`nkd-train`')[3] == '**-1.00 [-1.25, -0.75]**'


class TestDocument:
    def test_it_says_what_the_results_say_and_keeps_what_people_wrote(self, whole):
        study, records = whole
        text = put(DOCUMENT, study, records)
        assert text.startswith('# Results\n\nWhat a person wrote.\n')
        assert '\nBetween.\n' in text
        assert put(text, study, records) == text
        assert put(DOCUMENT, study, records) == text

    def test_the_order_of_the_results_does_not_matter(self, whole):
        study, records = whole
        shuffled = random.Random(0).sample(records, len(records))
        assert put(DOCUMENT, study, shuffled) == put(DOCUMENT, study, records)

    @pytest.mark.parametrize('count', [0, 1, 2, 7, None])
    def test_of_a_part_of_the_results(self, whole, count):
        study, records = whole
        some = records if count is None else random.Random(count).sample(records, count)
        text = put(DOCUMENT, study, some)
        assert ('No results yet.' in text) == (count is not None)

    def test_a_missing_place(self, whole):
        study, records = whole
        with pytest.raises(ValueError, match=r'0 places for .mode.'):
            put(DOCUMENT.replace('study small: mode', 'study small: node'), study, records)


class TestAgreement:
    """A run done afresh, beside the recorded one."""

    @pytest.fixture
    def nkd(self, whole):
        """The results of a row whose mean is 90 and whose standard deviation is 1, and the row in numbers."""
        study, records = whole
        records = constant(records, nkd=[89.0, 90.0, 91.0])
        of_row = {r['seed']: r for r in records if r['key'].startswith('cnn/nkd/')}
        return of_row, Results(study, records).lines['cnn', 'nkd']

    def test_the_same(self, nkd):
        records, row = nkd
        assert agreement(records[0], {**records[0], 'seconds': 1.0, 'cpu': 'another'}, row) == (
            True,
            'the same in every epoch',
        )

    @pytest.mark.parametrize('changed', [dict(last=89.01), dict(curve=[88.0, 89.0]), dict(held_out_accuracy=1.0)])
    def test_on_the_same_machine_nothing_may_differ(self, nkd, changed):
        records, row = nkd
        assert agreement(records[0], {**records[0], **changed}, row) == (False, 'not the same')

    @pytest.mark.parametrize(('last', 'agrees'), [(93.0, True), (87.0, True), (93.01, False), (86.99, False)])
    def test_elsewhere_three_standard_deviations_are_allowed(self, nkd, last, agrees):
        records, row = nkd
        found, said = agreement(records[0], {**records[0], 'last': last, 'cpu': 'another'}, row)
        assert found == agrees
        where = 'within' if agrees else 'outside of'
        assert said == (
            f'not the same, but recorded with another cpu; {where} 3 standard deviations of its row, 90.00 ± 1.00'
        )

    def test_without_a_spread_nothing_can_be_said(self, nkd):
        records, row = nkd
        fresh = {**records[0], 'last': 90.0, 'software': {'torch': '3'}}
        for other, line in ((fresh, None), (lost(fresh), row)):
            found, said = agreement(records[0], other, line)
            assert not found
            assert 'another software; its row has no spread' in said


def test_the_summary_counts_runs_of_each_processor(whole):
    study, records = whole
    assert 'Processor: a processor.' in blocks(study, records)['summary']
    other = [{**r, 'cpu': 'another'} if number < 2 else r for number, r in enumerate(records)]
    assert f'Processor: a processor ({len(records) - 2} runs); another (2 runs).' in blocks(study, other)['summary']


def test_rows_of_another_processor_are_named(whole):
    study, records = whole
    some = [{**r, 'cpu': 'another'} if r['key'] in ('cnn/kd/seed2', 'cnn/nkd/seed0') else r for r in records]
    said = 'Recorded on another processor than the student alone, in whole or in part: '
    assert said not in blocks(study, records)['cnn']
    (line,) = [line for line in blocks(study, some)['cnn'].splitlines() if line.startswith(said)]
    assert sorted(line.removeprefix(said).strip('.').split(', ')) == ['`kd`', '`nkd`']


def test_plots_are_the_same_each_time(whole):
    study, records = whole
    (file,) = draw(study, records)
    first = file.read_bytes()
    assert draw(study, list(reversed(records))) == [file]
    assert file.read_bytes() == first
    assert draw(study, []) == []


class TestRecords:
    def test_come_back(self, whole, tmp_path):
        _, records = whole
        for record in records[:3]:
            add_record(tmp_path / 'results' / 'small.jsonl', record)
        assert read_records(tmp_path / 'results' / 'small.jsonl') == json.loads(json.dumps(records[:3]))

    def test_a_run_is_never_there_twice(self, whole, tmp_path):
        _, records = whole
        path = tmp_path / 'small.jsonl'
        add_record(path, records[0])
        with pytest.raises(ValueError, match='already'):
            add_record(path, records[0])
        write_records(path, [records[0], records[1], records[0]])
        with pytest.raises(ValueError, match=r'line 3: cnn/teacher/seed0 stands there twice'):
            read_records(path)

    def test_a_line_that_is_no_result(self, whole, tmp_path):
        _, records = whole
        (tmp_path / 'small.jsonl').write_text(json.dumps(records[0]) + '\n{"key": "a"}\n')
        with pytest.raises(ValueError, match=r"line 2 is no result of a run: it has no 'kind'"):
            read_records(tmp_path / 'small.jsonl')
        (tmp_path / 'small.jsonl').write_text('{"key"\n')
        with pytest.raises(ValueError, match=r'line 1 is no JSON'):
            read_records(tmp_path / 'small.jsonl')
