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


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
@pytest.mark.parametrize('top_p', [0.0, 0.25, 0.5, 0.875, 0.9375])
def test_the_floor_is_the_least_weight_of_the_smallest_set(
  platform, top_p, monkeypatch
):
  monkeypatch.setattr(token_choice, 'platform', lambda: platform)
  random = np.random.default_rng(0)
  # Sums of these are exact, and many are equal.
  weight_BV = 2.0 ** random.integers(-9, -2, (32, 500))
  weight_BV += random.integers(0, 256, (32, 500)) / 1024
  weight_BV[:, 7] = 1
  floor_B = token_choice._floor(jnp.asarray(weight_BV), jnp.float32(top_p))
  for weight_V, floor in zip(weight_BV, floor_B, strict=True):
    ordered_V = np.sort(weight_V)[::-1]
    enough_V = np.cumsum(ordered_V) >= top_p * ordered_V.sum()
    expected = np.float32(ordered_V[enough_V.argmax()])
    assert floor == expected.view(np.int32)


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
def test_the_smallest_set_is_kept(platform, monkeypatch):
  # The example of `_floor`.
  monkeypatch.setattr(token_choice, 'platform', lambda: platform)
  weight_BV = jnp.asarray([[0.4, 1.0, 0.6]])
  floor_B = token_choice._floor(weight_BV, jnp.float32(0.7))
  kept_BV = token_choice._over(weight_BV, floor_B)
  np.testing.assert_array_equal(kept_BV, np.float32([[0, 1.0, 0.6]]))


@pytest.mark.parametrize('vocab', [97, 128, 5000, 40_000])
@pytest.mark.parametrize('scale', [0.1, 3.0, 300.0])
@pytest.mark.parametrize('top_p', [0.9, 1.0])
def test_of_all_tokens_is_taken_what_exact_sums_would_take(vocab, scale, top_p):
  random = np.random.default_rng(vocab)
  logits_BV = random.normal(0, scale, (64, vocab)).astype(np.float32)
  logits_BV[random.random(logits_BV.shape) < 0.3] = -np.inf
  uniform_B = random.random(64, np.float32)
  uniform_B[:2] = 0, np.nextafter(np.float32(1), np.float32(0))
  token_B, logprob_B = token_choice.choose(
    *(jnp.asarray(logits_BV), jnp.asarray(uniform_B)),
    *(jnp.float32(0.7), jnp.int32(0), jnp.float32(top_p), 0),
  )
  exact_BV = logits_BV.astype(np.float64)
  exact_BV -= exact_BV.max(axis=-1, keepdims=True)
  share_BV = np.exp(exact_BV) / np.exp(exact_BV).sum(axis=-1, keepdims=True)
  taken = np.arange(64), np.asarray(token_B)
  np.testing.assert_allclose(logprob_B, np.log(share_BV[taken]), 1e-4, 1e-5)
  weight_BV = np.exp(exact_BV / 0.7)
  for row, token in zip(weight_BV, taken[1], strict=True):
    ordered = np.sort(row)[::-1]
    # What rounded sums may find to be enough.
    enough = np.cumsum(ordered) >= (top_p - 1e-6) * ordered.sum()
    floor = ordered[enough.argmax()] if top_p < 1 else 0
    assert row[token] > 0.9999 * floor
    row[row < floor] = 0
  sum_BV = weight_BV.cumsum(axis=-1)
  target_B = uniform_B * sum_BV[:, -1]
  slack_B = 1e-4 * sum_BV[:, -1]
  assert (sum_BV[taken] >= target_B - slack_B).all()
  assert (sum_BV[taken] - weight_BV[taken] <= target_B + slack_B).all()


def test_tokens_are_drawn_as_often_as_they_weigh():
  random = np.random.default_rng(0)
  weight_V = random.integers(0, 9, 300).astype(np.float32)  # Three groups.
  uniform_B = jnp.asarray((np.arange(4096) + 0.5) / 4096, jnp.float32)
  weight_BV = jnp.broadcast_to(weight_V, (4096, 300))
  token_B = token_choice._invert_in_groups(weight_BV, uniform_B)
  count_V = np.bincount(token_B, minlength=300)
  assert abs(count_V - 4096 * weight_V / weight_V.sum()).max() <= 1
  assert not count_V[weight_V == 0].any()


def test_the_only_token_with_a_weight_is_taken():
  weight_BV = np.zeros((6, 300), np.float32)
  place_B = [0, 127, 128, 255, 256, 299]
  weight_BV[np.arange(6), place_B] = 1e-30
  for uniform in 0, 0.5, 1 - 2**-24:
    token_B = token_choice._invert_in_groups(
      jnp.asarray(weight_BV), jnp.full(6, uniform, jnp.float32)
    )
    assert token_B.tolist() == place_B


def test_rounding_lets_no_token_without_weight_through():
  weight_BC = jnp.asarray([[0.0, 1, 1, 0], [0, 0, 2, 0]])
  # As of a parallel sum: what is asked for lies behind the last weight.
  sum_BC = jnp.asarray([[0.0, 1, 2, 2.5], [0, 0, 2, 2]])
  target_B1 = jnp.asarray([[2.0], [2.0]])
  place_B1 = token_choice._first_over(weight_BC, sum_BC, target_B1)
  assert place_B1.tolist() == [[2], [2]]


@pytest.mark.parametrize('candidates', [0, 40])
def test_at_a_temperature_of_0_the_first_of_the_best_is_taken(candidates):
  random = np.random.default_rng(0)
  logits_BV = random.integers(-300, 300, (32, 5000)).astype(np.float32)
  token_B, _ = token_choice.choose(
    *(jnp.asarray(logits_BV), jnp.asarray(random.random(32, np.float32))),
    *(jnp.float32(0), jnp.int32(40), jnp.float32(0.95), candidates),
  )
  assert token_B.tolist() == logits_BV.argmax(axis=-1).tolist()
