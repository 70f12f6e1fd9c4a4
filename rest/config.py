"""Checks of the fields of a config's section, for their dataclasses."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


def check(
  section: str,
  config: Any,
  ranges: Mapping[str, str],
  choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
  """Refuses fields that are out of bounds, by their full names.

  NaN lies in no interval, and infinity in none that is written with `inf)`.
  A field of type int takes whole numbers only.

  Args:
    section: What to call the config: the fields are `section.name`.
    config: A dataclass.
    ranges: Interval of each number, such as '[0, 1)': a bracket is inclusive.
    choices: What each text may be.

  Raises:
    ValueError: A field is wrong.
  """
  whole = {f.name for f in dataclasses.fields(config) if f.type is int}
  for name, interval in ranges.items():
    value = getattr(config, name)
    kinds = int if name in whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or not _contains(interval, value):
      kind = ' and be whole' if name in whole else ''
      raise ValueError(
        f'{section}.{name} must lie in {interval}{kind}; got {value!r}.'
      )
  for name, values in (choices or {}).items():
    if getattr(config, name) not in values:
      raise ValueError(
        f'{section}.{name} must be one of {", ".join(values)}; got '
        f'{getattr(config, name)!r}.'
      )


def _contains(interval: str, value: float) -> bool:
  low, high = map(float, interval[1:-1].split(','))
  above = value >= low if interval[0] == '[' else value > low
  below = value <= high if interval[-1] == ']' else value < high
  return above and below
