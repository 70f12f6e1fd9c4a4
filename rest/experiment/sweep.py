"""Runs one experiment: its arms, with several seeds each; compares them.

  python -m rest.experiment --config=configs/ablations/reset_vs_continue.py
  python -m rest.experiment \\
      --config=configs/ablations/reset_vs_continue.py:math \\
      --config.run.model.path=/models/Qwen2.5-1.5B \\
      --config.run.task.path=/data/math --workdir=runs/reset_vs_continue

An arm is a run of `rest.main` like any other, in WORKDIR/ARM/seed_N, with a few
fields changed. Arms are run in one process, one after another, and what they
have in common is drawn once. Started again, a sweep goes on where it stopped;
finished, it prints its table. Started twice, as on two GPUs of a host, each
process takes the arms that no other one has.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import logging
from etils import epath

from rest import main
from rest.config import FREE_FIELDS, make
from rest.e_step.evaluate import asked_often
from rest.experiment import compare, share
from rest.plan.world import Run
from rest.run import store
from rest.run.command import refuse, refusing
from rest.run.lock import InUse
from rest.run.record import is_finished

# Fields of `estep` that decide which token is drawn.
_CHOICE = ('temperature', 'top_k', 'top_p')


def sweep(argv: Sequence[str]) -> None:
  """Runs what the flags say; they are those of `rest.main`."""
  if len(argv) > 1:
    refuse(f'unknown arguments {argv[1:]}; flags start with --.')
  logging.set_verbosity(logging.WARNING)
  config = main.CONFIG.value
  place = main.WORKDIR.value or config.name
  workdir = pathlib.Path(place)
  with refusing():
    check(config, place)
    devices = main.planned_for()
    if main.DRY_RUN.value:
      for arm, _, changed in arms(config, workdir):
        run = main.prepare(changed, epath.Path(workdir / arm), devices)
        print(arm)
        main.plan(run)
        print()
      return
  with main.ending():
    stop = main.stop_on_sigterm()
    run_arms(config, workdir, stop, main.PROFILE.value)


def run_arms(
  config: Any,
  workdir: pathlib.Path,
  should_stop: Callable[[], bool] = lambda: False,
  profile: bool = False,
) -> None:
  """Runs all arms and seeds that are not finished, and compares.

  Raises:
    Preempted: `should_stop` said so; everything so far is saved.
    ValueError: Something is wrong with the config of an arm.
  """
  done: list[int] = []
  for seed in config.seeds:
    for arm, changed in _unfinished(config, workdir, seed):
      print(f'{config.name}: {arm}', flush=True)
      with contextlib.ExitStack() as held:
        with refusing():
          run = main.prepare(changed, epath.Path(workdir / arm))
          try:
            held.enter_context(main.hold(run))
          except InUse as error:
            print(f'{arm} is left out: {error}', flush=True)
            continue
          _share(run, workdir, arm, seed, config.arms)
        main.iterate(run, should_stop, profile)
        main.show(run)
    if any(_unfinished(config, workdir, seed)):
      print(f'Others work on seed {seed}: the last of them has its table.')
      continue
    done.append(seed)
    _report(config, workdir, done)
  if done:
    print((workdir / 'sweep.txt').read_text())


def check(config: Any, workdir: str) -> None:
  """Raises ValueError where the sweep's own fields are wrong."""
  if '://' in workdir:
    raise ValueError(f'--workdir of a sweep must be a local folder: {workdir}.')
  missing = {'run', 'arms', 'changes', 'seeds', 'axis', 'scores'} - set(config)
  if missing:
    raise ValueError(
      '--config must be of an experiment, such as those in configs/ablations; '
      f'this one has no {", ".join(sorted(missing))}.'
    )
  if config.axis not in compare.AXES:
    raise ValueError(
      f'axis must be one of {compare.AXES}, got {config.axis!r}.'
    )
  if not config.seeds or not config.arms:
    raise ValueError('A sweep must have arms and seeds.')


def arms(config: Any, workdir: pathlib.Path) -> Iterator[tuple[str, int, Any]]:
  """Yields (folder in the workdir, seed, config) of each run, by seed."""
  for seed in config.seeds:
    folders = {
      arm: str(workdir.absolute() / arm / f'seed_{seed}') for arm in config.arms
    }
    for arm in config.arms:
      changed = config.run.copy_and_resolve_references()
      changed.update(_filled(config.changes[arm].to_dict(), folders))
      changed.seed = seed
      yield f'{arm}/seed_{seed}', seed, changed


def _unfinished(
  config: Any, workdir: pathlib.Path, seed: int
) -> Iterator[tuple[str, Any]]:
  """Yields (folder, config) of a seed's runs; looks when it comes to them."""
  for arm, at, changed in arms(config, workdir):
    fields = make(changed.to_dict())
    if at == seed and not is_finished(fields, epath.Path(workdir / arm)):
      yield arm, changed


def _filled(changes: dict[str, Any], folders: dict[str, str]) -> dict[str, Any]:
  """Puts other arms' directories where a text names them: '{human}'."""
  filled: dict[str, Any] = {}
  for name, value in changes.items():
    if isinstance(value, dict):
      filled[name] = _filled(value, folders)
    else:
      is_text = isinstance(value, str)
      filled[name] = value.format(**folders) if is_text else value
  return filled


def _share(
  run: Run,
  workdir: pathlib.Path,
  arm: str,
  seed: int,
  names: Sequence[str],
) -> None:
  """Copies what other arms of this seed have drawn from the base already."""
  here, target = main.describe(run), workdir / arm
  for name in names:
    source = workdir / name / f'seed_{seed}'
    if source == target:
      continue
    if share.first_iteration(source, target, here, FREE_FIELDS):
      print(f'{arm}: the first iteration is that of {name}.')
    copied = share.first_samples(source, target, here, _wanted(run))
    if copied:
      print(f'{arm}: {copied:,} samples are those of {name}.', flush=True)


def _wanted(run: Run) -> list[share.Wanted]:
  config, task = run.config, run.world.task
  wanted = [
    share.Wanted(
      f'iteration_0/{split}/greedy', (), task, task.problems(split), 1
    )
    for split in ('validation', 'test')
  ]
  fields = ('seed', 'eval.temperature', 'eval.top_k', 'eval.top_p')
  if config.eval.num_samples:
    wanted.append(
      share.Wanted(
        'iteration_0/test/sampled',
        fields,
        task,
        asked_often(task.problems('test'), config.eval),
        config.eval.num_samples,
      )
    )
  wanted += [
    share.Wanted(
      f'iteration_0/suites/{suite.label}/greedy',
      ('eval.suite_temperature',),
      suite.task,
      suite.problems,
      1,
    )
    for suite in run.world.suites
  ]
  if config.em.source == 'model' or config.eval.on_train:
    fields = ('seed', *(f'estep.{x}' for x in _CHOICE))
    train, count = task.problems('train'), config.estep.num_samples
    wanted.append(share.Wanted('iteration_1/parts', fields, task, train, count))
  return wanted


def _report(config: Any, workdir: pathlib.Path, seeds: Sequence[int]) -> None:
  experiment = compare.Experiment(
    title=config.title,
    arms={
      arm: [workdir / arm / f'seed_{seed}' for seed in seeds]
      for arm in config.arms
    },
    axis=config.axis,
    scores=tuple(config.scores),
  )
  panels = compare.read(experiment)
  text = compare.table(experiment, panels)
  store.write_whole(workdir / 'sweep.txt', text + '\n')
  for kind in ('png', 'svg'):
    picture = compare.picture(experiment, panels, kind)
    store.write_whole(workdir / f'sweep.{kind}', picture)
