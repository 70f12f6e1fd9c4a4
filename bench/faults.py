"""What a run survives of damage: each of its files struck in each way.

A tiny run on the CPU is made once; each fault strikes a copy of it: of the
finished run, started again; of the finished run, asked for one iteration more
where that may need the file; and of a run in the middle of its second
iteration. What it comes to is compared with a run that nothing happened to.
"""

import contextlib
import importlib
import io
import pathlib
import re
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from etils import epath
from matplotlib.figure import Figure

from rest import main
from rest.report.__main__ import main as report
from rest.run.command import refusing

ITERATIONS = 2
SCENES = ('finished', 'more', 'half')
FIELDS = {
  'task.num_train': 8,
  'task.num_validation': 2,
  'task.num_test': 4,
  'estep.num_samples': 2,
  'sampling.rows': 8,
  'sampling.max_tokens': 64,
  'eval.num_samples': 2,
  'eval.num_problems': 2,
  'eval.pass_k': (1, 2),
  'mstep.max_steps': 2,
  'mstep.batch': 8,
  'mstep.save_every': 1,
  'verify.workers': 1,
}
# What a further iteration may need, or look into; for others it is left out.
_NEEDED = ('part', 'dataset', 'model', 'weights', 'manifest', 'metadata')
# All that a run leaves, by name; {} is a name that differs from run to run.
FILES = {
  'run.json': 'run.json',
  'problems': 'problems.jsonl',
  'finished': 'finished.json',
  'run digests': 'digests.json',
  'digests': 'iteration_1/digests.json',
  'part': 'iteration_2/parts/part-000001.jsonl.gz',
  'greedy part': 'iteration_1/test/greedy/part-000001.jsonl.gz',
  'sampled part': 'iteration_1/test/sampled/part-000001.jsonl.gz',
  'dataset': 'iteration_1/dataset.jsonl',
  'last dataset': 'iteration_2/dataset.jsonl',
  'e_step': 'iteration_1/e_step.json',
  'm_step': 'iteration_1/m_step.json',
  'last m_step': 'iteration_2/m_step.json',
  'validation': 'iteration_1/validation.json',
  'test': 'iteration_1/test.json',
  'seconds': 'iteration_1/seconds.json',
  'metrics': 'metrics.jsonl',
  'model': 'iteration_1/model',
  'last model': 'iteration_2/model',
  'weights': 'iteration_1/model/d/{}',
  'last weights': 'iteration_2/model/ocdbt.process_0/d/{}',
  'manifest': 'iteration_2/model/manifest.ocdbt',
  'metadata': 'iteration_2/model/_METADATA',
  'report': 'report.html',
  'results': 'results.txt',
  'picture': 'results.png',
  'lock': 'lock',
  'tensorboard': 'tensorboard',
  'events': 'tensorboard/iteration_1/events.{}',
}


def _flipped(data: bytes) -> bytes:
  middle = len(data) // 2
  return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


FAULTS: dict[str, Callable[[bytes], bytes]] = {
  'empty': lambda data: b'',
  'cut at a line': lambda data: data[: data.find(b'\n') + 1],
  'cut in a line': lambda data: data[: len(data) * 2 // 3],
  'NUL': lambda data: bytes(len(data)),
  'binary': lambda data: bytes(range(256)) * 4,
  'foreign': lambda data: b'{"not": "ours"}\n',
  'a bit flipped': _flipped,
}
ALL_FAULTS = ('absent', *FAULTS, 'a folder')


def strike(path: pathlib.Path, fault: str) -> bool:
  """Damages a file or folder; returns whether it is another than before.

  A folder is absent, or a file stands in its place.
  """
  if not path.exists():
    return False
  is_folder = path.is_dir()
  if is_folder:
    if fault not in ('absent', 'empty', 'binary', 'foreign'):
      return False
    shutil.rmtree(path)
    data = b'ours'
  else:
    data = path.read_bytes()
    path.unlink()
  if fault == 'a folder':
    path.mkdir()
  elif fault != 'absent':
    path.write_bytes(FAULTS[fault](data))
  return is_folder or not path.is_file() or path.read_bytes() != data


def draw_no_pixels() -> None:
  """Leaves the rendering of figures out: it takes most of the time here.

  What a figure shows is still worked out from the files.
  """
  figures: Any = Figure
  figures.savefig = lambda self, file, **unused: file.write(b'<svg></svg>')


def find(workdir: pathlib.Path, file: str) -> pathlib.Path | None:
  """Returns a file of `FILES` in a run; None where it has none."""
  found = sorted(workdir.glob(file.replace('{}', '*')))
  return found[0] if found else None


def start(workdir: pathlib.Path, iterations: int = ITERATIONS) -> str:
  """Starts a run as `rest.main` does, in this process; returns how it ended.

  That is '' where it came to its end, else what its last line says, or how
  the traceback ends.
  """
  config = importlib.import_module('configs.arithmetic').get_config()
  config.update_from_flattened_dict({**FIELDS, 'em.iterations': iterations})
  config.compilation_cache = str(workdir.parent / 'cache')
  return _ending(lambda: _run(config, epath.Path(workdir)))


def _run(config: Any, workdir: epath.Path) -> None:
  with contextlib.ExitStack() as stack:
    with refusing():
      run = main.prepare(config, workdir)
      finished = stack.enter_context(main.hold(run))
    with main.ending():
      if not finished:
        main.iterate(run)
      main.show(run)


def _ending(call: Callable[[], None]) -> str:
  """Returns '' where a call ends well, else its end."""
  out, errors = io.StringIO(), io.StringIO()
  try:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
      call()
  except SystemExit as stop:
    lines = [line for line in errors.getvalue().splitlines() if line]
    if stop.code == 2 and lines and lines[-1].startswith('error: '):
      return lines[-1]
    return f'TRACEBACK status {stop.code}: {lines[-1:]}'
  except Exception as error:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f'TRACEBACK {error!r:.200} at {where.name}'
  return ''


def results(workdir: pathlib.Path) -> dict[str, bytes]:
  """Returns all datasets, scores and parts, by name."""
  name = re.compile(
    r'dataset\.jsonl|part-\d+\.jsonl\.gz|(e_step|m_step|validation|test)\.json'
  )
  return {
    str(path.relative_to(workdir)): path.read_bytes()
    for path in sorted(workdir.rglob('*'))
    if name.fullmatch(path.name) and path.is_file()
  }


def make(folder: pathlib.Path) -> None:
  """Makes the runs that are struck, and what they are to come to."""
  finished = folder / 'finished'
  assert not (how := start(finished)), how
  shutil.copytree(finished, folder / 'more')
  assert not (how := start(folder / 'more', ITERATIONS + 1)), how
  half = folder / 'half'
  shutil.copytree(finished, half)
  (half / 'finished.json').unlink()
  last = half / f'iteration_{ITERATIONS}'
  for path in last.iterdir():
    if path.name == 'digests.json':
      path.unlink()
    elif path.name != 'parts':
      shutil.rmtree(path) if path.is_dir() else path.unlink()
  for index in (0, 3, 5):
    (last / f'parts/part-{index:06d}.jsonl.gz').unlink()


def trial(
  folder: pathlib.Path, scene: str, file: str, fault: str
) -> str | None:
  """Strikes a copy, and starts it; returns how that ended.

  'same': as the run that nothing happened to. 'unread': so, but for the
  damaged file, which nobody has needed. 'one line': with status 2. Else
  'TRACEBACK ...' or 'SILENT ...'. None: there is no such file, or it is as
  before.

  Args:
    folder: As `make` left it.
    scene: One of `SCENES`.
    file: Of `FILES`.
    fault: One of `ALL_FAULTS`.
  """
  source = folder / ('half' if scene == 'half' else 'finished')
  workdir = folder / 'trial'
  shutil.rmtree(workdir, ignore_errors=True)
  shutil.copytree(source, workdir)
  path = find(workdir, file)
  if path is None or not strike(path, fault):
    return None
  how = start(workdir, ITERATIONS + (scene == 'more'))
  if how:
    return how if how.startswith('TRACEBACK') else 'one line'
  expected = results(folder / ('more' if scene == 'more' else 'finished'))
  found = results(workdir)
  names = {*expected, *found}
  other = {n for n in names if expected.get(n) != found.get(n)}
  if other == {str(path.relative_to(workdir))}:
    return 'unread'
  return f'SILENT {sorted(other)}' if other else 'same'


def trial_of_report(folder: pathlib.Path, file: str, fault: str) -> str | None:
  """As `trial`, for `python -m rest.report` on a damaged folder."""
  workdir = folder / 'trial'
  shutil.rmtree(workdir, ignore_errors=True)
  shutil.copytree(folder / 'finished', workdir)
  path = find(workdir, file)
  if path is None or not strike(path, fault):
    return None
  how = _ending(lambda: report([str(workdir), f'--out={folder}/report.html']))
  if how:
    return how if how.startswith('TRACEBACK') else 'one line'
  return 'same'


def count_faults(
  folder: pathlib.Path, names: Collection[str] = FILES
) -> Counter[str]:
  """Prints what became of each fault; returns how many ended in which way.

  Args:
    folder: As `make` left it.
    names: Of `FILES`, what to strike.
  """
  counts: Counter[str] = Counter()
  for name in names:
    file = FILES[name]
    for scene in (*SCENES, 'report'):
      ends: dict[str, list[str]] = {}
      for fault in ALL_FAULTS:
        if scene == 'more' and not name.endswith(_NEEDED):
          continue
        if scene == 'report':
          how = trial_of_report(folder, file, fault)
        else:
          how = trial(folder, scene, file, fault)
        if how is not None:
          ends.setdefault(how, []).append(fault)
          counts[how.split(' ')[0].rstrip(':')] += 1
      for how, faults in ends.items():
        print(f'{name:14} {scene:9} {how}: {", ".join(faults)}', flush=True)
  return counts
