"""Writes the report of finished or running runs.

  python -m rest.report WORKDIR... [--out=FILE] [--figures=FOLDER]

Several runs are put side by side, with their differences.
"""

import argparse
import sys
from collections.abc import Sequence

from rest.report.page import write_figures, write_page


def main(argv: Sequence[str] | None = None) -> None:
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
  try:
    write_page(arguments.workdir, out)
    if arguments.figures:
      write_figures(arguments.workdir, arguments.figures)
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  print(f'wrote {out}')


if __name__ == '__main__':
  main()
