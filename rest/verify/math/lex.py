r"""Cuts a cleaned answer into tokens.

LaTeX and plain text meet here: `sqrt(2)` gives the tokens of `\sqrt(2)`, `pi`
those of `\pi`. Words that mean nothing in mathematics make it unreadable.
"""

import re
from typing import NamedTuple

from rest.verify.math.clean import DOLLAR

_TOKENS = 400

_TOKEN = re.compile(
  r'\s+'
  r'|\\text\s*\{(?P<text>[^{}]*)\}'
  r'|\\begin\s*\{(?P<begin>[a-zA-Z]+)\*?\}(?:\s*\{[lcr| ]*\})?'
  r'|\\end\s*\{(?P<end>[a-zA-Z]+)\*?\}'
  r'|(?P<repeating>\d*\.\d*\\overline\s*\{\d+\})'
  r'|(?P<based>\d[\dA-F]*(?:\.[\dA-F]+)?_(?:\d+|\{\s*\d+\s*\}))'
  r'|(?P<science>\d+(?:\.\d+)?[eE][+-]?\d{1,3}(?![\w.]))'
  r'|(?P<grouped>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!,?\d))'
  r'|(?P<number>\d+(?:\.\d+)?|\.\d+)'
  r'|(?P<command>\\(?:[a-zA-Z]+|[{}|]))'
  r'|(?P<word>[A-Za-z]+)'
  r'|(?P<operator>\+/-|\+-|<=|>=|!=|\*\*|\.\.\.|\S)'
)
_OPERATORS = {
  '<=': r'\le', '>=': r'\ge', '!=': r'\ne', '**': '^', '+/-': r'\pm',
  '+-': r'\pm', '*': r'\cdot', r'\times': r'\cdot', r'\div': '/',
  r'\implies': '=>', r'\land': 'and', r'\wedge': 'and', r'\lor': 'or',
  r'\vee': 'or', r'\|': '|', '\u2223': '|', r'\backslash': r'\setminus',
}  # fmt: skip
_FUNCTIONS = (
  'sin cos tan sec csc cot sinh cosh tanh arcsin arccos arctan log ln exp lg'
)
FUNCTIONS = frozenset(_FUNCTIONS.split())
_PLAIN = {name: '\\' + name for name in FUNCTIONS} | {
  'asin': r'\arcsin', 'acos': r'\arccos', 'atan': r'\arctan',
  'sqrt': r'\sqrt', 'pi': r'\pi', 'Pi': r'\pi', 'infinity': r'\infty',
  'infty': r'\infty', 'inf': r'\infty', 'oo': r'\infty', 'theta': r'\theta',
  'alpha': r'\alpha', 'beta': r'\beta', 'lambda': r'\lambda', 'phi': r'\phi',
  'and': 'and', 'or': 'or', 'in': r'\in', 'union': r'\cup', 'cup': r'\cup',
}  # fmt: skip
_IGNORED = ('%', DOLLAR, '£', '€', '¥')  # Compared as units before.
_SHORT = 3  # Letters of the longest product of variables written as a word.


class Unreadable(ValueError):
  """An answer that is not in the grammar; it may still be words."""


class Token(NamedTuple):
  """A token: what it is, and its text.

  Kinds: 'number', 'repeating', 'based', 'name' (a variable or a word), 'begin'
  and 'end' (of a matrix), 'sign' (operators, brackets, other commands).
  """

  kind: str
  text: str


def tokens(answer: str) -> list[Token]:
  """Returns the tokens of a cleaned answer.

  Raises:
    Unreadable: It has words, or is far longer than an answer.
  """
  found: list[Token] = []
  depth = position = 0
  while position < len(answer):
    match = _TOKEN.match(answer, position)
    assert match  # The last alternatives take any character.
    kind, text = match.lastgroup, match.group()
    if kind == 'grouped' and depth:  # (1,200) is a point.
      match = re.compile(r'\d+(?:\.\d+)?').match(answer, position)
      assert match
      kind, text = 'number', match.group()
    position = match.end()
    if text in ('(', '[', r'\{', r'\langle'):
      depth += 1
    elif text in (')', ']', r'\}', r'\rangle'):
      depth -= 1
    if kind == 'text':
      found.extend(_text(match.group('text')))
    elif kind == 'word' and text.isupper() and _is_subscript(found):
      found.append(Token('name', text))  # The area S_{ABCD}.
    elif kind == 'word':
      found.extend(_word(text))
    elif kind in ('number', 'grouped', 'science'):
      found.append(Token('number', text.replace(',', '')))
    elif kind in ('repeating', 'based'):
      found.append(Token(kind, text))
    elif kind in ('begin', 'end'):
      found.append(Token(kind, match.group(kind)))
    elif kind is not None and text not in _IGNORED:
      found.append(Token('sign', _OPERATORS.get(text, text)))
    if len(found) > _TOKENS:
      raise Unreadable('too long')
  return found


def _is_subscript(found: list[Token]) -> bool:
  before = ''.join(token.text for token in found[-2:])
  return before.endswith(('_', '_{'))


def _text(words: str) -> list[Token]:
  r"""Returns the tokens of a `\text{...}`."""
  words = ' '.join(words.split())
  if words.strip(', ') in ('and', 'or', ''):
    return [Token('sign', words.strip(', ') or ',')] if words else []
  if re.fullmatch(r'[A-Za-z]', words):
    return [Token('name', words)]
  if re.fullmatch(r'[A-Za-z]+', words):
    return [Token('name', f'"{words.lower()}"')]
  return tokens(words) if re.fullmatch(r'[^\\{}]*', words) else []


def _word(word: str) -> list[Token]:
  if word in _PLAIN:
    return [Token('sign', _PLAIN[word])]
  if word.lower() in ('and', 'or'):
    return [Token('sign', word.lower())]
  if len(word) > _SHORT:
    raise Unreadable(f'the word {word!r}')
  return [Token('name', letter) for letter in word]
