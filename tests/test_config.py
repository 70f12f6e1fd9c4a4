"""Each field stands once: what is said of it is what it is held to."""

import dataclasses
import importlib
import importlib.util
import inspect
import math
import pathlib
import re
import subprocess
import sys
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from absl import flags
from ml_collections import config_flags

from configs import arithmetic, base
from rest.config import FREE_FIELDS, Config, fields, make
from rest.run.record import flat

ROOT = pathlib.Path(__file__).parent.parent
NAN, INFINITY = float('nan'), float('inf')
INTERVAL = re.compile(r'([\[(])(\S+), (\S+?)([])])')


def _number(text: str) -> float:
  return 2.0 ** int(text[3:]) if text.startswith('2**') else float(text)


def _ends(kind: Any) -> list[tuple[float, float, bool]]:
  """Returns (end of an interval, direction out of it, whether it is in)."""
  text = next(x for x in get_args(kind)[1:] if isinstance(x, str))
  found = INTERVAL.findall(text)
  assert found
  return [
    end
    for left, low, high, right in found
    for end in (
      (_number(low), -INFINITY, left == '['),
      (_number(high), INFINITY, right == ']'),
    )
  ]


def _bad(kind: Any) -> list[Any]:
  """Returns values that a field of this type must refuse."""
  origin, arguments = get_origin(kind), get_args(kind)
  if origin is Literal:
    return ['', 'nothing', arguments[0].upper(), f'{arguments[0]} ', True, None]
  if origin is tuple:
    return ['', 'text', [], None, 3, *((x,) for x in _bad(arguments[0]))]
  base = arguments[0] if origin is Annotated else kind
  if base is str:
    return [0, None, True, NAN, (), [], b'text']
  if base is bool:
    return [0, 1, 'True', '', None, NAN]
  bad: list[Any] = ['', '1', True, None, (), NAN, INFINITY, -INFINITY]
  bad += [10**30, -(10**30), 0.5] if base is int else [1e30, -1e30, -1]
  for end, out, is_in in _ends(kind):
    if base is float:
      bad.append(math.nextafter(end, out) if is_in else end)
    else:
      bad.append(int(end) + (int(math.copysign(1, out)) if is_in else 0))
  return bad


def _section(name: str) -> tuple[Any, str]:
  """Returns a field's section and its name there."""
  section, _, field = name.rpartition('.')
  return (getattr(Config(), section) if section else Config()), field


@pytest.mark.parametrize(
  ('name', 'bad'),
  [(name, bad) for name, kind in fields().items() for bad in _bad(kind)],
)
def test_what_a_field_may_not_be_is_refused_in_one_line(name: str, bad: Any):
  section, field = _section(name)
  with pytest.raises(ValueError) as caught:
    dataclasses.replace(section, **{field: bad})
  message = str(caught.value)
  assert re.match(rf'{re.escape(name)} must .*; got ', message), message
  assert message.endswith(f'got {bad!r}.')
  assert '\n' not in message
  kind = fields()[name]
  if get_origin(kind) is Literal:
    assert ', '.join(get_args(kind)) in message


@pytest.mark.parametrize(
  'name',
  [n for n, x in fields().items() if {int, float} & {*get_args(x)[:1]}],
)
def test_the_ends_of_an_interval_are_in_it_where_it_says_so(name: str):
  section, field = _section(name)
  kind = fields()[name]
  for end, _, is_in in _ends(kind):
    value = get_args(kind)[0](end)
    if is_in:
      changed = dataclasses.replace(section, **{field: value})
      assert getattr(changed, field) == value


@pytest.mark.parametrize(
  ('name', 'bad'),
  [
    ('mstep.beta1', 1.0),  # Adam would divide by 0.
    ('mstep.beta2', 1.0),
    ('mstep.epsilon', 0.0),
    ('mstep.lora_alpha', 0.0),
    ('mstep.rows', 2.5),
    ('mstep.epochs', 10**9),
    ('estep.top_p', 0.0),
    ('estep.top_p', 1.1),
    ('verify.timeout', 0.0),
    ('verify.nice', 20),
    ('verify.workers', 3000),
    ('mesh.fsdp', 0),
  ],
)
def test_values_that_make_no_sense_are_refused(name: str, bad: float):
  section, field = _section(name)
  with pytest.raises(ValueError, match=rf'{name} must lie in'):
    dataclasses.replace(section, **{field: bad})


def test_true_is_no_number_and_a_whole_number_is_a_float():
  assert make({'mstep': {'clip': 2}}).mstep.clip == 2
  message = r'mstep\.clip must lie in \[0, 1e9\]; got True'
  with pytest.raises(ValueError, match=message):
    make({'mstep': {'clip': True}})
  message = r'^seed must lie in \[0, 2\*\*31\) and be whole; got -1\.$'
  with pytest.raises(ValueError, match=message):
    make({'seed': -1})


@pytest.mark.parametrize(
  ('tree', 'message'),
  [
    ({'mstep': {'lr': 1.0}}, "config section mstep: .* no field 'lr'"),
    ({'em': {'num_samples': 1}}, "section em: .* no field 'num_samples'"),
    ({'steps': 3}, "config: .* no field 'steps'"),
  ],
)
def test_a_field_that_does_not_exist_is_named(tree, message):
  with pytest.raises(ValueError, match=message):
    make(tree)


@pytest.mark.parametrize(
  ('tree', 'message'),
  [
    ({'mesh': {'data': -1, 'fsdp': -1}}, 'one axis of mesh .*fsdp=-1'),
    ({'em': {'source': 'samples_of'}}, r'em\.samples_of'),
    ({'em': {'samples_of': '/runs/1'}}, r"em\.samples_of.*'/runs/1'"),
    (
      {'em': {'start_from': 'previous_state'}, 'mstep': {'lora_rank': 2}},
      r'previous_state.*lora_rank',
    ),
    ({'estep': {'cap': 0, 'stop_at_cap': True}}, r'estep\.cap is 0'),
    (
      {'estep': {'weight': 'best', 'stop_at_cap': True}},
      r"estep\.weight='identity'.*'best'",
    ),
    (
      {'eval': {'num_samples': 4, 'pass_k': (1, 5)}},
      r'eval\.pass_k must lie in 1\.\.eval\.num_samples=4, got \(1, 5\)',
    ),
  ],
)
def test_fields_that_do_not_go_together_are_refused(tree, message):
  with pytest.raises(ValueError, match=message):
    make(tree)


@pytest.mark.skipif(
  importlib.util.find_spec('wandb') is not None, reason='wandb is installed'
)
def test_a_logger_that_is_asked_for_must_be_installed():
  with pytest.raises(ValueError, match=r'logging\.wandb.*pip install wandb'):
    make({'logging': {'wandb': 'project'}})


def test_the_base_config_has_every_field_with_its_default():
  assert base.get_config().to_dict() == dataclasses.asdict(Config())
  assert make(base.get_config().to_dict()) == Config() == make({})


@pytest.mark.parametrize(
  'name',
  [
    path.stem
    for path in sorted((ROOT / 'configs').glob('*.py'))
    if path.stem not in ('__init__', 'pretrain_quickstart')
  ],
)
def test_every_config_has_all_fields_and_is_taken(name: str):
  config = importlib.import_module(f'configs.{name}').get_config()
  assert flat(config.to_dict()).keys() == fields().keys()
  assert make(config.to_dict()).name


def _parse(*arguments: str) -> Config:
  values = flags.FlagValues()
  sys.argv = ['main', *arguments]  # Where ml_collections looks for fields.
  holder = config_flags.DEFINE_config_dict(
    'config', arithmetic.get_config(), flag_values=values
  )
  values(sys.argv)
  return make(holder.value.to_dict())


def test_flags_set_fields_and_keep_their_types(monkeypatch):
  monkeypatch.setattr(sys, 'argv', [])
  config = _parse(
    '--config.estep.num_samples=5',
    '--config.estep.stop_at_cap',
    '--config.eval.pass_k=(2,3)',
    '--config.mstep.clip=3',
    '--config.task.path=7',
    '--config.seed=4',
  )
  assert (config.estep.num_samples, config.estep.stop_at_cap) == (5, True)
  assert config.eval.pass_k == (2, 3)
  assert isinstance(config.mstep.clip, float)
  assert (config.task.path, config.seed) == ('7', 4)
  with pytest.raises(flags.IllegalFlagValueError):
    _parse('--config.estep.num_samples=many')
  with pytest.raises(AttributeError):
    _parse('--config.estep.samples=3')


def test_a_run_goes_on_with_other_values_of_these_fields_alone():
  assert fields().keys() > FREE_FIELDS
  mesh = {f'mesh.{axis}' for axis in ('data', 'fsdp', 'tensor')}
  verify = {f'verify.{x}' for x in ('max_unknown', 'nice', 'queue', 'workers')}
  assert FREE_FIELDS - mesh - verify == {
    *('compilation_cache', 'em.export', 'em.iterations', 'estep.max_cut_off'),
    *('eval.suite_folder', 'logging.wandb', 'model.path', 'task.path'),
    *('sampling.rows', 'sampling.rows_per_slot'),
    *('mstep.rows', 'mstep.share_prefixes'),
  }
  assert mesh | verify <= FREE_FIELDS


def test_every_field_is_explained_and_listed():
  command = [sys.executable, '-m', 'rest.config']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
  listed = done.stdout.decode()
  for name in fields():
    section, field = _section(name)
    parts = [x for x in type(section).__mro__ if dataclasses.is_dataclass(x)]
    lines = [x for y in parts for x in inspect.getsource(y).splitlines()]
    at = next(i for i, x in enumerate(lines) if x.startswith(f'  {field}: '))
    assert '  # ' in lines[at] or lines[at - 1].startswith('  # '), name
    assert lines[at] in listed
