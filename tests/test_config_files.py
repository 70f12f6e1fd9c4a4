"""Faulty config files and flags end in one line that names what is wrong."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Each is the body of get_config, after `c = base.get_config()`.
BODIES = {
  'raises': "raise RuntimeError('spilt')",
  'lookup': "{}['milk']",
  'none': 'return None',
  'dict': 'return {}',
  'nameless': 'del c.name\n  return c',
  'misnamed': 'c.name = 3\n  return c',
  'section': "c.unlock()\n  c.milk = {'spilt': 1}\n  return c",
  'field': 'c.unlock()\n  c.estep.milk = 1\n  return c',
  'number': 'c.unlock()\n  c.estep = 3\n  return c',
  'absent': 'c.unlock()\n  c.estep = None\n  return c',
  'text': "return base.get_config(estep='milk')",
  'typed': "c.estep.cap = 'milk'\n  return c",
  'retyped': "c.estep = {'cap': 'milk'}\n  return c",
  'bounds': 'c.estep.cap = -3\n  return c',
  'required': 'c.estep.cap = config_dict.required_placeholder(int)\n  return c',
  'whole': 'return c',
}
FILES = {
  'syntax': 'def get_config(:\n',
  'imports': 'import spilt_milk\n',
  'fails': '1 / 0\n',
  'bare': 'x = 1\n',
  'value': 'get_config = 3\n',
  'binary': '\0\0',
  'empty': '',
}
# Command lines, and what their error names.
CASES = (
  ('', '--config'),
  ('--config=', '--config'),
  ('--config=no.py', 'no.py'),
  ('--config=no.py --config.estep.cap=3', 'no.py'),
  ('--config=folder', 'folder'),
  ('--config=folder --config.estep.cap=3', 'folder'),
  *((f'--config={name}.py', f'{name}.py') for name in FILES),
  *((f'--config={name}.py --config.seed=3', f'{name}.py') for name in FILES),
  ('--config=raises.py', 'spilt'),
  ('--config=lookup.py', 'milk'),
  ('--config=none.py', 'none.py'),
  ('--config=none.py --config.seed=3', 'none.py'),
  ('--config=dict.py', 'dict.py'),
  ('--config=dict.py --config.seed=3', 'dict.py'),
  ('--config=nameless.py', 'name'),
  ('--config=misnamed.py', 'name'),
  ('--config=section.py', "'milk'"),
  ('--config=field.py', "'milk'"),
  ('--config=number.py', 'estep'),
  ('--config=absent.py', 'estep'),
  ('--config=text.py', 'text.py'),
  ('--config=typed.py', 'typed.py'),
  ('--config=retyped.py', 'estep.cap'),
  ('--config=bounds.py', 'estep.cap'),
  ('--config=required.py', 'required.py'),
  ('--config=whole.py --config.milk=3', 'milk'),
  ('--config=whole.py --config.estep.milk=3', 'milk'),
  ('--config=whole.py --config.estep=3', 'estep'),
  ('--config=whole.py --config.estep.cap=', 'estep.cap'),
  ('--config=whole.py --config.estep.cap=milk', 'estep.cap'),
  ('--config=whole.py --config.estep.cap=2.5', 'estep.cap'),
  ('--config=whole.py --config.estep.stop_at_cap=maybe', 'stop_at_cap'),
  ('--config=whole.py --config.mstep.learning_rate=fast', 'learning_rate'),
  ('--config=whole.py --config.eval.pass_k=(1', 'pass_k'),
  ('--config=whole.py --config.eval.pass_k=x', 'pass_k'),
  ('--config=whole.py --config.estep.cap=-3', 'estep.cap'),
  ('--config=whole.py --config.estep.cap.milk=3', 'milk'),
  ('--config=whole.py --config.seed', 'seed'),
  ('--config=whole.py --milk=3', 'milk'),
  ('--config=whole.py milk', 'milk'),
  ('--config=whole.py --config=no.py', 'no.py'),
)
# One import of JAX for all; each command line is a process of its own.
RUN = """
import json, os, signal, sys
from absl import app, flags
from rest import main
flags.mark_flag_as_required('config')
for index, arguments in enumerate(json.loads(sys.argv[1])):
  pid = os.fork()
  if not pid:
    signal.alarm(60)
    os.dup2(os.open(f'../said_{index}', os.O_CREAT | os.O_WRONLY), 2)
    sys.argv = ['rest.main', *arguments]
    try:
      app.run(main.main, flags_parser=main.parse)
    except SystemExit as ended:
      os._exit(ended.code)  # Leaving in full takes seconds.
    finally:
      os._exit(99)
  status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
  with open(f'../status_{index}', 'w') as file:
    file.write(str(status))
"""


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> pathlib.Path:
  """Runs all command lines in a folder of faulty files; returns it."""
  place = tmp_path_factory.mktemp('place') / 'files'
  (place / 'folder').mkdir(parents=True)
  for name, body in BODIES.items():
    (place / f'{name}.py').write_text(
      'from ml_collections import config_dict\nfrom configs import base\n\n\n'
      f'def get_config():\n  c = base.get_config()\n  {body}\n'
    )
  for name, text in FILES.items():
    (place / f'{name}.py').write_text(text)
  arguments = json.dumps([line.split() for line, _ in CASES])
  subprocess.run(
    [sys.executable, '-W', 'ignore', '-B', '-c', RUN, arguments],
    cwd=place,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    check=True,
  )
  return place


@pytest.mark.parametrize('index', range(len(CASES)), ids=[c[0] for c in CASES])
def test_what_is_wrong_is_named_in_one_line(place, index):
  said = (place.parent / f'said_{index}').read_text()
  if 'none.py' in CASES[index][0]:  # Of which ml_collections warns.
    said = said[said.index('error: ') :]
  assert (place.parent / f'status_{index}').read_text() == '2', said
  assert said.startswith('error: ') and said.count('\n') == 1, said
  assert CASES[index][1] in said


def test_nothing_is_written(place):
  written = {f'{name}.py' for name in (*FILES, *BODIES)} | {'folder'}
  assert {path.name for path in place.iterdir()} == written
