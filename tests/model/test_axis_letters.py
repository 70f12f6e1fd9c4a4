"""In the model and the M-step, an axis letter means one thing, told once."""

import ast
import pathlib
import re

import pytest

from rest import model

ROOT = pathlib.Path(__file__).parents[2] / 'rest'
LETTERS = set(re.findall(r'(?:^|  )([A-Z]) [a-z]', model.__doc__ or ''))


def _axes(path: pathlib.Path) -> dict[str, str]:
  """Returns the letters of all names of arrays in a file, each with a name."""
  nodes = list(ast.walk(ast.parse(path.read_text())))
  names = {n.id for n in nodes if isinstance(n, ast.Name)}
  names |= {n.arg for n in nodes if isinstance(n, ast.arg)}
  names |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}
  names = {n for n in names if re.fullmatch(r'[a-z]\w*_1?[A-Z]+', n)}
  return {
    letter: name
    for name in sorted(names)
    for letter in name.rsplit('_', 1)[-1].removeprefix('1')
  }


@pytest.mark.parametrize(
  'path',
  [p for room in ('model', 'm_step') for p in (ROOT / room).rglob('*.py')],
  ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_axis_letters_stand_in_the_docstring_of_the_model(path):
  unknown = {k: v for k, v in _axes(path).items() if k not in LETTERS}
  assert not unknown


def test_the_docstring_has_no_letter_that_nobody_uses():
  used = [
    _axes(p)
    for room in ('model', 'm_step')
    for p in (ROOT / room).rglob('*.py')
  ]
  unnamed = {'L', 'R'}  # Of stacks and adapters, whose names are made.
  assert {letter for axes in used for letter in axes} | unnamed == LETTERS
