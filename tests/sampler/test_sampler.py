"""The sampler: its law, its log-probabilities, and that neither depends on
where, when or beside what a sample is drawn."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from letters import Letters

from rest.model import hardware
from rest.model.attention import plain_attention
from rest.model.sharding import MeshConfig, leaf_name, make_mesh
from rest.model.transformer import (
  ModelConfig,
  Transformer,
  backbone,
  logits,
)
from rest.sampler import (
  Ask,
  Decoding,
  Sampler,
  SamplerConfig,
  attention,
  capacity,
  hand_over,
  rearrange,
  table,
)
from rest.sampler.ahead import Ahead
from rest.sampler.programs import jitted
from rest.sampler.table import empty_table
from rest.types import Completion

CONFIG = ModelConfig(
  vocab=96, width=32, layers=1, heads=4, kv_heads=2, head_width=8, ffn=48
)
TWO = dataclasses.replace(CONFIG, layers=2)
FAMILIES = {
  'qwen': dataclasses.replace(TWO, qkv_bias=True, qk_norm=True, tied=False),
  'gemma2': dataclasses.replace(
    TWO,
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
    TWO, windows=(30, 0), local_rope_theta=100.0, qk_norm=True
  ),
  'olmo_smollm_phi': dataclasses.replace(
    TWO,
    windows=(9, 0),
    late_norms=True,
    wide_qk_norm=True,
    turned=(True, False),
    rotary_width=4,
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


def make_sampler(
  config=CONFIG, settings=SETTINGS, codec=Letters, devices=1, tensor=1
):
  mesh = make_mesh(MeshConfig(tensor=tensor), jax.devices()[:devices])
  sampler = Sampler(config, codec(), settings, mesh, seed=3)
  sampler.set_weights(make_model(config))
  return sampler


def make_model(config, seed=0):
  """Returns random weights, made by NumPy: there is nothing to compile."""
  random = np.random.default_rng(seed)

  def leaf(path, shape):
    if 'norm' not in leaf_name(path):
      return random.normal(0, 0.2, shape.shape).astype(np.float32)
    # Logits that are far from alike.
    scale = 3.0 if 'final' in leaf_name(path) else 1.0
    return np.full(shape.shape, scale - config.unit_offset, np.float32)

  shapes = jax.eval_shape(lambda: Transformer(config))
  return jax.tree_util.tree_map_with_path(leaf, shapes)


def draw(sampler, prefix=PREFIX, asks=ASKS, **options):
  return {
    (asks[index].key, sample): completion
    for index, sample, completion in sampler.sample(prefix, asks, **options)
  }


def teacher_forced(model, prompt, tokens, length=80):
  """Returns the log-probabilities of all tokens at each drawn place."""
  row = np.zeros((1, length), np.int32)  # What follows is not seen.
  row[0, : len(prompt) + len(tokens)] = [*prompt, *tokens]
  values = all_logprobs(model, row)
  return np.asarray(values[len(prompt) - 1 :][: len(tokens)])


@jax.jit
def all_logprobs(model, row_1T):
  position = jnp.arange(row_1T.shape[1])[None]
  end = jnp.full_like(row_1T, row_1T.shape[1])
  attend = plain_attention(model.config, end, position)
  x_BTD, _ = backbone(model, row_1T, position, attend)
  return jax.nn.log_softmax(logits(model, x_BTD)[0], axis=-1)


@pytest.fixture(scope='module')
def sampler():
  return make_sampler()


@pytest.fixture(scope='module')
def drawn(sampler):
  return draw(sampler)


@pytest.mark.parametrize(
  'family, prefix',
  [
    *(('qwen', PREFIX), ('gemma2', PREFIX), ('gemma2', [])),
    *(('gemma3', PREFIX), ('olmo_smollm_phi', PREFIX)),
  ],
  ids=['qwen', 'gemma2', 'gemma2_zero_shot', 'gemma3', 'olmo_smollm_phi'],
)
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


@pytest.mark.parametrize('top_k, top_p', [(0, 1.0), (0, 0.9), (5, 1.0)])
def test_the_smallest_temperatures_take_the_best_token(sampler, top_k, top_p):
  options = {'asks': ASKS[:3], 'top_k': top_k, 'top_p': top_p}
  greedy = draw(sampler, temperature=0.0, **options)
  for temperature in (1e-9, 1e-20, 2e-38, 1e-40):
    drawn = draw(sampler, temperature=temperature, **options)
    assert tokens(drawn) == tokens(greedy), temperature


@pytest.mark.parametrize(
  'top_k, top_p', [(5, 1.0), (0, 1.0), (6, 0.8), (0, 0.7)]
)
def test_two_tokens_follow_their_exact_law(top_k, top_p):
  config = dataclasses.replace(CONFIG, vocab=8)
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


@pytest.mark.parametrize('steps, most', [(1, 60), (16, 99)])
def test_what_is_withdrawn_stops_and_changes_nothing_else(steps, most):
  # Many problems, so that what falls free is used again at once.
  asks = [
    dataclasses.replace(ASKS[index % 9], key=index) for index in range(40)
  ]
  settings = dataclasses.replace(SETTINGS, steps_per_call=steps)
  sampler = make_sampler(settings=settings)
  expected = draw(sampler, asks=asks)
  rest = draw(sampler, asks=asks, withdrawn={38})
  assert rest == {key: expected[key] for key in expected if key[0] != 38}
  withdrawn = {4}
  seen = {}
  for index, sample, completion in sampler.sample(
    PREFIX, asks, withdrawn=withdrawn
  ):
    seen[index, sample] = completion
    if index % 2 == 0:
      withdrawn.add(index)
  assert seen == {key: expected[key] for key in seen}
  counts = [sum(key[0] == index for key in seen) for index in range(40)]
  assert counts[1::2] == [5] * 20
  assert counts[4] == 0
  assert sum(counts[::2]) < most


def test_samples_of_a_problem_differ(drawn):
  for ask in ASKS:
    assert len({drawn[ask.key, n].tokens for n in ask.samples}) > 1


@pytest.mark.parametrize('rows, per_slot, steps', [(1, 1, 7), (24, 8, 1)])
def test_tokens_do_not_depend_on_the_table(drawn, rows, per_slot, steps):
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
  # From 4 slots of 4 rows over 4 of 3, 2 and 1 to 2 of 1.
  wide = dataclasses.replace(SETTINGS, steps_per_call=4)
  least = dataclasses.replace(wide, min_rows=2)
  whole, shrinking = make_sampler(settings=wide), make_sampler(settings=least)
  assert tokens(draw(whole, asks=asks)) == tokens(draw(shrinking, asks=asks))
  assert shrinking.stats.row_steps < whole.stats.row_steps
  assert shrinking.stats.busy_row_steps == shrinking.stats.tokens
  assert shrinking.stats.busy > whole.stats.busy


@pytest.fixture
def turned(monkeypatch):
  """Weights lie as TPUs want them."""
  found = hand_over.hand_over, hand_over.handed_over
  monkeypatch.setattr(hand_over, '_turns', lambda mesh: True)
  for program in found:
    program.cache_clear()
  yield
  for program in found:
    program.cache_clear()


def test_how_weights_lie_changes_no_token(request):
  expected = tokens(draw(make_sampler(devices=4, tensor=2)))
  request.getfixturevalue('turned')
  sampler = make_sampler(devices=4, tensor=2)
  leaves = jax.tree_util.tree_leaves_with_path(sampler.model)
  assert 'gate_up_CDF' in [leaf_name(path) for path, _ in leaves]
  assert tokens(draw(sampler)) == expected


def test_where_positions_of_keys_lie_changes_no_token(monkeypatch):
  """As on TPUs; rows are drawn full."""
  full = dataclasses.replace(SETTINGS, max_tokens=32)
  limits = (32, 9, 32, 20, 31)
  asks = [dataclasses.replace(ask, limits=limits) for ask in ASKS]

  def run(rows):
    settings = dataclasses.replace(full, rows=rows)
    sampler = make_sampler(settings=settings, codec=Endless)
    return tokens(draw(sampler, asks=asks)), sampler._table.caches[0]

  expected, cache = run(16)
  assert cache.k2.shape[3] == cache.v2_BKSH.shape[2] == 32
  for module in attention, table:
    monkeypatch.setattr(module, 'positions_last', lambda mesh: False)
  found, cache = run(12)  # A table that no other test has.
  assert cache.k2.shape == cache.v2_BKSH.shape
  assert found == expected


@pytest.mark.parametrize('lie', ['as_named', 'turned'])
@pytest.mark.parametrize('devices', [1, 4])
def test_what_is_compiled_ahead_is_what_a_list_calls(devices, lie, request):
  if lie == 'turned':
    request.getfixturevalue('turned')
  for program in rearrange.move_cache, rearrange.move_rows:
    program.clear_cache()  # Of what other tests have compiled.
  least = dataclasses.replace(
    SETTINGS, steps_per_call=4, min_rows=4, max_tokens=40
  )
  sampler = make_sampler(settings=least, devices=devices)
  ours = ['decode', 'load_prefix', 'load_questions', 'move_cache', 'move_rows']
  compiled, traced = [], []

  def note(event, _, fun_name='', **__):
    if event == '/jax/core/compile/backend_compile_duration':
      compiled.extend(name for name in ours if name in fun_name)
    if event == '/jax/core/compile/jaxpr_trace_duration':
      traced.append(fun_name)

  jax.monitoring.register_event_duration_secs_listener(note)
  try:
    (programs,) = sampler.programs(len(PREFIX), 6)
    for _, lower in programs.all():
      lower().compile()
    assert {*compiled} == {*ours}
    assert 'load_prefix' in traced
    assert 'empty_table' not in traced  # Another thread may be calling it.
    compiled.clear()
    asks = [Ask(i, (5, 6), (0, 1, 2, 3, 4, 5)) for i in range(12)]
    draw(sampler, asks=asks)
    assert sampler.stats.row_steps < 16 * 4 * sampler.stats.calls  # It shrank.
    assert not compiled
    # On a CPU it is nobody else who compiles.
    assert not any(t.name.startswith('compile') for t in threading.enumerate())
  finally:
    jax.monitoring.unregister_event_duration_listener(note)


def test_who_needs_a_program_waits_for_no_other():
  ahead, begun, goes_on, made = (
    Ahead(),
    threading.Event(),
    threading.Event(),
    [],
  )

  class Program:
    def __init__(self, name):
      self.name = name

    def compile(self):
      begun.set()
      if self.name != 'needed':
        goes_on.wait(60)
      made.append(self.name)

  # As many as keep all threads busy, and one that waits behind them.
  names = [f'other {i}' for i in range(8)]
  ahead.start(((n,), lambda n=n: Program(n)) for n in [*names, 'needed'])
  assert begun.wait(60)
  ahead.wait('needed')
  assert made == ['needed']
  ahead.wait('needed')
  ahead.start([(('needed',), lambda: Program('again'))])
  goes_on.set()
  ahead.wait('other 0')
  assert 'other 0' in made
  ahead.close()
  assert made.count('needed') == 1 and 'again' not in made


def test_asks_may_have_more_samples_than_the_first():
  settings = dataclasses.replace(SETTINGS, steps_per_call=2, min_rows=2)
  asks = [
    Ask(index, (5, 6), tuple(range(1 + 3 * index)), (20,) * (1 + 3 * index))
    for index in range(6)
  ]
  alone = draw(make_sampler(settings=settings), asks=asks)
  told = draw(make_sampler(settings=settings), asks=asks, samples=16)
  assert len(alone) == sum(len(ask.samples) for ask in asks)
  assert tokens(alone) == tokens(told)


def tokens(completions):
  return {key: completion.tokens for key, completion in completions.items()}


def test_options_and_lengths_change_without_compiling(sampler, drawn):
  del drawn  # All that is needed is compiled by now.
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  programs = (*jitted(mesh, 1), empty_table)
  before = [program._cache_size() for program in programs]
  draw(sampler, temperature=0.0)
  draw(sampler, temperature=1.5, top_k=7, top_p=0.5, max_tokens=11)
  draw(sampler, prefix=PREFIX[:-5], asks=ASKS[2:4])
  sampler.set_weights(make_model(CONFIG))
  draw(sampler, top_k=64)
  # As they come from the trainer: on its mesh, placed by a program.
  with jax.set_mesh(mesh):
    sampler.set_weights(jax.jit(lambda model: model)(make_model(CONFIG)))
    draw(sampler)
  assert [program._cache_size() for program in programs] == before


class Endless(Letters):
  """No token ends a completion."""

  eos = ()


def test_long_prompts_and_completions_match_teacher_forcing():
  settings = SamplerConfig(
    max_tokens=4096,
    max_prompt_tokens=2100,
    rows=2,
    rows_per_slot=1,
    steps_per_call=300,
  )
  config = dataclasses.replace(CONFIG, context=2500)
  sampler = make_sampler(config, settings, Endless)
  prompt = RANDOM.integers(3, 96, 2000).tolist()
  ask = Ask(0, tuple(prompt), (0,), (500,))
  ((_, _, completion),) = sampler.sample([], [ask])
  expected = teacher_forced(sampler.model, prompt, completion.tokens, 2560)
  at = np.arange(500), list(completion.tokens)
  np.testing.assert_allclose(completion.logprobs, expected[at], atol=1e-4)


def test_long_questions_have_a_table_of_their_own():
  settings = dataclasses.replace(
    SETTINGS, max_prompt_tokens=2100, max_tokens=4, rows=4, rows_per_slot=2
  )
  config = dataclasses.replace(CONFIG, context=2500)
  sampler = make_sampler(config, settings)
  (table,) = sampler.tables(len(PREFIX), 2)
  assert table.shape.question == 1024
  long = Ask((8, 0), tuple(RANDOM.integers(3, 96, 1026).tolist()), (0, 1))
  short = dataclasses.replace(ASKS[0], samples=(0, 1))
  at_the_edge = dataclasses.replace(long, key=(8, 1), tokens=long.tokens[1:])
  asks = [long, short, at_the_edge]
  order = [i for i, _, _ in sampler.sample(PREFIX, asks, samples=2)]
  assert sorted(order) == [0, 0, 1, 1, 2, 2]
  assert order[-2:] == [0, 0]
  together = tokens(draw(sampler, asks=asks, samples=2))
  wide = dataclasses.replace(settings, rows=2, rows_per_slot=1)
  alone = [draw(make_sampler(config, wide), asks=[ask]) for ask in asks]
  assert together == {k: v for one in alone for k, v in tokens(one).items()}


@pytest.fixture
def small(monkeypatch):
  """A device whose memory is for few completions of 2,048 tokens."""
  device = hardware.Device('cpu', 10 * 10**6)
  monkeypatch.setattr(capacity, 'find_device', lambda: device)


class Ending(Letters):
  """Its end token is there, but never among the 20 best."""

  eos = (95,)


LONG = SamplerConfig(max_tokens=2048, max_prompt_tokens=48, steps_per_call=16)


def make_long_samplers(codec, min_rows=0):
  """Returns one with a table for short completions, and one without."""
  config = dataclasses.replace(CONFIG, context=2100)
  shrinking = dataclasses.replace(LONG, min_rows=min_rows)
  in_two = make_sampler(config, shrinking, codec)
  in_one = make_sampler(config, dataclasses.replace(LONG, rows=16), codec)
  model = make_model(config)
  model.embed_VD[...][95] = 0.0
  for sampler in (in_two, in_one):
    sampler.set_weights(model)
  limits = [
    [table.limit for table in made.tables(len(PREFIX), 5)]
    for made in (in_two, in_one)
  ]
  assert limits == [[1024, 2048], [2048]]
  return in_two, in_one


@pytest.mark.parametrize('min_rows', [0, 2], ids=['of one size', 'shrinking'])
def test_long_completions_go_on_in_another_table(small, min_rows):
  lengths = (5, 1023, 1024, 1025, 2048)
  asks = [dataclasses.replace(ask, limits=lengths) for ask in ASKS[:3]]
  in_two, in_one = (
    draw(sampler, asks=asks)
    for sampler in make_long_samplers(Endless, min_rows)
  )
  assert tokens(in_two) == tokens(in_one)
  assert {len(c.tokens) for c in in_two.values()} == {*lengths}
  for key, completion in in_two.items():
    expected = in_one[key].logprobs
    np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)


def test_limits_above_the_longest_completion_are_cut_at_it():
  most = SETTINGS.max_tokens
  asks = [dataclasses.replace(ASKS[0], samples=(0,), limits=(most + 9,))]
  (completion,) = draw(make_sampler(codec=Endless), asks=asks).values()
  assert len(completion.tokens) == most


def test_stop_texts_are_found_where_a_table_ends(small):
  in_two, in_one = make_long_samplers(Ending)
  asks = [dataclasses.replace(ASKS[0], samples=(0,), limits=(1100,))]
  ((_, _, whole),) = in_one.sample(PREFIX, asks, top_k=20)
  # Whole before, with, and behind the first table's last token.
  for end in (1023, 1024, 1025, 1026):
    stop = (whole.text[end - 12 : end],)
    assert whole.text.index(stop[0]) == end - 12
    found = draw(in_two, asks=asks, stop=stop, top_k=20)
    expected = draw(in_one, asks=asks, stop=stop, top_k=20)
    assert tokens(found) == tokens(expected)
    calls = in_two.draw(PREFIX, asks, stop=stop, top_k=20)
    ((sampled,),) = (call for call in calls if call)
    assert len(sampled.tokens_T) < end + 3 * LONG.steps_per_call


def test_what_is_withdrawn_does_not_go_on(small):
  in_two, _ = make_long_samplers(Endless)
  asks = [dataclasses.replace(ask, limits=(20, 1500)) for ask in ASKS[:2]]
  asks = [dataclasses.replace(ask, samples=(0, 1)) for ask in asks]
  over, lengths = set(), []
  for call in in_two.draw(PREFIX, asks, withdrawn=over):
    for one in call:
      lengths.append((one.ask, len(one.tokens_T)))
      if len(lengths) == 2:  # All short ones: in the first table still.
        over.add(0)
  assert sorted(lengths) == [(0, 20), (1, 20), (1, 1500)]


def test_a_budget_of_8192_tokens_draws_the_same_beginnings():
  """Until the small budget ends, each completion has the same tokens."""
  config = dataclasses.replace(CONFIG, context=8192 + 48)
  settings = dataclasses.replace(SETTINGS, rows=2, rows_per_slot=1)
  long = dataclasses.replace(settings, max_tokens=8192)
  asks = [dataclasses.replace(ask, samples=(0, 1)) for ask in ASKS[:3]]
  limited = [dataclasses.replace(ask, limits=(40, 40)) for ask in asks]
  drawn = draw(make_sampler(config, long), asks=limited)
  lengths = [len(completion.tokens) for completion in drawn.values()]
  assert max(lengths) > SETTINGS.max_tokens
  small = draw(make_sampler(config, settings), asks=asks)
  assert {key: c.tokens[:24] for key, c in drawn.items()} == tokens(small)


def test_weights_come_before_samples():
  sampler = make_sampler()
  sampler.release()
  with pytest.raises(ValueError, match='holds no weights: call set_weights'):
    sampler.sample(PREFIX, ASKS)
  sampler.set_weights(make_model(CONFIG))
  assert draw(sampler)


def test_a_call_is_read_while_the_next_one_is_under_way():
  # The example of `Drawing.run`: 8 tokens, 4 a call.
  settings = dataclasses.replace(SETTINGS, steps_per_call=4)
  sampler = make_sampler(CONFIG, settings, Endless)
  ((_, _, completion),) = sampler.sample([], [Ask(0, (5,), (0,), (8,))])
  assert len(completion.tokens) == 8
  assert sampler.stats.calls == 3


@pytest.mark.parametrize('steps, least', [(1, 0), (16, 0), (2, 2)])
def test_stop_texts_cut_whenever_the_host_notices(steps, least):
  settings = dataclasses.replace(SETTINGS, steps_per_call=steps, min_rows=least)
  free = draw(make_sampler(settings=settings))
  stop = ('ab', free[ASKS[0].key, 0].text[5:7], free[ASKS[1].key, 2].text[8:9])
  stopped = draw(make_sampler(settings=settings), stop=stop)
  cut = 0
  for key, completion in free.items():
    ends = [completion.text.find(s) for s in stop if s in completion.text]
    if ends:
      cut += 1
      at = min(ends)
      completion = Completion(
        completion.text[:at],
        (*completion.tokens[:at], 1),
        completion.logprobs[:at],  # The end was not drawn.
        ended='stop',
      )
    # In a table of another size, sums may be rounded otherwise.
    assert stopped[key].logprobs == pytest.approx(
      completion.logprobs, rel=1e-5 if least else 0, abs=0
    )
    assert tokens(stopped)[key] == completion.tokens
    assert stopped[key].text == completion.text
    assert stopped[key].ended == completion.ended
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
  sampler.set_weights(make_model(CONFIG, seed=5))
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


@pytest.mark.parametrize('wrong', [-1, 96])
def test_ids_that_the_model_has_not_are_refused_before_any_work(sampler, wrong):
  message = rf'id {wrong} is not in the vocabulary .* 96 rows'
  with pytest.raises(ValueError, match=rf'prefix .*{message}'):
    sampler.sample([3, wrong], ASKS)
  with pytest.raises(ValueError, match=rf'question \(key 1\): {message}'):
    sampler.sample(PREFIX, [*ASKS, Ask(1, (3, wrong), (0,))])


def test_an_end_token_that_the_model_has_not_is_refused():
  with pytest.raises(ValueError, match=r'End tokens: id 2 .* 2 rows'):
    make_sampler(dataclasses.replace(CONFIG, vocab=2))


def test_prompt_and_completion_must_fit_into_the_context():
  config = dataclasses.replace(CONFIG, context=13 + 5 + 24)
  sampler = make_sampler(config)
  fits = Ask(1, (3,) * 5, (0,))
  sampler.sample(PREFIX, [fits])
  long = Ask(2, (3,) * 6, (0,))
  message = r'19 tokens, and 43 .*sampling\.max_tokens=24.* 42 \(max_position'
  with pytest.raises(ValueError, match=message):
    sampler.sample(PREFIX, [fits, long])
  sampler.sample(PREFIX, [dataclasses.replace(long, limits=(23,))])


@pytest.mark.parametrize(
  'settings, field, value',
  [
    (Decoding(), 'top_p', 0.0),
    (Decoding(), 'temperature', -1.0),
    (SETTINGS, 'max_tokens', 0),
  ],
)
def test_settings_out_of_range_are_refused(settings, field, value):
  with pytest.raises(ValueError, match=field):
    dataclasses.replace(settings, **{field: value})
