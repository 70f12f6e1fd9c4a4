"""A config, checked, and the record that a run keeps of it."""

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from etils import epath

import rest
from rest import tasks
from rest.config import make
from rest.e_step.draw import hinted, prompt_tokens
from rest.model import hardware, sharding, tokenizer, weights
from rest.plan import outline
from rest.run import store
from rest.sampler.plan import find_device, make_plan
from rest.tasks import leaks, suites
from rest.types import Problem, Task, Tokenizer
from rest.verify.answers import EXTRACT


class Setup:
  """A config, checked: everything that can be wrong is found here.

  Raises:
    ValueError: A field, a file or a line of it is wrong; says which.
    FileNotFoundError: A path is not there.
  """

  def __init__(self, config: Any, plan_for: str = ''):
    """Checks a config for the devices here, or for those of `plan_for`."""
    self.config = config
    checked = make(config.to_dict())
    if config.compilation_cache:
      jax.config.update('jax_compilation_cache_dir', config.compilation_cache)
      jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    self.seed = config.seed
    self.base, self.dtype = config.model.path, config.model.dtype
    self.sampling, self.verify = checked.sampling, checked.verify
    self.em, self.estep, self.mstep = checked.em, checked.estep, checked.mstep
    self.eval, self.logging = checked.eval, checked.logging
    task = tasks.make(checked.task)
    self._check_fields(task.verifier)
    self.leaks = leaks.find(task)
    self.task: Task = leaks.Clean(task, self.leaks)
    self.suites = suites.make(
      self.task,
      self.eval.suites,
      self.eval.suite_folder,
      self.eval.suite_problems,
    )
    if not epath.Path(self.base).exists():
      raise FileNotFoundError(
        f'model.path: there is no folder {self.base!r}. It must hold a Hugging '
        'Face checkpoint: config.json, *.safetensors and a tokenizer.'
      )
    self.tokenizer: Tokenizer = tokenizer.load(self.base)
    self.model = weights.read_config(self.base, self.dtype)
    self._check_special()
    prefix, questions = self._check_prompts()
    self._check_rows(prefix, questions)
    if plan_for:
      device, count = hardware.parse(plan_for)
      self.mesh, local_mesh = sharding.plan_meshes(
        checked.mesh, count, device.a_host
      )
    else:
      device = find_device()
      self.mesh = sharding.make_mesh(checked.mesh)
      local_mesh = sharding.local_mesh(self.mesh)
    self._check_mesh()
    size, train = self.em.problems_per_iteration, len(questions['train'])
    if size > train:
      raise ValueError(
        f'em.problems_per_iteration must be at most {train}, the training '
        f'problems there are; got {size}.'
      )
    self.outline = outline.Outline(
      base=self.base,
      leaks=len(self.leaks),
      task=self.task,
      tokenizer=self.tokenizer,
      model=self.model,
      mesh=self.mesh,
      local_mesh=local_mesh,
      device=device,
      prefix=prefix,
      questions=questions,
      table=make_plan(
        self.sampling,
        self.model,
        local_mesh,
        prefix,
        self.estep.num_samples,
        device,
      ),
      em=self.em,
      estep=self.estep,
      sampling=self.sampling,
      mstep=self.mstep,
      eval=self.eval,
      suites=self.suites,
    )
    outline.check(self.outline)

  def _check_fields(self, verifier: str) -> None:
    """Refuses what a config alone does not show."""
    parts = epath.Path(self.em.samples_of) / 'parts'
    if self.em.source == 'samples_of' and not parts.exists():
      raise FileNotFoundError(
        f'em.samples_of: there are no samples in {self.em.samples_of!r}; it '
        'must be the folder of an iteration, such as RUN/iteration_1.'
      )
    votes = self.estep.weight == 'majority'
    if (votes or self.estep.rationalize) and verifier not in EXTRACT:
      field = "weight='majority'" if votes else 'rationalize'
      raise ValueError(
        f'estep.{field} needs problems with answers, but those of '
        f'{self.config.task.name} are judged by verifier {verifier!r}.'
      )

  def _check_mesh(self) -> None:
    """Refuses a mesh that does not divide what it splits."""
    size = dict(self.mesh.shape)
    rows = size['data'] * size['fsdp'] * self.mstep.accumulate
    for field, parts, what, whole in (
      ('tensor', size['tensor'], 'key/value heads', self.model.kv_heads),
      ('tensor', size['tensor'], 'feed-forward width', self.model.ffn),
      ('tensor', size['tensor'], 'vocabulary', self.model.vocab),
      ('fsdp', size['fsdp'], 'model width', self.model.width),
      ('data x mesh.fsdp x mstep.accumulate', rows, 'rows', self.mstep.rows),
    ):
      if whole % parts:
        raise ValueError(
          f'mesh.{field}={parts} must divide the {what} ({whole}).'
        )

  def _check_special(self) -> None:
    """Refuses special tokens that the model has no embedding for."""
    found = self.tokenizer
    for name, ids in (
      ('end tokens', found.eos),
      ('begin token', [] if found.bos is None else [found.bos]),
      ('padding token', [found.pad]),
    ):
      what = f'model.path: {name} of {self.base}'
      tokenizer.check_ids(ids, self.model.vocab, what)

  def _check_prompts(self) -> tuple[int, dict[str, list[int]]]:
    """Returns tokens of the prefix and, by split, of each question.

    Raises:
      ValueError: A prompt is too long, or not of the model's vocabulary.
    """
    prefix, lengths = 0, {}
    for split in tasks.SPLITS:
      problems = self.task.problems(split)
      shared, lengths[split] = self._count(self.task, problems, split)
      prefix = max(prefix, shared)
    if self.estep.rationalize:
      asked = [hinted(problem) for problem in self.task.problems('train')]
      self._count(self.task, asked, 'train, with the answer')
    for suite in self.suites:
      self._count(suite.task, suite.problems, suite.label)
    return prefix, lengths

  def _count(
    self, task: Task, problems: Sequence[Problem], name: str
  ) -> tuple[int, list[int]]:
    prefix, lengths = 0, []
    limit, most = self.sampling.max_prompt_tokens, self.sampling.max_tokens
    for problem in problems:
      shared, question = prompt_tokens(task, self.tokenizer, problem)
      prefix, total = len(shared), len(shared) + len(question)
      lengths.append(len(question))
      what = f'The prompt of problem {problem.id!r} ({name})'
      tokenizer.check_ids([*shared, *question], self.model.vocab, what)
      if total > limit:
        raise ValueError(
          f'{what} has {total} tokens, but sampling.max_prompt_tokens is '
          f'{limit}: raise it, or drop the problem.'
        )
      if total + most > self.model.context:
        raise ValueError(
          f'{what} has {total} tokens, and {total + most} with a completion of '
          f'sampling.max_tokens={most}, but the model was made for '
          f'{self.model.context} (max_position_embeddings in config.json): '
          'lower sampling.max_tokens, or drop the problem.'
        )
    return prefix, lengths

  def _check_rows(self, prefix: int, questions: dict[str, list[int]]) -> None:
    """Refuses a row of training that is too short, before anything is drawn.

    What a model will write is not known: its solutions count like those of
    people or, where there are none, as one token and an end.
    """
    em, limit = self.em, self.mstep.row_length
    if em.train_prompt == 'zero_shot':
      prefix = 0 if self.tokenizer.bos is None else 1
    human = em.source == 'human'
    shortest = self._human_lengths('train', prefix, questions, human)
    found = next((n for n, _ in shortest if n <= limit), 0)
    if not found:
      shortest = self._human_lengths('train', prefix, questions, human)
      length, problem = min(shortest, default=(0, ''))
      if not problem:
        raise ValueError(
          "em.source='human' needs human solutions, but no training problem of "
          f'{self.task.name} has one.'
        )
      raise ValueError(
        f'mstep.row_length={limit} is too short for every training problem: '
        f'the shortest, {problem!r}, takes {length} positions with its prompt '
        'and a solution. Raise it.'
      )
    if em.validation == 'loss' and questions['validation']:
      longest = self._human_lengths('validation', prefix, questions, True)
      length, problem = max(longest, default=(0, ''))
      if not 0 < length <= limit:
        raise ValueError(
          "em.validation='loss' needs human solutions of validation problems "
          f'that fit into mstep.row_length={limit}; '
          + (f'{problem!r} takes {length} positions.' if length else 'none.')
        )

  def _human_lengths(
    self,
    split: str,
    prefix: int,
    questions: dict[str, list[int]],
    only_human: bool,
  ) -> Iterator[tuple[int, str]]:
    """Yields (positions in a row of training, problem) of a split's problems.

    Raises:
      ValueError: A human solution is not of the model's vocabulary.
    """
    problems = self.task.problems(split)
    for problem, question in zip(problems, questions[split], strict=True):
      completion = 2
      if problem.solution is not None:
        text = self.task.target(problem)
        ids = self.tokenizer.encode(text, follows=True)
        what = f'The solution of problem {problem.id!r} ({split})'
        tokenizer.check_ids(ids, self.model.vocab, what)
        completion = len(ids) + 1
      elif only_human:
        continue
      yield prefix + question + completion - 1, problem.id


def record(setup: Setup) -> dict[str, Any]:
  """Returns what a run is, for run.json."""
  fields = {
    'config': flat(setup.config.to_dict()),
    'data': tasks.digest(setup.task),
    'base': store.hash_files(setup.base),
    'versions': _versions(),
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'prefix': setup.task.prefix,
    'leaks': [dataclasses.asdict(leak) for leak in setup.leaks],
    'suites': {
      suite.label: {
        'data': store.hash_problems(suite.problems),
        'leaks': [dataclasses.asdict(leak) for leak in suite.leaks],
      }
      for suite in setup.suites
    },
  }
  return json.loads(json.dumps(fields))  # Tuples become lists, as on disk.


def flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns a config's fields by their full names."""
  fields: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      fields |= flat(value, f'{prefix}{name}.')
    else:
      fields[prefix + name] = value
  return fields


def _versions() -> dict[str, str]:
  names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')
  names += ('numpy', 'math-verify', 'sympy', 'sentencepiece', 'tokenizers')
  versions = {name: importlib.metadata.version(name) for name in names}
  return {
    'rest': rest.__version__,
    'python': platform.python_version(),
    **versions,
  }
