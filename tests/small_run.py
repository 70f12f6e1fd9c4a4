"""A run on the embedded model as its files tell it, made without running."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from rest import main
from rest.model import checkpoint, sharding, weights
from rest.run import store
from rest.types import Completion, Graded, Task, Verdict

ROOT = pathlib.Path(__file__).parent.parent
BASE = str(ROOT / 'rest/model/assets/arithmetic-1m')


def write(workdir: pathlib.Path, **changes) -> pathlib.Path:
  """Writes a run of two iterations, of which the second is being trained.

  Args:
    workdir: Where.
    **changes: Fields of the config, as in `mstep__rows=8`.
  """
  config = importlib.import_module('configs.arithmetic').get_config()
  config.model.path = BASE
  config.task.num_train = config.task.num_test = 8
  config.em.iterations = 3
  config.sampling.max_tokens = 64
  for name, value in changes.items():
    section, field = name.split('__')
    config[section][field] = value
  run = main.prepare(config, epath.Path(workdir))
  with main.hold(run):
    pass
  task = run.world.task
  for iteration, right in enumerate((2, 6)):
    folder = workdir / f'iteration_{iteration}'
    for split in ('validation', 'test'):
      store.write_json(folder / f'{split}.json', _scores(task, split, right))
  _write_trained(workdir / 'iteration_1', task)
  (workdir / 'iteration_2/parts').mkdir(parents=True)
  return workdir


def model():
  """Returns the model of iteration 1: the base with noise on its weights."""
  mesh = sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1])
  base = weights.load(BASE, mesh, 'float32')
  draw = np.random.default_rng(0).normal
  return jax.tree.map(
    lambda leaf: leaf + 0.2 * leaf.std() * jnp.float32(draw(size=leaf.shape)),
    base,
  )


def _write_trained(folder: pathlib.Path, task: Task) -> None:
  problem = task.problems('test')[0]
  row = Graded(
    problem_id=problem.id,
    sample=0,
    prompt=task.question(problem),
    completion=Completion('4 * 6 = 24\n#### 24', (5, 2), (-1.0, -1.0), 'token'),
    verdict=Verdict(1.0, 'equal', 'math-1'),
  )
  store.Parts(folder / 'test/greedy').write(0, [row])
  checkpoint.save_model(folder / 'model', model())
  counts = {'problems': 8, 'sampled': 128, 'correct': 60, 'kept': 41}
  store.write_json(folder / 'e_step.json', counts | {'solved': 7})
  summary = {'steps': 9, 'chosen': 6, 'loss': 0.25, 'examples': 41}
  store.write_json(folder / 'm_step.json', summary)


def _scores(task: Task, split: str, right: int) -> dict[str, object]:
  problems = task.problems(split)[:8]
  return {
    'problems': 8,
    'unknown': 0,
    'pass_1': right / 8,
    'low': right / 16,
    'high': 0.9,
    'unfinished': 0.0,
    'mean_tokens': 20.0,
    'levels': {},
    'subjects': {},
    'pass_at_k': {'4': 0.875} if split == 'test' else {},
    'maj_at_k': 0.5 if split == 'test' else None,
    'scores': {p.id: float(i < right) for i, p in enumerate(problems)},
  }
