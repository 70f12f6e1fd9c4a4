"""How figures are drawn: once for the page, for SVG and for PNG.

Not through pyplot: no global state, and no window where there is a screen.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from rest.report.series import Points
from rest.run.scores import Results

COLORS = ('#2f6db3', '#c8641e', '#1b8a7a', '#8657b0', '#a8871a', '#b8436d')
GREY, INK, GRID = '#7a7f87', '#33373d', '#d9dbdf'
FATE_COLORS = (
  ('kept', COLORS[2]),
  ('over the cap', '#76b8ad'),
  ('duplicate', '#b9d8d2'),
  ('outvoted', '#dfe9c8'),
  ('cut off', COLORS[4]),
  ('incorrect', COLORS[1]),
  ('unknown', GREY),
)
SIZE = (3.9, 2.7)  # Inches: still readable on a phone.
STYLE: dict[Any, Any] = {
  'axes.edgecolor': GRID,
  'axes.labelcolor': INK,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.grid': True,
  'axes.axisbelow': True,
  'figure.facecolor': 'none',
  'axes.facecolor': 'none',
  'font.size': 9,
  'font.family': 'sans-serif',
  'grid.color': GRID,
  'grid.linewidth': 0.6,
  'legend.frameon': False,
  'legend.fontsize': 8,
  'lines.linewidth': 1.6,
  'lines.markersize': 4.5,
  'svg.fonttype': 'none',
  'text.color': INK,
  'text.parse_math': False,  # Names of levels and reasons are only names.
  'xtick.color': INK,
  'ytick.color': INK,
  'xtick.major.size': 0,
  'ytick.major.size': 0,
}


@dataclass(frozen=True, slots=True)
class Figure:
  """A figure.

  Attributes:
    key: Names its files.
    title: One line.
    caption: What is shown, of how many, with which interval.
    draw: Draws it.
  """

  key: str
  title: str
  caption: str
  draw: Callable[[Axes], None]


def save(
  figures: Sequence[Figure | None],
  kind: str,
  size: tuple[float, float] = SIZE,
  dpi: int = 200,
  caption: str = '',
) -> bytes:
  """Returns figures side by side; the same figures, the same bytes.

  Args:
    figures: At least one; where there is None, the place stays empty.
    kind: 'svg', or 'png' on white.
    size: In inches, of all.
    dpi: Of a PNG.
    caption: Stands below them.
  """
  # Ids are hashes with this salt: figures on one page must not share them.
  salt = '+'.join(figure.key for figure in figures if figure)
  options: dict[str, Any] = (
    {'metadata': {'Date': None}} if kind == 'svg' else {'facecolor': 'white'}
  )
  salted: dict[Any, Any] = {**STYLE, 'svg.hashsalt': salt}
  with mpl.rc_context(salted):
    canvas = Canvas(figsize=size, layout='constrained')
    panels = canvas.subplots(1, len(figures), squeeze=False)[0]
    for axes, figure in zip(panels, figures, strict=True):
      if figure is None:
        axes.set_axis_off()
      else:
        figure.draw(axes)
    if caption:
      canvas.supxlabel(caption, fontsize='x-small').set_wrap(True)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format=kind, dpi=dpi, **options)
  return buffer.getvalue()


def svg(figure: Figure) -> str:
  """Returns the figure as an SVG element."""
  text = save([figure], 'svg').decode()
  return text[text.index('<svg') :]


def draw_points(
  axes: Axes,
  points: Points,
  label: str,
  color: str,
  marker: str,
  line: bool = True,
) -> None:
  """Draws points in per cent with their intervals, on a line or without."""
  values = [100 * value for value in points.values]
  below = [
    100 * (v - low) for v, low in zip(points.values, points.lows, strict=True)
  ]
  above = [
    100 * (high - v)
    for v, high in zip(points.values, points.highs, strict=True)
  ]
  axes.errorbar(
    points.places,
    values,
    [below, above],
    marker=marker,
    linestyle='-' if line else 'none',
    color=color,
    capsize=2.5,
    elinewidth=1,
    label=label,
  )


def draw_line(
  axes: Axes,
  iteration: int,
  places: Sequence[Any],
  values: Sequence[float],
  marker: str = 'o',
) -> None:
  """Draws the line of an iteration, in its color and under its name."""
  color, label = color_of(iteration), name_of(iteration)
  axes.plot(places, values, marker=marker, color=color, label=label)


def percent_axis(axes: Axes, label: str) -> None:
  axes.set_ylabel(label)
  axes.set_ylim(0, 103)  # A point at 100 must be seen whole.
  axes.set_yticks(range(0, 101, 20))


def iteration_axis(axes: Axes, run: Results) -> None:
  axes.set_xlabel('iteration')
  axes.set_xticks([row.iteration for row in run.rows])


def legend_above(axes: Axes) -> None:
  axes.legend(ncols=3, loc='lower left', bbox_to_anchor=(0, 1.0))


def color_of(iteration: int) -> str:
  return COLORS[(iteration - 1) % len(COLORS)] if iteration else GREY


def name_of(iteration: int) -> str:
  return f'iteration {iteration}' if iteration else 'base'


def shortened(name: str, most: int = 24) -> str:
  return name if len(name) <= most else f'{name[: most - 1]}…'
