"""What an M-step trains on, and which model it starts from."""

import dataclasses
import importlib
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath

from rest import em, main
from rest.config import MeshConfig
from rest.e_step.draw import Tools
from rest.m_step.examples import training_examples
from rest.m_step.packing import Example
from rest.model import checkpoint, sharding, weights
from rest.plan.world import Run, World
from rest.run import store
from rest.run.dataset import read_dataset, to_lines
from rest.run.opened import iteration_folder
from rest.run.spool import spool
from rest.sampler import Sampler
from rest.types import Kept, Problem

ROOT = pathlib.Path(__file__).parent.parent
NOBODY: Any = None  # Nothing is judged.
BASE = str(ROOT / 'rest/model/assets/arithmetic-1m')


def make_run(workdir: epath.Path, **fields: Any) -> tuple[Run, Tools]:
  """Returns a run of three problems, with two iterations' datasets on disk."""
  config = importlib.import_module('configs.arithmetic').get_config()
  config.update_from_flattened_dict(
    {
      'model.path': str(ROOT / config.model.path),
      'task.num_train': 3,
      'task.num_validation': 0,
      'task.num_test': 3,
      'mstep.max_steps': 1,
      'mstep.learning_rate': 0.0,  # What it starts from is what it ends with.
      'mstep.stop': 'fixed_steps',
      **{f'em.{name}': value for name, value in fields.items()},
    }
  )
  run = main.prepare(config, workdir)
  world = run.world
  mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
  world = dataclasses.replace(world, mesh=mesh, sampling_mesh=mesh)
  sampler = Sampler(
    world.model, world.tokenizer, run.config.sampling, mesh, seed=0
  )
  tools = Tools(
    sampler,
    mesh,
    NOBODY,
    world.task,
    world.tokenizer,
    lambda: False,
  )
  problems = world.task.problems('train')
  for iteration, texts in ((1, {0: 'ab', 1: 'c'}), (2, {0: 'ax', 2: 'd'})):
    rows = [
      _kept(problems[index], sample, text, world)
      for index, letters in texts.items()
      for sample, text in enumerate(letters)
    ]
    folder = iteration_folder(workdir, iteration)
    path = folder / 'dataset.jsonl'
    store.write_whole(path, to_lines(rows, world.tokenizer, path))
  return dataclasses.replace(run, world=world), tools


def _kept(problem: Problem, sample: int, text: str, world: World) -> Kept:
  codec = world.tokenizer
  tokens = (*codec.encode(text, follows=True), codec.eos[0])
  return Kept(problem.id, sample, world.task.question(problem), text, tokens)


def _examples(run: Run, row_length: int = 0) -> list[Example]:
  """Returns what iteration 2 trains on."""
  with spool(run.workdir) as disk:
    return [
      *training_examples(
        disk,
        run.workdir,
        run.world.task,
        run.world.tokenizer,
        run.config.em,
        row_length or run.config.mstep.row_length,
        2,
        print,
      )
    ]


@pytest.mark.parametrize(
  ('fields', 'expected'),
  [
    ({}, [1.0, 1.0, 1.0]),
    ({'problem_weight': 'uniform'}, [0.5, 0.5, 1.0]),
    # 'a' was drawn by both iterations, and counts once.
    ({'accumulate': True}, [1.0] * 5),
    (
      {'accumulate': True, 'problem_weight': 'uniform'},
      [1 / 3, 1 / 3, 1.0, 1 / 3, 1.0],
    ),
    ({'include_human': True}, [1.0] * 6),
    ({'source': 'human'}, [1.0] * 3),
  ],
)
def test_examples_are_those_of_the_config_with_its_weights(
  tmp_path, fields, expected
):
  run, _ = make_run(epath.Path(tmp_path), **fields)
  examples = _examples(run)
  assert [example.weight for example in examples] == pytest.approx(expected)


def test_solutions_longer_than_a_training_row_are_left_out(tmp_path, capsys):
  run, _ = make_run(epath.Path(tmp_path), problem_weight='uniform')
  lengths = [example.length for example in _examples(run)]
  assert capsys.readouterr().out == ''
  limit = max(lengths) - 1
  examples = _examples(run, limit)
  assert [e.length for e in examples] == [n for n in lengths if n <= limit]
  left_out = len(lengths) - len(examples)
  assert f'{left_out} of 3 solutions are left out' in capsys.readouterr().out
  with pytest.raises(ValueError, match=rf'None of 3 .*takes {min(lengths)} '):
    _examples(run, min(lengths) - 1)
  assert sum(e.weight for e in examples) in (1.0, 2.0)  # One a problem.


def test_a_solution_to_another_question_is_not_trained_on(tmp_path):
  run, _ = make_run(epath.Path(tmp_path))
  path = iteration_folder(run.workdir, 2) / 'dataset.jsonl'
  rows = [*read_dataset(path)]
  changed = dataclasses.replace(rows[1], prompt=f'Now: {rows[1].prompt}')
  path.write_text(to_lines([rows[0], changed], run.world.tokenizer, path))
  with pytest.raises(ValueError, match=rf'{changed.problem_id}.*has changed'):
    _examples(run)
  hinted = dataclasses.replace(changed, hinted=True)  # Asked with the answer.
  path.write_text(to_lines([rows[0], hinted], run.world.tokenizer, path))
  assert len(_examples(run)) == 2


@pytest.mark.parametrize('start', ['base', 'previous'])
def test_an_m_step_starts_from_the_base_unless_told_otherwise(tmp_path, start):
  run, tools = make_run(epath.Path(tmp_path), start_from=start)
  base = weights.load(BASE, run.world.mesh, 'float32')
  changed = jax.tree.map(lambda x: x + 1, base)
  first, second = (iteration_folder(run.workdir, i) for i in (1, 2))
  checkpoint.save_model(first / 'model', changed)
  em.improve(run, em.make_policy(run, tools), 2)
  config = weights.read_config(BASE, 'float32')
  trained = checkpoint.load_model(second / 'model', config, run.world.mesh)
  expected = base if start == 'base' else changed
  jax.tree.map(np.testing.assert_array_equal, trained, expected)
  assert (second / 'm_step.json').exists()
