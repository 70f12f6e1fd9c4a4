"""One attention of a decoding step: its kernels, one after another."""

import jax

from rest.sampler.kernels.options import Options
from rest.sampler.kernels.prefix import attend_prefix
from rest.sampler.kernels.questions import attend_questions
from rest.sampler.kernels.suffix import attend_suffix
from rest.sampler.table import LayerCache, Where


def attend(
  q_BKGH: jax.Array,
  k_BKH: jax.Array,
  v_BKH: jax.Array,
  cache: LayerCache,
  where: Where,
  options: Options,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns attention of one query a row, and the suffix grown by its key.

  Args:
    q_BKGH: Scaled queries.
    k_BKH: Keys of the tokens that ask.
    v_BKH: Their values.
    cache: The layer's, with k2 as BKSH; its suffix is overwritten in place.
    where: Where each row's query stands.
    options: Static.

  Returns:
    out_BKGH, k2_BKSH and v2_BKSH.
  """
  question = attend_questions(q_BKGH, cache, where, options)
  prefix = None
  if cache.v0_KSH.shape[1]:
    prefix = attend_prefix(q_BKGH, cache, where, options)
  newest = (k_BKH.astype(q_BKGH.dtype), v_BKH.astype(q_BKGH.dtype))
  return attend_suffix(q_BKGH, newest, question, prefix, cache, where, options)
