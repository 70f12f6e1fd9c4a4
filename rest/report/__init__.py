"""What a run came to, read from its working directory: tables and a page.

Works on running and finished runs alike, without JAX, so that a notebook on any
machine can open a run.

  python -m rest.report WORKDIR... [--out=FILE]
"""

from rest.report.behind import Behind
from rest.report.page import write_page
from rest.report.results import picture, table, write
from rest.run.scores import Results, Row, read, read_run

__all__ = [
  'Behind',
  'Results',
  'Row',
  'picture',
  'read',
  'read_run',
  'table',
  'write',
  'write_page',
]
