"""The rotary embedding of a config.json, to ours and back.

`rope_scaling` and `rope_parameters` name the fields of a `RopeScaling` as we
do; which of them win where several stand in a file is as in transformers.
"""

import dataclasses
from typing import Any

from rest.model.rope import SCALINGS, Llama3, LongRope, RopeScaling
from rest.model.transformer import ModelConfig

_ORIGINAL = 'original_max_position_embeddings'


def parse(
  fields: dict[str, Any], architecture: str, head_width: int
) -> dict[str, Any]:
  """Returns the fields of `ModelConfig` about it.

  Where layers with a window have a base of their own, they are not scaled.

  Args:
    fields: A config.json, with what it leaves out.
    architecture: Its family.
    head_width: Dimensions of a head.

  Raises:
    KeyError: A field is missing.
    ValueError: One is wrong or not supported.
  """
  given, local_theta = _given(fields)
  theta, share = given['rope_theta'], given['partial_rotary_factor']
  check_number('rope_theta', theta, float)
  check_number('partial_rotary_factor', share, float)
  width = int(head_width * share)
  if share > 1 or width % 2 or theta <= 1:
    raise ValueError(
      f'rope_theta ({theta}) must be above 1, and partial_rotary_factor '
      f'({share}) take an even part of head_dim ({head_width}).'
    )
  if share != 1 and architecture != 'Phi3ForCausalLM':
    raise ValueError(
      f'partial_rotary_factor={share} is not supported in this family.'
    )
  kind = given.get('rope_type') or given.get('type') or 'default'
  if architecture == 'Phi3ForCausalLM' and kind in ('su', 'yarn'):
    kind = 'longrope'  # As its first files call it.
  return {
    'rope_theta': theta,
    'rope_scaling': _scaling(
      kind, given, fields['max_position_embeddings'], width // 2
    ),
    'local_rope_theta': local_theta,
    'rotary_width': 0 if share == 1 else width,
  }


def describe(config: ModelConfig, architecture: str) -> dict[str, Any]:
  """Returns the fields of config.json, as all versions of transformers read."""
  raw: dict[str, Any] = {'rope_theta': config.rope_theta, 'rope_scaling': None}
  if config.rotary_width:
    raw['partial_rotary_factor'] = config.rotary_width / config.head_width
  if config.local_rope_theta:
    raw['rope_local_base_freq'] = config.local_rope_theta
  scaling = config.rope_scaling
  if scaling is None:
    return raw
  kind = next(k for k, cls in SCALINGS.items() if isinstance(scaling, cls))
  scaled = {
    field.name: list(value) if isinstance(value, tuple) else value
    for field in dataclasses.fields(scaling)
    if (value := getattr(scaling, field.name)) != field.default
  }
  scaled.pop('is_long', None)
  name = 'rope_type'
  if isinstance(scaling, LongRope):
    original = scaling.original_max_position_embeddings
    if scaling.factor == config.context / original:
      del scaled['factor']
    if architecture == 'Phi3ForCausalLM':  # Old versions want just the lists.
      name, raw[_ORIGINAL] = 'type', scaled.pop(_ORIGINAL)
  return raw | {'rope_scaling': {name: kind} | scaled}


def choose_factors(config: ModelConfig, longest: int) -> ModelConfig:
  """Returns the model with the factors of longrope for this longest sequence.

  Args:
    config: Without longrope, it is returned as it is.
    longest: In tokens; 0: the model's context.
  """
  scaling = config.rope_scaling
  if not isinstance(scaling, LongRope):
    return config
  original = scaling.original_max_position_embeddings
  is_long = (longest or config.context) > original
  scaling = dataclasses.replace(scaling, is_long=is_long)
  return dataclasses.replace(config, rope_scaling=scaling)


def check_number(key: str, value: Any, kind: Any) -> None:
  """Refuses what is no positive number; `kind` is int or float."""
  kinds = int if kind is int else (int, float)
  is_number = isinstance(value, kinds) and not isinstance(value, bool)
  if not is_number or not 0 < value < float('inf'):
    name = 'whole number' if kind is int else 'number'
    raise ValueError(f'{key} must be a positive {name}; got {value!r}.')


def _given(fields: dict[str, Any]) -> tuple[dict[str, Any], float]:
  """Returns what counts in layers without a window, and the others' base.

  That is 0 where all layers are alike.
  """
  rope, scaled = (
    _object(fields, key) for key in ('rope_parameters', 'rope_scaling')
  )
  given = {key: fields[key] for key in ('rope_theta', 'partial_rotary_factor')}
  original = fields[_ORIGINAL]
  local_theta = fields.get('rope_local_base_freq', 0.0)
  if local_theta:  # By kind of layer.
    local = _object(rope, 'sliding_attention')
    for what in (local, rope):  # For all layers, transformers reads past it.
      if what.get('rope_type', 'default') != 'default':
        raise ValueError(
          f'rope_parameters {what} are not supported: here only those of '
          'full_attention may scale.'
        )
    local_theta = local.get('rope_theta', local_theta)
    check_number('rope_theta', local_theta, float)
    scaled, original = _object(rope, 'full_attention') | scaled, None
  given |= scaled or rope
  if any(isinstance(value, dict) for value in given.values()):
    raise ValueError(f'rope_parameters {given} are not supported.')
  original = original or given.get(_ORIGINAL)
  return given | {
    _ORIGINAL: original or fields['max_position_embeddings']
  }, local_theta


def _object(fields: dict[str, Any], key: str) -> dict[str, Any]:
  value = fields.get(key) or {}
  if not isinstance(value, dict):
    raise ValueError(f'{key} must be an object; got {value!r}.')
  return value


def _scaling(
  kind: str, given: dict[str, Any], context: int, pairs: int
) -> RopeScaling | None:
  """Returns how frequencies are stretched; null is the same as nothing."""
  if kind == 'default':
    return None
  if kind not in SCALINGS:
    raise ValueError(
      f'rope type {kind!r} is not supported; {", ".join(SCALINGS)} are.'
    )
  check_number(_ORIGINAL, given[_ORIGINAL], int)
  if given[_ORIGINAL] == 1:  # Its logarithm is divided by.
    raise ValueError(f'{_ORIGINAL} must be above 1.')
  if kind == 'longrope' and given.get('factor') is None:
    given = given | {'factor': context / given[_ORIGINAL]}
  found: dict[str, Any] = {}
  for field in dataclasses.fields(SCALINGS[kind]):
    value = given.get(field.name)
    if value is not None:
      found[field.name] = _value(field.name, value, field.type, pairs)
    elif field.default is dataclasses.MISSING:
      raise KeyError(field.name)
  scaling = SCALINGS[kind](**found)
  if isinstance(scaling, Llama3) and (
    scaling.low_freq_factor >= scaling.high_freq_factor
  ):
    raise ValueError(
      f'low_freq_factor ({scaling.low_freq_factor}) must be below '
      f'high_freq_factor ({scaling.high_freq_factor}).'
    )
  return scaling


def _value(key: str, value: Any, kind: Any, pairs: int) -> Any:
  """Returns a field of a scaling, checked."""
  if kind is bool:
    if not isinstance(value, bool):
      raise ValueError(f'{key} must be true or false; got {value!r}.')
  elif kind in (int, float):
    check_number(key, value, kind)
  else:
    if not isinstance(value, list) or len(value) != pairs:
      raise ValueError(
        f'{key} must be a list of {pairs} numbers, one for each pair of '
        f'dimensions that is turned; got {value!r:.200}.'
      )
    for number in value:
      check_number(f'An entry of {key}', number, float)
    return tuple(value)
  return value
