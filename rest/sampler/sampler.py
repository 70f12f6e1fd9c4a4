"""The sampler: a table on the device, kept busy by the host."""

import functools
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from rest.config import SamplerConfig
from rest.model.sharding import PARAMETERS, leaf_name, spec
from rest.model.tokenizer import check_ids
from rest.model.transformer import ModelConfig, Transformer, unstack
from rest.sampler.attention import read_for
from rest.sampler.capacity import Capacity, size_table, smallest
from rest.sampler.decode import (
  Knobs,
  Program,
  decode,
  load_prefix,
  load_questions,
)
from rest.sampler.order import Ask, Draft, Order
from rest.sampler.scheduler import Scheduler
from rest.sampler.stats import Call, Stats, Watch
from rest.sampler.table import (
  Dropped,
  LayerCache,
  Move,
  Rows,
  Slots,
  Table,
  empty_table,
  idle_state,
  move_cache,
  move_rows,
  table_shardings,
)
from rest.sampler.text import complete, has_stop
from rest.sampler.token_choice import candidates_for
from rest.types import Completion, Tokenizer

_ENDS = 8  # End tokens that a model may have.


class Sampler:
  """Draws completions of prompts that share a prefix.

  Attributes:
    model: The weights as decoding has them: a list of layers.
    stats: Sums over all sampling so far.
  """

  def __init__(
    self,
    model: Transformer,
    tokenizer: Tokenizer,
    config: SamplerConfig,
    mesh: Mesh,
    seed: int,
  ):
    """Takes the weights over; nothing is compiled yet.

    Args:
      model: Stacked, as the trainer has it; see `set_weights`.
      tokenizer: Decodes completions, and names the end tokens.
      config: Defaults of `sample`, and the size of the table.
      mesh: Devices of this process. Rows are shared out over `data` and `fsdp`
        (each of them holds the weights), heads over `tensor`.
      seed: Of all random numbers.

    Raises:
      ValueError: More end tokens than the programs provide for, or one that the
        model has not.
    """
    if len(tokenizer.eos) > _ENDS:
      raise ValueError(
        f'A tokenizer may have {_ENDS} end tokens; this one has '
        f'{len(tokenizer.eos)}.'
      )
    check_ids(tokenizer.eos, model.config.vocab, 'End tokens')
    self.stats = Stats()
    self._tokenizer = tokenizer
    self._config = config
    self._mesh = mesh
    self._shards = mesh.shape['data'] * mesh.shape['fsdp']
    self._seed = seed
    self._stop: tuple[str, ...] = ()
    self._table: Table | None = None
    self._capacity: Capacity | None = None
    self._watch = Watch()
    self.set_weights(model)

  def set_weights(self, model: Transformer) -> None:
    """Takes new weights from the trainer.

    Args:
      model: Stacked layers, of any type and sharding; it is not kept.
    """
    self._model_config = model.config
    self.model = _hand_over(model, self._mesh)

  def release(self) -> None:
    """Frees weights and table for the trainer; `set_weights` must come next."""
    self._table = None
    del self.model

  def capacity(self, prefix: int, samples: int) -> Capacity:
    """Returns the table for prompts behind so many shared tokens.

    Args:
      prefix: Tokens of the prefix.
      samples: Most samples asked of one problem.

    Raises:
      ValueError: It does not fit.
    """
    return size_table(
      self._config, self._model_config, self._mesh, prefix, samples
    )

  def sample(
    self,
    prefix: Sequence[int],
    asks: Iterable[Ask],
    *,
    samples: int = 0,
    withdrawn: Collection[int] = (),
    stop: tuple[str, ...] = (),
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
  ) -> Iterator[tuple[int, int, Completion]]:
    """Draws the samples that are asked for.

    Tokens are taken as they are given: a begin token, where the model wants
    one, is the prefix's first.

    Args:
      prefix: Tokens that all prompts begin with; may be empty.
      asks: What to draw; may be lazy, and is then read as slots fall free.
      samples: Most samples of one ask; 0: what the first ask has. It shapes
        the table, so give it where asks may be what a killed run left over.
      withdrawn: Indices of asks that no more is wanted of. The consumer may add
        to it; a few samples that were under way may still come.
      stop: Texts that end a completion.
      temperature: In place of the config's; likewise the following.
      top_k: See `SamplerConfig`.
      top_p: See `SamplerConfig`.
      max_tokens: See `SamplerConfig`.

    Returns:
      An iterator over (index of the ask, sample, completion), in order of
      completion. The device works on while the consumer holds an item.

    Raises:
      ValueError: A prompt that is too long, or not of the model's vocabulary,
        before any work where `asks` is a sequence; a table that does not fit.
    """
    if stop and not self._tokenizer.eos:
      raise ValueError(
        'Stop texts need a tokenizer with an end token, which takes their '
        'place in the completion; tokenizer.eos is empty.'
      )
    given = {
      'temperature': temperature,
      'top_k': top_k,
      'top_p': top_p,
      'max_tokens': max_tokens,
    }
    config = replace(
      self._config, **{k: v for k, v in given.items() if v is not None}
    )
    check_ids(prefix, self._model_config.vocab, 'The prefix of the prompts')
    if isinstance(asks, Sequence):
      for ask in asks:
        _check(ask, len(prefix), config, self._model_config)
    numbered = enumerate(asks)
    first = next(numbered, None)
    if first is None:
      return iter(())
    capacity = size_table(
      config,
      self._model_config,
      self._mesh,
      len(prefix),
      samples or max(1, len(first[1].samples)),
    )
    checked = _checked(first, numbered, len(prefix), config, self._model_config)
    chunk = capacity.shape.samples
    if isinstance(asks, Sequence):
      # Few problems: each goes to several slots.
      total = sum(len(ask.samples) for ask in asks)
      chunk = min(
        chunk, max(capacity.shape.rows, total // (2 * capacity.shape.slots))
      )
    scheduler = Scheduler(
      capacity.shape,
      checked,
      chunk,
      capacity.questions,
      config.max_tokens,
      self._seed,
      withdrawn,
      self._shards,
    )
    return self._run(capacity, scheduler, prefix, config, stop)

  def _run(
    self,
    capacity: Capacity,
    scheduler: Scheduler,
    prefix: Sequence[int],
    config: SamplerConfig,
    stop: tuple[str, ...],
  ) -> Iterator[tuple[int, int, Completion]]:
    begin = time.monotonic()
    self._stop = stop
    knobs = self._knobs(config, len(prefix))
    table = self._take_table(capacity)
    if prefix:
      tokens_XT = np.zeros((self._shards, capacity.shape.prefix), np.int32)
      tokens_XT[:, : len(prefix)] = prefix
      with jax.set_mesh(self._mesh):
        table = load_prefix(self.model, table, tokens_XT, knobs.prefix)
    calls: deque[Call] = deque()
    self._watch = Watch()
    dropped_QR = _no_rows(capacity)
    while True:
      while load := scheduler.load():
        with jax.set_mesh(self._mesh):
          table = load_questions(self.model, table, load, knobs.prefix)
      if scheduler.is_open:
        self._watch.before(calls)
        program = self._program(capacity, scheduler, config, len(calls))
        dropped = Dropped(dropped_QR, scheduler.withdraw())
        with jax.set_mesh(self._mesh):
          table, drawn = decode(self.model, table, knobs, dropped, program)
        owners = [list(slot) for slot in scheduler.owners]
        calls.append(Call(drawn, owners))
        # A new array: the device may still read the old one.
        dropped_QR = _no_rows(capacity)
      elif not calls:
        break
      if len(calls) > 1 or not scheduler.is_open:
        yield from self._collect(calls.popleft(), scheduler, dropped_QR)
      if not scheduler.is_open:
        continue
      target = smallest(capacity, self._mesh, scheduler.fits)
      if target != capacity.shape or scheduler.is_uneven():
        # What waits may begin in a call under way, in a row not yet known.
        while calls and scheduler.waiting:
          yield from self._collect(calls.popleft(), scheduler, dropped_QR)
        if moves := scheduler.rearrange(target):
          table = self._rearrange(table, *moves)
          capacity = replace(capacity, shape=target)
          dropped_QR = _no_rows(capacity)  # What was dropped is not moved.
    self._table, self._capacity = table, capacity
    self.stats.idle_seconds += self._watch.idle
    self.stats.seconds += time.monotonic() - begin

  def _program(
    self,
    capacity: Capacity,
    scheduler: Scheduler,
    config: SamplerConfig,
    ahead: int,
  ) -> Program:
    """Returns what to compile for; `ahead` calls are not collected yet."""
    longest = scheduler.longest + (ahead + 1) * capacity.steps
    return Program(
      steps=capacity.steps,
      read=read_for(
        longest, capacity.shape.suffix, self._model_config, self._mesh
      ),
      candidates=self._candidates(config),
      mesh=self._mesh,
    )

  def _rearrange(self, table: Table, move: Move, slots: Slots) -> Table:
    """Returns the table with what is left shared out evenly."""
    with jax.set_mesh(self._mesh):
      rows = move_rows(table.rows, move, self._mesh)
      caches = []
      while table.caches:  # Each layer's old cache is freed before the next.
        caches.append(move_cache(table.caches.pop(0), move, self._mesh))
    return self._put(caches, slots, rows)

  def _collect(
    self, call: Call, scheduler: Scheduler, dropped_QR: np.ndarray
  ) -> Iterator[tuple[int, int, Completion]]:
    """Reads a call's tokens; yields the completions that ended in it."""
    arrays = [x.reshape(x.shape[0], -1) for x in self._watch.read(call)]
    entry_TB = arrays[2]
    self.stats.calls += 1
    self.stats.row_steps += entry_TB.size
    self.stats.busy_row_steps += int((entry_TB >= 0).sum())
    for draft, ended in scheduler.collect(call.owners, *arrays):
      if not ended:
        if not has_stop(draft, entry_TB.shape[0], self._tokenizer, self._stop):
          continue
        dropped_QR.reshape(-1)[draft.row] = draft.entry
      yield self._complete(scheduler.close(draft), draft)

  def _complete(
    self, order: Order, draft: Draft
  ) -> tuple[int, int, Completion]:
    completion = complete(draft, self._tokenizer, self._stop)
    self.stats.tokens += len(completion.tokens)
    return order.index, order.ask.samples[draft.place], completion

  def _knobs(self, config: SamplerConfig, prefix: int) -> Knobs:
    ends_X = np.full(_ENDS, -1, np.int32)
    ends_X[: len(self._tokenizer.eos)] = self._tokenizer.eos
    return Knobs(
      temperature=jnp.float32(config.temperature),
      top_k=jnp.int32(config.top_k),
      top_p=jnp.float32(config.top_p),
      ends_X=jnp.asarray(ends_X),
      prefix=jnp.int32(prefix),
    )

  def _candidates(self, config: SamplerConfig) -> int:
    # A temperature of 0 needs the best token only.
    top_k = config.top_k if config.temperature else config.top_k or 1
    return candidates_for(top_k, self._model_config.vocab)

  def _take_table(self, capacity: Capacity) -> Table:
    """Returns a table at rest; its buffers are used again where they fit."""
    table, self._table = self._table, None
    if table is None or self._capacity != capacity:
      del table
      table = empty_table(self._model_config, capacity.shape, self._mesh)
    return self._put(table.caches, *idle_state(capacity.shape))

  def _put(self, caches: list[LayerCache], slots: Slots, rows: Rows) -> Table:
    """Returns a table of caches on the device and state on the host.

    Whoever made them, their shardings are spelled alike: another spelling of
    the same place would be compiled for again.
    """
    table = Table(caches, slots, rows)
    where = table_shardings(table, self._mesh)
    return Table(
      jax.device_put(caches, where.caches),
      jax.device_put(slots, where.slots),
      jax.device_put(rows, where.rows),
    )


@functools.partial(jax.jit, static_argnames='mesh')
def _hand_over(model: Transformer, mesh: Mesh) -> Transformer:
  """Returns the model as decoding wants it: a list of layers, compute dtype.

  Norms stay in float32, as the trainer computes with them. Weights are split
  over `tensor` only: gathering them over `fsdp` each step would cost more than
  the step.
  """
  table = {k: axis for k, axis in PARAMETERS.items() if axis == 'tensor'}
  dtype = jnp.dtype(model.config.dtype)

  def convert(path, leaf):
    name = leaf_name(path)
    is_matrix = len(leaf.shape) > 1 and 'D' in name.split('_')[-1]
    leaf = leaf.astype(dtype) if is_matrix else leaf
    where = NamedSharding(mesh, spec(name, len(leaf.shape), table))
    return jax.lax.with_sharding_constraint(leaf, where)

  return jax.tree_util.tree_map_with_path(convert, unstack(model))


def _no_rows(capacity: Capacity) -> np.ndarray:
  return np.full((capacity.shape.slots, capacity.shape.rows), -1, np.int32)


def _check(
  ask: Ask, prefix: int, config: SamplerConfig, model: ModelConfig
) -> None:
  length = prefix + len(ask.tokens)
  if not ask.tokens:
    raise ValueError(f'A question has no tokens: {ask.key}.')
  check_ids(ask.tokens, model.vocab, f'A question (key {ask.key})')
  if length > config.max_prompt_tokens:
    raise ValueError(
      f'A prompt has {length} tokens ({prefix} of the prefix, '
      f'{len(ask.tokens)} of the question), but sampling.max_prompt_tokens is '
      f'{config.max_prompt_tokens} (key {ask.key}).'
    )
  most = max(ask.limits, default=config.max_tokens)
  if length + most > model.context:
    raise ValueError(
      f'A prompt has {length} tokens, and {length + most} with a completion of '
      f'sampling.max_tokens={most}, but the model was made for {model.context} '
      f'(max_position_embeddings in config.json; key {ask.key}).'
    )


def _checked(
  first: tuple[int, Ask],
  rest: Iterable[tuple[int, Ask]],
  prefix: int,
  config: SamplerConfig,
  model: ModelConfig,
) -> Iterator[tuple[int, Ask]]:
  _check(first[1], prefix, config, model)
  yield first
  for index, ask in rest:
    _check(ask, prefix, config, model)
    yield index, ask
