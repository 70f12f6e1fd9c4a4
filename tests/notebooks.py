"""Runs the notebooks of colab/ as their readers would."""

import json
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / 'colab').glob('*.ipynb'))


def cells(name: str, kind: str) -> list[dict[str, object]]:
  """Returns the cells of a kind: 'code' or 'markdown'."""
  notebook = json.loads((ROOT / f'colab/{name}.ipynb').read_text())
  return [cell for cell in notebook['cells'] if cell['cell_type'] == kind]


def source(cell: dict[str, object]) -> str:
  """Returns the text of a cell."""
  return ''.join(cell['source'])


def run(name: str) -> None:
  """Runs all code of a notebook in order."""
  names: dict[str, object] = {}
  for cell in cells(name, 'code'):
    exec(source(cell), names)
