"""ReST-EM, Algorithm 1 of the paper: generate, improve, repeat.

Every phase of every iteration ends in files that appear only when whole; a run
that was killed finds them and goes on with the first phase that has none.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from etils import epath

from rest import report
from rest.config import MStepConfig
from rest.e_step.draw import e_step, keep_drawn
from rest.e_step.evaluate import accuracy, evaluate
from rest.e_step.summary import describe
from rest.loop import Policy, Run
from rest.m_step.examples import (
  asked,
  human_tokens,
  training_examples,
  training_prompt,
)
from rest.m_step.fine_tune import fine_tune
from rest.m_step.packing import Example
from rest.m_step.update import held_out_loss
from rest.model import checkpoint
from rest.model.transformer import Transformer
from rest.run import processes, store
from rest.run.opened import iteration_folder, open_run
from rest.types import Halted
from rest.use.export import export_model


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
    done = {'asked': run.em.iterations}
    store.write_json(run.workdir / 'finished.json', done)


def generate(run: Run, policy: Policy, iteration: int) -> None:
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
    summary, left_out = keep_drawn(
      asked(run, iteration),
      parts,
      run.tools.task,
      run.tools.tokenizer,
      run.estep,
      folder,
      run.max_unknown,
      run.tools.pool,
    )
    run.tools.live.journal.say(
      f'iteration {iteration}: of the samples in {run.em.samples_of}, '
      f'{describe(summary, run.estep.cap)}; {left_out:,} left out, whose text '
      "this model's tokens cannot write"
    )
  processes.barrier(f'iteration {iteration}: chosen')


def improve(run: Run, policy: Policy, iteration: int) -> None:
  """The M-step: the base model, fine-tuned on the dataset of the iteration."""
  folder = iteration_folder(run.workdir, iteration)
  if processes.first_says((folder / 'm_step.json').exists()):
    return
  started = time.monotonic()
  examples = training_examples(run, iteration)
  if not examples:
    raise Halted(
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


def measure(run: Run, policy: Policy, iteration: int) -> None:
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


def export(run: Run, policy: Policy, iteration: int) -> None:
  """Writes the model as a Hugging Face directory, with its scores."""
  out = iteration_folder(run.workdir, iteration) / 'hf'
  if not processes.first_says((out / 'config.json').exists()):
    policy.release()
    opened = open_run(run.workdir, run.base)
    export_model(opened, iteration, str(out), run.mesh)


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
      Example(training_prompt(run, problem), human_tokens(run, problem))
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
