r"""Separates what is measured from the number: units, money, times of day.

A unit counts only where both answers have one. Units are a list, and plurals;
words that change the value ('tenths', 'a.m.', 'or') are none, and stay.
"""

import re

from rest.verify.math.clean import DOLLAR
from rest.verify.math.words import begins_remark, counted, is_remark

_MONEY = {
  DOLLAR: 'dollar', 'USD': 'dollar', f'US{DOLLAR}': 'dollar', '£': 'pound',
  'GBP': 'pound', '€': 'euro', 'EUR': 'euro', '¥': 'yen',
}  # fmt: skip
_CURRENCY = re.compile(
  rf'^(-?)\s*(?:\\text\{{)?({"|".join(_MONEY)})\s*\}}?\s*(-?)\s*(?=[\d.\\])'
)
_PERCENT = re.compile(
  r'\s*(?:%|\\text\{\s*(?:percent(?:age)?|pct\.?)\s*\}'
  r'|\b(?:percent(?:age)?|pct))$'
)
_DEGREES = re.compile(
  r'\s*(?:\^\\circ|\bdegrees?)\s*(?:\\text\{\s*([CF])\s*\}|([CF]))?$'
)
_SUFFIX = re.compile(
  r'(?:\s*\\text\s*\{(?P<text>[^{}]*)\}|(?P<plain>(?:\s+[A-Za-z./]+){1,4})'
  r'|(?<=[\d)}])(?P<close>[a-zA-Z]{2,5}))'
  r'\s*(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?$'
)
_MULTIPLES = {
  'dozen': 12, 'hundred': 10**2, 'thousand': 10**3,
  'million': 10**6, 'billion': 10**9, 'trillion': 10**12,
}  # fmt: skip
_KNOWN = {
  'cm': 'centimeter', 'mm': 'millimeter', 'km': 'kilometer', 'm': 'meter',
  'ft': 'foot', 'feet': 'foot', 'inches': 'inch', 'in': 'inch', 'yd': 'yard',
  'mi': 'mile', 'kg': 'kilogram', 'g': 'gram', 'mg': 'milligram',
  'lb': 'pound', 'lbs': 'pound', 'oz': 'ounce', 's': 'second', 'sec': 'second',
  'min': 'minute', 'h': 'hour', 'hr': 'hour', 'hrs': 'hour', 'sq': 'square',
  'cu': 'cubic', 'l': 'liter', 'ml': 'milliliter', 'usd': 'dollar',
  'mph': 'mile hour', 'kph': 'kilometer hour', 'deg': 'degree', 'rad': 'radian',
  'bucks': 'dollar', 'people': 'person', 'children': 'child',
}  # fmt: skip
_PER = ('per', 'a', 'an', 'each', 'every', 'more')
_NO_LENGTHS = {'degree', 'percent', 'dollar', 'euro', 'yen', 'cent'}
_TIME = re.compile(
  r'(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*([ap])\.?\s*m\.?', re.IGNORECASE
)


def split(answer: str) -> tuple[str, frozenset[str]]:
  """Returns a cleaned answer without its unit, and the words of the unit."""
  unit: set[str] = set()
  money = _CURRENCY.match(answer)
  if money:
    unit.add(_MONEY[money.group(2)])
    answer = money.group(1) + money.group(3) + answer[money.end() :]
  if percent := _PERCENT.search(answer):
    return answer[: percent.start()], frozenset(unit | {'percent'})
  if (degrees := _DEGREES.search(answer)) and not _has_function(answer):
    scale = degrees.group(1) or degrees.group(2)
    unit |= {'degree'} | ({scale} if scale else set())
    return answer[: degrees.start()], frozenset(unit)
  core, words, power = _suffix(answer)
  multiple = _MULTIPLES.get(words[0]) if words else None
  if multiple and re.search(r'\d$', core):
    core, words = f'({core}) \\cdot {multiple}', words[1:]
  elif multiple:
    return answer, frozenset(unit)
  unit |= {part for word in words for part in _canonical(word).split()}
  if power:
    unit.add({'2': 'square', '3': 'cubic'}[power])
  return core, frozenset(unit)


def agree(left: frozenset[str], right: frozenset[str]) -> bool:
  """Returns whether two units may be of equal answers."""
  if not left or not right or left == right:
    return True
  if {'unit'} & (left | right):
    return not (left | right) & _NO_LENGTHS
  powers, scales = {'square', 'cubic'}, {'C', 'F'}
  if left & powers != right & powers:
    return False
  if len((left | right) & scales) == 2:
    return False
  return bool((left & right) - powers)


def time(answer: str) -> tuple[int, int, int, str] | None:
  """Returns the time of day that an answer is: hour, minute, second, a or p."""
  plain = re.sub(r'\\text\s*|[{}]', ' ', answer).strip()
  match = _TIME.fullmatch(re.sub(r'\s*:\s*', ':', ' '.join(plain.split())))
  if not match:
    return None
  hour, minute, second = (int(part or 0) for part in match.groups()[:3])
  return hour, minute, second, match.group(4).lower()


def _suffix(answer: str) -> tuple[str, list[str], str | None]:
  """Returns the answer before its unit, the words of the unit, its power."""
  match = _SUFFIX.search(answer)
  core = answer[: match.start()].rstrip() if match else answer
  if not match or not re.search(r'[\d)}\]a-zA-Z!]$', core):
    return answer, [], None
  text = match.group('text') or match.group('plain') or match.group('close')
  # 'a.m.' must not become 'a' and 'm'.
  text = text or ''
  words = re.sub(r'(?<=[a-zA-Z])\.|[/-]', ' ', text).lower().split()
  if re.search(r'\b[BGKMT]\b', text):
    return answer, [], None  # 7 M is seven million.
  compact = text.replace('.', '').replace(' ', '').lower()
  if compact in ('am', 'pm') or not words or not all(map(str.isalpha, words)):
    return answer, [], None
  if match.group('text') is None and not (
    re.search(r'[\d)}]$', core) and _plain_unit(words, match)
  ):
    return answer, [], None
  measured = _measured(words, core == '1')
  if measured is None:
    return answer, [], None
  return core, measured, match.group('power')


def _measured(words: list[str], one: bool) -> list[str] | None:
  """Returns the words that say what was counted; None if others are there."""
  multiple = [word for word in words[:1] if word in _MULTIPLES]
  words = words[len(multiple) :]
  if all(word in _KNOWN or word in _PER for word in words):
    return multiple + [word for word in words if word not in _PER]
  nouns = counted(words, one)
  rest = words[nouns:]
  if rest and not (begins_remark(rest[0]) and is_remark(rest)):
    return None
  rate = rest[1:2] if rest and rest[0] in _PER else []
  return multiple + [w for w in words[:nouns] if w not in _PER] + rate


def _plain_unit(words: list[str], match: re.Match) -> bool:
  r"""Returns whether words outside `\text` are a unit, not variables."""
  if match.group('close'):
    return words[0] in _KNOWN and len(words[0]) > 1
  return all(
    word in _KNOWN
    or len(word) > 2
    or (begins_remark(word) and i + 1 < len(words))
    for i, word in enumerate(words)
  )


def _canonical(word: str) -> str:
  word = _KNOWN.get(word, word)
  word = word.replace('metre', 'meter').replace('litre', 'liter')
  if word.endswith('s') and len(word) > 3 and not word.endswith('ss'):
    word = word[:-1]
  return _KNOWN.get(word, word)


def _has_function(answer: str) -> bool:
  return bool(re.search(r'\\?(?:sin|cos|tan|sec|csc|cot)(?![a-z])', answer))
