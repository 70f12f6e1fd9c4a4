"""What a run survives of its machine: kills at system calls, and full disks.

Kills need strace, disks the right to
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
KILLS = 60
# How a start ends: itself, or by the loss of the process that judges for it.
KILLED = ('killed', 'one line')
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
      '--config=configs/arithmetic.py',
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


def fill(workdir: pathlib.Path, size: int, whole: pathlib.Path) -> str:
  """Runs on a disk of `size` KiB, then again on one that is large enough.

  Returns what it `ended` in, or how the first start did if not in one line.

  Raises:
    CalledProcessError: Nobody may mount a disk here.
  """
  workdir.mkdir()
  mount = ('mount', '-t', 'tmpfs', '-o', f'size={size}k', 'rest', workdir)
  subprocess.run(mount, check=True, capture_output=True)
  try:
    first = start(workdir)
    larger = ('mount', '-o', 'remount,size=1g', workdir)
    subprocess.run(larger, check=True)
    how = ended(start(workdir), workdir, whole)
  finally:
    subprocess.run(('umount', '--lazy', workdir), check=True)
    workdir.rmdir()
  return how if first == 'one line' else first


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
  """Kills runs at one call after another until they come to their end.

  Args:
    folder: Has the run `whole`, that nothing happened to.
    most: Kills; the last run is then left to come to its end.
  """
  draw, counts, workdir = random.Random(0), Counter[str](), folder / 'killed'
  kills = 0  # Of the run under way.
  while counts.total() < most:
    call, count = draw.choice(CALLS), int(2 ** draw.uniform(0, 9))
    is_last = counts.total() + kills == most
    how = start(workdir) if is_last else kill(workdir, call, count)
    print(f'{call} {count}: {how}', flush=True)
    if how in KILLED:
      kills += 1
      continue
    how = ended(how, workdir, folder / 'whole')
    print(f'after {kills} kills: {how}', flush=True)
    counts[how.split(' ')[0]] += kills
    shutil.rmtree(workdir)
    kills = 0
  return counts


def count_disks(folder: pathlib.Path) -> Counter[str]:
  """Fills disks of all `SIZES`, as `count_kills`."""
  counts: Counter[str] = Counter()
  for size in SIZES:
    how = fill(folder / 'disk', size, folder / 'whole')
    print(f'disk of {size} KiB: {how}', flush=True)
    counts[how.split(' ')[0]] += 1
  return counts
