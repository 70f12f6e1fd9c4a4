"""The notebooks run, and stand in the repository as they were written.

`look_into_a_run` is run in test_em.py, on a whole run.
"""

import os
import pathlib
import re
import subprocess
import sys

import notebooks
import pytest
from etils import epath

from rest import report

_MODELS = os.environ.get('REST_MODELS', '')
_REAL = pathlib.Path(_MODELS).absolute() / 'smollm2-135m'


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


def test_a_model_from_a_folder_runs_to_a_picture(tmp_path):
  base = notebooks.ROOT / 'rest/model/assets/arithmetic-1m'
  # It was trained on questions and their solutions, and reads no examples.
  changes = {'REST_PROBLEMS': '24', 'REST_PROMPT': 'zero_shot'}
  _run_short_form(base, tmp_path, changes)


@pytest.mark.skipif(
  not _MODELS or not _REAL.is_dir(),
  reason='REST_MODELS names no folder that holds smollm2-135m',
)
def test_a_real_model_gets_better(tmp_path):
  base, *_, last = _run_short_form(_REAL, tmp_path, {})
  assert last.test['low'] > base.test['pass_1']


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


def _run_short_form(
  model: pathlib.Path, folder: pathlib.Path, changes: dict[str, str]
) -> list[report.Row]:
  """Runs the notebook of a real model, and returns what it came to.

  In a process of its own: there programs are compiled as for its readers.
  """
  pytest.importorskip('IPython')
  path = os.pathsep.join(map(str, (notebooks.ROOT, notebooks.ROOT / 'tests')))
  environment = {'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu'}
  environment |= {'REST_MODEL': str(model), **changes}
  program = "import notebooks; notebooks.run('rest_em_on_a_real_model')"
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=folder,
    env=os.environ | environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  workdir = epath.Path(folder / 'stories')
  rows = report.read(workdir)
  assert [row.iteration for row in rows] == [0, 1, 2]
  assert report.table(rows) in done.stdout
  for row in rows[1:]:
    dataset = workdir / f'iteration_{row.iteration}' / 'dataset.jsonl'
    kept = len(dataset.read_text().splitlines())
    assert kept == row.e_step['kept'] > 0
  assert (workdir / 'results.png').read_bytes().startswith(b'\x89PNG')
  # Three problems are shown, before the run and after it.
  assert len(re.findall(r'(?m)^\w.* \(It is \d+\.\)$', done.stdout)) == 6
  return rows
