"""One tiny sweep, stopped on the way: what its arms share, and what it says."""

import importlib
import io
import json
import pathlib
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest

from configs import ablations
from rest.config import make
from rest.experiment import sweep
from rest.run import store
from rest.run.dataset import read_dataset
from rest.run.lock import Lock
from rest.types import Preempted

ROOT = pathlib.Path(__file__).parents[2]
NAMES, RESULTS = (
  [
    path.stem
    for path in sorted((ROOT / f'configs/{folder}').glob('*.py'))
    if path.stem != '__init__'
  ]
  for folder in ('ablations', 'results')
)


def _tiny() -> Any:
  run = ablations.start('arithmetic')
  run.task.num_train = 12
  run.task.num_validation = run.task.num_test = 4
  run.em.iterations = 1
  run.estep.num_samples = 3
  run.eval.on_train = True
  run.sampling.max_tokens = 128
  # One table for all, so that little is compiled.
  run.sampling.rows = run.sampling.min_rows = 16
  run.sampling.rows_per_slot = 2
  source = {
    'iterations': 2,
    'source': 'samples_of',
    'samples_of': '{hints}/iteration_1',
    'start_from': 'previous_state',
  }
  config = ablations.compare(
    'tiny',
    'A tiny experiment',
    run,
    {
      'hints': {'estep': {'num_samples': 4, 'rationalize': True}},
      'few': {'task': {'num_train': 10}, 'estep': {'cap': 1}},
      'distilled': {'em': source, 'eval': {'on_train': False}},
    },
    transfers=True,
  )
  config.run.eval.suite_problems = 4
  config.seeds = (0,)
  return config


@dataclass(frozen=True, slots=True)
class Swept:
  """A finished sweep: where, what it printed until it was stopped, and then."""

  workdir: pathlib.Path
  before: str
  after: str


@pytest.fixture(scope='module')
def swept(tmp_path_factory) -> Swept:
  workdir = tmp_path_factory.mktemp('sweep')
  begun = workdir / 'few/seed_0/iteration_1/training'
  texts = []
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(ROOT)
    for should_stop in (begun.exists, lambda: False):
      with redirect_stdout(io.StringIO()) as text:
        try:
          sweep.run_arms(_tiny(), workdir, should_stop)
        except Preempted:
          assert begun.exists()
      texts.append(text.getvalue())
  return Swept(workdir, *texts)


def test_a_stopped_sweep_goes_on_with_the_arm_that_it_was_at(swept):
  assert 'tiny: hints' in swept.before
  assert 'tiny: few' in swept.before
  assert 'tiny: hints' not in swept.after
  assert 'tiny: few' in swept.after
  assert 'tiny: distilled' in swept.after
  for arm in ('hints', 'few', 'distilled'):
    assert (swept.workdir / arm / 'seed_0/finished.json').exists()


def test_the_first_samples_are_drawn_once(swept):
  rows = {}
  for arm, count in (('hints', 12), ('few', 10)):
    parts = store.Parts(swept.workdir / arm / 'seed_0/iteration_1/parts')
    rows[arm] = {part[0].problem_id: part for part in parts.read_all(count)}
  assert rows['few'] == {p: rows['hints'][p][:3] for p in rows['few']}
  # Three samples of ten problems, and 4 + 4 + 4 greedy ones.
  assert 'few/seed_0: 42 samples are those of hints.' in swept.before
  assert 'distilled/seed_0: 12 samples are those of hints.' in swept.after


def test_hints_are_for_unsolved_problems_and_tagged(swept):
  folder = swept.workdir / 'hints/seed_0/iteration_1'
  solved = {
    row.problem_id
    for rows in store.Parts(folder / 'parts').read_all(12)
    for row in rows
    if row.verdict.reward == 1.0
  }
  groups = store.Parts(folder / 'hinted').read_done()
  hinted = {rows[0].problem_id for rows in groups}
  assert solved.isdisjoint(hinted)
  assert len(solved) + len(hinted) == 12
  summary = json.loads((folder / 'e_step.json').read_text())
  dataset = [*read_dataset(folder / 'dataset.jsonl')]
  assert sum(row.hinted for row in dataset) == summary['hinted']
  for row in dataset:
    assert row.hinted == (row.problem_id not in solved)
    assert row.hinted == ('(The answer is ' in row.prompt)


def test_a_distilled_arm_keeps_its_own_choice_of_the_samples(swept):
  folder = swept.workdir / 'distilled/seed_0'
  theirs = store.Parts(swept.workdir / 'hints/seed_0/iteration_1/parts')
  drawn = {rows[0].problem_id: rows for rows in theirs.read_done()}
  kept = [*read_dataset(folder / 'iteration_1/dataset.jsonl')]
  assert kept
  for row in kept:
    sample = drawn[row.problem_id][row.sample]
    assert row.sample < 3
    assert sample.verdict.reward == 1.0
    assert sample.completion.text == row.text
    assert sample.completion.tokens == row.tokens  # The tokenizer is the same.
  assert not (folder / 'iteration_1/parts').exists()
  assert (folder / 'iteration_2/optimizer').exists()


def test_the_last_model_draws_training_samples_and_trains_on_none(swept):
  folder = swept.workdir / 'few/seed_0/iteration_2'
  assert json.loads((folder / 'e_step.json').read_text())['sampled'] == 30
  assert not (folder / 'm_step.json').exists()


def test_suites_are_measured_after_every_iteration(swept):
  for iteration in (0, 1):
    folder = swept.workdir / f'few/seed_0/iteration_{iteration}/suites'
    known = json.loads((folder / 'arithmetic-longer.json').read_text())
    assert known['problems'] == 4
    assert set(known['levels']) == {'6'}


def test_a_finished_sweep_prints_its_table_and_touches_no_run(
  swept, monkeypatch, capsys
):
  monkeypatch.chdir(ROOT)
  runs = {
    path: path.stat().st_mtime_ns
    for path in swept.workdir.glob('*/**/*')
    if path.is_file()
  }
  sweep.run_arms(_tiny(), swept.workdir)
  table = capsys.readouterr().out
  assert table in swept.after
  assert 'n = 4 problems (test), 4 problems (suites/arithmetic-longer)' in table
  assert runs == {path: path.stat().st_mtime_ns for path in runs}
  for name in ('sweep.png', 'sweep.svg', 'sweep.txt'):
    assert (swept.workdir / name).exists()


@pytest.mark.parametrize('base', ['arithmetic', 'math', 'apps'])
@pytest.mark.parametrize('name', NAMES)
def test_every_arm_is_a_config_that_the_rooms_take(name, base, tmp_path):
  module = importlib.import_module(f'configs.ablations.{name}')
  config = module.get_config(base)
  sweep.check(config, 'somewhere')
  assert config.name == name
  arms = list(sweep.arms(config, tmp_path))
  assert len(arms) == len(config.arms) * len(config.seeds)
  for folder, seed, changed in arms:
    assert folder.endswith(f'/seed_{seed}')
    assert changed.seed == seed
    assert '{' not in changed.em.samples_of + changed.task.solved_by
    make(changed.to_dict())


@pytest.mark.parametrize('name', RESULTS)
def test_every_result_is_a_config_that_the_rooms_take(name, tmp_path):
  config = importlib.import_module(f'configs.results.{name}').get_config()
  sweep.check(config, 'somewhere')
  assert config.name == f'results_{name}'
  for _, _, changed in sweep.arms(config, tmp_path):
    make(changed.to_dict())


def test_an_arm_that_another_process_has_is_left_to_it(tmp_path, capsys):
  config = _tiny()
  config.arms = ('few',)
  with Lock(tmp_path / 'few/seed_0'):
    sweep.run_arms(config, tmp_path)
  said = capsys.readouterr().out
  assert 'few/seed_0 is left out: ' in said and 'seed 0' in said
  assert [path.name for path in tmp_path.rglob('*.*')] == []


def test_a_sweep_refuses_what_it_cannot_run():
  config = _tiny()
  with pytest.raises(ValueError, match='local folder'):
    sweep.check(config, 'gs://bucket/sweep')
  config.axis = 'x'
  with pytest.raises(ValueError, match=r"axis must be one of .*'x'"):
    sweep.check(config, 'here')
  with pytest.raises(ValueError, match=r'experiment.*no arms, axis, changes'):
    sweep.check(config.run, 'here')
