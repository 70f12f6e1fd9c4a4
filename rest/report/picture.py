"""The picture that a run ends with: accuracy, and the fate of the samples."""

import io

import matplotlib as mpl
from etils import epath
from matplotlib.figure import Figure as Canvas

from rest.report import drawing, figures
from rest.report.read import Row, Run


def picture(rows: list[Row]) -> bytes:
  """Returns a PNG of the two figures that say most."""
  run = Run('', epath.Path(), {}, rows, {}, {})
  shown = [figures.accuracy(run), figures.fates(run)]
  with mpl.rc_context(drawing.STYLE):
    canvas = Canvas(figsize=(10, 4), layout='constrained')
    for axes, figure in zip(canvas.subplots(1, 2), shown, strict=True):
      if figure is None:
        axes.set_axis_off()
      else:
        figure.draw(axes)
    buffer = io.BytesIO()
    canvas.savefig(buffer, format='png', dpi=120, facecolor='white')
  return buffer.getvalue()
