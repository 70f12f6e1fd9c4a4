"""What the sampler is asked for, and the table that serves it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from rest.config import SamplerConfig
from rest.model import hardware
from rest.model.transformer import ModelConfig
from rest.sampler.table import BUFFERS, TableShape, shards_of

_USUAL = 1024  # Tokens; what is longer may have a table of its own.
_LONGER = 4  # Times as long are the completions of the next table.


@dataclass(frozen=True, slots=True)
class Capacity:
  """A table and what it takes on each device.

  Attributes:
    shape: The table.
    begun: Tokens of a completion that were drawn in the table before.
    limit: Tokens of the longest that it is for, these included.
    least_rows: Rows down to which it shrinks.
    steps: Steps a call.
    questions: Questions prefilled at once.
    weight_bytes: Parameters, in the compute type.
    prefix_bytes: Level 0.
    question_bytes: Level 1.
    suffix_bytes: Level 2.
    work_bytes: Logits and intermediate results, estimated.
    available_bytes: What the device has, times `memory_share`.
  """

  shape: TableShape
  begun: int
  limit: int
  least_rows: int
  steps: int
  questions: int
  weight_bytes: int
  prefix_bytes: int
  question_bytes: int
  suffix_bytes: int
  work_bytes: int
  available_bytes: int

  @property
  def total_bytes(self) -> int:
    """Peak memory of a device."""
    return (
      self.weight_bytes
      + self.prefix_bytes
      + self.question_bytes
      + self.suffix_bytes
      + self.work_bytes
    )

  @property
  def fits(self) -> bool:
    """Whether the device has the memory."""
    return self.total_bytes <= self.available_bytes

  def __str__(self) -> str:
    s = self.shape
    parts = ' + '.join(
      f'{name} {value / 2**30:.2f}'
      for name, value in (
        ('weights', self.weight_bytes),
        ('prefix', self.prefix_bytes),
        ('questions', self.question_bytes),
        ('suffixes', self.suffix_bytes),
        ('work', self.work_bytes),
      )
    )
    return (
      f'{s.size} rows ({s.slots} slots of {s.rows}, at least '
      f'{self.least_rows}), {self.steps} steps a call, prefix {s.prefix}, '
      f'question {s.question}, suffix {s.suffix} tokens; {parts} = '
      f'{self.total_bytes / 2**30:.2f} of {self.available_bytes / 2**30:.2f} '
      'GiB a device'
    )


def size_tables(
  config: SamplerConfig,
  model: ModelConfig,
  mesh: Mesh | AbstractMesh,
  prefix: int,
  samples: int,
  device: hardware.Device | None = None,
  question: int = 0,
) -> list[Capacity]:
  """Chooses the tables that a list is drawn in, one after the other.

  A row has room for as many tokens as it may draw, and few completions become
  as long as they may. So where the longest would leave less than half of the
  rows, all are begun in a table for shorter ones; what is not at its end there
  is read by the next table, behind its question, and goes on.

  They depend on the problems only through `prefix` and `samples`, and through
  `question` in two sizes, so that a part of the problems, drawn again, is drawn
  in the same tables.

  Example: a 1.5B model on one H200 of 141 GB. For up to 2,048 tokens there are
  1536 rows, and one table; for up to 8,192 there would be 384 rows: all are
  begun in the former, and of those with a median of 1,200 tokens a quarter goes
  on.

  Args:
    config: What the user set. A number of rows is taken as it is.
    model: The model's shape.
    mesh: Of the devices.
    prefix: Tokens of the shared prefix.
    samples: Most samples asked of one problem.
    device: Of what kind they are; None: as JAX finds them.
    question: Tokens of the longest question; 0: the usual.

  Raises:
    ValueError: A table does not fit the devices or their memory.
  """
  device = device or find_device()

  def table(limit: int, question: int = 0, begun: int = 0) -> Capacity:
    own, asked = replace(config, max_tokens=limit), 1 if begun else samples
    return _size_table(own, model, mesh, device, prefix, asked, question, begun)

  # Of the usual questions, so that the limits do not depend on the list.
  limit, enough = config.max_tokens, _most_rows(device, shards_of(mesh)) // 2
  while not config.rows and limit > _USUAL and table(limit).shape.size < enough:
    limit = max(_USUAL, limit // 2)
  found = [table(limit, question)]
  while limit < config.max_tokens:
    begun, limit = limit, min(_LONGER * limit, config.max_tokens)
    found.append(table(limit, question, begun))
  return found


def room(config: SamplerConfig, prefix: int, question: int) -> int:
  """Returns the tokens of a question, its last left out, that a table is for.

  There are two tables, or every slot would be as wide as the longest prompt of
  a set: with prompts of at most 5,120 tokens and a prefix of 650, one for
  questions of up to 1,024, and one for those of up to 5,120.

  Args:
    config: What the user set.
    prefix: Tokens before the question.
    question: Tokens of the longest; 0: the usual.
  """
  most = bucket(max(1, config.max_prompt_tokens - prefix - 1))
  return most if question - 1 > _USUAL else min(most, _USUAL)


def find_device() -> hardware.Device:
  """Returns what kind of device this process has."""
  device: Any = jax.local_devices()[0]
  if device.platform == 'cpu':
    return hardware.cpu(jax.local_device_count())
  memory = device.memory_stats()['bytes_limit']
  return hardware.known(device.device_kind, device.platform, memory)


def bucket(tokens: int) -> int:
  """Returns the capacity for so many tokens: few sizes, little waste.

  Up to 1,024 by steps of 64, then by four to an octave: 1,280, 1,536, 1,792,
  2,048, 2,560 ...
  """
  step = 64 if tokens > 64 else 32
  if tokens > _USUAL:
    step = 1 << ((tokens - 1).bit_length() - 3)
  return -(-tokens // step) * step


def widths(tokens: int) -> list[int]:
  """Returns the widths that questions are prefilled at, the smallest first.

  Args:
    tokens: Of a question that the table has room for.
  """
  found = [tokens]
  while found[0] >= 128 and found[0] % 2 == 0:
    found.insert(0, found[0] // 2)
  return found


def smallest(
  capacity: Capacity,
  mesh: Mesh | AbstractMesh,
  fits: Callable[[TableShape], bool],
) -> TableShape:
  """Returns the smallest table, of a few sizes, that serves what is left.

  Args:
    capacity: The present table.
    mesh: Of the devices, which must share it out evenly.
    fits: Whether what is left fits.
  """
  found = capacity.shape
  for shape in sizes(capacity, mesh):
    if not fits(shape):
      break
    found = shape
  return found


def sizes(
  capacity: Capacity, mesh: Mesh | AbstractMesh
) -> Iterator[TableShape]:
  """Yields the tables that a table may shrink to, itself first.

  Sizes go down by an eighth of a slot's rows, 16 14 12 10 8 7 6 5 4 3 2 1, and
  then by halves of the slots.
  """
  shape, shards = capacity.shape, shards_of(mesh)
  while shape.size >= capacity.least_rows:
    if shape.slots % shards == 0 and shape.size % mesh.size == 0:
      yield shape
    if shape.rows > 1:
      shape = replace(shape, rows=shape.rows - -(-shape.rows // 8))
    else:
      shape = replace(shape, slots=shape.slots // 2)


def _size_table(
  config: SamplerConfig,
  model: ModelConfig,
  mesh: Mesh | AbstractMesh,
  device: hardware.Device,
  prefix: int,
  samples: int,
  question: int,
  begun: int,
) -> Capacity:
  """Chooses one table, for completions of at most `config.max_tokens`.

  Invariant: slots are shared out evenly, and rows over all devices. Example: 30
  samples a problem on one H200 of 141 GB, a 1.5B model: R = 16 rows a slot, and
  of 2048 rows 128 slots; where they do not fit, 96, 64, 48, and so on.

  The table follows `begun` tokens of a completion, which were drawn in those
  before and lie behind its question; all else is as in `size_tables`.

  Raises:
    ValueError: The table does not fit the devices or their memory.
  """
  if model.kv_heads % mesh.shape['tensor']:
    raise ValueError(
      f'mesh.tensor must divide the {model.kv_heads} key/value heads; got '
      f'{mesh.shape["tensor"]}.'
    )
  is_cpu = device.platform == 'cpu'
  shards, tensor = shards_of(mesh), mesh.shape['tensor']
  # Measured: bench/NOTES.md. Accelerators have a fixed cost a step, which many
  # rows share. A buffer falls free with the last of its samples: two of them
  # keep a slot's rows at work only where each has more samples than rows.
  per_slot = config.rows_per_slot or min(
    8 if is_cpu else 16, _power(samples // 2 + 1)
  )
  rows = config.rows or _most_rows(device, shards)
  unit = per_slot * shards * (tensor if per_slot % tensor else 1)

  def attempt(rows: int) -> Capacity:
    shape = TableShape(
      slots=max(1, rows // unit) * unit // per_slot,
      rows=per_slot,
      prefix=bucket(prefix),
      question=bucket(room(config, prefix, question) + begun),
      suffix=bucket(config.max_tokens - begun),
      samples=_power(2 * samples - 1),
    )
    return _weigh(config, model, mesh, device, shape, begun)

  capacity, fewer = attempt(rows), rows
  while not config.rows and not capacity.fits and capacity.shape.size > unit:
    # A quarter less, and then a third: 2048, 1536, 1024, 768 ...
    fewer -= rows // 4
    rows = rows // 2 if fewer == rows // 2 else rows
    capacity = attempt(fewer)
  if not capacity.fits:
    raise ValueError(_too_large(capacity, config))
  return capacity


def _most_rows(device: hardware.Device, shards: int) -> int:
  """Returns the rows of a table that has the memory for them."""
  return 64 if device.platform == 'cpu' else 2048 * shards


def _too_large(capacity: Capacity, config: SamplerConfig) -> str:
  available = capacity.available_bytes / 2**30
  return (
    f'The sampler needs {capacity.total_bytes / 2**30:.2f} GiB a device, but '
    f'{available:.2f} GiB are there ({capacity}): lower sampling.rows (now '
    f'{capacity.shape.size}), sampling.max_tokens ({config.max_tokens}) or '
    f'sampling.max_prompt_tokens ({config.max_prompt_tokens}), or raise '
    'mesh.tensor.'
  )


def _steps(weight_bytes: int, device: hardware.Device) -> int:
  """Returns the steps of a call, a power of two.

  Short calls let the table shrink as soon as it can; but the shortest, those of
  the smallest table, must leave the host time to file the one before.
  """
  if not device.bandwidth:
    return 16 if device.platform == 'cpu' else 8
  step = 2e-3 + weight_bytes / device.bandwidth
  return _power(2 * max(1, math.ceil(8e-3 / step)) - 1)


def _weight_bytes(model: ModelConfig, tensor: int) -> int:
  """Returns the bytes of a device's weights, in the compute type."""
  embeddings = model.vocab * model.width * (1 if model.tied else 2)
  layer = model.width * (
    model.head_width * 2 * (model.heads + model.kv_heads) + 3 * model.ffn
  )
  size = jnp.dtype(model.dtype).itemsize
  return (embeddings + model.layers * layer) * size // tensor


def _weigh(
  config: SamplerConfig,
  model: ModelConfig,
  mesh: Mesh | AbstractMesh,
  device: hardware.Device,
  shape: TableShape,
  begun: int,
) -> Capacity:
  """Returns what a table takes on each device.

  Invariant: level 0 is on every device, levels 1 and 2 are shared out over the
  shards, heads over `tensor`. Example: 28 layers of K = 2 heads of 128 in
  bfloat16 take 28 KiB a token; a prefix of 640 is 17.5 MiB, the suffixes of
  2048 rows of 512 tokens are 28 GiB.
  """
  shards, tensor = shards_of(mesh), mesh.shape['tensor']
  size = jnp.dtype(model.dtype).itemsize
  token = 2 * model.layers * model.kv_heads // tensor * model.head_width * size
  slots = shape.slots // shards
  weight_bytes = _weight_bytes(model, tensor)
  least = config.min_rows
  # A step of fewer rows takes no less: it waits for the weights.
  least = least or (shape.size if device.platform == 'cpu' else 128 * shards)
  keys = shape.prefix + BUFFERS * shape.question + shape.suffix
  # Logits in float32, their copy in groups, and a layer's scores.
  work = 2 * model.vocab // tensor + 2 * model.heads // tensor * keys
  return Capacity(
    shape=shape,
    begun=begun,
    limit=config.max_tokens,
    least_rows=min(max(least, mesh.size), shape.size),
    steps=config.steps_per_call or _steps(weight_bytes, device),
    questions=shards * max(1, min(8, 8192 // shape.question, slots)),
    weight_bytes=weight_bytes,
    prefix_bytes=token * shape.prefix,
    question_bytes=token * slots * BUFFERS * shape.question,
    suffix_bytes=token * slots * shape.rows * shape.suffix,
    work_bytes=slots * shape.rows * 4 * work,
    available_bytes=int(device.memory * config.memory_share),
  )


def _power(number: int) -> int:
  """Returns the largest power of two that is not over `number`."""
  return 1 << (number.bit_length() - 1)
