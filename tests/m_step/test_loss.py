"""The loss works on what has weight, a chunk at a time."""

import jax.numpy as jnp
import pytest

from rest.m_step import loss


@pytest.mark.parametrize(
  ('rows', 'length', 'expected'),
  [(2, 2048, 256), (8, 2048, 220), (2, 64, 16), (2, 8, 8)],
)
def test_a_chunk_is_an_eighth_of_a_row_or_what_fits(rows, length, expected):
  assert loss.chunk_length(rows, length, 152_064) == expected


def test_chunks_behind_the_last_weight_are_left_out():
  static = loss._Static(chunk=256, shards=1, softcap=0.0)
  weights_BT = jnp.zeros((2, 2048)).at[0, :300].set(0.5).at[1, :9].set(2.0)
  assert int(loss._chunks(static, weights_BT)) == 2
