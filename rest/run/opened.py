"""A run on disk, opened: its task, its tokenizer, its models.

For all who look at a run from outside; the loop itself loads its models by the
same `load_model`.
"""

from dataclasses import dataclass
from typing import Any

from etils import epath
from jax.sharding import Mesh

from rest import tasks
from rest.model import checkpoint, tokenizer, weights
from rest.model.transformer import Transformer
from rest.run import store
from rest.tasks import leaks
from rest.types import Task, Tokenizer


@dataclass(frozen=True, slots=True)
class Opened:
  """A run, finished or not; reading from it changes nothing.

  Attributes:
    workdir: Of the run.
    record: What run.json says; see `store.section`.
    base: Directory of the base model, which may have moved since the run.
  """

  workdir: epath.Path
  record: dict[str, Any]
  base: str

  def task(self) -> Task:
    """Returns what the run asked: its problem set, without the leaks."""
    config = tasks.TaskConfig(**store.section(self.record, 'task'))
    task = tasks.for_model(config, self.base)
    found = [leaks.Leak(**leak) for leak in self.record['leaks']]
    return leaks.Clean(task, found)

  def trained(self) -> list[int]:
    """Returns the iterations whose M-step is finished."""
    done = []
    while (self.folder(len(done) + 1) / 'm_step.json').exists():
      done.append(len(done) + 1)
    return done

  def folder(self, iteration: int) -> epath.Path:
    """Returns where an iteration's files are."""
    return iteration_folder(self.workdir, iteration)

  def check(self, iteration: int | None) -> int:
    """Returns an iteration that has a model: the last, where none is named.

    Raises:
      ValueError: There is no such iteration, or its M-step is not finished.
    """
    trained = self.trained()
    if iteration is None:
      return trained[-1] if trained else 0
    if iteration in (0, *trained):
      return iteration
    asked = store.section(self.record, 'em')['iterations']
    begun = self.folder(iteration).exists() and iteration > 0
    raise ValueError(
      f'{self.workdir} has no model of iteration {iteration}: '
      + (
        'it is not finished'
        if begun
        else f'it is a run of {asked} iterations, 0 being the base model'
      )
      + f'. Models are there of {", ".join(map(str, (0, *trained)))}.'
    )

  def tokenizer(self) -> Tokenizer:
    """Returns the tokenizer of the base model; raises as `load` does."""
    self._check_base()
    return tokenizer.load(self.base, self.task().turn_end)

  def load(self, iteration: int, mesh: Mesh) -> Transformer:
    """Returns a model of the run, in float32; iteration 0 is the base.

    Raises:
      FileNotFoundError: The base model is not where it was.
      ValueError: What is there is another model; or the run has no model of
        this iteration.
    """
    self._check_base()
    dtype = store.section(self.record, 'model')['dtype']
    sampling = store.section(self.record, 'sampling')
    longest = sampling['max_prompt_tokens'] + sampling['max_tokens']
    iteration = self.check(iteration)
    return load_model(self.workdir, iteration, self.base, dtype, mesh, longest)

  def _check_base(self) -> None:
    if not epath.Path(self.base).is_dir():
      raise FileNotFoundError(
        f'The base model of {self.workdir} is not at {self.base}: say with '
        '`base` where it is now.'
      )
    found, wanted = store.hash_files(self.base), self.record['base']
    if found != wanted:
      raise ValueError(
        f'{self.base} is not the base model of {self.workdir}: its digest is '
        f"{found}, that of the run's {wanted}."
      )


def open_run(workdir: epath.PathLike, base: str | None = None) -> Opened:
  """Opens a working directory.

  Args:
    workdir: Local or gs://.
    base: Where the base model is, if not where the run found it.

  Raises:
    ValueError: It is not the directory of a run.
  """
  record = store.read_record(workdir)
  known = store.section(record, 'model')['path']
  return Opened(epath.Path(workdir), record, base or known)


def load_model(
  workdir: epath.Path,
  iteration: int,
  base: str,
  dtype: str,
  mesh: Mesh,
  longest: int,
) -> Transformer:
  """Reads the model of an iteration onto a mesh, in float32.

  Args:
    workdir: Of a run.
    iteration: One whose M-step is finished; 0 is the base model.
    base: Directory of the base model.
    dtype: Of matrix products.
    mesh: Where the parameters go.
    longest: Longest sequence of the run: see `weights.read_config`.
  """
  if iteration == 0:
    return weights.load(base, mesh, dtype, longest)
  config = weights.read_config(base, dtype, longest)
  folder = iteration_folder(workdir, iteration)
  return checkpoint.load_model(folder / 'model', config, mesh)


def iteration_folder(workdir: epath.Path, iteration: int) -> epath.Path:
  """Returns where an iteration's files are; 0 is the base model."""
  return workdir / f'iteration_{iteration}'
