"""The report says what the files say, and nothing in them becomes markup."""

import base64
import gzip
import json
import pathlib
import re

import pytest
import report_run

from rest import report
from rest.e_step.choose import to_kept
from rest.e_step.summary import DUPLICATE, INCORRECT, KEPT, OUTVOTED
from rest.report import page, series
from rest.run import store
from rest.run.dataset import to_lines
from rest.run.scores import chosen


@pytest.fixture(scope='module')
def workdir(tmp_path_factory) -> pathlib.Path:
  return report_run.write_run(tmp_path_factory.mktemp('report') / 'run')


@pytest.fixture(scope='module')
def html(workdir) -> str:
  page.write_page([workdir], workdir / 'report.html')
  return (workdir / 'report.html').read_text()


def _unpack(text: str):
  return json.loads(gzip.decompress(base64.b64decode(text)))


def _index(html: str):
  found = re.search(r'id="index">([^<]*)<', html)
  assert found
  return _unpack(found[1])


def _pages(html: str) -> dict[str, list]:
  found = re.findall(r'data-page="([^"]*)">([^<]*)<', html)
  return {name: _unpack(text) for name, text in found}


def test_steps_taken_twice_count_once_and_phases_add_up(workdir):
  run = report.read_run(workdir)
  assert [step['loss'] for step in run.steps[1]] == [2.0]
  assert run.phases[1, 'sample'] == {'seconds': 10.0, 'tokens': 100}


def test_a_report_behind_the_run_is_written_or_says_why(tmp_path):
  folder = report_run.write_run(tmp_path / 'run')
  said: list[str] = []
  reports = report.Behind(store.epath.Path(folder), said.append)
  reports.write()
  reports.write()  # Waits for the first.
  reports.wait()
  assert not said
  page.write_page([folder], tmp_path / 'again.html')
  written = (folder / 'report.html').read_text()
  assert len(written) == len((tmp_path / 'again.html').read_text())
  (folder / 'iteration_1/test.json').write_text('{')
  reports.write()
  reports.wait()
  assert len(said) == 1
  assert said[0].startswith('there is no new report: ')
  assert 'test.json' in said[0]


def test_numbers_behind_figures_are_those_of_the_files(workdir):
  run = report.read_run(workdir)
  test, _, train = series.accuracies(run)
  assert test.values == pytest.approx([0, 1 / 3, 2 / 3])
  # Three of four samples of every second problem; then of every one.
  assert train.places == (0, 1)
  assert train.values == pytest.approx([3 / 8, 3 / 4])
  (transfer,) = series.transfers(run).values()
  assert transfer.values == test.values
  changes = [(c.split, c.gained, c.lost) for c in series.turnover(run)]
  assert changes == [('test', 2, 0), ('test', 2, 0), ('training', 3, 0)]
  assert [(b.name, b.problems) for b in series.difficulty(run)] == [
    ('easy', 3),
    ('very hard', 3),
  ]
  assert chosen(run.rows, run.record).iteration == 2


def test_the_page_holds_every_sample_and_what_became_of_it(html):
  index, pages = _index(html), _pages(html)
  (run,) = index['runs']
  e_step, greedy = run['sets']
  assert [e_step['title'], greedy['title']] == [
    'training problems',
    'test, greedy',
  ]
  for at, entry in enumerate(pages['0-0-0']):
    lines = entry['samples']['2']
    assert [line[3] + line[4] for line in lines] == report_run.texts(at)
    codes = e_step['codes']['2'][at]
    became = [e_step['outcomes'][ord(code) - 48][2] for code in codes]
    assert became == [KEPT, DUPLICATE, KEPT, INCORRECT]
  assert len(pages['0-1-0']) == 6


def test_the_page_tells_right_answers_that_lost_a_vote(tmp_path):
  workdir = report_run.write_run(tmp_path / 'run', problems=1)
  record = store.read_json(workdir / 'run.json')
  record['config']['estep.weight'] = 'majority'
  store.write_json(workdir / 'run.json', record)
  rows = [
    report_run.graded('set/0', sample, text)
    for sample, text in enumerate(['It is 3.', 'It is 4.', 'So it is 4.'])
  ]
  for iteration in (1, 2):
    folder = workdir / f'iteration_{iteration}'
    store.Parts(folder / 'parts').write(0, rows)
    kept = [to_kept(row) for row in rows[1:]]
    path = folder / 'dataset.jsonl'
    path.write_text(to_lines(kept, report_run.CODEC, path))
  page.write_page([workdir], workdir / 'report.html')
  e_step, _ = _index((workdir / 'report.html').read_text())['runs'][0]['sets']
  codes = e_step['codes']['1'][0]
  became = [e_step['outcomes'][ord(code) - 48][2] for code in codes]
  assert became == [OUTVOTED, KEPT, KEPT]


def test_nothing_that_a_model_or_a_config_says_becomes_markup(html):
  assert '<img' not in html
  assert 'onerror=' not in html
  assert '<i>set' not in html
  assert '<u>3' not in html
  assert '&lt;i&gt;set&lt;/i&gt;' in html
  assert '>other-set</th>' in html
  assert html.count('</script>') == html.count('<script')


def test_the_page_asks_nothing_of_a_network(html):
  assert not re.search(r'(?:src|href)="(?!data:|#)', html)
  # Namespaces of SVG and MathML are names, not addresses that are opened.
  addresses = set(re.findall(r'https?://[^"\' <;]+', html))
  assert all(
    'w3.org' in a or 'purl.org' in a
    for a in addresses
    - {'http://creativecommons.org/ns#', 'https://matplotlib.org/'}
  )


def test_the_same_run_gives_the_same_page(workdir, html):
  page.write_page([workdir], workdir / 'again.html')
  assert (workdir / 'again.html').read_text() == html


def test_samples_that_do_not_fit_lie_beside_the_page(workdir, html):
  page.write_page([workdir], workdir / 'small.html', embedded=1)
  small = (workdir / 'small.html').read_text()
  assert not _pages(small)
  assert _index(small)['folder'] == 'small_samples'
  text = (workdir / 'small_samples' / '0-0-0.js').read_text()
  found = re.fullmatch(r"restPage\('0-0-0','([^']*)'\)", text)
  assert found
  assert _unpack(found[1]) == _pages(html)['0-0-0']


def test_runs_are_put_side_by_side(workdir, tmp_path):
  other = report_run.write_run(tmp_path / 'other' / 'run')
  record = json.loads((other / 'run.json').read_text())
  record['config']['estep.cap'] = 3
  (other / 'run.json').write_text(json.dumps(record))
  page.write_page([workdir, other], tmp_path / 'both.html')
  html = (tmp_path / 'both.html').read_text()
  assert 'Side by side' in html
  assert 'other/run' in html
  assert '+0.0 (+0.0 to +0.0)' in html
  assert '<th scope="row">estep.cap</th><td>2</td><td>3</td>' in html
  assert len(_index(html)['runs']) == 2


def test_figures_are_written_for_papers(workdir, tmp_path):
  page.write_figures([workdir], str(tmp_path))
  assert (tmp_path / 'run-accuracy.svg').read_text().startswith('<svg')
  assert (tmp_path / 'run-fates.png').read_bytes().startswith(b'\x89PNG')


def test_a_folder_that_is_no_run_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'test\.json'):
    page.write_page([tmp_path], tmp_path / 'report.html')
