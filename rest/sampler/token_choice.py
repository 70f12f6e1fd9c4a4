"""From logits to a token: temperature, top-k, top-p, and one uniform number.

The uniform is a counter: a function of the problem's key, the sample and the
position, and of nothing else, so that any sample can be drawn again alone.
"""

import math

import jax
import jax.numpy as jnp

from rest.model.sharding import platform

_ONE_BITS = 0x3F800000  # The bits of 1.0; of floats in [0, 1], order is kept.
_FLOOR_BITS = 30  # How many these are: a multiple of three.
_LARGEST = 1e38  # Below float32's largest.
_SORTED = 32  # Times as many as the best are wanted: sorted at once.
_LANES = 128  # Of a TPU: arrays lie in tiles of 8 x 128. A group of weights.


def uniforms(
  key_BW: jax.Array, sample_B: jax.Array, position_B: jax.Array
) -> jax.Array:
  """Returns one number in [0, 1) a row, of (key, sample, position) only.

  Args:
    key_BW: Two uint32 words a row: the problem's threefry key.
    sample_B: Which sample of the problem.
    position_B: How many tokens of it were drawn before.
  """

  def one(
    words: jax.Array, sample: jax.Array, position: jax.Array
  ) -> jax.Array:
    key: jax.Array = jax.random.wrap_key_data(words, impl='threefry2x32')
    key = jax.random.fold_in(jax.random.fold_in(key, sample), position)
    return jax.random.uniform(key)

  return jax.vmap(one)(key_BW, sample_B, position_B)


def candidates_for(top_k: int, vocab: int) -> int:
  """Returns how many of the best tokens the program looks at; 0 is all.

  Any `top_k` up to that number runs in the same compiled program.
  """
  if not top_k:
    return 0
  return min(vocab, max(64, 1 << (top_k - 1).bit_length()))


def choose(
  logits_BV: jax.Array,
  uniform_B: jax.Array,
  temperature: jax.Array,
  top_k: jax.Array,
  top_p: jax.Array,
  candidates: int,
) -> tuple[jax.Array, jax.Array]:
  """Draws a token a row by inverting the distribution function.

  Invariant: a token is drawn with its share of what temperature, top-k and
  top-p leave; tokens are passed in order of rank, or in that of their ids where
  all are looked at. Example: weights 5, 3 and 2 (of 10) of the tokens 7, 4 and
  9: with candidates a uniform of 0.6 passes 5 / 10, not 8 / 10, and is token 4;
  of all, 3 / 10 and 8 / 10 come first, and it is token 7.

  Args:
    logits_BV: In float32.
    uniform_B: In [0, 1).
    temperature: Divides the logits; 0 takes the best token.
    top_k: Only this many best tokens; at most `candidates`. Unused where
      `candidates` is 0.
    top_p: Only the smallest set of best tokens that holds this much of the
      probability (after temperature and top-k); at least one.
    candidates: From `candidates_for`.

  Returns:
    token_B, and logprob_B under the model itself: temperature 1, no truncation.
  """
  # Of 0 and of subnormal ones it would be inf, and 0 * inf is no number.
  inverse = jnp.minimum(1.0 / temperature, _LARGEST)
  if candidates:
    return _choose_of_best(
      logits_BV, uniform_B, temperature, inverse, top_k, top_p, candidates
    )
  # At a temperature of 0 the best weigh 1, the others 0: 0 passes the first.
  uniform_B *= temperature > 0
  return _choose_of_all(logits_BV, uniform_B, inverse, top_p)


def best(logits_BV: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """Returns the `count` largest logits and their ids, exactly, in order.

  Only the groups with the `count` largest maxima can hold them, and both the
  best maxima and the best members of those groups are found in the same way.
  One sort of a large vocabulary costs more than the model's layers.

  Invariant: as of one sort; of equal logits the smaller id comes first.
  Example: of 151,936 and 64, P = 2374 groups of U = 64 tokens: the 64 largest
  of 2374 maxima, and then of 64 * 64 members.
  """
  batch, vocab = logits_BV.shape
  if vocab <= _SORTED * count:
    logit_BC, id_BC = jax.lax.top_k(logits_BV, count)
    return logit_BC, id_BC
  # As wide as makes both searches about equally long.
  width = 1 << round(math.log2(vocab / count) / 2)
  is_tiled = platform() == 'tpu' and vocab > 4 * _LANES * count
  width = _LANES if is_tiled else width
  logits_BV = jnp.pad(
    logits_BV, ((0, 0), (0, -vocab % width)), constant_values=-jnp.inf
  )
  if is_tiled:
    max_BP = jax.lax.reduce_window(
      logits_BV, -jnp.inf, jax.lax.max, (1, width), (1, width), 'valid'
    )
  else:
    max_BP = logits_BV.reshape(batch, -1, width).max(axis=-1)
  # In order of id, so that equal logits keep theirs.
  group_BC = jnp.sort(best(max_BP, count)[1], axis=-1)
  logit_BC, place_BC = best(_members(logits_BV, group_BC, width), count)
  chosen_BC = jnp.take_along_axis(group_BC, place_BC // width, axis=-1)
  return logit_BC, chosen_BC * width + place_BC % width


def _members(
  logits_BV: jax.Array, group_BC: jax.Array, width: int
) -> jax.Array:
  """Returns the logits of some groups, one group behind the other.

  All groups of all rows are one table: what is taken of each row from a table
  of its own TPUs lay out twice, and slices they take one after the other.
  """
  batch, vocab = logits_BV.shape
  first_B = jnp.arange(batch) * (vocab // width)
  rows_NU = logits_BV.reshape(-1, width)
  members_BCU = rows_NU.at[first_B[:, None] + group_BC].get(
    mode='promise_in_bounds'
  )
  return members_BCU.reshape(batch, -1)


def _choose_of_best(
  logits_BV: jax.Array,
  uniform_B: jax.Array,
  temperature: jax.Array,
  inverse: jax.Array,
  top_k: jax.Array,
  top_p: jax.Array,
  candidates: int,
) -> tuple[jax.Array, jax.Array]:
  """Draws from the best tokens alone: see `choose`.

  Invariant: the set is never empty. Example: probabilities 0.5, 0.3 and 0.2,
  top_p = 0.7: before the tokens lie 0, 0.5 and 0.8, so two are kept.
  """
  logit_BC, id_BC = best(logits_BV, candidates)
  inside_BC = jnp.arange(candidates)[None] < top_k
  # Not logit_BC[:, :1]: XLA would push the slice into its top-k kernel, and
  # sort the whole vocabulary instead.
  top_B1 = logit_BC.max(axis=-1, keepdims=True)
  weight_BC = jnp.exp((logit_BC - top_B1) * inverse) * inside_BC
  before_BC = jnp.cumsum(weight_BC, axis=-1) - weight_BC
  mass_B1 = weight_BC.sum(axis=-1, keepdims=True)
  # Nothing lies before the best token.
  weight_BC *= (before_BC < top_p * mass_B1) | (before_BC == 0)
  place_B = jnp.where(temperature > 0, _invert(weight_BC, uniform_B), 0)
  token_B = jnp.take_along_axis(id_BC, place_B[:, None], axis=-1)[:, 0]
  logit_B = jnp.take_along_axis(logit_BC, place_B[:, None], axis=-1)[:, 0]
  # The maximum is known already: one pass over the vocabulary less.
  mass_B = jnp.exp(logits_BV - top_B1).sum(axis=-1)
  return token_B, logit_B - top_B1[:, 0] - jnp.log(mass_B)


def _choose_of_all(
  logits_BV: jax.Array,
  uniform_B: jax.Array,
  inverse: jax.Array,
  top_p: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Draws from the whole vocabulary, without sorting it: see `choose`."""
  # Differences first, or a multiply-add keeps the rounding of the largest
  # product: at a temperature of 1e-9, hundreds in the exponent.
  behind_BV = logits_BV - logits_BV.max(axis=-1, keepdims=True)
  weight_BV = jnp.exp(behind_BV * inverse)
  floor_B = jax.lax.cond(
    top_p < 1,
    lambda: _floor(weight_BV, top_p),
    lambda: jnp.zeros_like(uniform_B, jnp.int32),
  )
  token_B = _invert_in_groups(_over(weight_BV, floor_B), uniform_B)
  behind_B = jnp.take_along_axis(behind_BV, token_B[:, None], axis=-1)[:, 0]
  return token_B, behind_B - jnp.log(jnp.exp(behind_BV).sum(axis=-1))


def _floor(weight_BV: jax.Array, top_p: jax.Array) -> jax.Array:
  """Returns the bits of the least weight in the smallest set that is enough.

  Floats of [0, 1] have the order of their bits. Three bits of the floor are
  found at a time: XLA takes seven sums of one array in one pass over it. On
  CPUs each is a pass of its own, so there it is one at a time.

  Invariant: the weights not under `low` hold enough; those not under the next
  float that is as round do not, unless `low` is 1, the largest weight. Example:
  weights 1, 0.6 and 0.4 with top_p = 0.7 want 1.4 of 2: a floor of 0.6 holds
  1.6 and the next float over it 1.0, so it is 0.6.
  """
  count = 1 if platform() == 'cpu' else 3
  target_B = top_p * weight_BV.sum(axis=-1)

  def raised(turn: jax.Array, low_B: jax.Array) -> jax.Array:
    unit = jnp.int32(1) << (_FLOOR_BITS - count * (turn + 1))
    found_B = low_B
    for units in range(1, 1 << count):
      bits_B = jnp.minimum(low_B + units * unit, _ONE_BITS)
      enough_B = _over(weight_BV, bits_B).sum(axis=-1) >= target_B
      found_B = jnp.where(enough_B, bits_B, found_B)
    return found_B

  low_B = jnp.zeros(weight_BV.shape[:1], jnp.int32)
  return jax.lax.fori_loop(0, _FLOOR_BITS // count, raised, low_B)


def _over(weight_BV: jax.Array, bits_B: jax.Array) -> jax.Array:
  """Returns the weights that are not under a float of these bits, else 0."""
  floor_B = jax.lax.bitcast_convert_type(bits_B, jnp.float32)
  return jnp.where(weight_BV >= floor_B[:, None], weight_BV, 0.0)


def _invert(weight_BC: jax.Array, uniform_B: jax.Array) -> jax.Array:
  """Returns the first place where the running sum passes the uniform."""
  sum_BC = jnp.cumsum(weight_BC, axis=-1)
  passed_BC = sum_BC > uniform_B[:, None] * sum_BC[:, -1:]
  # Rounding in a parallel sum must not let a token of weight 0 through.
  return jnp.argmax(passed_BC & (weight_BC > 0), axis=-1)


def _invert_in_groups(weight_BV: jax.Array, uniform_B: jax.Array) -> jax.Array:
  """Returns about what `_invert` does, for many weights, which it reads once.

  First the group is found, then the place in it. A running sum over all would
  take several passes.

  Invariant: the weight of what is returned is not 0, whatever was rounded.
  Example: weights 1, 0, 1 | 2, 0, 4 in groups of 3 and a uniform of 0.6 ask for
  what passes 4.8: the groups' running sums are 2 and 8, so the second; within
  it 4, 4, 8, so the last.
  """
  batch, vocab = weight_BV.shape
  padded_BV = jnp.pad(weight_BV, ((0, 0), (0, -vocab % _LANES)))
  weight_BP = padded_BV.reshape(batch, -1, _LANES).sum(axis=-1)
  sum_BP = jnp.cumsum(weight_BP, axis=-1)
  target_B1 = uniform_B[:, None] * sum_BP[:, -1:]
  group_B1 = _first_over(weight_BP, sum_BP, target_B1)
  before_B1 = jnp.take_along_axis(sum_BP - weight_BP, group_B1, axis=-1)
  place_BU = group_B1 * _LANES + jnp.arange(_LANES)[None]
  weight_BU = jnp.take_along_axis(
    weight_BV, place_BU, axis=-1, mode='fill', fill_value=0
  )
  sum_BU = before_B1 + jnp.cumsum(weight_BU, axis=-1)
  place_B1 = _first_over(weight_BU, sum_BU, target_B1)
  return (group_B1 * _LANES + place_B1)[:, 0]


def _first_over(
  weight_BC: jax.Array, sum_BC: jax.Array, target_B1: jax.Array
) -> jax.Array:
  """Returns the first place, [B, 1], where a running sum is over a target.

  Only of places with a weight; the last of these where rounding lets none be.
  """
  place_C = jnp.arange(weight_BC.shape[-1], dtype=jnp.int32)
  rank_BC = jnp.where(
    sum_BC > target_B1, 2 * len(place_C) - place_C[None], place_C[None]
  )
  rank_BC = jnp.where(weight_BC > 0, rank_BC, -1)
  return jnp.argmax(rank_BC, axis=-1, keepdims=True).astype(jnp.int32)
