"""ReST-EM, Algorithm 1 of the paper: generate, improve, repeat.

Every phase of every iteration ends in files that appear only when whole; a run
that was killed finds them and goes on with the first phase that has none.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from rest import checkpoint, processes, report, store
from rest.e_step import Tools, e_step, keep_drawn, prompt_tokens
from rest.evaluate import EvaluateConfig, accuracy, evaluate
from rest.export import export_model
from rest.keep import EStepConfig
from rest.m_step import fine_tune
from rest.model import Transformer
from rest.packing import Example
from rest.recipe import MStepConfig
from rest.runs import iteration_folder, load_model, open_run
from rest.sharding import local_copy
from rest.tally import describe
from rest.tasks.suites import Suite
from rest.types import Problem
from rest.update import held_out_loss


@dataclass(frozen=True, slots=True)
class EMConfig:
  """The outer loop.

  Attributes:
    iterations: Most iterations, I.
    stop_on_validation: Whether to stop once an iteration does not raise
      validation accuracy.
    source: 'model' trains on verified samples; 'human' on the problem set's own
      solutions (the SFT baseline: no E-step); 'samples_of' on samples that
      another run has drawn (distillation), of which this one keeps its choice.
    samples_of: Folder of the iteration of that run.
    problems_per_iteration: Training problems that an iteration asks, the next
      ones of a random order; 0 is all of them.
    start_from: Where each M-step starts: 'base', or the model before:
      'previous', with the state of its optimizer 'previous_state'.
    accumulate: Whether to train on the datasets of all iterations so far.
    include_human: Whether to train on human solutions too.
    problem_weight: 'count': each kept solution weighs the same; 'uniform': each
      solved problem does.
    train_prompt: 'same' as for sampling, or 'zero_shot': the question alone.
    validation: What the M-step stops on: 'accuracy' (greedy, on validation
      problems) or 'loss' (on their human solutions).
    export: Whether each iteration's model is also written as a Hugging Face
      directory.
  """

  iterations: int = 3
  stop_on_validation: bool = False
  source: str = 'model'
  samples_of: str = ''
  problems_per_iteration: int = 0
  start_from: str = 'base'
  accumulate: bool = False
  include_human: bool = False
  problem_weight: str = 'count'
  train_prompt: str = 'same'
  validation: str = 'accuracy'
  export: bool = False

  def __post_init__(self):
    allowed = {
      'source': ('model', 'human', 'samples_of'),
      'start_from': ('base', 'previous', 'previous_state'),
      'problem_weight': ('count', 'uniform'),
      'train_prompt': ('same', 'zero_shot'),
      'validation': ('accuracy', 'loss'),
    }
    for name, values in allowed.items():
      if getattr(self, name) not in values:
        raise ValueError(
          f'em.{name} must be one of {values}, got {getattr(self, name)!r}.'
        )
    if self.iterations < 1:
      raise ValueError(f'em.iterations must be 1 or more: {self.iterations}.')
    if (self.source == 'samples_of') != bool(self.samples_of):
      raise ValueError(
        "em.samples_of must name a folder where em.source is 'samples_of', and "
        f'nowhere else; got {self.samples_of!r} and {self.source!r}.'
      )
    if self.problems_per_iteration < 0:
      raise ValueError(
        'em.problems_per_iteration must be 0 or more: '
        f'{self.problems_per_iteration}.'
      )


@dataclass(frozen=True, slots=True)
class Run:
  """Everything that the loop works with.

  Attributes:
    workdir: Where all files go.
    tools: For drawing and judging.
    mesh: Where arrays live.
    base: Directory of the base model, in Hugging Face format.
    dtype: Of matrix products.
    seed: Of the M-step's order.
    max_unknown: Share of unknown verdicts above which the E-step fails.
    em: The outer loop.
    estep: What is drawn and kept.
    mstep: How it is trained on.
    eval: What is measured.
    suites: What it is measured on beside the task's own problems.
  """

  workdir: epath.Path
  tools: Tools
  mesh: Mesh
  base: str
  dtype: str
  seed: int
  max_unknown: float
  em: EMConfig
  estep: EStepConfig
  mstep: MStepConfig
  eval: EvaluateConfig
  suites: tuple[Suite, ...]


def run_em(run: Run) -> None:
  """Runs all iterations that are not on disk yet, and reports.

  Raises:
    Preempted: The run was asked to stop; started again, it goes on.
  """
  policy = Policy(run)
  if processes.is_first():
    _write_problems(run)
  measure(run, policy, 0)
  iteration = 0
  for iteration in range(1, run.em.iterations + 1):
    if run.em.source == 'samples_of':
      choose_from(run, iteration)
    elif run.em.source == 'model' or run.eval.on_train:
      generate(run, policy, iteration)
    improve(run, policy, iteration)
    measure(run, policy, iteration)
    if run.em.export:
      export(run, policy, iteration)
    if processes.is_first():
      report.write(run.workdir)
    if run.em.stop_on_validation and not _improved(run, iteration):
      break
  if run.eval.on_train:
    generate(run, policy, iteration + 1)
  if processes.is_first():
    asked = {'asked': run.em.iterations}
    store.write_json(run.workdir / 'finished.json', asked)


def generate(run: Run, policy: 'Policy', iteration: int) -> None:
  """The E-step: the dataset of an iteration, drawn by the one before."""
  folder = iteration_folder(run.workdir, iteration)
  if processes.first_says((folder / 'dataset.jsonl').exists()):
    return
  policy.use(iteration - 1)
  problems = asked(run, iteration)
  run.tools.live.journal.say(
    f'iteration {iteration}: sampling {run.estep.num_samples} solutions to '
    f'each of {len(problems):,} problems from {_name(iteration - 1)}'
  )
  with _phase(run, 'sample', iteration) as values:
    timing = e_step(
      run.tools, problems, run.estep, folder, iteration, run.max_unknown
    )
    values['waiting'] = timing.waiting
  if processes.is_first():
    _add_seconds(folder, sample=timing.total, waiting=timing.waiting)


def choose_from(run: Run, iteration: int) -> None:
  """The E-step, but for drawing: another run's samples, this run's choice."""
  folder = iteration_folder(run.workdir, iteration)
  if processes.is_first() and not (folder / 'dataset.jsonl').exists():
    parts = store.Parts(epath.Path(run.em.samples_of) / 'parts')
    problems, tokenizer = asked(run, iteration), run.tools.tokenizer
    summary = keep_drawn(
      problems, parts, tokenizer, run.estep, folder, run.max_unknown
    )
    run.tools.live.journal.say(
      f'iteration {iteration}: of the samples in {run.em.samples_of}, '
      f'{describe(summary, run.estep.cap)}'
    )
  processes.barrier(f'iteration {iteration}: chosen')


def improve(run: Run, policy: 'Policy', iteration: int) -> None:
  """The M-step: the base model, fine-tuned on the dataset of the iteration."""
  folder = iteration_folder(run.workdir, iteration)
  if processes.first_says((folder / 'm_step.json').exists()):
    return
  started = time.monotonic()
  examples = training_examples(run, iteration)
  if not examples:
    raise RuntimeError(
      f'Iteration {iteration} has no solution to train on: see '
      f'{folder / "e_step.json"} for what became of the samples.'
    )
  start = 0 if run.em.start_from == 'base' else iteration - 1
  carries = run.em.start_from == 'previous_state'
  before = iteration_folder(run.workdir, start) / 'optimizer'
  live = run.tools.live
  live.journal.say(
    f'iteration {iteration}: fine-tuning {_name(start)} on '
    f'{len(examples):,} solutions'
  )
  policy.release()
  with _phase(run, 'train', iteration) as values:
    result = fine_tune(
      policy.load(start),
      examples,
      run.mstep,
      run.mesh,
      seed=run.seed + iteration,
      validate=_validator(run, policy, iteration),
      folder=folder / 'training',
      optimizer=before if carries and start else None,
      keep_optimizer=carries,
      title=f'iteration {iteration}: training',
      on_step=live.on_step(iteration),
      should_stop=run.tools.should_stop,
    )
    values['trained'] = _tokens_trained(run.mstep, result.summary)
  checkpoint.save_model(folder / 'model', result.model)
  if carries:
    checkpoint.save_model(folder / 'optimizer', result.optimizer)
  policy.hold(iteration, result.model)
  if processes.is_first():
    _add_seconds(folder, train=time.monotonic() - started)
    store.write_json(folder / 'm_step.json', result.summary)
    checkpoint.remove(folder / 'training')
  processes.barrier(f'iteration {iteration}: trained')


def measure(run: Run, policy: 'Policy', iteration: int) -> None:
  """Evaluates the model of an iteration on validation, test and suites."""
  folder = iteration_folder(run.workdir, iteration)
  task, greedy = run.tools.task, replace(run.eval, num_samples=0, pass_k=())
  for name, tools, problems, config, temperature in (
    ('validation', run.tools, task.problems('validation'), greedy, 0.0),
    ('test', run.tools, task.problems('test'), run.eval, 0.0),
    *(
      (
        f'suites/{suite.label}',
        replace(run.tools, task=suite.task),
        suite.problems,
        greedy,
        run.eval.suite_temperature,
      )
      for suite in run.suites
    ),
  ):
    done = processes.first_says((folder / f'{name}.json').exists())
    if problems and not done:
      started = time.monotonic()
      policy.use(iteration)
      title = f'iteration {iteration}, {name}'
      with _phase(run, name, iteration):
        scores = evaluate(
          tools, problems, config, folder / name, title, temperature
        )
      if processes.is_first():
        _add_seconds(folder, **{name: time.monotonic() - started})
        store.write_json(folder / f'{name}.json', asdict(scores))
        run.tools.live.scored(name, iteration, scores)
      processes.barrier(title)


def export(run: Run, policy: 'Policy', iteration: int) -> None:
  """Writes the model as a Hugging Face directory, with its scores."""
  out = iteration_folder(run.workdir, iteration) / 'hf'
  if not processes.first_says((out / 'config.json').exists()):
    policy.release()
    opened = open_run(run.workdir, run.base)
    export_model(opened, iteration, str(out), run.mesh)


def asked(run: Run, iteration: int) -> list[Problem]:
  """Returns the training problems that an iteration asks, in order."""
  problems = run.tools.task.problems('train')
  size = run.em.problems_per_iteration
  if not size:
    return problems
  epoch, turn = divmod(iteration - 1, len(problems) // size)
  order = np.random.default_rng([run.seed, epoch]).permutation(len(problems))
  return [problems[i] for i in sorted(order[turn * size : (turn + 1) * size])]


def training_examples(run: Run, iteration: int) -> list[Example]:
  """Returns what the M-step of an iteration trains on, in a fixed order."""
  problems = {p.id: p for p in run.tools.task.problems('train')}
  # By problem and tokens: iterations may have drawn the same text.
  rows: dict[tuple[str, tuple[int, ...]], float] = {}
  if run.em.source != 'human':
    first = 1 if run.em.accumulate else iteration
    for index in range(first, iteration + 1):
      path = iteration_folder(run.workdir, index) / 'dataset.jsonl'
      for row in store.read_dataset(path):
        rows.setdefault((row.problem_id, row.tokens), row.weight)
  if run.em.source == 'human' or run.em.include_human:
    for problem in problems.values():
      if problem.solution is not None:
        rows.setdefault((problem.id, _human_tokens(run, problem)), 1.0)
  sums: defaultdict[str, float] = defaultdict(float)
  for (problem_id, _), weight in rows.items():
    sums[problem_id] += weight
  uniform = run.em.problem_weight == 'uniform'
  return [
    Example(
      prompt=_training_prompt(run, problems[problem_id]),
      completion=tokens,
      weight=weight / sums[problem_id] if uniform else weight,
    )
    for (problem_id, tokens), weight in rows.items()
  ]


class Policy:
  """Knows whose weights the sampler holds, and loads others when asked."""

  def __init__(self, run: Run):
    self._run = run
    self._held: int | None = 0  # The sampler was made with the base model.

  def use(self, iteration: int) -> None:
    """Gives the sampler the weights of an iteration; 0 is the base model."""
    if self._held != iteration:
      self.hold(iteration, self.load(iteration))

  def hold(self, iteration: int | None, model: Transformer) -> None:
    """Gives the sampler weights; None are those of no finished iteration."""
    tools = self._run.tools
    model = local_copy(model, self._run.mesh)
    with jax.set_mesh(tools.mesh):
      tools.sampler.set_weights(model)
    self._held = iteration

  def release(self) -> None:
    """Takes the weights and all else that is large from the sampler."""
    if self._held is not None:
      self._run.tools.sampler.release()
      self._held = None

  def load(self, iteration: int) -> Transformer:
    """Reads the weights of an iteration onto the mesh, in float32."""
    run = self._run
    return load_model(run.workdir, iteration, run.base, run.dtype, run.mesh)


@contextlib.contextmanager
def _phase(run: Run, name: str, iteration: int) -> Iterator[dict[str, float]]:
  """Notes what a phase took of time and device, whatever ends it."""
  stats = run.tools.sampler.stats
  before = replace(stats)
  with run.tools.live.phase(name, iteration) as values:
    try:
      yield values
    finally:
      values['tokens'] = stats.tokens - before.tokens
      values['row_steps'] = stats.row_steps - before.row_steps
      values['busy'] = stats.busy_row_steps - before.busy_row_steps
      values['idle'] = stats.idle_seconds - before.idle_seconds


def _write_problems(run: Run) -> None:
  path = run.workdir / 'problems.jsonl'
  if not path.exists():
    splits = ('train', 'validation', 'test')
    store.write_problems(path, {s: run.tools.task.problems(s) for s in splits})


def _tokens_trained(config: MStepConfig, summary: dict[str, Any]) -> float:
  positions = summary['steps'] * config.rows * config.row_length
  return round(positions * (1 - summary['padding']))


def _name(iteration: int) -> str:
  return (
    f'the model of iteration {iteration}' if iteration else 'the base model'
  )


def _validator(
  run: Run, policy: Policy, iteration: int
) -> Callable[[Transformer, int], float] | None:
  """Returns what the M-step stops on; higher is better."""
  problems = run.tools.task.problems('validation')
  if not problems:
    return None
  if run.em.validation == 'loss':
    examples = [
      Example(_training_prompt(run, problem), _human_tokens(run, problem))
      for problem in problems
      if problem.solution is not None
    ]
    return lambda model, step: (
      -held_out_loss(model, examples, run.mstep, run.mesh)
    )

  def validate(model: Transformer, step: int) -> float:
    policy.hold(None, model)
    title = f'iteration {iteration}, step {step}'
    score = accuracy(run.tools, problems, title)
    run.tools.sampler.release()  # Training goes on, and needs the memory.
    return score

  return validate


def _human_tokens(run: Run, problem: Problem) -> tuple[int, ...]:
  tokenizer = run.tools.tokenizer
  text = run.tools.task.target(problem)
  return (*tokenizer.encode(text, follows=True), tokenizer.eos[0])


def _training_prompt(run: Run, problem: Problem) -> tuple[int, ...]:
  tokenizer = run.tools.tokenizer
  prefix, question = prompt_tokens(run.tools.task, tokenizer, problem)
  if run.em.train_prompt == 'zero_shot':
    prefix = prefix[: 0 if tokenizer.bos is None else 1]
  return (*prefix, *question)


def _improved(run: Run, iteration: int) -> bool:
  before, after = (
    store.read_json(iteration_folder(run.workdir, index) / 'validation.json')
    for index in (iteration - 1, iteration)
  )
  return after['pass_1'] > before['pass_1']


def _add_seconds(folder: epath.Path, **seconds: float) -> None:
  """Notes the seconds a phase took in the process that finished it."""
  known = store.read_json(folder / 'seconds.json') or {}
  rounded = {name: round(value, 1) for name, value in seconds.items()}
  store.write_json(folder / 'seconds.json', {**known, **rounded})
