"""Arms are compared on the same problems; validation chooses, test reports."""

import pathlib

import pytest

from rest.experiment import compare
from rest.run import store


def _iteration(
  workdir: pathlib.Path,
  iteration: int,
  test: list[float],
  validation: float = 0.0,
  halves: dict[str, tuple[float, float]] | None = None,
) -> None:
  """Writes what a run leaves of an iteration."""
  folder = workdir / f'iteration_{iteration}'
  scores = {f'p{i}': score for i, score in enumerate(test)}
  known = {'scores': scores, 'halves': halves or {}}
  store.write_json(folder / 'test.json', known)
  store.write_json(folder / 'validation.json', {'pass_1': validation})
  store.write_json(folder / 'm_step.json', {'examples': 10 * iteration})


@pytest.fixture
def experiment(tmp_path) -> compare.Experiment:
  """Two arms, two seeds; the second arm is worse on test, by validation."""
  arms = {}
  for arm in ('one', 'two'):
    arms[arm] = [tmp_path / arm / str(seed) for seed in range(2)]
    for workdir in arms[arm]:
      _iteration(workdir, 0, [0.0, 0.0, 0.0, 1.0])
      _iteration(workdir, 1, [1.0, 0.0, 0.0, 1.0], 0.5)
      _iteration(workdir, 2, [1.0, 1.0, 1.0, 1.0], 0.9 if arm == 'one' else 0.2)
  return compare.Experiment('Title', arms, 'arm', ('test',))


def test_validation_chooses_the_iteration_even_where_test_is_lower(experiment):
  panels = compare.read(experiment)
  one, two = panels['test']
  assert [p.notes for p in (one, two)] == [
    'iteration 2/2, 20/20 examples',
    'iteration 1/1, 10/10 examples',
  ]
  lines = compare.table(experiment, panels).splitlines()
  assert 'n = 4 problems (test), 2 seeds' in lines[0]
  assert '100.0 [100.0, 100.0]' in lines[3]
  assert '+75.0 [' in lines[3]
  assert '-50.0 [' in lines[4]


def test_an_interval_of_seeds_that_agree_on_all_problems_is_a_point(experiment):
  by_iteration = compare.Experiment(
    'Title', experiment.arms, 'iteration', ('test',)
  )
  panels = compare.read(by_iteration)
  assert [(p.series, p.x) for p in panels['test']] == [
    (arm, str(i)) for arm in ('one', 'two') for i in range(3)
  ]
  last = compare.table(by_iteration, panels).splitlines()[-1]
  assert last.endswith('+0.0 [+0.0, +0.0]')  # Over the first arm.


@pytest.mark.parametrize('axis', ['iteration', 'arm'])
def test_figures_are_the_same_bytes_every_time(experiment, axis):
  shown = compare.Experiment('T', experiment.arms, axis, ('test',))
  panels = compare.read(shown)
  assert compare.picture(shown, panels, 'png').startswith(b'\x89PNG')
  svg = compare.picture(shown, panels, 'svg')
  assert b'n = 4 problems' in svg
  assert svg == compare.picture(shown, compare.read(shown), 'svg')


def test_problems_are_sorted_by_one_half_and_measured_on_the_other(tmp_path):
  before = {'easy': (1.0, 0.5), 'hard': (0.1, 0.3), 'lucky': (0.24, 0.25)}
  after = {'easy': (0.0, 1.0), 'hard': (0.0, 0.7), 'lucky': (1.0, 0.5)}
  _iteration(tmp_path, 0, [0.0], halves=before)
  _iteration(tmp_path, 1, [1.0], halves=after)
  shown = compare.Experiment('T', {'a': [tmp_path]}, 'difficulty', ('test',))
  panels = compare.read(shown)
  base, tuned = (
    {p.x: p.scores[0] for p in panels['test'] if p.series == name}
    for name in ('a: base', 'a')
  )
  assert base == {
    '< 25 % (2)': {'hard': 0.3, 'lucky': 0.25},
    '>= 75 % (1)': {'easy': 0.5},
  }
  assert tuned == {
    '< 25 % (2)': {'hard': 0.7, 'lucky': 0.5},
    '>= 75 % (1)': {'easy': 1.0},
  }
  assert 'n = 3 problems' in compare.caption(shown, panels)


def test_seeds_sort_a_problem_together_and_none_is_left_out(tmp_path):
  workdirs = [tmp_path / str(seed) for seed in range(2)]
  for workdir, first in zip(workdirs, (0.2, 0.4), strict=True):
    halves = {'a': (first, 0.5), 'b': (1 - first, 0.5)}
    _iteration(workdir, 0, [0.0], halves=halves)
    _iteration(workdir, 1, [1.0], halves=halves)
  shown = compare.Experiment('T', {'a': workdirs}, 'difficulty', ('test',))
  places = {p.x: set(p.scores[0]) for p in compare.read(shown)['test']}
  assert places == {'25-50 % (1)': {'a'}, '50-75 % (1)': {'b'}}
