"""What a run survives: the faults that matter; bench/faults.py tries all."""

import pathlib
import re
from collections.abc import Iterator

import pytest
from matplotlib.figure import Figure

from bench import faults

SURVIVED = [
  ('half', 'part', 'cut in a line'),
  ('half', 'part', 'a bit flipped'),
  ('finished', 'dataset', 'a bit flipped'),
  ('finished', 'test', 'cut in a line'),
  ('finished', 'seconds', 'foreign'),
  ('more', 'last model', 'absent'),
  ('more', 'last weights', 'a bit flipped'),
]


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> Iterator[pathlib.Path]:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Figure, 'savefig', Figure.savefig)  # Put back at the end.
    faults.draw_no_pixels()
    folder = tmp_path_factory.mktemp('faults')
    faults.make(folder)
    yield folder


@pytest.mark.parametrize(('scene', 'name', 'fault'), SURVIVED)
def test_a_damaged_run_comes_to_the_same_bytes(runs, scene, name, fault):
  assert faults.trial(runs, scene, faults.FILES[name], fault) == 'same'


@pytest.mark.parametrize('fault', ['absent', 'cut in a line', 'a bit flipped'])
def test_a_lost_record_is_one_line(runs, fault):
  for scene in ('finished', 'half'):
    assert faults.trial(runs, scene, 'run.json', fault) == 'one line'


@pytest.mark.parametrize(
  'name', ['run.json', 'test', 'dataset', 'part', 'metrics']
)
def test_a_report_of_a_damaged_run_has_no_traceback(runs, name):
  ends = [
    faults.trial_of_report(runs, faults.FILES[name], fault)
    for fault in ('absent', 'NUL', 'foreign', 'a folder')
  ]
  assert set(ends) <= {'same', 'one line'}


def test_all_files_of_a_run_are_in_the_table(runs):
  known = {_kind(pathlib.PurePath(file)) for file in faults.FILES.values()}
  for path in (runs / 'finished').rglob('*'):
    name = path.relative_to(runs / 'finished')
    if path.is_file() and 'model' not in name.parts:
      assert _kind(name) in known, name


def _kind(path: pathlib.PurePath) -> str:
  """Returns what a file is, whichever iteration, problem and split it is of."""
  text = re.sub(r'iteration_\d+/|events\..*|\d', '', str(path))
  return text.replace('validation/', 'test/')
