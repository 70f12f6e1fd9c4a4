"""Token choice: exact, and a function of key, sample and position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest.sampler import token_choice


@pytest.mark.parametrize('vocab', [97, 5000, 40_000, 151_936])
def test_the_best_by_groups_are_the_best(vocab):
  random = np.random.default_rng(vocab)
  # Few distinct values: equal logits must keep the order of their ids.
  logits_BV = random.integers(0, 300, (4, vocab)).astype(np.float32)
  found = token_choice.best(jnp.asarray(logits_BV), 40)
  expected = jax.lax.top_k(logits_BV, 40)
  np.testing.assert_array_equal(found[0], expected[0])
  np.testing.assert_array_equal(found[1], expected[1])


def test_the_best_by_the_tiles_of_a_tpu_are_the_best(monkeypatch):
  random = np.random.default_rng(0)
  logits_BV = jnp.asarray(random.integers(0, 300, (4, 40_000)), jnp.float32)
  monkeypatch.setattr(token_choice, 'platform', lambda: 'tpu')
  found = token_choice.best(logits_BV, 40)
  expected = jax.lax.top_k(logits_BV, 40)
  np.testing.assert_array_equal(found[0], expected[0])
  np.testing.assert_array_equal(found[1], expected[1])


def test_uniforms_depend_on_key_sample_and_position_only():
  key_BW = jnp.asarray([[1, 2], [1, 2], [1, 2], [3, 2]], jnp.uint32)
  sample_B, position_B = jnp.asarray([0, 1, 0, 0]), jnp.asarray([5, 5, 6, 5])
  values = token_choice.uniforms(key_BW, sample_B, position_B)
  assert len(set(values.tolist())) == 4
  again = token_choice.uniforms(key_BW[::-1], sample_B[::-1], position_B[::-1])
  np.testing.assert_array_equal(values, again[::-1])


def test_candidates_are_few_sizes():
  assert {token_choice.candidates_for(k, 150_000) for k in range(1, 65)} == {64}
  assert token_choice.candidates_for(0, 150_000) == 0
  assert token_choice.candidates_for(40, 50) == 50


@pytest.mark.parametrize(
  'candidates, uniform, top_k, top_p, token',
  [
    (3, 0.6, 3, 1.0, 4),
    (3, 0.6, 1, 1.0, 7),
    (3, 0.9, 3, 1.0, 9),
    (3, 0.9, 3, 0.7, 4),
    (0, 0.6, 0, 1.0, 7),
    (0, 0.9, 0, 1.0, 9),
    (0, 0.9, 0, 0.7, 7),
  ],
)
def test_a_token_is_taken_where_the_running_sum_passes_the_uniform(
  candidates, uniform, top_k, top_p, token
):
  weights = {7: 5.0, 4: 3.0, 9: 2.0}
  logits_BV = np.full((1, 12), -np.inf, np.float32)
  for place, weight in weights.items():
    logits_BV[0, place] = np.log(weight)
  token_B, logprob_B = token_choice.choose(
    jnp.asarray(logits_BV),
    jnp.asarray([uniform]),
    *(jnp.float32(1), jnp.int32(top_k), jnp.float32(top_p)),
    candidates,
  )
  assert token_B.tolist() == [token]
  expected = np.log(weights[token] / 10)
  np.testing.assert_allclose(logprob_B[0], expected, rtol=1e-6)


def test_the_smallest_set_is_kept():
  # The example of `_truncate`.
  weight_BV = jnp.asarray([[0.4, 1.0, 0.6]])
  kept_BV = token_choice._truncate(weight_BV, jnp.float32(0.7))
  np.testing.assert_array_equal(kept_BV, np.float32([[0, 1.0, 0.6]]))
