"""What a run survives, counted: faults, kills, full disks, and bad inputs.

  python -m bench.survival [--only=NAME]

NAME is one of the counts, or a file of `bench.faults.FILES`. Bad inputs are
those that tests have tables of. Ends with status 1 if anything was silent, or
behind a traceback. All takes two hours on one core; docs/faults.md has what
came of it.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
from collections import Counter

import jax

from bench import faults, kills

# Tests of one bad input each: one line that names it, and nothing written.
_INPUTS = (
  'test_config.py::test_what_a_field_may_not_be_is_refused_in_one_line',
  'test_config.py::test_values_that_make_no_sense_are_refused',
  'test_config.py::test_a_field_that_does_not_exist_is_named',
  'test_config.py::test_fields_that_do_not_go_together_are_refused',
  'test_config_files.py::test_what_is_wrong_is_named_in_one_line',
  'test_commands.py::test_what_is_wrong_is_said_in_one_line',
  'test_main.py::test_a_wrong_field_is_named_with_what_came',
  'test_main.py::test_a_base_model_that_does_not_fit_is_refused',
  'test_main.py::test_what_would_be_found_after_an_e_step_is_found_before',
  'model/test_model_folder.py::'
  'test_a_faulty_model_folder_is_named_before_any_work',
)
_ENDS = {'passed': 'one line', 'failed': 'TRACEBACK', 'error': 'TRACEBACK'}


def count_inputs() -> Counter[str]:
  """Counts the tests of `_INPUTS`, and prints which fail."""
  command = (sys.executable, '-m', 'pytest', '-n', '0', '--tb=no', '-rfE')
  done = subprocess.run(
    [*command, *(f'tests/{name}' for name in _INPUTS)],
    cwd=pathlib.Path(__file__).parents[1],
    capture_output=True,
    text=True,
    check=False,
  )
  *told, last = done.stdout.splitlines()
  for line in told:
    if line.startswith(('FAILED', 'ERROR')):
      print(line)
  found = re.findall(r'(\d+) (passed|failed|error)', last)
  return Counter({_ENDS[how]: int(count) for count, how in found})


def main() -> None:
  """Counts what the flags say."""
  counts = ('faults', 'kills', 'disks', 'inputs')
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument(
    '--only', default='', choices=('', *counts, *faults.FILES)
  )
  only = parser.parse_args().only
  jax.config.update('jax_platforms', 'cpu')
  faults.draw_no_pixels()
  found: dict[str, Counter[str]] = {}
  with tempfile.TemporaryDirectory() as made:
    folder = pathlib.Path(made)
    if only in ('', 'faults', *faults.FILES):
      faults.make(folder)
      names = [only] if only in faults.FILES else faults.FILES
      found['faults'] = faults.count_faults(folder, names)
    if only in ('', 'kills', 'disks'):
      kills.start(folder / 'whole')
    if only in ('', 'kills'):
      found['kills'] = kills.count_kills(folder)
    if only in ('', 'disks'):
      found['disks'] = kills.count_disks(folder)
  if only in ('', 'inputs'):
    found['inputs'] = count_inputs()
  for name, ends in found.items():
    print(f'{name}: {ends.total()}, of them {dict(ends)}')
  bad = sum(x['TRACEBACK'] + x['SILENT'] for x in found.values())
  sys.exit(bool(bad))


if __name__ == '__main__':
  main()
