"""The notebooks run, and stand in the repository as they were written.

`look_into_a_run` is run in test_em.py, on a whole run.
"""

import re
import sys

import notebooks
import pytest


def test_the_method_in_one_page_raises_the_score(monkeypatch, capsys):
  monkeypatch.setenv('REST_PROBLEMS', '10')
  notebooks.run('rest_em_in_one_page')
  out = capsys.readouterr().out
  scores = re.findall(r'(base|iteration \d): pass@1 (\d+)%', out)
  assert [name for name, _ in scores] == ['base', 'iteration 1', 'iteration 2']
  base, *later = [int(share) for _, share in scores]
  assert max(later) > base
  assert out.count('80 samples') == 2


def test_an_own_problem_set_runs_to_its_end(monkeypatch, tmp_path, capsys):
  pytest.importorskip('IPython')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('REST_PROBLEMS', '8')
  notebooks.run('problems_of_your_own')
  out = capsys.readouterr().out
  assert "'That makes 7.': 0.0" in out
  assert 'The run in marbles is finished' in out
  assert (tmp_path / 'marbles/iteration_2/test.json').exists()
  page = (notebooks.ROOT / 'docs/own_problems.md').read_text()
  assert (tmp_path / 'marbles.py').read_text() in page  # Told in one way.


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_a_notebook_holds_no_outputs(name):
  for cell in notebooks.cells(name, 'code'):
    assert not cell['outputs'] and cell['execution_count'] is None


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_the_first_cell_asks_where_rest_is_if_it_is_missing(name, monkeypatch):
  first = notebooks.source(notebooks.cells(name, 'code')[0])
  exec(first, {})  # It is there: nothing to do.
  monkeypatch.setitem(sys.modules, 'rest', None)  # Python: no such module.
  monkeypatch.delenv('REST_SOURCE', raising=False)
  with pytest.raises(ValueError, match='set REST_SOURCE'):
    exec(first, {})


def test_all_notebooks_begin_alike():
  first = [notebooks.cells(name, 'code')[0] for name in notebooks.NAMES]
  assert len({notebooks.source(cell) for cell in first}) == 1
