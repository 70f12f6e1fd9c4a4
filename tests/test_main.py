"""Bad input gives one clear error, before anything is touched."""

import importlib
import json
import pathlib
import shutil

import jax
import pytest
from etils import epath

from configs import base, pretrain_quickstart
from rest import main
from rest.model.transformer import ModelConfig, Transformer
from rest.plan import outline
from rest.plan.world import Run
from rest.run import digests, store

ROOT = pathlib.Path(__file__).parent.parent


def prepare(config, workdir='nowhere') -> Run:
  return main.prepare(config, epath.Path(workdir))


def _embedded(**changes):
  config = importlib.import_module('configs.arithmetic').get_config()
  config.task.num_train = config.task.num_test = 8
  for name, value in changes.items():
    *section, field = name.split('__')
    (config[section[0]] if section else config)[field] = value
  return config


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch):
  monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('size', ['0.3m', '1m', '6m', '37m'])
def test_a_pretrained_model_has_the_size_that_it_is_called(size):
  config = ModelConfig(**pretrain_quickstart.get_config(size).model)
  model = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
  millions = sum(x.size for x in jax.tree.leaves(model)) / 1e6
  assert millions == pytest.approx(float(size.removesuffix('m')), rel=0.2)


def test_an_unknown_size_to_pretrain_is_named():
  with pytest.raises(ValueError, match=r"one of \['0.3m'.*got '2m'"):
    pretrain_quickstart.get_config('2m')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'model__path': '/nowhere'}, 'model.path'),
    ({'model__dtype': 'bf16'}, r"^model\.dtype .*float32, bfloat16.*'bf16'"),
    ({'model__dtype': 'int8'}, r"^model\.dtype .*float32, bfloat16.*'int8'"),
    ({'task__name': 'sums'}, r'task\.name.*arithmetic.*sums'),
    ({'task__num_train': 5000}, r'task\.num_train.*5000'),
    ({'estep__num_samples': 0}, r'estep\.num_samples'),
    ({'eval__pass_k': (1, 64)}, r'eval\.pass_k.*64'),
    ({'em__start_from': 'last'}, r"em\.start_from.*'last'"),
    ({'mstep__optimizer': 'sgd'}, r"mstep\.optimizer.*'sgd'"),
    ({'mesh__tensor': 3}, r'mesh .*tensor=3'),
    ({'mesh__tensor': 8}, r'mesh\.tensor=8.*heads'),
    ({'sampling__max_prompt_tokens': 40}, r'sampling\.max_prompt_tokens is 40'),
    ({'sampling__max_tokens': 10**9}, r'sampling\.max_tokens=10{9}.*made for'),
    ({'sampling__rows': 10**9}, r'GiB.*sampling\.rows'),
    (
      {'em__source': 'samples_of', 'em__samples_of': '/nowhere'},
      r"em\.samples_of.*'/nowhere'",
    ),
    ({'em__problems_per_iteration': 9}, r'em\.problems_per_iteration.*8.*9'),
    ({'task__solved_by': '/nowhere'}, r"task\.solved_by='/nowhere'"),
    ({'eval__suites': ('gsm8k',)}, r"eval\.suites, 'gsm8k'.*test\.jsonl"),
    ({'eval__suites': ('bbh:cot:cot',)}, r"eval\.suites.*'bbh:cot:cot'"),
    ({'eval__suites': ('arithmetic',) * 2}, r'eval\.suites.*twice'),
    ({'verify__workers': 0}, r'verify\.workers'),
  ],
)
def test_a_wrong_field_is_named_with_what_came(change, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    prepare(_embedded(**change))


@pytest.fixture
def base_model(tmp_path):
  """Returns a function that writes the base model with fields changed."""

  def write(**fields):
    folder = tmp_path / 'base'
    shutil.copytree(ROOT / 'rest/model/assets/arithmetic-1m', folder)
    file = folder / 'config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return str(folder)

  return write


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'eos_token_id': 5000}, r'model\.path: end tokens .*5000 .*1024 rows'),
    ({'vocab_size': 2}, r'model\.path: end tokens .*id 2 .*2 rows'),
    (
      {'vocab_size': 64},
      r"prompt of problem 'arithmetic/train/.* id \d+ .*64 rows",
    ),
    (
      {'max_position_embeddings': 96},
      r'prompt of problem .*sampling\.max_tokens=.*made for 96.*lower',
    ),
  ],
)
def test_a_base_model_that_does_not_fit_is_refused(fields, message, base_model):
  config = _embedded(model__path=base_model(**fields))
  # In a plan, weights need not be there, and so are not held against it.
  with pytest.raises(ValueError, match=message):
    main.prepare(config, epath.Path('nowhere'), 'h100-1')


def test_prompts_with_the_answer_in_them_are_measured_too():
  sizes = {'train': 64, 'validation': 1, 'test': 1}
  config = _embedded(**{f'task__num_{k}': n for k, n in sizes.items()})
  world = prepare(config).world
  # The longest is one to train on.
  longest = world.prefix + max(world.questions['train'])
  config.sampling.max_prompt_tokens = longest
  prepare(config)
  config.estep = {**base.get_config().estep, 'rationalize': True}
  with pytest.raises(ValueError, match=r'with the answer.*max_prompt_tokens'):
    prepare(config)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'mstep__row_length': 8},
      r'mstep\.row_length=8 is too short .*shortest.*takes \d+ positions',
    ),
    (
      {'mstep__row_length': 30, 'em__source': 'human'},
      r'mstep\.row_length=30 is too short .*shortest.*takes \d+ positions',
    ),
    (
      {'mstep__row_length': 100, 'em__validation': 'loss'},
      r"em\.validation='loss'.*mstep\.row_length=100; .* takes \d+",
    ),
  ],
)
def test_what_would_be_found_after_an_e_step_is_found_before(changes, message):
  with pytest.raises(ValueError, match=message):
    prepare(_embedded(**changes))


def test_rationalization_and_votes_need_answers():
  path = str(ROOT / 'tests/data/tasks/mbpp')
  config = _embedded(task__name='mbpp', task__path=path, task__prompt='')
  config.task.num_train = config.task.num_test = 2
  config.task.num_validation = 1
  for field, value in (('rationalize', True), ('weight', 'majority')):
    config.estep = {**base.get_config().estep, field: value}
    with pytest.raises(ValueError, match=f'estep.{field}.*program'):
      prepare(config)


def test_a_changed_config_is_refused_by_field(tmp_path):
  with main.hold(prepare(_embedded(), tmp_path)):
    pass
  free = prepare(_embedded(em__iterations=9, verify__workers=1), tmp_path)
  with main.hold(free):
    pass
  other = prepare(_embedded(estep__cap=3, task__num_train=9), tmp_path)
  with (
    pytest.raises(
      ValueError, match=r'task\.num_train was 8.*estep|estep.*task'
    ),
    main.hold(other),
  ):
    pass


def test_a_finished_run_is_held_without_a_lock_and_still_compared(tmp_path):
  run = prepare(_embedded(), tmp_path)
  with main.hold(run) as finished:
    assert not finished
  store.write_json(tmp_path / 'finished.json', {'asked': 9})
  (tmp_path / 'lock').unlink(missing_ok=True)
  with main.hold(run) as finished:
    assert finished
    assert not (tmp_path / 'lock').exists()
  record = store.read_json(tmp_path / 'run.json') | {'base': 'another'}
  store.write_json(tmp_path / 'run.json', record)
  digests.note(tmp_path / 'run.json')
  with pytest.raises(ValueError, match='the base changed'), main.hold(run):
    pass


def test_a_plan_touches_nothing(tmp_path):
  text = outline.describe(prepare(_embedded(), tmp_path / 'run'))
  assert '8 train' in text
  assert '1.1 M parameters' in text
  assert not (tmp_path / 'run').exists()
