"""Runs ReST-EM: flags, and what a run is made of.

  python -m rest.main --config=configs/quickstart.py

Started again with the same flags, a run goes on where it stopped. It exits with
0 when finished, 75 when it was asked to stop (SIGTERM) and should be started
again, 2 when something is wrong with its input, and 1 otherwise.
"""

import contextlib
import json
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

from rest import em, report
from rest.config import FREE_FIELDS
from rest.e_step.draw import Tools
from rest.loop import Run
from rest.model import sharding, weights
from rest.plan import outline
from rest.run import processes, store
from rest.run.log import Journal
from rest.run.progress import Live
from rest.sampler import Sampler
from rest.setup import Setup, flat, record
from rest.types import Halted, Preempted
from rest.verify import Pool

RESUME_ME = 75  # EX_TEMPFAIL: what schedulers take for 'try again'.

CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'File that says what to run, such as configs/quickstart.py. Any field can be '
  'set on top, as in --config.estep.num_samples=16; python -m rest.config '
  'lists all fields with their meaning.',
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
        print(outline.describe(setup.outline, workdir))
        return
      stack.enter_context(hold(setup, workdir))
    except (ValueError, FileNotFoundError) as error:
      refuse(str(error))
    try:
      run(setup, workdir, stop_on_sigterm(), _PROFILE.value)
    except Preempted as stop:
      print(f'Stopped {stop}. Run the same command again to go on.', flush=True)
      sys.exit(RESUME_ME)
    except Halted as error:
      print(f'error: {error}', file=sys.stderr, flush=True)
      if jax.process_count() > 1:
        processes.abandon(error)
      sys.exit(1)
    except Exception as error:
      if jax.process_count() > 1:
        processes.abandon(error)
      raise


@contextlib.contextmanager
def hold(setup: Setup, workdir: epath.Path) -> Iterator[None]:
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
  setup: Setup,
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
  here = json.loads(json.dumps(flat(config.to_dict())))
  return not _differences(here, record['config'])


def _iterate(
  setup: Setup,
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
      Run(
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


def _journal(setup: Setup, workdir: epath.Path) -> Journal:
  if not processes.is_first():
    return Journal()
  return Journal(workdir, setup.logging, flat(setup.config.to_dict()))


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
    if known.get(name) != value and name not in FREE_FIELDS
  ]


def parse(argv: list[str]) -> list[str]:
  """Parses flags; a config that cannot be read gives one line, no trace."""
  try:
    return app.parse_flags_with_usage(argv)
  except FileNotFoundError as error:
    refuse(f'--config: there is no such file ({error}).')
  except (AttributeError, KeyError) as error:
    refuse(
      f'a --config.* flag names a field that does not exist: {error}; '
      '`python -m rest.config` lists all.'
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
