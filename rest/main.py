"""Runs ReST-EM: flags, and what a run is made of.

  python -m rest.main --config=configs/quickstart.py

Started again with the same flags, a run goes on where it stopped. It exits with
0 when finished, 75 when it was asked to stop (SIGTERM) and should be started
again, 2 when something is wrong with its input, and 1 otherwise.
"""

import signal
import threading

asked_to_stop = threading.Event()
if __name__ == '__main__':  # Before JAX is imported, which takes seconds.
  signal.signal(signal.SIGTERM, lambda *unused: asked_to_stop.set())

import contextlib
import dataclasses
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import config_flags

from rest import config, em, report
from rest.e_step.draw import Tools
from rest.e_step.graders import Graders
from rest.model.together import together
from rest.plan import compiled, outline
from rest.plan.survey import survey
from rest.plan.world import Run
from rest.run import digests, processes, store
from rest.run.command import refuse, refusing
from rest.run.lock import Lock
from rest.run.log import Journal
from rest.run.progress import Live
from rest.run.record import compare, flat, is_finished, record
from rest.sampler import Sampler
from rest.tasks import SPLITS
from rest.types import Halted, Preempted

RESUME_ME = 75  # EX_TEMPFAIL: what schedulers take for 'try again'.
# What the world does to a run: a full disk, a folder that one may not write.
_NOT_OURS = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EROFS,
  errno.EACCES,
  errno.EPERM,
  errno.EIO,
)

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
PROFILE = flags.DEFINE_bool(
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
  'With --dry_run: devices that need not be there, such as v5e-16, v5p-256, '
  'h100-8 or h200-1. The model directory may lack its weights.',
)
_COMPILE = flags.DEFINE_bool(
  'compile',
  False,
  'With --plan_for: have the compiler of such devices compile the programs of '
  'the run, of each kind the largest, and print what it says of them. It takes '
  'minutes, and any CPU will do. TPUs need the package libtpu (extra: tpu), '
  'GPUs jax-cuda13-plugin (extra: gpu-compiler).',
)


def main(argv: Sequence[str]) -> None:
  """Runs what the flags say."""
  if len(argv) > 1:
    refuse(f'unknown arguments {argv[1:]}; flags start with --.')
  logging.set_verbosity(logging.FATAL)  # Orbax raises what it logs.
  sys.unraisablehook = _leave_out_futures
  workdir = epath.Path(WORKDIR.value or CONFIG.value.name)
  with contextlib.ExitStack() as stack:
    with refusing():
      devices = planned_for()
      if not devices:
        processes.initialize()
      with together():
        run = prepare(CONFIG.value, workdir, devices)
        if PROFILE.value and '://' in str(workdir):
          raise ValueError('--profile needs a local --workdir.')
      if DRY_RUN.value:
        plan(run)
        return
      with together():
        finished = stack.enter_context(hold(run))
      finished = processes.first_says(finished)
    with ending():
      if not finished:
        iterate(run, stop_on_sigterm(), PROFILE.value)
      show(run)


def planned_for() -> str:
  """Returns the devices to plan for; '' for those that are here.

  Raises:
    ValueError: A flag is missing that another needs.
  """
  if _PLAN_FOR.value and not DRY_RUN.value:
    raise ValueError('--plan_for plans only: add --dry_run.')
  if _COMPILE.value and not _PLAN_FOR.value:
    raise ValueError('--compile needs --plan_for, such as v5e-16.')
  return _PLAN_FOR.value


def plan(run: Run) -> None:
  """Prints what a run would take, and with --compile what a compiler says."""
  print(outline.describe(run), flush=True)
  if _COMPILE.value:
    for text in compiled.of_run(run, _PLAN_FOR.value):
      print(text, flush=True)


@contextlib.contextmanager
def ending() -> Iterator[None]:
  """Ends a run that stops on its way in one line, with the status that fits."""
  try:
    yield
  except Preempted as stop:
    print(f'Stopped {stop}. Run the same command again to go on.', flush=True)
    sys.exit(RESUME_ME)
  except KeyboardInterrupt:
    message = 'Interrupted; run the same command again to go on.'
    _leave(message, KeyboardInterrupt(message), 130)
  except Halted as error:
    _leave(f'error: {error}', error, 1)
  except OSError as error:
    if error.errno not in _NOT_OURS:
      _abandon(error)
      raise
    where = f' at {error.filename}' if error.filename else ''
    _leave(
      f'error: {error.strerror}{where}. Nothing is lost: mend it, and run the '
      'same command again.',
      error,
      1,
    )
  except Exception as error:
    _abandon(error)
    raise


def _leave_out_futures(found: 'sys.UnraisableHookArgs') -> None:
  """Leaves out what follows an error that is told: see pytest.ini."""
  if str(found.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(found)


def _leave(message: str, error: BaseException, status: int) -> NoReturn:
  print(message, file=sys.stderr, flush=True)
  _abandon(error)
  sys.exit(status)


def _abandon(error: BaseException) -> None:
  """Ends one process of several at once: the others may wait for it."""
  if jax.process_count() > 1:
    processes.abandon(error)


def prepare(given: Any, workdir: epath.Path, plan_for: str = '') -> Run:
  """Returns a run that is checked, and has touched nothing yet.

  Args:
    given: The ConfigDict; nothing below sees it.
    workdir: Where the run is, or will be.
    plan_for: Devices to plan for that need not be there; '' for those here.

  Raises:
    ValueError: A field, a file or a line of it is wrong; says which.
    FileNotFoundError: A path is not there.
  """
  checked = config.make(given.to_dict())
  run = Run(checked, workdir, survey(checked, plan_for))
  outline.check(run)
  return run


@contextlib.contextmanager
def hold(run: Run) -> Iterator[bool]:
  """Holds a working directory for a run, and records what runs there.

  Yields whether the run is finished: then nothing is written, not even a lock.
  Of several processes, the first alone looks.

  Raises:
    ValueError: Another live process uses it, or it holds another run.
  """
  if not processes.is_first():
    yield False
    return
  here, workdir = describe(run), run.workdir
  compare(here, workdir)
  if is_finished(run.config, workdir):
    yield True
    return
  with Lock(workdir):
    store.clear(workdir)
    if not (workdir / 'run.json').exists():
      store.write_json(workdir / 'run.json', here)
      digests.note(workdir / 'run.json')
    if not digests.is_there(workdir / 'problems.jsonl', print):
      problems = {split: run.world.task.problems(split) for split in SPLITS}
      store.write_problems(workdir / 'problems.jsonl', problems)
      digests.note(workdir / 'problems.jsonl')
    yield False


def describe(run: Run) -> dict[str, Any]:
  """Returns what run.json says of a run on the devices here."""
  world = run.world
  device = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  return record(run.config, world.task, world.leaks, world.suites, device)


def iterate(
  run: Run,
  should_stop: Callable[[], bool] = lambda: False,
  profile: bool = False,
) -> None:
  """Runs to the end, or on from where the run in its folder stopped.

  Raises:
    Preempted: `should_stop` said so; everything so far is saved.
  """
  with _tools(run, should_stop, profile) as tools:
    em.run_em(run, tools)


def show(run: Run) -> None:
  """Prints what a finished run came to."""
  if processes.is_first():
    print(report.table(report.read(run.workdir)))
    print(
      f'The run in {run.workdir} is finished: see report.html, results.txt.'
    )


@contextlib.contextmanager
def _tools(
  run: Run, should_stop: Callable[[], bool], profile: bool
) -> Iterator[Tools]:
  """Starts what draws, judges and tells; the sampler holds no weights yet."""
  config, world = run.config, run.world
  assert isinstance(world.sampling_mesh, Mesh)  # Not of a plan.
  _keep_programs(config.compilation_cache)
  tested = [world.task, *(suite.task for suite in world.suites)]
  verifiers = tuple(dict.fromkeys(task.verifier for task in tested))
  with (
    Graders(config.verify, verifiers, world.tokenizer) as graders,
    _journal(run) as journal,
    contextlib.closing(_sampler(run, world.sampling_mesh)) as sampler,
  ):
    yield Tools(
      sampler,
      world.sampling_mesh,
      graders,
      world.task,
      world.tokenizer,
      should_stop,
      Live(journal, run.workdir / 'profile' if profile else None),
    )


def _sampler(run: Run, mesh: Mesh) -> Sampler:
  config, world = run.config, run.world
  return Sampler(
    world.model,
    world.tokenizer,
    config.sampling,
    mesh,
    seed=config.seed,
    decoding=config.estep.decoding,
  )


def _keep_programs(folder: str) -> None:
  """Has JAX keep compiled programs; see `Config.compilation_cache`."""
  if folder == 'auto':
    folder = '' if jax.default_backend() == 'cpu' else '~/.cache/rest'
  if folder:
    folder = os.path.expanduser(folder)
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def _journal(run: Run) -> Journal:
  if not processes.is_first():
    return Journal()
  fields = flat(dataclasses.asdict(run.config))
  return Journal(run.workdir, run.config.logging, fields)


def parse(argv: list[str]) -> list[str]:
  """Parses flags; a config that cannot be read gives one line, no trace."""
  given = ' '.join(word for word in argv[1:] if word.startswith('--config'))
  try:
    parsed = flags.FLAGS(argv)
    if 'name' not in CONFIG.value:
      raise ValueError('get_config must return a ConfigDict with a name')
  except Exception as error:  # Whatever a user's config file does.
    why = f'{error}'.strip().split('\n')[-1].strip()
    refuse(
      f'{given or "flags"}: {type(error).__name__}: {why}; '
      '`python -m rest.config` lists all fields.'
    )
  return parsed


def stop_on_sigterm() -> Callable[[], bool]:
  """Returns whether SIGTERM came; JAX may have taken the signal for itself."""
  signal.signal(signal.SIGTERM, lambda *unused: asked_to_stop.set())
  return asked_to_stop.is_set


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  app.run(main, flags_parser=parse)
