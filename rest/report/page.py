"""The report: one HTML file that opens anywhere, without a network.

Everything that a model wrote is compressed data (`samples.packed`) that the
page's script shows as text; all other names are escaped here.
"""

import html
import math
import pathlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from etils import epath

from rest.report import drawing, figures, sections
from rest.report.drawing import Figure
from rest.report.samples import Page, SampleSet, packed, sample_sets
from rest.run import store
from rest.run.scores import Results, read_run
from rest.run.spool import spool

EMBEDDED = 6_000_000  # Characters of samples in the page; others lie beside it.
_ASSETS = pathlib.Path(__file__).parent / 'assets'
# What the drawn colors are called in the style sheet, which has a dark set.
_THEME = {color: f'var(--c{i})' for i, color in enumerate(drawing.COLORS)} | {
  drawing.GREY: 'var(--grey)',
  drawing.INK: 'var(--ink)',
  drawing.GRID: 'var(--line)',
}


def write_page(
  workdirs: Sequence[epath.PathLike],
  out: epath.PathLike,
  embedded: int = EMBEDDED,
) -> None:
  """Writes the report of one run, or of several side by side.

  Samples that do not fit go to a folder beside it, whose name begins alike; the
  page loads them from there, and works without them, too.

  Args:
    workdirs: Of the runs.
    out: The HTML file.
    embedded: Most characters of samples in the page itself.

  Raises:
    ValueError: A folder holds no run.
  """
  out = epath.Path(out)
  runs = name_apart([read_run(workdir) for workdir in workdirs])
  index, pages = _samples(runs, out, embedded)
  parts = {
    'title': html.escape(', '.join(run.name for run in runs)),
    'style': _asset('style.css'),
    'script': _asset('latex.js') + _asset('page.js'),
    'head': sections.head(runs),
    'body': _body(runs),
    'index': packed(index),
    'pages': ''.join(
      f'<script type="text/plain" data-page="{name}">{data}</script>\n'
      for name, data in pages.items()
    ),
  }
  template = _asset('page.html')
  text = re.sub(r'\{\{(\w+)\}\}', lambda match: parts[match[1]], template)
  store.write_whole(out, text)


def write_figures(workdirs: Sequence[epath.PathLike], folder: str) -> None:
  """Writes all figures of the runs as SVG and as PNG."""
  runs = name_apart([read_run(workdir) for workdir in workdirs])
  target = epath.Path(folder)
  target.mkdir(parents=True, exist_ok=True)
  drawn = {run.name: figures.figures(run) for run in runs}
  if len(runs) > 1:
    drawn['all'] = [figures.comparison(runs)]
  for name, found in drawn.items():
    for figure in found:
      path = target / f'{name}-{figure.key}'
      store.write_whole(f'{path}.svg', drawing.svg(figure))
      store.write_whole(f'{path}.png', drawing.save([figure], 'png'))


def name_apart(runs: Sequence[Results]) -> list[Results]:
  """Returns the runs with names that differ: those of equal folders grow."""
  names = [run.name for run in runs]
  return [
    replace(run, name=f'{run.workdir.parent.name}/{run.name}')
    if names.count(run.name) > 1
    else run
    for run in runs
  ]


def _samples(
  runs: Sequence[Results], out: epath.Path, embedded: int
) -> tuple[dict[str, Any], dict[str, str]]:
  """Returns the index of all samples, and the pages in the page itself.

  The others are written beside it.
  """
  beside = f'{out.stem}_samples'
  with spool(out.parent) as texts:
    sets = [sample_sets(run, texts) for run in runs]
    inside, files = _place(sets, embedded)
    for name, page in files.items():
      text = f"restPage('{name}','{texts.get(page.place)}')"
      store.write_whole(out.parent / beside / f'{name}.js', text)
    pages = {name: texts.get(page.place) for name, page in inside.items()}
  index = {
    'folder': beside if files else '',
    'runs': [
      {'name': run.name, 'sets': [found.index for found in of_run]}
      for run, of_run in zip(runs, sets, strict=True)
    ],
  }
  return index, pages


def _place(
  sets: Sequence[Sequence[SampleSet]], embedded: int
) -> tuple[dict[str, Page], dict[str, Page]]:
  """Returns the pages in the page itself, and those in files beside it.

  Where not all fit, every n-th page of each set stays: some of everything.
  """
  everything = {
    f'{i}-{j}-{k}': page
    for i, of_run in enumerate(sets)
    for j, found in enumerate(of_run)
    for k, page in enumerate(found.pages)
  }
  total = sum(page.size for page in everything.values())
  every = max(1, math.ceil(total / embedded))
  inside = {
    name: page
    for name, page in everything.items()
    if int(name.rsplit('-', 1)[1]) % every == every - 1 or every == 1
  }
  return inside, {n: p for n, p in everything.items() if n not in inside}


def _body(runs: Sequence[Results]) -> str:
  if len(runs) == 1:
    return _run(runs[0])
  together = (
    '<section><h2>Side by side</h2><div class="figures">'
    + _figure(figures.comparison(runs))
    + '</div>'
    + sections.differences(runs)
    + '</section>'
  )
  return together + ''.join(
    f'<details class="run"><summary><h2>{html.escape(run.name)}</h2></summary>'
    f'{_run(run)}</details>'
    for run in runs
  )


def _run(run: Results) -> str:
  drawn = ''.join(map(_figure, figures.figures(run)))
  return (
    f'<section><h2>Results</h2>{sections.scores(run)}</section>'
    f'<section><h2>Figures</h2><div class="figures">{drawn}</div></section>'
    f'<section><h2>E-steps</h2>{sections.e_steps(run)}</section>'
    f'<section><h2>Time, tokens and cost</h2>{sections.cost(run)}</section>'
    f'<section><h2>Configuration</h2>{sections.configuration(run)}</section>'
  )


def _figure(figure: Figure) -> str:
  picture = drawing.svg(figure)
  for color, name in _THEME.items():
    picture = picture.replace(color, name)
  # In the page's own font; and found by screen readers under its title.
  picture = re.sub(r"'DejaVu Sans'[^;\"]*", 'inherit', picture)
  label = html.escape(figure.title)
  picture = picture.replace('<svg', f'<svg role="img" aria-label="{label}"', 1)
  return (
    f'<figure><h3>{label}</h3>{picture}'
    f'<figcaption>{html.escape(figure.caption)}</figcaption></figure>'
  )


def _asset(name: str) -> str:
  return (_ASSETS / name).read_text(encoding='utf-8')
