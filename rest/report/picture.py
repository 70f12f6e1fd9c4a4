"""The picture that a run ends with: accuracy, and the fate of the samples."""

from etils import epath

from rest.report import drawing, figures
from rest.run.scores import Results, Row


def picture(rows: list[Row]) -> bytes:
  """Returns a PNG of the two figures that say most."""
  run = Results('', epath.Path(), {}, rows, {}, {})
  shown = [figures.accuracy(run), figures.fates(run)]
  return drawing.save(shown, 'png', size=(10, 4), dpi=120)
