"""What goes in and out of the table: questions, samples, stops."""

import jax
import jax.numpy as jnp
import numpy as np

from rest.sampler.refill import claim, drop
from rest.sampler.table import Dropped, TableShape, idle_state

SHAPE = TableShape(1, 4, 0, 32, 32, 8)


def state(entries, given, counts):
  """Returns one slot, buffer 0 in front, and its rows."""
  slots, rows = idle_state(SHAPE)
  slots.next_QE[0], slots.count_QE[0] = given, counts
  slots.last_QE[0] = (50, 60)
  rows.entry_QR[0] = entries
  return jax.tree.map(jnp.asarray, (slots, rows))


def test_idle_rows_take_the_next_samples_of_their_slot():
  # The example of `claim`.
  slots, rows = claim(*state([5, -1, 6, -1], (7, 0), (8, 5)))
  assert rows.entry_QR.tolist() == [[5, 7, 6, 8]]
  assert rows.token_QR[0, 1::2].tolist() == [50, 60]
  assert slots.next_QE.tolist() == [[8, 1]]
  assert slots.front_Q.tolist() == [1]


def test_a_buffer_that_is_given_out_goes_to_the_back_at_once():
  slots, rows = claim(*state([5, -1, 6, 4], (7, 0), (8, 5)))
  assert rows.entry_QR.tolist() == [[5, 7, 6, 4]]
  assert slots.front_Q.tolist() == [1]


def test_rows_stay_idle_where_nothing_is_left():
  slots, rows = claim(*state([5, -1, -1, -1], (7, 0), (8, 0)))
  assert rows.entry_QR.tolist() == [[5, 7, -1, -1]]
  assert slots.front_Q.tolist() == [0]


def test_what_is_dropped_is_given_out_no_more():
  slots, rows = state([5, 6, 8, -1], (7, 1), (8, 5))
  entry_QR = np.int32([[-1, 6, 7, -1]])  # Row 2 has gone on since.
  dropped = Dropped(entry_QR, np.array([[False, True]]))
  slots, rows = drop(slots, rows, dropped)
  assert rows.entry_QR.tolist() == [[5, -1, -1, -1]]
  assert slots.next_QE.tolist() == [[7, 5]]
  slots, rows = claim(slots, rows)
  assert rows.entry_QR.tolist() == [[5, 7, -1, -1]]
