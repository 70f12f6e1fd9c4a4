"""Runs ReST-EM: flags and construction; the only file that sees a ConfigDict.

  python -m rest.main --config=configs/quickstart.py

Started again with the same flags, a run goes on where it stopped. It exits with
0 when finished, 75 when it was asked to stop (SIGTERM) and should be started
again, 2 when something is wrong with its input, and 1 otherwise.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import config_flags

import rest
from rest import (
  em,
  hardware,
  plan,
  processes,
  report,
  sharding,
  store,
  tasks,
  tokenizer,
  weights,
)
from rest.e_step import Tools, prompt_tokens
from rest.evaluate import EvaluateConfig
from rest.journal import Journal, LoggingConfig
from rest.keep import EStepConfig
from rest.live import Live
from rest.recipe import MStepConfig
from rest.sampler import Sampler, SamplerConfig
from rest.sampler.plan import find_device, make_plan
from rest.tasks import TaskConfig, leaks, suites
from rest.types import Preempted, Problem, Task, Tokenizer
from rest.verify import Pool, VerifyConfig
from rest.verify.answers import EXTRACT

RESUME_ME = 75  # EX_TEMPFAIL: what schedulers take for 'try again'.

# A run goes on when these differ: they change how fast it gets there, or how
# far it goes, but not what it finds.
FREE_FIELDS = (
  'compilation_cache',
  'em.export',
  'em.iterations',
  'logging',
  'mesh',
  'model.path',  # The base model is known by its contents.
  'sampling.rows',
  'task.path',  # And so are the problems.
  'eval.suite_folder',
  'verify.nice',
  'verify.queue',
  'verify.workers',
)

CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'File that says what to run, such as configs/quickstart.py. Any field can be '
  'set on top, as in --config.estep.num_samples=16; configs/base.py lists all '
  'fields with their meaning.',
)
WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder (or gs:// path) for all files of the run. Default: a folder here, '
  'named after the config.',
)
_PROFILE = flags.DEFINE_bool(
  'profile',
  False,
  'Take a JAX profile of a few seconds of each phase, into WORKDIR/profile.',
)
DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Check everything, print the plan, and touch nothing.'
)
_PLAN_FOR = flags.DEFINE_string(
  'plan_for',
  '',
  'With --dry_run: devices that need not be there, such as v5e-64, v5p-256, '
  'h100-8 or h200-1. The model directory may lack its weights.',
)


def main(argv: Sequence[str]) -> None:
  """Runs what the flags say."""
  if len(argv) > 1:
    refuse(f'unknown arguments {argv[1:]}; flags start with --.')
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every step it takes.
  config = CONFIG.value
  workdir = epath.Path(WORKDIR.value or config.name)
  with contextlib.ExitStack() as stack:
    try:
      if _PLAN_FOR.value and not DRY_RUN.value:
        raise ValueError('--plan_for plans only: add --dry_run.')
      if not _PLAN_FOR.value:
        processes.initialize()
      setup = Setup(config, _PLAN_FOR.value)
      if _PROFILE.value and '://' in str(workdir):
        raise ValueError('--profile needs a local --workdir.')
      if DRY_RUN.value:
        print(plan.describe(setup.outline, workdir))
        return
      stack.enter_context(hold(setup, workdir))
    except (ValueError, FileNotFoundError) as error:
      refuse(str(error))
    try:
      run(setup, workdir, stop_on_sigterm(), _PROFILE.value)
    except Preempted as stop:
      print(f'Stopped {stop}. Run the same command again to go on.', flush=True)
      sys.exit(RESUME_ME)
    except Exception as error:
      if jax.process_count() > 1:
        processes.abandon(error)
      raise


@contextlib.contextmanager
def hold(setup: 'Setup', workdir: epath.Path) -> Iterator[None]:
  """Holds a working directory for a run, and records what runs there.

  Raises:
    ValueError: Another live process uses it, or it holds another run.
  """
  if not processes.is_first():
    processes.barrier('recorded')
    yield
    return
  here = record(setup)
  _compare(here, workdir)
  with store.Lock(workdir):
    if not (workdir / 'run.json').exists():
      store.write_json(workdir / 'run.json', here)
    processes.barrier('recorded')
    yield


def run(
  setup: 'Setup',
  workdir: epath.Path,
  should_stop: Callable[[], bool] = lambda: False,
  profile: bool = False,
) -> None:
  """Runs to the end, or on from where the run in `workdir` stopped.

  Raises:
    Preempted: `should_stop` said so; everything so far is saved.
  """
  finished = store.read_json(workdir / 'finished.json')
  if not finished or finished['asked'] < setup.em.iterations:
    _iterate(setup, workdir, should_stop, profile)
  if processes.is_first():
    print(report.table(report.read(workdir)))
    print(f'The run in {workdir} is finished: see report.html, results.txt.')


def is_finished(config: Any, workdir: epath.Path) -> bool:
  """Whether a run of this config came to its end; looks at files alone."""
  finished = store.read_json(workdir / 'finished.json')
  record = store.read_json(workdir / 'run.json')
  if not finished or not record or finished['asked'] < config.em.iterations:
    return False
  here = json.loads(json.dumps(_flat(config.to_dict())))
  return not _differences(here, record['config'])


def _iterate(
  setup: 'Setup',
  workdir: epath.Path,
  should_stop: Callable[[], bool],
  profile: bool,
) -> None:
  mesh = setup.mesh
  assert isinstance(mesh, Mesh)  # Only a plan may be for other devices.
  local_mesh = sharding.local_mesh(mesh)
  tested = [setup.task, *(suite.task for suite in setup.suites)]
  verifiers = tuple(dict.fromkeys(task.verifier for task in tested))
  with (
    _journal(setup, workdir) as journal,
    Pool(setup.verify, verifiers) as pool,
  ):
    sampler = Sampler(
      sharding.local_copy(weights.load(setup.base, mesh, setup.dtype), mesh),
      setup.tokenizer,
      setup.sampling,
      local_mesh,
      seed=setup.seed,
    )
    tools = Tools(
      sampler,
      local_mesh,
      pool,
      setup.task,
      setup.tokenizer,
      should_stop,
      Live(journal, workdir / 'profile' if profile else None),
    )
    em.run_em(
      em.Run(
        workdir=workdir,
        tools=tools,
        mesh=mesh,
        base=setup.base,
        dtype=setup.dtype,
        seed=setup.seed,
        max_unknown=setup.verify.max_unknown,
        em=setup.em,
        estep=setup.estep,
        mstep=setup.mstep,
        eval=setup.eval,
        suites=setup.suites,
      )
    )


def _journal(setup: 'Setup', workdir: epath.Path) -> Journal:
  if not processes.is_first():
    return Journal()
  return Journal(workdir, setup.logging, _flat(setup.config.to_dict()))


class Setup:
  """A config, checked: everything that can be wrong is found here.

  Raises:
    ValueError: A field, a file or a line of it is wrong; says which.
    FileNotFoundError: A path is not there.
  """

  def __init__(self, config: Any, plan_for: str = ''):
    """Checks a config for the devices here, or for those of `plan_for`."""
    self.config = config
    if config.compilation_cache:
      jax.config.update('jax_compilation_cache_dir', config.compilation_cache)
      jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    self.seed = config.seed
    self.base, self.dtype = config.model.path, config.model.dtype
    self.sampling = _section(config, 'sampling', SamplerConfig)
    self.verify = _section(config, 'verify', VerifyConfig)
    self.em = _section(config, 'em', em.EMConfig)
    self.estep = _section(config, 'estep', EStepConfig)
    self.mstep = _section(config, 'mstep', MStepConfig)
    self.eval = _section(config, 'eval', EvaluateConfig)
    self.logging = _section(config, 'logging', LoggingConfig)
    task = tasks.make(_section(config, 'task', TaskConfig))
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
    prefix, questions = self._check_prompts()
    mesh_config = _section(config, 'mesh', sharding.MeshConfig)
    if plan_for:
      device, count = hardware.parse(plan_for)
      self.mesh, local_mesh = sharding.plan_meshes(
        mesh_config, count, device.a_host
      )
    else:
      device = find_device()
      self.mesh = sharding.make_mesh(mesh_config)
      local_mesh = sharding.local_mesh(self.mesh)
    self._check_mesh()
    size, train = self.em.problems_per_iteration, len(questions['train'])
    if size > train:
      raise ValueError(
        f'em.problems_per_iteration must be at most {train}, the training '
        f'problems there are; got {size}.'
      )
    self.outline = plan.Outline(
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
    plan.check(self.outline)

  def _check_fields(self, verifier: str) -> None:
    """Refuses what no section can see alone."""
    parts = epath.Path(self.em.samples_of) / 'parts'
    if self.em.source == 'samples_of' and not parts.exists():
      raise FileNotFoundError(
        f'em.samples_of: there are no samples in {self.em.samples_of!r}; it '
        'must be the folder of an iteration, such as RUN/iteration_1.'
      )
    if self.em.start_from == 'previous_state' and self.mstep.lora_rank:
      raise ValueError(
        "em.start_from='previous_state' needs mstep.lora_rank=0: each M-step "
        'has adapters of its own, and so has their optimizer.'
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

  def _check_prompts(self) -> tuple[int, dict[str, list[int]]]:
    """Returns tokens of the prefix and, by split, of each question.

    Raises:
      ValueError: A prompt is too long.
    """
    prefix, lengths = 0, {}
    for split in tasks.SPLITS:
      problems = self.task.problems(split)
      shared, lengths[split] = self._count(self.task, problems, split)
      prefix = max(prefix, shared)
    for suite in self.suites:
      self._count(suite.task, suite.problems, suite.label)
    return prefix, lengths

  def _count(
    self, task: Task, problems: Sequence[Problem], name: str
  ) -> tuple[int, list[int]]:
    prefix, lengths = 0, []
    for problem in problems:
      parts = prompt_tokens(task, self.tokenizer, problem)
      prefix, question = map(len, parts)
      lengths.append(question)
      if prefix + question > self.sampling.max_prompt_tokens:
        raise ValueError(
          f'The prompt of problem {problem.id!r} ({name}) has '
          f'{prefix + question} tokens, but sampling.max_prompt_tokens is '
          f'{self.sampling.max_prompt_tokens}: raise it, or drop the problem.'
        )
    return prefix, lengths


def _section(config: Any, name: str, kind: type[Any]) -> Any:
  """Returns one section of the config as the dataclass that a room wants."""
  try:
    return kind(**config[name])
  except TypeError as error:  # A field that the dataclass does not have.
    raise ValueError(f'config section {name}: {error}') from error


def record(setup: Setup) -> dict[str, Any]:
  """Returns what a run is, for run.json."""
  fields = {
    'config': _flat(setup.config.to_dict()),
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


def _compare(record: dict[str, Any], workdir: epath.Path) -> None:
  """Refuses a directory that holds a run that differs where it matters."""
  known = store.read_json(workdir / 'run.json')
  if known is None:
    return
  differences = _differences(record['config'], known['config'])
  for name in ('data', 'base'):
    if known[name] != record[name]:
      differences.append(f'the {name} changed ({known[name]}, {record[name]})')
  if differences:
    raise ValueError(
      f'{workdir} holds a run of another config: {"; ".join(differences)}. '
      'Choose another --workdir, or set these fields back.'
    )


def _differences(config: dict[str, Any], known: dict[str, Any]) -> list[str]:
  return [
    f'{name} was {known.get(name)!r}, now {value!r}'
    for name, value in config.items()
    if known.get(name) != value and not name.startswith(FREE_FIELDS)
  ]


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat |= _flat(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def _versions() -> dict[str, str]:
  names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')
  names += ('numpy', 'math-verify', 'sympy', 'sentencepiece', 'tokenizers')
  versions = {name: importlib.metadata.version(name) for name in names}
  return {
    'rest': rest.__version__,
    'python': platform.python_version(),
    **versions,
  }


def parse(argv: list[str]) -> list[str]:
  """Parses flags; a config that cannot be read gives one line, no trace."""
  try:
    return app.parse_flags_with_usage(argv)
  except FileNotFoundError as error:
    refuse(f'--config: there is no such file ({error}).')
  except (AttributeError, KeyError) as error:
    refuse(
      f'a --config.* flag names a field that configs/base.py lacks: {error}.'
    )
  except TypeError as error:
    refuse(f'a --config.* flag has a value of the wrong type: {error}.')


def refuse(message: str) -> NoReturn:
  print(f'error: {message}', file=sys.stderr)
  sys.exit(2)


def stop_on_sigterm() -> Callable[[], bool]:
  asked = threading.Event()
  signal.signal(signal.SIGTERM, lambda *unused: asked.set())
  return asked.is_set


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  app.run(main, flags_parser=parse)
