"""The M-step: fine-tune a model on the kept completions, stop on validation.

Next-token loss on completion tokens of packed rows, a global mean over their
weights; float32 parameters and optimizer state, sharded by name, replaced in
place. A killed run goes on from its last checkpoint and ends with the same
weights: the order of the data is a function of (seed, step).
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from rest.config import MStepConfig
from rest.m_step import packing
from rest.m_step.loss import row_shards
from rest.m_step.packing import Example
from rest.m_step.schedule import Schedule
from rest.m_step.update import Metrics, abstract_state, init_state, put, update
from rest.model import lora
from rest.model.checkpoint import Checkpoints, load_tree
from rest.model.rope import check_reach
from rest.model.sharding import shardings
from rest.model.transformer import Transformer
from rest.run import processes
from rest.run.progress import progress
from rest.run.store import put_aside
from rest.types import Preempted

# How often processes ask each other whether one was told to stop, in steps.
_AGREE_EVERY = 10


@dataclass(frozen=True, slots=True)
class FineTuned:
  """What `fine_tune` returns.

  Attributes:
    model: The chosen one; adapters are merged.
    optimizer: Its optimizer's state, where it was asked for.
    summary: JSON values for people: steps run, the step that was chosen, the
      validation scores, the mean loss of the last tenth of the steps, tokens
      that were worked on, padding.
  """

  model: Transformer
  optimizer: Any
  summary: dict[str, Any]


class Diverged(ArithmeticError):
  """A loss or a gradient was not finite; names the step and its batch."""


def fine_tune(
  read: Callable[[], Transformer],
  examples: Sequence[Example],
  config: MStepConfig,
  mesh: Mesh,
  seed: int,
  *,
  validate: Callable[[Transformer, int], float] | None = None,
  folder: epath.PathLike | None = None,
  optimizer: epath.PathLike | None = None,
  keep_optimizer: bool = False,
  title: str = 'training',
  on_step: Callable[[int, Metrics], None] | None = None,
  should_stop: Callable[[], bool] | None = None,
) -> FineTuned:
  """Fine-tunes a model and returns the one that the stop rule chooses.

  The model that is read is used up: its arrays become those of the trained one,
  as there is seldom memory for both. Load the base anew for the next M-step.

  Args:
    read: Returns where to start, float32, on the mesh. It is asked once rows
      are planned, so that a thread may read the model meanwhile.
    examples: What to train on; the same on all processes.
    config: How.
    mesh: Devices.
    seed: Of the order of the data.
    validate: (model, steps done) -> score, higher is better. It must not keep
      or donate the model. Needs a folder unless `config.stop` is 'fixed_steps',
      as the chosen model may not be the last.
    folder: For the checkpoints of this M-step and no other. If there is one
      already, training goes on from it; one that cannot be read is put aside.
    optimizer: Where the optimizer's state to start with is saved; None starts
      with an empty one.
    keep_optimizer: Whether to return the optimizer's state.
    title: Of the progress bar.
    on_step: Called with the steps done and the metrics of the last of them, as
      floats; not for steps before a checkpoint that training went on from.
    should_stop: Asked after each step; if true, training is saved and ends.

  Raises:
    Preempted: `should_stop` said so.
    Diverged: A loss or gradient was not finite.
    ValueError: Bad input, or checkpoints of another training.
  """
  _check(config, validate, folder)
  with jax.set_mesh(mesh):
    schedule = Schedule(examples, config, seed, row_shards())
  model = read()
  packing.check_vocabulary(examples, model.config.vocab)
  longest = max(example.length for example in examples)
  check_reach(model.config.rope_scaling, longest, 'A solution to train on')
  with (
    jax.set_mesh(mesh),
    progress(schedule.steps, title, 'steps') as bar,
    _Training(schedule, mesh, folder, bar, on_step) as training,
  ):
    training.start(model, optimizer)
    del model  # Its arrays are about to be donated.
    while True:
      if validate and training.needs_score():
        score = float(validate(training.model(), training.done))
        training.scores[training.done] = score
      if schedule.ends(training.done, training.scores):
        return training.finish(keep_optimizer)
      training.save()
      if training.train(should_stop):
        training.save()
        at = f'after step {training.done} of {schedule.steps}'
        raise Preempted(f'{title}, {at}')


class _State(NamedTuple):
  """What is trained, the optimizer's state, and what adapters belong to."""

  trained: Any
  optimizer: Any
  frozen: Transformer | None


class _Training:
  """A training in progress, and its checkpoints."""

  def __init__(
    self,
    schedule: Schedule,
    mesh: Mesh,
    folder: epath.PathLike | None,
    bar: 'tqdm[Any]',
    on_step: Callable[[int, Metrics], None] | None,
  ):
    self.done = 0  # Steps.
    self.scores: dict[int, float] = {}
    self.losses: list[float] = []
    self._schedule, self._config = schedule, schedule.config
    self._first: tuple[int, float] | None = None  # Step reported, and when.
    self._mesh = mesh
    self._bar, self._on_step = bar, on_step
    self._checkpoints = Checkpoints(folder) if folder else None
    self._saved = 0

  def __enter__(self) -> '_Training':
    return self

  def __exit__(self, *_: Any) -> None:
    if self._checkpoints:
      self._checkpoints.close()

  def start(self, model: Transformer, optimizer: epath.PathLike | None) -> None:
    """Starts from the model, or goes on from the last checkpoint."""
    config, mesh = self._config, self._mesh
    trained, frozen = model, None
    if config.lora_rank:
      key = jax.random.fold_in(jax.random.key(0), self._schedule.seed)
      adapters = lora.init_adapters(model, config.lora_rank, key)
      trained = jax.device_put(adapters, shardings(adapters, mesh))
      frozen = model
    latest = self._checkpoints.latest() if self._checkpoints else None
    if latest is not None:
      # Restoring frees them; the host has the memory, as saving takes thrice.
      kept = [_keep(leaf) for leaf in jax.tree.leaves(trained)]
      if self._resume(latest, _State(trained, None, frozen)):
        return
      structure = jax.tree.structure(trained)
      trained = jax.tree.unflatten(structure, [back() for back in kept])
    if optimizer is None:
      state = init_state(config, trained, mesh)
    else:
      state = load_tree(optimizer, abstract_state(config, trained, mesh))
    self._state = _State(trained, state, frozen)

  def model(self) -> Transformer:
    """Returns the model as it is; adapters are merged."""
    trained, _, frozen = self._state
    if frozen is None:
      return trained
    return lora.merge(frozen, trained, self._config.lora_scale)

  @functools.cached_property
  def _fingerprint(self) -> str:
    """Of the training. All tokens are read, so only if checkpoints need it."""
    return self._schedule.fingerprint()

  def needs_score(self) -> bool:
    due = self._schedule.validates_after(self.done)
    return due and self.done not in self.scores

  def train(self, should_stop: Callable[[], bool] | None) -> bool:
    """Trains up to the next pause; returns whether it was told to stop."""
    end = self._schedule.next_pause(self.done)
    told, before = False, None
    while self.done < end and not told:
      metrics = self._step()
      # Read one step late, so that the device never waits for the host.
      self._report(before)
      self.done += 1
      before = self.done, metrics
      told = _told(should_stop, self.done)
    self._report(before)
    return told

  def save(self) -> None:
    """Saves, unless this step is saved; keeps what may yet be chosen."""
    if self._checkpoints is None or self.done == self._saved:
      return
    scores = list(self.scores.items())
    # What would be chosen without the last score, and with it.
    hold = {
      self._schedule.chosen(dict(s)) or self.done for s in (scores[:-1], scores)
    }
    self._checkpoints.save(
      self.done,
      {'trained': self._state.trained, 'optimizer': self._state.optimizer},
      {'for': self._fingerprint, 'scores': scores, 'losses': self.losses},
      hold,
    )
    self._saved = self.done

  def finish(self, keep_optimizer: bool) -> FineTuned:
    """Returns the chosen model, and what is told of the training."""
    chosen = self._schedule.chosen(self.scores) or self.done
    if chosen != self.done:
      trained, optimizer, frozen = self._state
      kept = _abstract(optimizer) if keep_optimizer else None
      self._state = _State(trained, kept, frozen)
      _free(optimizer)
      if self._restore(chosen) is None:
        raise Preempted('as the chosen checkpoint is damaged')
    summary = {
      'steps': self.done,
      'chosen': chosen,
      'scores': list(self.scores.items()),
      'loss': float(np.mean(self.losses[-max(1, self.done // 10) :])),
      'examples': self._schedule.examples,
      'tokens': round(self.done * self._schedule.shape.used),
      'padding': round(self._schedule.shape.padding, 4),
    }
    state = self._state.optimizer if keep_optimizer else None
    return FineTuned(self.model(), state, summary)

  def _step(self) -> Metrics:
    trained, optimizer, frozen = self._state
    trained, optimizer, metrics = update(
      trained,
      optimizer,
      put(self._schedule.batch(self.done), self._mesh),
      self._schedule.rates[self.done],
      frozen,
      config=self._config,
    )
    self._state = _State(trained, optimizer, frozen)
    if self._checkpoints:
      self._checkpoints.check()
    return metrics

  def _report(self, step: tuple[int, Metrics] | None) -> None:
    if step is None:
      return
    done, metrics = step
    metrics = Metrics(*(float(x) for x in metrics))
    self.losses.append(metrics.loss)
    if not all(map(math.isfinite, metrics)):
      raise Diverged(
        f'step {done}: loss {metrics.loss}, gradient norm '
        f'{metrics.gradient_norm}. Its batch holds the examples '
        f'{sorted(self._schedule.members(done - 1))}: look at them, or lower '
        'mstep.learning_rate. The last checkpoint is from before.'
      )
    self._show(done, metrics.loss)
    if self._on_step:
      self._on_step(done, metrics)

  def _show(self, done: int, loss: float) -> None:
    """Moves the bar on; the speed is a mean over all steps but the first."""
    self._bar.update()
    now = time.monotonic()
    if self._first is None:  # It was compiled, and says nothing of the others.
      self._first = (done, now)
      self._bar.initial, self._bar.start_t = self._bar.n, time.time()
    steps, seconds = done - self._first[0], now - self._first[1]
    speed = steps * self._schedule.shape.used / max(seconds, 1e-9)
    text = f'loss {loss:.3f}, {speed:,.0f} tokens/s'
    self._bar.set_postfix_str(text, refresh=False)

  def _resume(self, latest: int, state: _State) -> bool:
    """Goes on from a checkpoint; returns whether it could be read."""
    assert self._checkpoints is not None
    optimizer = abstract_state(self._config, state.trained, self._mesh)
    self._state = state._replace(optimizer=optimizer)
    position = self._restore(latest)
    if position is None:
      return False
    if position['for'] != self._fingerprint:
      raise ValueError(
        f'{self._checkpoints.directory} holds a training with other examples, '
        'seed or mstep fields: choose another folder, or set these back.'
      )
    self.done = self._saved = latest
    self.scores = dict(position['scores'])
    self.losses = position['losses']
    self._bar.update(latest)
    return True

  def _restore(self, step: int) -> dict[str, Any] | None:
    """Reads what is trained, and the optimizer's state where one is kept.

    Returns where it was, or None where damage made it put all of them aside.
    """
    assert self._checkpoints is not None
    trained, optimizer, frozen = self._state
    like = {'trained': _abstract(trained)}
    if optimizer is not None:
      like['optimizer'] = optimizer
    ours, position, damage = self._fingerprint, None, ''
    try:
      position = self._checkpoints.position(step)
      if position['for'] == ours:
        _free(trained)
        state = self._checkpoints.restore(step, like)
        self._state = _State(state['trained'], state.get('optimizer'), frozen)
    except Exception as error:  # Orbax has no type for what is damaged.
      damage = repr(error)
    if not _told(lambda: bool(damage), 0):
      return position
    folder = self._checkpoints.directory
    self._checkpoints.close()
    if jax.process_index() == 0:
      tqdm.write(
        f'{folder} cannot be read ({damage:.300}): it is {put_aside(folder)} '
        'now, and training starts anew'
      )
    multihost_utils.sync_global_devices('checkpoints put aside')
    self._checkpoints = Checkpoints(folder)
    return None


def _told(should_stop: Callable[[], bool] | None, done: int) -> bool:
  """Whether any process was told to stop; all get the same answer."""
  if should_stop is None:
    return False
  if jax.process_count() == 1:
    return should_stop()
  if done % _AGREE_EVERY:
    return False
  return bool(processes.any_says(np.asarray(should_stop())))


def _keep(array: jax.Array) -> Callable[[], jax.Array]:
  """Copies an array to the host; returns what puts it back once it is freed."""
  shape, place = array.shape, array.sharding
  shards = {str(s.index): np.array(s.data) for s in array.addressable_shards}
  return lambda: jax.make_array_from_callback(
    shape, place, lambda index: shards[str(index)]
  )


def _abstract(tree: Any) -> Any:
  def shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

  return jax.tree.map(shape, tree)


def _free(tree: Any) -> None:
  """Gives the memory back at once, whoever else holds these arrays."""
  for leaf in jax.tree.leaves(tree):
    leaf.delete()


def _check(config: MStepConfig, validate: object, folder: object) -> None:
  if config.stop != 'fixed_steps' and validate is not None and not folder:
    raise ValueError(
      f'mstep.stop={config.stop!r} needs a folder for checkpoints: the chosen '
      'model may not be the last.'
    )
