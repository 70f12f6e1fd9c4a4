"""ReST-EM, Algorithm 1 of the paper: generate, improve, repeat.

Every phase of every iteration ends in files that appear only when whole; a run
that was killed finds them and goes on with the first phase that has none.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from typing import NamedTuple

from etils import epath
from jax.sharding import Mesh

from rest import report
from rest.config import EvaluateConfig
from rest.e_step import imported
from rest.e_step.draw import Tools, e_step, prepare
from rest.e_step.evaluate import evaluate, prepare_lists
from rest.e_step.policy import Policy
from rest.e_step.summary import describe
from rest.e_step.variants import add_hinted, keep_drawn
from rest.m_step.examples import asked, training_examples
from rest.m_step.fine_tune import fine_tune
from rest.m_step.validate import validator
from rest.model import checkpoint
from rest.model.fingerprint import fingerprint
from rest.model.transformer import Transformer
from rest.plan.world import Run
from rest.run import digests, processes, store
from rest.run.opened import iteration_folder, load_model, open_run
from rest.run.phase import Phase, phase
from rest.run.spool import spool
from rest.types import Halted, Problem
from rest.use.export import export_model

_DATASET = ('e_step.json', 'dataset.jsonl')  # What an E-step makes.


def run_em(run: Run, tools: Tools) -> None:
  """Runs all iterations that are not on disk yet, and reports.

  Raises:
    Preempted: The run was asked to stop; started again, it goes on.
  """
  em = run.config.em
  policy = make_policy(run, tools)
  prepare_all(run, tools)
  measure(run, policy, 0)
  iteration = 0
  with _reporting(run, tools) as report_behind:
    for iteration in range(1, em.iterations + 1):
      expect(run, policy, iteration)
      improve(run, policy, iteration)
      measure(run, policy, iteration)
      if em.export:
        export(run, policy, iteration)
      report_behind()
      if em.stop_on_validation and not _improved(run, iteration):
        break
    if run.config.eval.on_train:
      generate(run, policy, iteration + 1)
  if processes.is_first():
    finished = run.workdir / 'finished.json'
    store.write_json(finished, {'asked': em.iterations})
    digests.note(finished)


def make_policy(run: Run, tools: Tools) -> Policy:
  """Returns what knows whose weights the sampler of `tools` holds."""
  mesh = run.world.mesh
  assert isinstance(mesh, Mesh)  # Only a plan may be for other devices.
  policy = Policy(tools, mesh, lambda iteration: load(run, policy, iteration))
  return policy


def prepare_all(run: Run, tools: Tools) -> None:
  """Has the sampler's programs compiled while weights are read, and after."""
  for measured in _measured(run, tools):
    prepare_lists(measured.tools, measured.config, measured.temperature)
  if run.config.em.source == 'model' or run.config.eval.on_train:
    prepare(tools, run.config.estep.num_samples)


def load(run: Run, policy: Policy, iteration: int) -> Transformer:
  """Reads the weights of an iteration; trains them again if they are lost."""
  base, model = run.config.model, None
  folder = iteration_folder(run.workdir, iteration)
  read = functools.partial(
    load_model,
    *(run.workdir, iteration, base.path, base.dtype, policy.mesh),
    run.config.sampling.longest,
  )
  try:
    model = read()
    noted = digests.noted(folder / 'model') if iteration else None
    if noted in (None, fingerprint(model)):
      return model
    why = 'are not those that were written'
  except (OSError, ValueError) as error:
    if iteration == 0:
      raise
    why = f'cannot be read ({error!r:.300})'
  del model
  if processes.is_first():
    policy.tools.live.journal.say(
      f'iteration {iteration}: its weights {why}: they are trained again'
    )
    for name in ('model', 'm_step.json'):
      if (folder / name).exists():
        store.put_aside(folder / name)
  processes.barrier(f'iteration {iteration}: weights put aside')
  improve(run, policy, iteration)  # Once: what is lost again is an error.
  return read()


def expect(run: Run, policy: Policy, iteration: int) -> None:
  """The E-step, from where the config says that samples are."""
  if run.config.em.source == 'samples_of':
    choose_from(run, policy, iteration)
  elif run.config.em.source == 'model' or run.config.eval.on_train:
    generate(run, policy, iteration)


def generate(run: Run, policy: Policy, iteration: int) -> None:
  """The E-step: the dataset of an iteration, drawn by the one before."""
  with _phase(run, policy, iteration, 'sample', *_DATASET) as here:
    if here.done:
      return
    policy.use(iteration - 1)
    config, tools = run.config, policy.tools
    problems = asked(tools.task, config.em, config.seed, iteration)
    tools.live.journal.say(
      f'iteration {iteration}: sampling {config.estep.num_samples} solutions '
      f'to each of {len(problems):,} problems from {_name(iteration - 1)}'
    )
    here.values['waiting'] = e_step(
      tools,
      problems,
      config.estep,
      here.folder,
      iteration,
      config.verify.max_unknown,
      add_hinted if config.estep.rationalize else None,
    ).waiting


def choose_from(run: Run, policy: Policy, iteration: int) -> None:
  """The E-step, but for drawing: another run's samples, this run's choice."""
  with _phase(run, policy, iteration, 'choose', *_DATASET) as here:
    if here.done or not processes.is_first():
      return
    config, tools = run.config, policy.tools
    samples_of = config.em.samples_of
    problems = asked(tools.task, config.em, config.seed, iteration)
    parts = store.Parts(epath.Path(samples_of) / 'parts')
    unwritable = 0
    if epath.Path(samples_of).is_file():
      parts = store.Parts(here.folder / 'parts')
      unwritable = imported.grade(
        imported.read(samples_of, problems),
        problems,
        tools.task,
        tools.tokenizer,
        parts,
        tools.graders,
      )
    summary, left_out = keep_drawn(
      problems,
      parts,
      tools.task,
      tools.tokenizer,
      config.estep,
      here.folder,
      config.verify.max_unknown,
      tools.graders,
    )
    tools.live.journal.say(
      f'iteration {iteration}: of the samples in {samples_of}, '
      f'{describe(summary, config.estep.cap)}; {left_out + unwritable:,} left '
      "out, whose text this model's tokens cannot write"
    )


def improve(run: Run, policy: Policy, iteration: int) -> None:
  """The M-step: the base model, fine-tuned on the dataset of the iteration."""
  with (
    _phase(run, policy, iteration, 'train', 'm_step.json') as here,
    spool(here.folder) as disk,
  ):
    if here.done:
      return
    config, tools = run.config, policy.tools
    start = 0 if config.em.start_from == 'base' else iteration - 1
    policy.release()
    with ThreadPoolExecutor(1) as behind:  # One reads, one encodes and plans.
      model = behind.submit(policy.load, start)
      examples = training_examples(
        disk,
        run.workdir,
        tools.task,
        tools.tokenizer,
        config.em,
        config.mstep.row_length,
        iteration,
        tools.live.journal.say,
      )
      if not examples:
        raise Halted(
          f'Iteration {iteration} has no solution to train on: see '
          f'{here.folder / "e_step.json"} for what became of the samples.'
        )
      carries = config.em.start_from == 'previous_state'
      before = iteration_folder(run.workdir, start) / 'optimizer'
      tools.live.journal.say(
        f'iteration {iteration}: fine-tuning {_name(start)} on '
        f'{len(examples):,} solutions'
      )
      result = fine_tune(
        model.result,
        examples,
        config.mstep,
        policy.mesh,
        seed=config.seed + iteration,
        validate=validator(policy, config.em, config.mstep, iteration),
        folder=here.folder / 'training',
        optimizer=before if carries and start else None,
        keep_optimizer=carries,
        title=f'iteration {iteration}: training',
        on_step=tools.live.on_step(iteration),
        should_stop=tools.should_stop,
      )
    here.result = result.summary
    here.values['trained'] = result.summary['tokens']
    checkpoint.save_model(here.folder / 'model', result.model)
    found = fingerprint(result.model)
    if processes.is_first():
      digests.note(here.folder / 'model', found)
    if carries:
      checkpoint.save_model(here.folder / 'optimizer', result.optimizer)
    policy.hold(iteration, result.model)
  if processes.is_first():
    checkpoint.remove(here.folder / 'training')


def measure(run: Run, policy: Policy, iteration: int) -> None:
  """Evaluates the model of an iteration on validation, test and suites."""
  for name, tools, problems, config, temperature in _measured(
    run, policy.tools
  ):
    with _phase(run, policy, iteration, name, f'{name}.json') as here:
      if here.done:
        continue
      policy.use(iteration)
      folder, title = here.folder / name, f'iteration {iteration}, {name}'
      scores = evaluate(tools, problems, config, folder, title, temperature)
      here.result = asdict(scores)
      if processes.is_first():
        tools.live.scored(name, iteration, scores)


class _Measured(NamedTuple):
  """A list of problems that each model is measured on."""

  name: str
  tools: Tools
  problems: Sequence[Problem]
  config: EvaluateConfig
  temperature: float


def _measured(run: Run, tools: Tools) -> Iterator[_Measured]:
  task, config = run.world.task, run.config.eval
  greedy = replace(config, num_samples=0, pass_k=())
  for split, how in ('validation', greedy), ('test', config):
    if problems := task.problems(split):
      yield _Measured(split, tools, problems, how, 0.0)
  for suite in run.world.suites:
    asks = replace(tools, task=suite.task)
    yield _Measured(
      f'suites/{suite.label}',
      asks,
      suite.problems,
      greedy,
      config.suite_temperature,
    )


def export(run: Run, policy: Policy, iteration: int) -> None:
  """Writes the model as a Hugging Face directory, with its scores."""
  with _phase(run, policy, iteration, 'export', 'hf/config.json') as here:
    if not here.done:
      policy.release()
      opened = open_run(run.workdir, run.config.model.path)
      export_model(opened, iteration, str(here.folder / 'hf'), policy.mesh)


@contextmanager
def _reporting(run: Run, tools: Tools) -> Iterator[Callable[[], None]]:
  """Yields what writes a report while the run goes on."""
  reports = report.Behind(run.workdir, tools.live.journal.say)
  try:
    yield reports.write if processes.is_first() else lambda: None
  finally:
    reports.wait()


def _phase(
  run: Run, policy: Policy, iteration: int, name: str, *makes: str
) -> AbstractContextManager[Phase]:
  folder = iteration_folder(run.workdir, iteration)
  tools = policy.tools
  return phase(
    tools.live, tools.sampler.stats.counts, folder, iteration, name, *makes
  )


def _name(iteration: int) -> str:
  return (
    f'the model of iteration {iteration}' if iteration else 'the base model'
  )


def _improved(run: Run, iteration: int) -> bool:
  before, after = (
    store.read_json(iteration_folder(run.workdir, index) / 'validation.json')
    for index in (iteration - 1, iteration)
  )
  return after['pass_1'] > before['pass_1']
