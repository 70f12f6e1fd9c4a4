"""What an iteration costs the host, by the number of problems; no device.

  python -m bench.growth [--problems=1000,10000] [--samples=32] [--model=DIR]
    [--gs]

The E-step itself (graders, verdicts, part files, dataset) with a sampler that
takes its tokens from a table, about 200 a sample; then an E-step that finds
its part files written, the report, and what the M-step reads and plans. Each
phase runs
in a process of its own, so that its peak of memory is its own. Half of the
samples are right.

'thread' is processor time of the thread that feeds the device, the table's
left out. 'reads' is how often a part file is opened for reading, and how often
the dataset. 'graders' is the largest of the other processes. With --gs the run
is in a bucket of a server on this machine that takes 50 ms a request, and they
are counted.
"""

import argparse
import collections
import contextlib
import multiprocessing
import os
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from etils import epath

from bench import slow_gcs
from bench.table import Repeated, Table
from rest.config import EMConfig, EStepConfig, MStepConfig, VerifyConfig
from rest.e_step.draw import Tools, e_step
from rest.e_step.graders import Graders
from rest.m_step.examples import training_examples
from rest.m_step.schedule import Schedule
from rest.model import tokenizer
from rest.report.page import write_page
from rest.run import store
from rest.run.spool import spool
from rest.types import Tokenizer

_MODEL = 'rest/model/assets/arithmetic-1m'
_PHASES = ('e-step', 'resumed', 'report', 'examples')


@dataclass(frozen=True, slots=True)
class Load:
  """A size at which all phases are run.

  Attributes:
    problems: How many.
    samples: Of each.
    model: Folder of the tokenizer.
    workdir: Of the run.
  """

  problems: int
  samples: int
  model: str
  workdir: str


def main() -> None:
  """Runs all phases at each size, and prints a line each."""
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('--problems', default='1000,10000')
  parser.add_argument('--samples', type=int, default=32)
  parser.add_argument('--model', default=_MODEL, help='Has the tokenizer.')
  parser.add_argument('--gs', action='store_true', help='In a slow bucket.')
  arguments = parser.parse_args()
  print(
    'problems phase     seconds  ms a problem  thread  peak MB  graders MB'
    '  bytes a sample  reads'
  )
  processes = multiprocessing.get_context('spawn')
  for problems in map(int, arguments.problems.split(',')):
    with _place(arguments.gs) as (folder, counts):
      load = Load(problems, arguments.samples, arguments.model, folder)
      for phase in _PHASES:
        with processes.Pool(1) as alone:
          told = alone.apply(_measure, (phase, load))
          alone.close()
          alone.join()
        print(f'{problems:8} {told}', flush=True)
        if counts:
          print(f'  {counts.take()}', flush=True)


@contextlib.contextmanager
def _place(is_remote: bool) -> Iterator[tuple[str, slow_gcs.Counts | None]]:
  """Yields an empty folder, and what counts its requests, if it is remote."""
  if is_remote:
    with slow_gcs.serve() as (url, counts):
      os.environ['STORAGE_EMULATOR_HOST'] = url
      # Else gcsfs asks Google of which kind the bucket is.
      os.environ['GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT'] = 'false'
      yield 'gs://bucket/run', counts
  else:
    with tempfile.TemporaryDirectory() as folder:
      yield folder, None


def _measure(phase: str, load: Load) -> str:
  """Runs a phase in this process, which has done nothing else."""
  opened: collections.Counter[str] = collections.Counter()
  sys.addaudithook(lambda event, told: _note(opened, event, told))
  task, codec = Repeated(load.problems), tokenizer.load(load.model)
  seconds, thread = {
    'e-step': _e_step,
    'resumed': _e_step,
    'report': _report,
    'examples': _examples,
  }[phase](load, task, codec)
  parts = pathlib.Path(load.workdir, 'iteration_1/parts')
  size = sum(part.stat().st_size for part in parts.glob('*'))  # 0 on gs://.
  own, others = (
    resource.getrusage(who).ru_maxrss / 1024
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  )
  kinds = collections.Counter[str]()
  for name, count in opened.items():
    kinds['parts' if 'part-' in name else 'dataset'] += count
  return (
    f'{phase:8} {seconds:8.1f} {1000 * seconds / load.problems:13.2f}'
    f' {1000 * thread / load.problems:7.2f} {own:8.0f} {others:11.0f}'
    f' {size / load.problems / load.samples:15.0f}'
    f'  {kinds["parts"] / load.problems:.2f} {kinds["dataset"]}'
  )


def _note(
  opened: collections.Counter[str], event: str, told: tuple[Any, ...]
) -> None:
  if event == 'open' and isinstance(told[0], str | os.PathLike):
    name = pathlib.PurePath(told[0]).name
    is_read = isinstance(told[1], str) and not {'w', 'x', 'a'} & {*told[1]}
    if is_read and name.startswith(('part-', 'dataset.jsonl')):
      opened[name] += 1


def _timed(call: Callable[[], object]) -> tuple[float, float]:
  """Returns seconds, and the processor's for this thread."""
  started, before = time.monotonic(), time.thread_time()
  call()
  return time.monotonic() - started, time.thread_time() - before


def _e_step(
  load: Load, task: Repeated, codec: Tokenizer
) -> tuple[float, float]:
  folder = epath.Path(load.workdir) / 'iteration_1'
  table: Any = Table(task, codec)
  mesh: Any = None
  config = EStepConfig(num_samples=load.samples)
  problems = task.problems('train')
  with Graders(VerifyConfig(workers=2), ('math',), codec) as graders:
    tools = Tools(table, mesh, graders, task, codec, lambda: False)
    seconds, thread = _timed(
      lambda: e_step(tools, problems, config, folder, 1, max_unknown=0.0)
    )
  return seconds, thread - table.seconds


def _report(
  load: Load, task: Repeated, codec: Tokenizer
) -> tuple[float, float]:
  """Writes the report of a run of one iteration, and what it needs of one."""
  del codec
  workdir = epath.Path(load.workdir)
  problems = {'train': task.problems('train')}
  store.write_problems(workdir / 'problems.jsonl', problems)
  config = {f'estep.{k}': v for k, v in asdict(EStepConfig()).items()}
  store.write_json(workdir / 'run.json', {'config': config, 'versions': {}})
  for iteration in range(2):
    path = workdir / f'iteration_{iteration}' / 'test.json'
    store.write_whole(path, _SCORES)
  return _timed(lambda: write_page([workdir], workdir / 'report.html'))


def _examples(
  load: Load, task: Repeated, codec: Tokenizer
) -> tuple[float, float]:
  """Reads what the M-step trains on, and plans its rows."""
  workdir, em, mstep = epath.Path(load.workdir), EMConfig(), MStepConfig()
  task.problems('train')  # They are made once.

  def read() -> None:
    with spool(workdir) as disk:
      examples = training_examples(
        disk, workdir, task, codec, em, mstep.row_length, 1, print
      )
      Schedule(examples, mstep, 0).fingerprint()

  return _timed(read)


# Of a test set of two problems.
_SCORES = """{"problems": 2, "unknown": 0, "pass_1": 0.5, "low": 0.1,
"high": 0.9, "unfinished": 0.0, "unreadable": [], "mean_tokens": 5.0,
"levels": {}, "subjects": {}, "pass_at_k": {}, "maj_at_k": null,
"scores": {"a": 0.0, "b": 1.0}}"""


if __name__ == '__main__':
  main()
