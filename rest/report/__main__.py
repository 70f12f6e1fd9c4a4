"""Writes the report of finished or running runs.

  python -m rest.report WORKDIR... [--out=FILE] [--figures=FOLDER]

Several runs are put side by side, with their differences.
"""

import argparse
from collections.abc import Sequence

from rest.report.page import write_figures, write_page
from rest.run.command import check_out, refusing


def main(argv: Sequence[str] | None = None) -> None:
  """Runs what the command line says."""
  parser = argparse.ArgumentParser(
    prog='python -m rest.report',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('workdir', nargs='+', help='directory of a run, or gs://')
  parser.add_argument(
    '--out', help='HTML file; default: report.html, in WORKDIR if it is one'
  )
  parser.add_argument(
    '--figures', help='folder that gets every figure as SVG and PNG'
  )
  arguments = parser.parse_args(argv)
  alone = len(arguments.workdir) == 1
  out = arguments.out
  if out is None:
    out = f'{arguments.workdir[0]}/report.html' if alone else 'report.html'
  with refusing():
    check_out(out)
    if arguments.figures:
      check_out(f'{arguments.figures}/figure')
    write_page(arguments.workdir, out)
    if arguments.figures:
      write_figures(arguments.workdir, arguments.figures)
  print(f'wrote {out}')


if __name__ == '__main__':
  main()
