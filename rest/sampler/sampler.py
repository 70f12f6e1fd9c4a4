"""The sampler: weights, a table on the device, and what is asked of them."""

import itertools
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh

from rest.config import AS_PUBLISHED, Decoding, SamplerConfig
from rest.model.completion import complete
from rest.model.rope import check_reach
from rest.model.tokenizer import check_ids
from rest.model.transformer import ModelConfig, Transformer
from rest.sampler.ahead import Ahead
from rest.sampler.capacity import Capacity, room, size_tables
from rest.sampler.decode import ENDS
from rest.sampler.drawing import Drawing
from rest.sampler.hand_over import hand_over, handed_over
from rest.sampler.order import Ask, Sampled, rest_of
from rest.sampler.programs import Programs
from rest.sampler.scheduler import Scheduler
from rest.sampler.stats import Stats
from rest.sampler.stops import Stops
from rest.sampler.table import (
  Table,
  TableShape,
  empty_table,
  idle_state,
  put,
  put_table,
  shards_of,
)
from rest.types import Completion, Tokenizer


class Sampler:
  """Draws completions of prompts that share a prefix.

  Attributes:
    model: The weights as decoding has them: a list of layers; where it holds
      none, their shapes.
    stats: Sums over all sampling so far.
  """

  def __init__(
    self,
    model: ModelConfig,
    tokenizer: Tokenizer,
    config: SamplerConfig,
    mesh: Mesh,
    seed: int,
    decoding: Decoding = AS_PUBLISHED,
  ):
    """Holds no weights yet, which `prepare` does not need.

    Args:
      model: The model's shape.
      tokenizer: Decodes completions, and names the end tokens.
      config: The longest completions, and the size of the table.
      mesh: Devices that sample together. Rows are shared out over `data` and
        `fsdp` (each of them holds the weights), heads over `tensor`. Where
        other processes have some of them, all must do the same, in step.
      seed: Of all random numbers.
      decoding: How tokens are chosen where `sample` is not told otherwise.

    Raises:
      ValueError: More end tokens than the programs provide for, or one that the
        model has not; or its positions are turned for shorter sequences.
    """
    if len(tokenizer.eos) > ENDS:
      raise ValueError(
        f'A tokenizer may have {ENDS} end tokens; this one has '
        f'{len(tokenizer.eos)}.'
      )
    check_ids(tokenizer.eos, model.vocab, 'End tokens')
    check_reach(model.rope_scaling, config.longest, 'A sample')
    self.stats = Stats()
    self._tokenizer = tokenizer
    self._config, self._decoding = config, decoding
    self._mesh = mesh
    self._seed = seed
    self._table: Table | None = None
    self._capacity: Capacity | None = None
    self._ahead = Ahead()
    self._model_config = model
    self._no_weights = handed_over(model, mesh)
    self.model: Transformer = self._no_weights

  def set_weights(self, model: Transformer, mesh: Mesh | None = None) -> None:
    """Takes weights from the trainer.

    Wherever they come from, their places are spelled alike: of another spelling
    of the same place, all programs of decoding would be compiled again.

    Args:
      model: Stacked layers, of any type and sharding; it is not kept.
      mesh: The trainer's; None: the sampler's own. Where it has devices of
        other processes, all must take the weights.
    """
    mesh = mesh or self._mesh
    with jax.set_mesh(mesh):
      model = hand_over(self._model_config, mesh)(model)
    self.model = jax.tree.map(
      lambda leaf, own: put(leaf, own.sharding), model, self._no_weights
    )

  def release(self) -> None:
    """Frees weights and table for the trainer."""
    self._table, self.model = None, self._no_weights

  def tables(self, prefix: int, samples: int) -> list[Capacity]:
    """Returns the tables for prompts behind so many shared tokens, in order.

    Args:
      prefix: Tokens of the prefix.
      samples: Most samples asked of one problem.

    Raises:
      ValueError: It does not fit.
    """
    return [one.capacity for one in self.programs(prefix, samples)]

  def sample(
    self,
    prefix: Sequence[int],
    asks: Sequence[Ask],
    *,
    stop: tuple[str, ...] = (),
    **options: Any,
  ) -> Iterator[tuple[int, int, Completion]]:
    """Draws the samples that are asked for; see `draw` for all arguments.

    Returns:
      An iterator over (index of the ask, sample, completion), in order of
      completion.
    """
    drawn = self.draw(prefix, asks, stop=stop, **options)
    return (
      (sampled.ask, sampled.sample, self._complete(sampled, stop))
      for call in drawn
      for sampled in call
    )

  def draw(
    self,
    prefix: Sequence[int],
    asks: Sequence[Ask],
    *,
    samples: int = 0,
    withdrawn: Collection[int] = (),
    stop: tuple[str, ...] = (),
    **options: Any,
  ) -> Iterator[list[Sampled]]:
    """Draws the samples that are asked for, as tokens.

    Tokens are taken as they are given: a begin token, where the model wants
    one, is the prefix's first.

    Args:
      prefix: Tokens that all prompts begin with; may be empty.
      asks: What to draw. Those with long questions come last, in a table of
        their own, as may what is long of completions (see `size_tables`).
      samples: Most samples of one ask; 0: what the first ask has. It shapes
        the table, so give it where asks may be what a killed run left over.
      withdrawn: Indices of asks that no more is wanted of. The consumer may add
        to it; a few samples that were under way may still come.
      stop: Texts that end a completion.
      **options: `temperature`, `top_k` and `top_p` (see `Decoding`) and
        `max_tokens` (see `SamplerConfig`), in place of what the sampler was
        made with.

    Returns:
      An iterator over what ended in each call of the device, which works on
      while the consumer holds an item. `rest.model.completion` makes text of
      it.

    Raises:
      ValueError: A prompt that is too long, or not of the model's vocabulary,
        before any work; a table that does not fit; no weights.
    """
    if stop and not self._tokenizer.eos:
      raise ValueError(
        'Stop texts need a tokenizer with an end token, which takes their '
        'place in the completion; tokenizer.eos is empty.'
      )
    if self.model is self._no_weights:
      raise ValueError('The sampler holds no weights: call set_weights first.')
    config, _ = self._settings(**options)
    before, model = len(prefix), self._model_config
    check_ids(prefix, model.vocab, 'The prefix of the prompts')
    for ask in asks:
      _check(ask, before, config, model)
    if not asks:
      return iter(())
    samples = max(1, samples or len(asks[0].samples))
    by_room: defaultdict[int, list[tuple[int, Ask]]] = defaultdict(list)
    for index, ask in enumerate(asks):
      by_room[room(config, before, len(ask.tokens))].append((index, ask))
    lists = [
      self._begin(prefix, by_room[size], samples, withdrawn, stop, options)
      for size in sorted(by_room)
    ]
    return itertools.chain.from_iterable(lists)

  def _begin(
    self,
    prefix: Sequence[int],
    asks: list[tuple[int, Ask]],
    samples: int,
    withdrawn: Collection[int],
    stop: tuple[str, ...],
    options: Mapping[str, Any],
  ) -> Iterator[list[Sampled]]:
    """Returns what draws asks, with their index, in tables of their own."""
    longest = max(len(ask.tokens) for _, ask in asks)
    tables = self.programs(len(prefix), samples, longest, **options)
    for programs in tables:
      self._compile_ahead(programs)
    stops = Stops(self._tokenizer, stop, self._model_config.vocab)
    return self._draw_in(tables, prefix, asks, withdrawn, stops)

  def _draw_in(
    self,
    tables: Sequence[Programs],
    prefix: Sequence[int],
    asks: Sequence[tuple[int, Ask]],
    withdrawn: Collection[int],
    stops: Stops,
  ) -> Iterator[list[Sampled]]:
    """Draws asks, with their index, in one table after the other.

    Invariant: what is yielded is at its end; what has come to a table's limit
    alone is asked for again in the next one. Example: with limits of 1,024 and
    4,096, a completion of 3,000 tokens is drawn up to 1,024, and then the other
    1,976 behind a question that ends with these.
    """
    whole, most = dict(asks), tables[-1].capacity.limit
    for programs in tables:
      here = programs.capacity.limit
      longer: list[tuple[int, Ask]] = []
      for call in self._run(programs, prefix, asks, withdrawn, stops):
        ended: list[Sampled] = []
        for sampled in call:
          ask = whole[sampled.ask]
          limit = most
          if ask.limits:  # They may ask for more than there is room for.
            limit = min(most, ask.limits[ask.samples.index(sampled.sample)])
          if self._is_over(sampled, min(limit, here), limit, stops):
            ended.append(sampled)
          else:
            longer.append((sampled.ask, rest_of(ask, sampled, limit)))
        yield ended
      asks = longer

  def _is_over(
    self, sampled: Sampled, here: int, limit: int, stops: Stops
  ) -> bool:
    """Whether a completion is at its end, or at a table's alone.

    Args:
      sampled: The completion.
      here: How long it can become in this table.
      limit: How long it can become.
      stops: Finds stop strings; a table that is full does not look for them.
    """
    tokens_T = sampled.tokens_T
    return (
      here == limit
      or len(tokens_T) < here
      or tokens_T[-1] in self._tokenizer.eos
      or stops.ends(tokens_T)
    )

  def prepare(self, prefix: int, samples: int, **options: Any) -> None:
    """Has the programs of a list compiled behind whatever is drawn before it.

    Args:
      prefix: Tokens that all prompts will begin with.
      samples: Most samples of one ask.
      **options: As in `draw`.

    Raises:
      ValueError: The table does not fit.
    """
    self._compile_ahead(self.programs(prefix, samples, **options)[0])

  def close(self) -> None:
    """Waits for what is being compiled; nothing is to be drawn any more."""
    self._ahead.close()

  def programs(
    self, prefix: int, samples: int, question: int = 0, **options: Any
  ) -> list[Programs]:
    """Returns the programs of a list; see `size_tables` and `prepare`."""
    config, decoding = self._settings(**options)
    model, mesh = self._model_config, self._mesh
    tables = size_tables(
      config, model, mesh, prefix, samples, question=question
    )
    shapes = self._no_weights
    return [Programs(shapes, t, mesh, decoding, prefix) for t in tables]

  def _compile_ahead(self, programs: Programs) -> None:
    # A CPU would compile on the cores that it draws with; and XLA's crashes
    # where one thread compiles and another writes to the compilation cache.
    if self._mesh.devices.flat[0].platform != 'cpu':
      self._ahead.start(programs.all())

  def _settings(
    self,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
  ) -> tuple[SamplerConfig, Decoding]:
    """Returns what holds for a list: what it names, or the sampler's own."""
    given = {'temperature': temperature, 'top_k': top_k, 'top_p': top_p}
    changes = {k: v for k, v in given.items() if v is not None}
    decoding = replace(self._decoding, **changes)
    if max_tokens is None:
      return self._config, decoding
    return replace(self._config, max_tokens=max_tokens), decoding

  def _run(
    self,
    programs: Programs,
    prefix: Sequence[int],
    asks: Sequence[tuple[int, Ask]],
    withdrawn: Collection[int],
    stops: Stops,
  ) -> Iterator[list[Sampled]]:
    """Draws asks, with their index, in a table."""
    if not asks:
      return
    begin = time.monotonic()
    capacity = programs.capacity
    scheduler = Scheduler(
      capacity.shape,
      iter(asks),
      _chunk(sum(len(ask.samples) for _, ask in asks), capacity.shape),
      capacity.questions,
      capacity.limit - capacity.begun,
      self._seed,
      withdrawn,
      shards_of(self._mesh),
    )
    drawing = Drawing(
      model=self.model,
      ends=self._tokenizer.eos,
      mesh=self._mesh,
      ahead=self._ahead,
      decoding=programs.decoding,
      stops=stops,
      stats=self.stats,
      scheduler=scheduler,
      capacity=capacity,
      table=self._take_table(capacity),
    )
    yield from drawing.run(prefix)
    self._table, self._capacity = drawing.table, drawing.capacity
    self.stats.seconds += time.monotonic() - begin

  def _complete(self, sampled: Sampled, stop: tuple[str, ...]) -> Completion:
    completion = complete(
      sampled.tokens_T.tolist(),
      sampled.logprobs_T.tolist(),
      self._tokenizer,
      stop,
    )
    self.stats.tokens += len(completion.tokens)
    return completion

  def _take_table(self, capacity: Capacity) -> Table:
    """Returns a table at rest; its buffers are used again where they fit."""
    table, self._table = self._table, None
    if table is None or self._capacity != capacity:
      del table
      with jax.set_mesh(self._mesh):
        table = empty_table(self._model_config, capacity.shape, self._mesh)
    idle = Table(table.caches, *idle_state(capacity.shape))
    return put_table(idle, self._mesh)


def _chunk(samples: int, shape: TableShape) -> int:
  """Returns the most samples of an order; few problems go to several slots."""
  return min(shape.samples, max(shape.rows, samples // (2 * shape.slots)))


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
