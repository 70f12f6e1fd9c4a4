"""What a run writes of itself: results.txt, results.png, report.html."""

from etils import epath

from rest.report.page import write_page
from rest.report.picture import picture
from rest.report.table import table
from rest.run import store
from rest.run.scores import read


def write(workdir: epath.Path) -> None:
  """Writes the results of a run into its directory."""
  rows = read(workdir)
  store.write_whole(workdir / 'results.txt', table(rows) + '\n')
  store.write_whole(workdir / 'results.png', picture(rows))
  write_page([workdir], workdir / 'report.html')
