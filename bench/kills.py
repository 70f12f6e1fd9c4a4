"""What a run survives of its machine: kills at system calls, and full disks.

`bench.faults` tries and counts them. Kills need strace, disks the right to
mount one; every start of a run is a process of its own.
"""

import os
import pathlib
import random
import shutil
import subprocess
import sys
from collections import Counter

from bench.faults import FIELDS, ITERATIONS, results

# What a run asks of the file system; a kill comes before the call is done.
CALLS = ('write', 'fsync', 'rename', 'mkdir', 'unlinkat', 'openat', 'close')
KILLS = 100
# Of disks, in KiB: from one that holds nothing to one that lacks little.
SIZES = (4, 40, 200, 1000, 3000, 4500, 5500, 7000, 8000, 8500)


def start(workdir: pathlib.Path, *before: str) -> str:
  """Starts a run, or goes on with it; returns how that ended.

  'finished', 'killed', 'one line' or 'TRACEBACK ...'.

  Args:
    workdir: Of the run; compiled programs stand beside it.
    *before: Words of the command line before it.
  """
  fields = FIELDS | {
    'em.iterations': ITERATIONS,
    'compilation_cache': workdir.parent / 'cache',
  }
  done = subprocess.run(
    [
      *(*before, sys.executable, '-m', 'rest.main', f'--workdir={workdir}'),
      '--config=configs/quickstart.py',
      *(f'--config.{name}={value}' for name, value in fields.items()),
    ],
    cwd=pathlib.Path(__file__).parents[1],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode == 0:
    return 'finished'
  if done.returncode in (-9, 128 + 9):
    return 'killed'
  *_, last = done.stderr.splitlines() or ['']
  if 'Traceback' in done.stderr or not last.startswith('error: '):
    return f'TRACEBACK status {done.returncode}: {last}'
  return 'one line'


def kill(workdir: pathlib.Path, call: str, count: int) -> str:
  """Starts a run, and kills it at the `count`-th such call of a thread."""
  trace = ('strace', '-f', '-qq', '-o', '/dev/null', '-e', f'trace={call}')
  return start(workdir, *trace, '-e', f'inject={call}:signal=KILL:when={count}')


def fill(workdir: pathlib.Path, size: int) -> tuple[str, str]:
  """Runs on a disk of `size` KiB, then again on one that is large enough.

  Returns how each start ended. The disk stays mounted as `workdir`.
  """
  workdir.mkdir()
  mount = ('mount', '-t', 'tmpfs', '-o', f'size={size}k', 'rest', workdir)
  subprocess.run(mount, check=True, capture_output=True)
  first = start(workdir)
  larger = ('mount', '-o', 'remount,size=1g', workdir)
  subprocess.run(larger, check=True)
  return first, start(workdir)


def unmount(workdir: pathlib.Path) -> None:
  subprocess.run(('umount', '--lazy', workdir), check=True)
  workdir.rmdir()


def ended(how: str, workdir: pathlib.Path, whole: pathlib.Path) -> str:
  """Returns what a run came to at last: 'same', or what is wrong with it."""
  if how != 'finished':
    return how
  left = [*workdir.rglob('*.partial-*'), *workdir.rglob('*.damaged-*')]
  left += workdir.rglob('training')
  if results(workdir) != results(whole) or left:
    return f'SILENT {[path.name for path in left]}'
  return 'same'


def count_kills(folder: pathlib.Path, most: int = KILLS) -> Counter[str]:
  """Kills runs at one call after another, until they have come to their end.

  Args:
    folder: Has the run `whole`, that nothing happened to.
    most: Kills.
  """
  draw, counts, workdir = random.Random(0), Counter[str](), folder / 'killed'
  killed = 0
  while counts.total() < most:
    call, count = draw.choice(CALLS), int(2 ** draw.uniform(0, 9))
    how = kill(workdir, call, count) if killed < most else start(workdir)
    print(f'kill at {call} {count}: {how}', flush=True)
    killed += how == 'killed'
    if how != 'killed':  # Of the same run, all kills end alike.
      counts[ended(how, workdir, folder / 'whole').split(' ')[0]] += killed
      shutil.rmtree(workdir)
      killed = 0
    most = most
  return counts


def count_disks(folder: pathlib.Path) -> Counter[str]:
  """Fills disks of all `SIZES`, as `count_kills`."""
  counts, workdir = Counter[str](), folder / 'disk'
  for size in SIZES:
    first, again = fill(workdir, size)
    how = ended(again, workdir, folder / 'whole')
    unmount(workdir)
    print(f'disk of {size} KiB: {first}, then {how}', flush=True)
    counts[(how if first == 'one line' else first).split(' ')[0]] += 1
  return counts
