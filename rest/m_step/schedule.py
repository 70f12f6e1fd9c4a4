"""What happens at which step of an M-step: data, learning rate, pauses, stop.

All of it is a function of (examples, config, seed, step) and of the validation
scores so far, so that a run that was killed goes on as if it had not been.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import optax

from rest.config import MStepConfig
from rest.m_step import packing
from rest.m_step.batches import count_batches, draw_batches
from rest.m_step.packing import Batch, Example


class Schedule:
  """The steps of one training.

  Steps are counted by how many are done. With 12 steps, eval_every=4 and
  save_every=3, training pauses after 3, 4, 6, 8, 9 and 12 of them, and the
  model is validated after 4, 8 and 12. Where an epoch has 6 batches, step 7 has
  batch 1 of epoch 1, all counted from 0.

  Attributes:
    config: How it is trained.
    seed: Of the order of the data.
    examples: How many examples there are.
    steps: How many steps there are.
    shape: The rows of every batch.
  """

  def __init__(
    self,
    examples: Sequence[Example],
    config: MStepConfig,
    seed: int,
    shards: int = 1,
  ):
    """Plans the rows of all steps; raises ValueError as `packing.check` does.

    On the host alone: another thread may read weights meanwhile.

    Args:
      examples: What to train on.
      config: How.
      seed: Of the order of the data.
      shards: Devices that hold different rows.
    """
    packing.check(examples, config.row_length)
    self.config = config
    self.seed = seed
    self.examples = len(examples)
    self._examples = examples
    self._steps_an_epoch = count_batches(examples, config.batch)
    self.steps = self._steps_an_epoch * config.epochs
    if config.max_steps:
      self.steps = min(self.steps, config.max_steps)
    self._epoch, self._batches = 0, self._draw(0)
    self.shape = packing.plan(
      examples,
      (self.members(step) for step in range(self.steps)),
      config.row_length,
      config.rows,
      shards,
      config.share_prefixes,
    )

  @functools.cached_property
  def rates(self) -> np.ndarray:
    """Learning rate of each step, float32."""
    return learning_rates(self.config, self.steps)

  def batch(self, step: int) -> Batch:
    """Returns the batch of a step, counted from 0."""
    share = self.config.share_prefixes
    return packing.pack(self._examples, self.members(step), self.shape, share)

  def members(self, step: int) -> list[int]:
    """Returns the indices of the examples in the batch of a step."""
    epoch, index = divmod(step, self._steps_an_epoch)
    if epoch != self._epoch:
      self._epoch, self._batches = epoch, self._draw(epoch)
    return self._batches[index]

  def validates_after(self, done: int) -> bool:
    """Whether the model is validated when so many steps are done.

    Where it would be at the end alone, there is nothing to choose from.
    """
    every = self.config.eval_every
    if not 0 < every < self.steps:
      return False
    return done == self.steps or (done > 0 and done % every == 0)

  def next_pause(self, done: int) -> int:
    """Returns after how many steps the next validation or checkpoint is."""
    intervals = (self.config.eval_every, self.config.save_every)
    pauses = [done + n - done % n for n in intervals if n]
    return min([self.steps, *pauses])

  def ends(self, done: int, scores: Mapping[int, float]) -> bool:
    """Whether training is over after so many steps and with these scores."""
    return done >= self.steps or _dropped(self.config, scores)

  def chosen(self, scores: Mapping[int, float]) -> int | None:
    """Returns after how many steps the model is best, by the stop rule.

    None stands for the last step, whichever that is.
    """
    if self.config.stop == 'fixed_steps' or not scores:
      return None
    if self.config.stop == 'best':
      return max(scores, key=scores.__getitem__)  # The first of equals.
    return list(scores)[-2 if _dropped(self.config, scores) else -1]

  def fingerprint(self) -> str:
    """Returns a hash of all that decides which weights come out."""
    config = dataclasses.asdict(self.config)
    for name in ('save_every', 'rows', 'share_prefixes'):
      del config[name]
    hashed = hashlib.sha256(json.dumps([config, self.seed]).encode())
    prefix = self._examples[0].prefix
    for tokens in itertools.chain([prefix], map(_tokens, self._examples)):
      hashed.update(np.array([len(tokens), *tokens], np.int32).tobytes())
    weights = (example.weight for example in self._examples)
    hashed.update(np.fromiter(weights, np.float64).tobytes())
    return hashed.hexdigest()[:16]

  def _draw(self, epoch: int) -> list[list[int]]:
    config = self.config
    return draw_batches(self._examples, config.batch, self.seed, epoch)


def learning_rates(config: MStepConfig, steps: int) -> np.ndarray:
  """Returns the learning rate of each step, float32.

  It rises in equal parts, the peak being the last, and then falls from it. With
  10 steps, warmup=0.3, a peak of 3 and a 'linear' fall to 0: 1, 2, 3, 3, 2.57,
  2.14, 1.71, 1.29, 0.86, 0.43.
  """
  warmup = round(config.warmup * steps)
  left = max(1, steps - warmup)
  peak = config.learning_rate
  decay = {
    'constant': optax.constant_schedule(peak),
    'linear': optax.linear_schedule(peak, peak * config.final_rate, left),
    'cosine': optax.cosine_decay_schedule(peak, left, config.final_rate),
  }[config.schedule]
  step = np.arange(steps)
  rising = peak * (step + 1) / max(1, warmup)
  falling = np.broadcast_to(decay(np.maximum(step - warmup, 0)), (steps,))
  return np.where(step < warmup, rising, falling).astype(np.float32)


def _dropped(config: MStepConfig, scores: Mapping[int, float]) -> bool:
  values = list(scores.values())
  is_drop = len(values) > 1 and values[-1] <= values[-2]
  return config.stop == 'first_drop' and is_drop


def _tokens(example: Example) -> tuple[int, ...]:
  return len(example.question), *example.question, *example.completion
