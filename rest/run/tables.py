"""Tables as text and as Markdown; a row is its cells by column."""

from collections.abc import Sequence


def as_text(rows: Sequence[dict[str, str]]) -> str:
  """Returns rows as aligned text."""
  lines = _lines(rows, '')
  widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(cell.rjust(w) for cell, w in zip(cells, widths, strict=True))
    for cells in lines
  )


def as_markdown(rows: Sequence[dict[str, str]]) -> str:
  """Returns rows as Markdown; '-' stands for what a row has no value for."""
  head, *body = _lines(rows, '-')
  lines = [head, ['---'] * len(head), *body]
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def columns(rows: Sequence[dict[str, str]]) -> list[str]:
  """Returns the columns of all rows, in the order in which they are met."""
  return list(dict.fromkeys(name for row in rows for name in row))


def _lines(rows: Sequence[dict[str, str]], missing: str) -> list[list[str]]:
  names = columns(rows)
  return [names, *([row.get(name, missing) for name in names] for row in rows)]
