"""Finds and checks all that a config speaks of, before any work.

What can be wrong is found here: a file, a prompt that is too long, a mesh that
does not divide the model.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from etils import epath
from jax.sharding import AbstractMesh, Mesh

from rest import tasks
from rest.config import Config, MeshConfig, SamplerConfig
from rest.e_step import imported
from rest.e_step.draw import prompt_tokens
from rest.e_step.variants import hinted
from rest.model import hardware, sharding, tokenizer, weights
from rest.model.hardware import Device
from rest.model.transformer import ModelConfig
from rest.plan.world import World
from rest.sampler.capacity import find_device, size_tables
from rest.tasks import leaks, suites
from rest.tasks.suites import Suite
from rest.types import Problem, Task, Tokenizer
from rest.verify.answers import EXTRACT


def survey(config: Config, plan_for: str = '') -> World:
  """Returns what a config speaks of.

  Args:
    config: Checked in itself already.
    plan_for: Devices that need not be there, such as 'v5e-64'; '' for those
      that are.

  Raises:
    ValueError: A field, a file or a line of it is wrong; says which.
    FileNotFoundError: A path is not there.
  """
  task, dropped = _problems(config)
  tested = suites.make(
    task,
    config.eval.suites,
    config.eval.suite_folder,
    config.eval.suite_problems,
    config.model.path,
    config.task.system,
  )
  path = config.model.path
  if not epath.Path(path).exists():
    raise FileNotFoundError(
      f'model.path: there is no folder {path!r}. It must hold a Hugging Face '
      'checkpoint: config.json, *.safetensors and a tokenizer.'
    )
  try:
    model = weights.read_config(
      path, config.model.dtype, config.sampling.longest
    )
    if not plan_for:  # A plan needs no weights.
      weights.check(path, model)
  except (OSError, ValueError) as error:
    raise ValueError(f'model.path: {error}') from error
  codec = tokenizer.load(path, task.turn_end)
  _check_special(codec, model, path)
  prefix, questions, longest = _check_prompts(
    config, task, tested, codec, model
  )
  _check_rows(config, task, codec, model, prefix, questions)
  device, mesh, sampling_mesh = _devices(config.mesh, plan_for)
  _check_mesh(config, model, mesh)
  return World(
    task=task,
    leaks=dropped,
    suites=tested,
    tokenizer=codec,
    model=model,
    mesh=mesh,
    sampling_mesh=sampling_mesh,
    device=device,
    prefix=prefix,
    questions=questions,
    tables=size_tables(
      config.sampling,
      model,
      sampling_mesh,
      prefix,
      config.estep.num_samples,
      device,
      longest,
    ),
  )


def _problems(config: Config) -> tuple[Task, list[leaks.Leak]]:
  """Returns the task, without the training problems that leak, and these."""
  em, estep = config.em, config.estep
  found = tasks.for_model(config.task, config.model.path)
  votes = estep.weight == 'majority'
  if (votes or estep.rationalize) and found.verifier not in EXTRACT:
    field = "weight='majority'" if votes else 'rationalize'
    raise ValueError(
      f'estep.{field} needs problems with answers, but those of '
      f'{config.task.name} are judged by verifier {found.verifier!r}.'
    )
  dropped = leaks.find(found)
  task = leaks.Clean(found, dropped)
  size, train = em.problems_per_iteration, len(task.problems('train'))
  if not train:
    raise ValueError(
      f'{config.task.name}: no training problem is left: '
      f'{len(found.problems("train"))} were read, less those that validation '
      f'takes (task.num_validation={config.task.num_validation}) and that '
      f'task.solved_by={config.task.solved_by!r} leaves out, and '
      f'{len(dropped)} of them leak from other splits.'
    )
  if em.stop_on_validation and not task.problems('validation'):
    raise ValueError(
      'em.stop_on_validation needs validation problems, but '
      f'{config.task.name} has none: raise task.num_validation (now '
      f'{config.task.num_validation}).'
    )
  if size > train:
    raise ValueError(
      f'em.problems_per_iteration must be at most {train}, the training '
      f'problems there are; got {size}.'
    )
  if em.source == 'samples_of':
    _check_samples(em.samples_of, task)
  return task, dropped


def _check_samples(samples_of: str, task: Task) -> None:
  samples = epath.Path(samples_of)
  if samples.is_file():
    imported.read(samples_of, task.problems('train'))  # Says what is wrong.
  elif not (samples / 'parts').exists():
    raise FileNotFoundError(
      f'em.samples_of: there are no samples in {samples_of!r}; it must be the '
      'folder of an iteration, such as RUN/iteration_1, or a JSONL file.'
    )


def _devices(
  config: MeshConfig, plan_for: str
) -> tuple[Device, Mesh | AbstractMesh, Mesh | AbstractMesh]:
  """Returns the kind of device, the mesh of all, and what samples together."""
  if not plan_for:
    device, mesh = find_device(), sharding.make_mesh(config)
    return device, mesh, sharding.sampling_mesh(mesh, device)
  device, count = hardware.parse(plan_for)
  return device, *sharding.plan_meshes(config, count, device)


def _check_special(codec: Tokenizer, model: ModelConfig, path: str) -> None:
  """Refuses special tokens that the model has no embedding for."""
  for name, ids in (
    ('end tokens', codec.eos),
    ('begin token', [] if codec.bos is None else [codec.bos]),
    ('padding token', [codec.pad]),
  ):
    what = f'model.path: {name} of {path}'
    tokenizer.check_ids(ids, model.vocab, what)


def _check_prompts(
  config: Config,
  task: Task,
  tested: Sequence[Suite],
  codec: Tokenizer,
  model: ModelConfig,
) -> tuple[int, dict[str, list[int]], int]:
  """Returns tokens of the prefix and, by split, of each question.

  Returns:
    These, and the tokens of the longest question, suites and hints included.

  Raises:
    ValueError: A prompt is too long, or not of the model's vocabulary.
  """
  prefix, lengths = 0, {}
  sampling = config.sampling
  for split in tasks.SPLITS:
    problems = task.problems(split)
    shared, lengths[split] = _count(
      task, problems, split, codec, model, sampling
    )
    prefix = max(prefix, shared)
  others: list[tuple[Task, Sequence[Problem], str]] = []
  if config.estep.rationalize:
    asked = [hinted(problem) for problem in task.problems('train')]
    others.append((task, asked, 'train, with the answer'))
  others += [(suite.task, suite.problems, suite.label) for suite in tested]
  found = [_count(*other, codec, model, sampling)[1] for other in others]
  everything = itertools.chain(*lengths.values(), *found)
  return prefix, lengths, max(everything, default=0)


def _count(
  task: Task,
  problems: Sequence[Problem],
  name: str,
  codec: Tokenizer,
  model: ModelConfig,
  sampling: SamplerConfig,
) -> tuple[int, list[int]]:
  """Returns tokens of the prefix and of each question; refuses what is long."""
  prefix, lengths = 0, []
  limit, most = sampling.max_prompt_tokens, sampling.max_tokens
  for problem in problems:
    shared, question = prompt_tokens(task, codec, problem)
    prefix, total = len(shared), len(shared) + len(question)
    lengths.append(len(question))
    what = f'The prompt of problem {problem.id!r} ({name})'
    tokenizer.check_ids([*shared, *question], model.vocab, what)
    if total > limit:
      raise ValueError(
        f'{what} has {total} tokens, but sampling.max_prompt_tokens is '
        f'{limit}: raise it, or drop the problem.'
      )
    if total + most > model.context:
      raise ValueError(
        f'{what} has {total} tokens, and {total + most} with a completion of '
        f'sampling.max_tokens={most}, but the model was made for '
        f'{model.context} (max_position_embeddings in config.json): '
        'lower sampling.max_tokens, or drop the problem.'
      )
  return prefix, lengths


def _check_rows(
  config: Config,
  task: Task,
  codec: Tokenizer,
  model: ModelConfig,
  prefix: int,
  questions: Mapping[str, Sequence[int]],
) -> None:
  """Refuses a row of training that is too short, before anything is drawn.

  What a model will write is not known: its solutions count like those of
  people or, where there are none, as one token and an end.
  """
  em, limit = config.em, config.mstep.row_length
  if em.train_prompt == 'zero_shot':
    prefix = 0 if codec.bos is None else 1

  def lengths(split: str, only_human: bool) -> Iterator[tuple[int, str]]:
    """Yields (positions in a row of training, problem) of a split."""
    problems = task.problems(split)
    for problem, question in zip(problems, questions[split], strict=True):
      completion = 2
      if problem.solution is not None:
        ids = codec.encode(task.target(problem), follows=True)
        what = f'The solution of problem {problem.id!r} ({split})'
        tokenizer.check_ids(ids, model.vocab, what)
        completion = len(ids) + 1
      elif only_human:
        continue
      yield prefix + question + completion - 1, problem.id

  human = em.source == 'human'
  if not any(length <= limit for length, _ in lengths('train', human)):
    length, problem = min(lengths('train', human), default=(0, ''))
    if not problem:
      raise ValueError(
        "em.source='human' needs human solutions, but no training problem of "
        f'{task.name} has one.'
      )
    raise ValueError(
      f'mstep.row_length={limit} is too short for every training problem: '
      f'the shortest, {problem!r}, takes {length} positions with its prompt '
      'and a solution. Raise it.'
    )
  if em.validation == 'loss' and questions['validation']:
    length, problem = max(lengths('validation', True), default=(0, ''))
    if not 0 < length <= limit:
      raise ValueError(
        "em.validation='loss' needs human solutions of validation problems "
        f'that fit into mstep.row_length={limit}; '
        + (f'{problem!r} takes {length} positions.' if length else 'none.')
      )


def _check_mesh(
  config: Config, model: ModelConfig, mesh: Mesh | AbstractMesh
) -> None:
  """Refuses a mesh that does not divide what it splits."""
  size = dict(mesh.shape)
  for field, parts, what, whole in (
    ('tensor', size['tensor'], 'key/value heads', model.kv_heads),
    ('tensor', size['tensor'], 'feed-forward width', model.ffn),
    ('tensor', size['tensor'], 'vocabulary', model.vocab),
    ('fsdp', size['fsdp'], 'model width', model.width),
  ):
    if whole % parts:
      raise ValueError(
        f'mesh.{field}={parts} must divide the {what} ({whole}).'
      )
