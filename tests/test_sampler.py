"""The sampler: its law, its log-probabilities, and that neither depends on
where, when or beside what a sample is drawn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest.model import (
  ModelConfig,
  Transformer,
  attention,
  backbone,
  causal_mask,
  logits,
)
from rest.sampler import Ask, Sampler, SamplerConfig
from rest.sampler.decode import decode, load_prefix, load_questions
from rest.sampler.plan import make_plan
from rest.sharding import MeshConfig, make_mesh

CONFIG = ModelConfig(
  vocab=96, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn=48
)
FAMILIES = {
  'qwen': dataclasses.replace(CONFIG, qkv_bias=True, qk_norm=True, tied=False),
  'gemma2': dataclasses.replace(
    CONFIG,
    windows=(9, 0),
    attention_softcap=5.0,
    logits_softcap=3.0,
    post_norms=True,
    unit_offset=True,
    scaled_embedding=True,
    query_scale=0.3,
    activation='gelu_tanh',
  ),
  'gemma3': dataclasses.replace(
    CONFIG, windows=(30, 0), local_rope_theta=100.0, qk_norm=True
  ),
}
SETTINGS = SamplerConfig(
  max_tokens=24, max_prompt_tokens=48, rows=16, rows_per_slot=4
)
RANDOM = np.random.default_rng(0)
PREFIX = RANDOM.integers(3, 96, 13).tolist()
ASKS = [
  Ask(
    key=(7, index),
    tokens=tuple(RANDOM.integers(3, 96, RANDOM.integers(1, 30)).tolist()),
    samples=tuple(range(5)),
  )
  for index in range(9)
]


class Letters:
  """A letter a token; 1 and 2 end a completion."""

  vocab_size = 96
  bos = None
  eos = (1, 2)
  pad = 0

  def encode(self, text, follows=False):
    del follows
    return [ord(letter) - 32 for letter in text]

  def decode(self, tokens, follows=False):
    del follows
    return ''.join(chr(token + 32) for token in tokens if token not in self.eos)


def make_sampler(config=CONFIG, settings=SETTINGS, devices=1, tensor=1, **more):
  mesh = make_mesh(MeshConfig(tensor=tensor), jax.devices()[:devices])
  return Sampler(make_model(config), Letters(), settings, mesh, seed=3, **more)


def make_model(config):
  model = Transformer(config, jax.random.key(0))
  # Logits that are far from alike.
  model.final_norm_D[...] = model.final_norm_D[...] + 2.0
  return model


def draw(sampler, prefix=PREFIX, asks=ASKS, **options):
  return {
    (asks[index].key, sample): completion
    for index, sample, completion in sampler.sample(prefix, asks, **options)
  }


def teacher_forced(model, prompt, tokens):
  """Returns the log-probabilities of all tokens at each drawn place."""
  row = np.zeros((1, 80), np.int32)  # What follows is not seen.
  row[0, : len(prompt) + len(tokens)] = [*prompt, *tokens]
  values = all_logprobs(model, row)
  return np.asarray(values[len(prompt) - 1 :][: len(tokens)])


@jax.jit
def all_logprobs(model, row_1T):
  position = jnp.arange(row_1T.shape[1])[None]

  def attend(q, k, v, window, cache):
    del cache
    mask = causal_mask(jnp.ones_like(row_1T), position, window)
    return attention(model.config, q, k, v, mask), None

  x_BTD, _ = backbone(model, row_1T, position, attend)
  return jax.nn.log_softmax(logits(model, x_BTD)[0], axis=-1)


@pytest.fixture(scope='module')
def sampler():
  return make_sampler()


@pytest.fixture(scope='module')
def drawn(sampler):
  return draw(sampler)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('prefix', [PREFIX, []], ids=['few_shot', 'zero_shot'])
def test_sampled_logprobs_match_teacher_forcing(family, prefix):
  sampler = make_sampler(FAMILIES[family])
  asks = ASKS[:3]
  for (key, _), completion in draw(sampler, prefix, asks).items():
    ask = next(ask for ask in asks if ask.key == key)
    expected = teacher_forced(
      sampler.model, [*prefix, *ask.tokens], completion.tokens
    )
    at = np.arange(len(completion.tokens))
    np.testing.assert_allclose(
      completion.logprobs, expected[at, list(completion.tokens)], atol=1e-4
    )


def test_greedy_takes_the_best_token(sampler):
  for (key, _), completion in draw(
    sampler, asks=ASKS[:3], temperature=0.0
  ).items():
    ask = next(ask for ask in ASKS if ask.key == key)
    expected = teacher_forced(
      sampler.model, [*PREFIX, *ask.tokens], completion.tokens
    )
    assert list(completion.tokens) == expected.argmax(axis=-1).tolist()


@pytest.mark.parametrize(
  'top_k, top_p', [(5, 1.0), (0, 1.0), (6, 0.8), (0, 0.7)]
)
def test_two_tokens_follow_their_exact_law(top_k, top_p):
  config = dataclasses.replace(CONFIG, vocab=8, layers=1)
  settings = dataclasses.replace(SETTINGS, max_tokens=2, rows=64)
  sampler = make_sampler(config, settings)
  count, question = 3000, (3, 5, 4)
  ask = Ask(0, question, tuple(range(count)))
  counts = np.zeros((8, 8))
  for _, _, completion in sampler.sample(
    [], [ask], samples=32, temperature=1.3, top_k=top_k, top_p=top_p
  ):
    first, second = (*completion.tokens, completion.tokens[0])[:2]
    counts[first, second] += 1
  law = np.zeros((8, 8))
  for first in range(8):
    values = teacher_forced(sampler.model, question, (first, 0))
    one, two = (truncated(row / 1.3, top_k, top_p) for row in values)
    if first in Letters.eos:  # Nothing follows an end token.
      law[first, first] = one[first]
    else:
      law[first] = one[first] * two
  assert counts[law == 0].sum() == 0
  expected = count * law[law > 0]
  chi_square = ((counts[law > 0] - expected) ** 2 / expected).sum()
  freedom = expected.size - 1
  assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def truncated(scaled, top_k, top_p):
  """Returns the law after top-k and top-p, by sorting."""
  order = np.argsort(-scaled)
  law = np.exp(scaled[order] - scaled.max())
  law[top_k or len(law) :] = 0
  law /= law.sum()
  law *= np.cumsum(law) - law < top_p
  result = np.zeros_like(law)
  result[order] = law / law.sum()
  return result


def test_samples_do_not_depend_on_what_is_drawn_beside_them(sampler, drawn):
  backwards = draw(sampler, asks=ASKS[::-1])
  assert backwards == drawn
  # A resumed run asks for a part only; the same bits come out.
  parts = [dataclasses.replace(ask, samples=(4, 1)) for ask in ASKS[3:5]]
  part = draw(sampler, asks=parts, samples=5)
  assert part == {key: drawn[key] for key in part}
  lazily = {
    (ASKS[i].key, n): c for i, n, c in sampler.sample(PREFIX, iter(ASKS))
  }
  assert lazily == drawn


def test_samples_of_a_problem_differ(drawn):
  for ask in ASKS:
    assert len({drawn[ask.key, n].tokens for n in ask.samples}) > 1


@pytest.mark.parametrize('steps', [1, 7])
@pytest.mark.parametrize('rows, per_slot', [(4, 1), (24, 8)])
def test_tokens_do_not_depend_on_the_table(drawn, steps, rows, per_slot):
  settings = dataclasses.replace(
    SETTINGS, rows=rows, rows_per_slot=per_slot, steps_per_call=steps
  )
  assert tokens(draw(make_sampler(settings=settings))) == tokens(drawn)


@pytest.mark.parametrize('tensor', [1, 2])
def test_eight_devices_draw_what_one_draws(drawn, tensor):
  assert tokens(draw(make_sampler(devices=8, tensor=tensor))) == tokens(drawn)


def test_a_shrinking_table_draws_the_same():
  limits = RANDOM.integers(1, 24, (24, 6))
  asks = [
    Ask(index, (5, 6), tuple(range(6)), tuple(limits[index].tolist()))
    for index in range(24)
  ]
  wide = dataclasses.replace(
    SETTINGS, rows=32, rows_per_slot=8, steps_per_call=2
  )
  least = dataclasses.replace(wide, min_rows=4)
  whole, shrinking = make_sampler(settings=wide), make_sampler(settings=least)
  assert tokens(draw(whole, asks=asks)) == tokens(draw(shrinking, asks=asks))
  assert shrinking.stats.row_steps < whole.stats.row_steps
  assert shrinking.stats.busy > whole.stats.busy


def tokens(completions):
  return {key: completion.tokens for key, completion in completions.items()}


def test_options_and_lengths_change_without_compiling(sampler, drawn):
  del drawn  # All that is needed is compiled by now.
  programs = (decode, load_prefix, load_questions)
  before = [program._cache_size() for program in programs]
  draw(sampler, temperature=0.0)
  draw(sampler, temperature=1.5, top_k=7, top_p=0.5, max_tokens=11)
  draw(sampler, prefix=PREFIX[:-5], asks=ASKS[2:4])
  sampler.set_weights(make_model(CONFIG))
  draw(sampler, top_k=64)
  assert [program._cache_size() for program in programs] == before


@pytest.mark.parametrize('steps', [1, 5, 16])
def test_stop_texts_cut_whenever_the_host_notices(steps):
  settings = dataclasses.replace(SETTINGS, steps_per_call=steps)
  free = draw(make_sampler(settings=settings))
  stop = ('ab', free[ASKS[0].key, 0].text[5:7], free[ASKS[1].key, 2].text[8:9])
  stopped = draw(make_sampler(settings=settings), stop=stop)
  cut = 0
  for key, completion in free.items():
    ends = [completion.text.find(s) for s in stop if s in completion.text]
    if not ends:
      assert stopped[key] == completion
      continue
    cut += 1
    text = completion.text[: min(ends)]
    assert stopped[key].text == text
    assert stopped[key].finished
    assert stopped[key].tokens == (*completion.tokens[: len(text)], 1)
    assert stopped[key].logprobs == completion.logprobs[: len(text) + 1]
  assert cut >= 2


def test_completions_end_at_any_end_token_or_at_the_limit(drawn):
  ends = {c.tokens[-1] for c in drawn.values() if c.finished}
  assert ends == {1, 2}
  for completion in drawn.values():
    assert not set(completion.tokens[:-1]) & {1, 2}
    assert completion.finished == (completion.tokens[-1] in {1, 2})
    assert completion.finished or len(completion.tokens) == 24
    assert len(completion.logprobs) == len(completion.tokens)


def test_new_weights_are_drawn_from(sampler, drawn):
  sampler.set_weights(Transformer(CONFIG, jax.random.key(5)))
  changed = draw(sampler)
  sampler.set_weights(make_model(CONFIG))
  assert tokens(changed) != tokens(drawn)
  assert draw(sampler) == drawn


def test_a_long_prompt_is_refused_before_any_work(sampler):
  long = Ask(1, tuple(range(3, 43)), (0,))
  with pytest.raises(ValueError, match=r'53 tokens.*max_prompt_tokens is 48'):
    sampler.sample(PREFIX, [*ASKS, long])
  with pytest.raises(ValueError, match='no tokens'):
    sampler.sample(PREFIX, [Ask(2, (), (0,))])


def test_too_little_memory_names_the_fields_to_lower():
  config = dataclasses.replace(CONFIG, width=4096, head_width=512, layers=64)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  settings = dataclasses.replace(SETTINGS, max_tokens=1 << 20, rows=512)
  with pytest.raises(ValueError, match=r'GiB.*sampling\.rows.*max_tokens'):
    make_plan(settings, config, mesh, prefix=10, samples=8)


@pytest.mark.parametrize(
  'field, value', [('top_p', 0.0), ('temperature', -1.0), ('max_tokens', 0)]
)
def test_settings_out_of_range_are_refused(field, value):
  with pytest.raises(ValueError, match=field):
    dataclasses.replace(SETTINGS, **{field: value})
