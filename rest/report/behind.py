"""The report of a run under way, written by a process of its own.

It reads all samples of an iteration and draws pictures of them: seconds in
which a device would have nothing to do.
"""

import os
import subprocess
import sys
from collections.abc import Callable

from etils import epath

from rest.report.results import write
from rest.run import store

_PROGRAM = f'from {__name__} import main; main()'


class Behind:
  """Writes reports of one run, one after another."""

  def __init__(self, workdir: epath.Path, say: Callable[[str], None]):
    """Starts nothing yet.

    Args:
      workdir: Of the run.
      say: Tells that a report could not be written: it is only for people, and
        does not stop a run.
    """
    self._workdir = workdir
    self._say = say
    self._process: subprocess.Popen[str] | None = None

  def write(self) -> None:
    """Begins a report, once the last one is written."""
    self.wait()
    self._process = subprocess.Popen(
      [sys.executable, '-P', '-c', _PROGRAM, str(self._workdir)],
      env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
      stdout=subprocess.PIPE,
      text=True,
    )

  def wait(self) -> None:
    """Waits until what was begun is written."""
    if self._process is not None:
      said, _ = self._process.communicate()
      self._process = None
      if said.strip():
        self._say(said.strip())


def main() -> None:
  """Writes the report of the run that the command line names."""
  try:
    write(epath.Path(sys.argv[1]))
  except (store.Damaged, OSError) as error:
    print(f'there is no new report: {error}')
