"""What happens in a run, as it happens: metrics.jsonl, TensorBoard, W&B.

A log, and so the one thing in a working directory that grows by lines: after a
kill its last line may be broken, and steps that were lost are there twice.
Results never depend on it.
"""

import json
import pathlib
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from etils import epath
from tqdm import tqdm

from rest.config import LoggingConfig
from rest.run import store, tensorboard
from rest.types import Preempted

_FILE = 'metrics.jsonl'
# Between uploads, where a folder is remote: seconds at least, and so many times
# as long as the last one took, since files go there whole.
_PUBLISH_EVERY, _PUBLISH_SHARE = 30.0, 50


class Journal:
  """Writes metrics, and tells people what is going on; a context manager."""

  def __init__(
    self,
    workdir: epath.Path | None = None,
    config: LoggingConfig | None = None,
    run_config: dict[str, Any] | None = None,
  ):
    """Opens the files of a run; they grow where they exist.

    Args:
      workdir: Of the run; None writes and says nothing, as all processes but
        the first do.
      config: What else is written.
      run_config: What Weights & Biases shows as the run's config.
    """
    self._remote = workdir if workdir and '://' in str(workdir) else None
    self._local = None
    self._events: dict[pathlib.Path, pathlib.Path] = {}  # By folder.
    self._wandb = None
    self._wandb_step = 0
    self._publish_at = time.monotonic() + _PUBLISH_EVERY
    self._sizes: dict[pathlib.Path, int] = {}  # Of files, when last uploaded.
    if workdir is None:
      return
    # Object stores cannot append: files grow here and are copied there.
    self._local = pathlib.Path(tempfile.mkdtemp() if self._remote else workdir)
    self._local.mkdir(parents=True, exist_ok=True)
    for path, belongs in (
      (self._local / _FILE, pathlib.Path.is_file),
      (self._local / 'tensorboard', pathlib.Path.is_dir),
    ):
      if path.exists() and not belongs(path):
        store.put_aside(path)
    if self._remote and (self._remote / _FILE).exists():
      (self._local / _FILE).write_text((self._remote / _FILE).read_text())
    _end_the_line(self._local / _FILE)
    if config and config.wandb:
      self._wandb = _start_wandb(config.wandb, workdir, run_config or {})
      # W&B drops steps that go back. Without network it does not know how far
      # an earlier process came.
      lines = _count_lines(self._local / _FILE)
      self._wandb_step = max(self._wandb.starting_step, lines)

  def __enter__(self) -> 'Journal':
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    if self._local is None:
      return
    self._publish()
    if self._wandb:
      if kind is Preempted:
        self._wandb.mark_preempting()  # Else it would count as failed.
      self._wandb.finish(exit_code=int(kind is not None))

  def write(
    self, kind: str, iteration: int, step: int | None, **values: float
  ) -> None:
    """Notes values.

    Args:
      kind: What they are of: 'train' (a step), 'score', or a whole phase, such
        as 'phase/sample'.
      iteration: Of the run.
      step: Within the iteration; None where they are of all of it.
      **values: By name.
    """
    if self._local is None:
      return
    now = time.time()
    line = {'time': round(now, 3), 'kind': kind, 'iteration': iteration}
    line |= {} if step is None else {'step': step}
    _append(self._local / _FILE, (json.dumps(line | values) + '\n').encode())
    numbers = {f'{kind}/{name}': value for name, value in values.items()}
    at = iteration if step is None else step
    folder = '' if step is None else f'iteration_{iteration}'
    path = self._event_file(self._local / 'tensorboard' / folder, now)
    _append(path, tensorboard.scalars(now, at, numbers))
    if self._wandb:
      self._wandb.log(
        numbers | {'iteration': iteration, f'{kind}/step': at},
        step=self._wandb_step,
        commit=True,
      )
      self._wandb_step += 1
    if time.monotonic() > self._publish_at:
      self._publish()

  def say(self, text: str) -> None:
    """Prints a line, above any progress bar."""
    if self._local is not None:
      tqdm.write(f'{time.strftime("%H:%M:%S")} {text}')
      sys.stdout.flush()  # A file or a pipe is to have it now.

  def _event_file(self, folder: pathlib.Path, now: float) -> pathlib.Path:
    """Returns this process's event file in a folder."""
    if folder not in self._events:
      folder.mkdir(parents=True, exist_ok=True)
      # Named by time: TensorBoard reads the files of a folder in that order.
      path = folder / f'events.out.tfevents.{now:.6f}.rest'
      path.write_bytes(tensorboard.header(now))
      self._events[folder] = path
    return self._events[folder]

  def _publish(self) -> None:
    """Uploads the files that have grown."""
    if self._remote is None or self._local is None:
      return
    started = time.monotonic()
    for path in self._local.rglob('*'):
      if path.is_file() and self._sizes.get(path) != path.stat().st_size:
        self._sizes[path] = path.stat().st_size
        target = self._remote / str(path.relative_to(self._local))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    now = time.monotonic()
    took = now - started
    self._publish_at = now + max(_PUBLISH_EVERY, _PUBLISH_SHARE * took)


def read_journal(workdir: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Reads metrics.jsonl, in order; what `write` did not write is left out.

  The last one before a kill, say.
  """
  path = epath.Path(workdir) / _FILE
  if not path.is_file():
    return
  for line in path.read_bytes().decode(errors='replace').split('\n'):
    try:
      entry = json.loads(line)
      is_one = isinstance(entry['kind'], str) and all(
        isinstance(value, int | float)
        for name, value in entry.items()
        if name != 'kind'
      )
      if is_one and isinstance(entry['iteration'], int):
        yield entry
    except (ValueError, KeyError, TypeError):
      continue


def _append(path: pathlib.Path, data: bytes) -> None:
  with path.open('ab') as file:
    file.write(data)


def _end_the_line(path: pathlib.Path) -> None:
  """Ends the line that a killed process left open."""
  if path.exists() and not path.read_bytes().endswith(b'\n'):
    _append(path, b'\n')


def _count_lines(path: pathlib.Path) -> int:
  return path.read_bytes().count(b'\n') if path.exists() else 0


def _start_wandb(project: str, workdir: epath.Path, config: dict[str, Any]):
  import wandb  # pyright: ignore[reportMissingImports] - Optional.

  return wandb.init(
    project=project,
    name=workdir.name,
    id=_wandb_id(workdir),
    resume='allow',  # A run that is started again goes on there, too.
    dir=None if '://' in str(workdir) else str(workdir),
    config=config,
  )


def _wandb_id(workdir: epath.Path) -> str:
  """Returns what W&B knows a run by, and makes it at the first start.

  Not made of the folder's name: a new run in a folder of that name, here or on
  another machine, would go on where this one ended.
  """
  file = workdir / 'wandb_id.txt'
  known = file.read_text() if file.exists() else ''
  if not known:  # Or a kill left it empty.
    known = secrets.token_hex(4)
    file.write_text(known)
  return known
