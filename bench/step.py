"""What a decoding step is made of: each part timed as a program of its own.

Parts run at the shapes of the sampler's table, in loops of as many steps as a
call has. What they do not add up to (claiming samples, noting tokens, the loop
itself) is the rest.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rest.model import sharding, transformer
from rest.model.transformer import ModelConfig, Transformer, backbone
from rest.sampler.attention import decode_attention, three_levels
from rest.sampler.capacity import Capacity
from rest.sampler.decode import Knobs, Program
from rest.sampler.programs import jitted
from rest.sampler.table import (
  BUFFERS,
  ROWS,
  Dropped,
  Table,
  TableShape,
  Where,
  empty_table,
  idle_state,
  table_shardings,
)
from rest.sampler.token_choice import choose, uniforms

_CALLS = 3  # Timed; the quickest counts.


def parts(
  model: Transformer,
  capacity: Capacity,
  program: Program,
  lengths: tuple[int, int, int],
  top_k: int,
) -> dict[str, float]:
  """Returns seconds of a step by part, and of a whole one under 'step'.

  Args:
    model: Unstacked.
    capacity: Of the table.
    program: As the sampler compiles for.
    lengths: Tokens of the prefix, of each question, and of each suffix.
    top_k: Of the token choice; the temperature is 1.
  """
  shape = capacity.shape
  attend = functools.partial(_attention, model.config, program)
  bare = replace(shape, prefix=0)
  alone = replace(bare, question=32)
  _, question, drawn = lengths
  levels = attend(shape, lengths)
  own = attend(alone, (0, 0, drawn))
  behind = attend(bare, (0, question, drawn))
  seconds = {
    'attention, prefix': levels - behind,
    'attention, question': behind - own,
    'attention, suffix': own,
    'projections, norms': _projections(model, shape, program),
    'head': _head(model, shape, program),
    'token choice': _choice(model.config, shape, program, top_k),
  }
  whole = _step(model, capacity, program, lengths, top_k)
  seconds['rest'] = whole - sum(seconds.values())
  return {**seconds, 'step': whole}


def check(config: ModelConfig, draws: int = 4) -> dict[str, float]:
  """Returns how far the kernels are from plain attention in float32.

  Args:
    config: Of the model; its first layer is taken.
    draws: How many times lengths, keys and values are drawn anew; every other
      time for few rows and long sequences, which are read in stretches.
  """
  mesh = sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1])
  exact = replace(config, dtype='float32')
  many = TableShape(64, 8, 640, 192, 512, 64)
  few = TableShape(8, 1, 640, 2560, 6144, 64)

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def run(config, runs_kernels, new, layer, where):
    q, k, v = new
    suffix = layer.v2_BKSH.shape[2]
    out, grown = decode_attention(
      config, suffix, 0, runs_kernels, False, q, k, v, layer, where
    )
    return out, *grown

  far = {'attention': 0.0, 'grown keys': 0.0, 'grown values': 0.0}
  for seed in range(draws):
    shape = few if seed % 2 else many
    random = np.random.default_rng(seed)

    def normal(x, random=random):
      return jnp.asarray(random.standard_normal(x.shape), x.dtype)

    layer = jax.tree.map(normal, empty_table(config, shape, mesh).caches[0])
    b, k, g = shape.size, config.kv_heads, config.groups
    new = [
      normal(jnp.zeros((b, 1, *axes, config.head_width), config.dtype))
      for axes in ((k, g), (k,), (k,))
    ]
    where = Where(
      jnp.int32(random.integers(1, shape.prefix)),
      jnp.asarray(
        random.integers(0, shape.question, (shape.slots, BUFFERS)), jnp.int32
      ),
      jnp.asarray(random.integers(0, 2, (shape.slots, shape.rows)), jnp.int32),
      jnp.asarray(
        random.integers(0, shape.suffix, (shape.slots, shape.rows)), jnp.int32
      ),
    )

    single = jax.tree.map(lambda x: x.astype(jnp.float32), (new, layer))
    with jax.default_matmul_precision('highest'):
      reference = run(exact, False, *single, where)
    for name, mine, other in zip(
      far, run(config, True, new, layer, where), reference, strict=True
    ):
      distance = jnp.linalg.norm((mine - other).ravel())
      size = jnp.linalg.norm(other.ravel())
      far[name] = max(far[name], float(distance / size))
  return far


def products_rate(dtype: str, size: int) -> float:
  """Returns FLOP/s of a large square matrix product on this device."""
  a = jax.random.normal(jax.random.key(0), (size, size), dtype) / size**0.5

  return 2 * size**3 / _seconds(lambda a, b: b @ a, a, jnp.array(a), 8)


def copy_rate(size: int) -> float:
  """Returns bytes/s read and written together, over arrays of `size` bytes."""
  x = jnp.zeros(size // 4, jnp.float32)
  return 2 * size / _seconds(lambda _, x: x + 1, None, x, 8)


def _step(model, capacity, program, lengths, top_k) -> float:
  prefix, question, drawn = lengths
  shape = capacity.shape
  slots, rows = idle_state(shape)
  count = np.full_like(slots.count_QE, shape.rows)
  slots = slots._replace(
    length_QE=np.full_like(slots.length_QE, question),
    count_QE=count,
    next_QE=count,
    limit_QEI=np.full_like(slots.limit_QEI, shape.suffix),
  )
  entry_QR = np.broadcast_to(
    np.arange(shape.rows, dtype=np.int32), rows.entry_QR.shape
  )
  rows = rows._replace(
    entry_QR=entry_QR, drawn_QR=np.full_like(rows.drawn_QR, drawn)
  )
  table = empty_table(model.config, shape, program.mesh)
  where = table_shardings(model.config.layers, program.mesh)
  knobs = Knobs(
    jnp.float32(1),
    jnp.int32(top_k),
    jnp.float32(1),
    jnp.full(8, -1, jnp.int32),
    jnp.int32(prefix),
  )
  dropped = Dropped(
    np.full_like(entry_QR, -1), np.zeros((shape.slots, BUFFERS), bool)
  )
  run = jitted(program.mesh, model.config.layers).decode
  best = np.inf
  for _ in range(_CALLS + 1):
    table = Table(
      table.caches,
      jax.device_put(slots, where.slots),
      jax.device_put(rows, where.rows),
    )
    jax.block_until_ready(table)
    start = time.perf_counter()
    with jax.set_mesh(program.mesh):
      table, drawn_now = run(model, table, knobs, dropped, program)
    jax.block_until_ready(drawn_now)
    best = min(best, time.perf_counter() - start)  # The first one compiles.
  return best / program.steps


def _attention(
  config: ModelConfig,
  program: Program,
  shape: TableShape,
  lengths: tuple[int, int, int],
) -> float:
  prefix, question, drawn = lengths
  mesh, dtype = program.mesh, jnp.dtype(config.dtype)
  caches = empty_table(config, shape, mesh).caches
  b, k, g, h = shape.size, config.kv_heads, config.groups, config.head_width
  rows = NamedSharding(mesh, P(ROWS, None, 'tensor'))
  q_BTKGH = jax.device_put(jnp.ones((b, 1, k, g, h), dtype), rows)
  new_BTKH = jax.device_put(jnp.ones((b, 1, k, h), dtype), rows)
  where = Where(
    jnp.int32(prefix),
    jnp.full((shape.slots, BUFFERS), question, jnp.int32),
    jnp.zeros((shape.slots, shape.rows), jnp.int32),
    jnp.full((shape.slots, shape.rows), drawn, jnp.int32),
  )

  def part(where, state):
    q_BTKGH, caches = state
    attend = three_levels(config, where, program.read, mesh)
    grown = []
    for window, layer in zip(config.layer_windows, caches, strict=True):
      q_BTKGH, layer = attend(q_BTKGH, new_BTKH, new_BTKH, window, layer)
      grown.append(layer)
    return q_BTKGH, grown

  return _seconds(part, where, (q_BTKGH, caches), program.steps, mesh)


def _projections(
  model: Transformer, shape: TableShape, program: Program
) -> float:
  rows = NamedSharding(program.mesh, P(ROWS))
  token_BT = jax.device_put(jnp.zeros((shape.size, 1), jnp.int32), rows)

  def part(model, token_BT):
    x_BTD, _ = backbone(
      model, token_BT, token_BT, lambda q, k, v, window, layer: (q, (k, v))
    )
    # All of the result is used, and the next step waits for it.
    return token_BT + (x_BTD.max(axis=-1) > 1e30)

  return _seconds(part, model, token_BT, program.steps, program.mesh)


def _head(model: Transformer, shape: TableShape, program: Program) -> float:
  config = model.config
  rows = NamedSharding(program.mesh, P(ROWS))
  x_BTD = jnp.ones((shape.size, 1, config.width), jnp.dtype(config.dtype))
  logits_BTV = jnp.zeros((shape.size, 1, config.vocab), jnp.float32)

  def part(model, state):
    x_BTD, logits_BTV = state
    x_BTD = x_BTD.at[0, 0, 0].add((0 * logits_BTV[0, 0, 0]).astype(x_BTD.dtype))
    return x_BTD, transformer.logits(model, x_BTD)

  state = jax.device_put((x_BTD, logits_BTV), rows)
  return _seconds(part, model, state, program.steps, program.mesh)


def _choice(
  config: ModelConfig, shape: TableShape, program: Program, top_k: int
) -> float:
  # A device's own rows, as in decoding.
  size = shape.size // program.mesh.size
  logits_BV = jax.random.normal(jax.random.key(0), (size, config.vocab))

  def part(key_BW, state):
    logits_BV, token_B = state
    token_B, logprob_B = choose(
      logits_BV,
      uniforms(key_BW, token_B, token_B),
      jnp.float32(1),
      jnp.int32(top_k),
      jnp.float32(1),
      program.candidates,
    )
    return logits_BV.at[0, 0].add(0 * logprob_B[0]), token_B

  key_BW = jnp.zeros((size, 2), jnp.uint32)
  state = (logits_BV, jnp.zeros(size, jnp.int32))
  return _seconds(part, key_BW, state, program.steps)


def _seconds(
  part: Callable[[Any, Any], Any],
  fixed: Any,
  state: Any,
  steps: int,
  mesh: Mesh | None = None,
) -> float:
  """Returns seconds of a part that turns its state into the next one.

  It runs in a loop on the device. Through the state, which is donated, each
  turn depends on the one before: none is left out, and nothing that a step
  does is done once for all.
  """

  @functools.partial(jax.jit, donate_argnames='state')
  def loop(fixed, state):
    return jax.lax.fori_loop(0, steps, lambda _, s: part(fixed, s), state)

  best = np.inf
  with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
    for _ in range(_CALLS + 1):
      start = time.perf_counter()
      state = jax.block_until_ready(loop(fixed, state))
      best = min(best, time.perf_counter() - start)  # The first one compiles.
  return best / steps
