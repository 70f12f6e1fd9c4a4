"""Checkpoints through Orbax: the only file that knows it.

A checkpoint is a few named trees of arrays and one JSON object. It is written
in the background and appears only when whole; a save that failed is an error
at the next call. What is read is what was saved, or an error: each part is
known by its digest, as Orbax does not see a flipped bit.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

from rest.model.fingerprint import fingerprint
from rest.model.sharding import shardings
from rest.model.together import together
from rest.model.transformer import ModelConfig, Transformer


class Checkpoints:
  """Numbered checkpoints in one directory; only the newest ones are kept.

  At most three are on disk: the newest whole one, one that is held, and one
  being written. At most one copy of the state waits in host memory.
  """

  def __init__(self, directory: epath.PathLike):
    """Opens a directory, made if it is missing; removes half-written steps."""
    handlers = ocp.DefaultCheckpointHandlerRegistry()
    handlers.add(None, ocp.args.PyTreeSave, _handler())
    handlers.add(None, ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    handlers.add(None, ocp.args.JsonRestore, ocp.JsonCheckpointHandler())
    self._manager = ocp.CheckpointManager(
      _absolute(directory),
      options=ocp.CheckpointManagerOptions(
        create=True, cleanup_tmp_directories=True
      ),
      handler_registry=handlers,
    )
    self.directory = self._manager.directory

  def latest(self) -> int | None:
    """Returns the newest step with a whole checkpoint."""
    return self._manager.latest_step()

  def save(
    self,
    step: int,
    trees: Mapping[str, Any],
    position: Mapping[str, Any],
    hold: Collection[int] = (),
  ) -> None:
    """Starts to save; arrays may be donated as soon as it returns.

    Args:
      step: Larger than all before it.
      trees: Trees of arrays by name, as `restore` asks for them.
      position: JSON values: where the run is.
      hold: Steps to keep besides the newest whole one.

    Raises:
      OSError, ValueError: As `check`, of this save or the one before.
    """
    self.wait()
    latest = self.latest()
    for old in self._manager.all_steps():
      if old != latest and old not in hold:
        self._manager.delete(old)
    # Copied: it is written later, and its lists may have grown by then.
    position = json.loads(json.dumps(position))
    digests = {name: fingerprint(tree) for name, tree in trees.items()}
    digests['position'] = _digest(position)
    with _naming(self.directory, 'written to'):
      self._manager.save(
        step,
        args=ocp.args.Composite(
          position=ocp.args.JsonSave(position),
          digests=ocp.args.JsonSave(digests),
          **{
            name: ocp.args.PyTreeSave(_by_path(tree))
            for name, tree in trees.items()
          },
        ),
        force=True,
      )

  def position(self, step: int) -> dict[str, Any]:
    """Returns what `save` was told of the run."""
    position = self._read_json(step, 'position')
    self._compare(step, {'position': _digest(position)})
    return position

  def restore(self, step: int, like: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the named trees of a checkpoint, on any mesh.

    Args:
      step: One for which there is a whole checkpoint.
      like: Arrays, or shapes with a sharding, in the structure wanted; names
        that are not asked for are not read.

    Raises:
      OSError, ValueError: They are damaged.
    """
    trees = {
      name: load_tree(self.directory / f'{step}/{name}', tree)
      for name, tree in like.items()
    }
    found = {name: fingerprint(tree) for name, tree in trees.items()}
    self._compare(step, found)
    return trees

  def check(self) -> None:
    """Raises if a save has failed; does not wait for one.

    OSError where the system said why, such as a full disk; else ValueError.
    Orbax's own `check_for_errors` says nothing once its thread has ended.
    """
    if not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Waits until what was saved is whole; raises as `check` does."""
    with _naming(self.directory, 'written to'):
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then lets the directory go."""
    self.wait()
    self._manager.close()

  def _compare(self, step: int, found: Mapping[str, str]) -> None:
    """Raises ValueError if a part is not what was saved."""
    saved = self._read_json(step, 'digests')
    for name, digest in found.items():
      if saved[name] != digest:
        raise ValueError(
          f'{self.directory}/{step}: {name} is not what was saved.'
        )

  def _read_json(self, step: int, name: str) -> Any:
    args = ocp.args.Composite(**{name: ocp.args.JsonRestore()})
    return self._manager.restore(step, args=args)[name]


def save_model(path: epath.PathLike, model: Any) -> None:
  """Writes a model, or another tree; the directory appears only when whole."""
  with (
    _naming(path, 'written to'),
    ocp.Checkpointer(_handler()) as checkpointer,
  ):
    checkpointer.save(_absolute(path), _by_path(model), force=True)


def load_model(
  path: epath.PathLike, config: ModelConfig, mesh: Mesh
) -> Transformer:
  """Reads what `save_model` wrote onto any mesh."""
  shapes = jax.eval_shape(lambda: Transformer(config))
  like = jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    shapes,
    shardings(shapes, mesh),
  )
  return load_tree(path, like)


def load_tree(path: epath.PathLike, like: Any) -> Any:
  """Reads what `save_model` wrote, as `like` is built and lies.

  Args:
    path: Where.
    like: Arrays, or shapes with a sharding.

  Raises:
    OSError, ValueError: It is damaged; on all processes, whichever found it.
  """
  here = jax.process_index()
  options = ocp.options.MultiprocessingOptions(
    primary_host=here,
    active_processes={here},  # None waits for one whose file is damaged.
  )
  with (
    _naming(path, 'read from'),
    together(),
    ocp.StandardCheckpointer(multiprocessing_options=options) as checkpointer,
  ):
    shapes = {path: _shape(leaf) for path, leaf in _by_path(like).items()}
    leaves = checkpointer.restore(_absolute(path), shapes)
  return jax.tree.unflatten(
    jax.tree.structure(like), [leaves[path] for path in _by_path(like)]
  )


def remove(path: epath.PathLike) -> None:
  """Removes a directory of checkpoints, if it is there."""
  path = epath.Path(path)
  if jax.process_index() == 0 and path.exists():
    path.rmtree()


def _handler() -> ocp.PyTreeCheckpointHandler:
  """Returns what writes a tree, as it is: see bench/NOTES.md, 'Checkpoints'."""
  return ocp.PyTreeCheckpointHandler(use_compression=False)


@contextlib.contextmanager
def _naming(path: epath.PathLike, done: str) -> Iterator[None]:
  """Says what could not be done to a checkpoint and, where told, why."""
  try:
    yield
  except OSError:
    raise
  except Exception as error:  # Whatever a thread of Orbax died of.
    # TensorStore tells the errno in its text alone.
    if told := re.search(r"os_error_code='(\d+)'", str(error)):
      number = int(told[1])
      raise OSError(number, os.strerror(number), str(path)) from error
    raise ValueError(
      f'a checkpoint could not be {done} {path}: '
      f'{type(error).__name__}: {error}'
    ) from error


def _digest(position: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(position).encode()).hexdigest()[:16]


def _absolute(path: epath.PathLike) -> epath.Path:
  """Returns a path as Orbax wants it; `absolute` would make gs:// local."""
  path = epath.Path(path)
  return path if path.is_absolute() else path.absolute()


def _by_path(tree: Any) -> dict[str, jax.Array]:
  """Returns the leaves by their path: Orbax need not know modules."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
