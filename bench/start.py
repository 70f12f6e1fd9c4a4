"""What the checks at a run's start take, whose files may all be damaged.

  python -m bench.start [--model=DIR] [--parts=10000]

Each on its own, in seconds of the processor (files are in the host's memory):
those of a start, and those of what a start goes on with.
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import jax
from etils import epath

from rest.model import sharding, weights
from rest.model.fingerprint import fingerprint
from rest.run import digests, part, store
from rest.types import Completion, Graded, Verdict

_ASSET = 'rest/model/assets/arithmetic-1m'
_SAMPLES, _TOKENS = 4, 200  # Of a part file.


def write_iteration(folder: epath.Path, parts: int) -> None:
  """Writes an iteration's part files, and a dataset of their size."""
  files = store.Parts(folder / 'parts')
  tokens = tuple(range(_TOKENS))
  for index in range(parts):
    rows = [
      Graded(
        f'problem/{index}',
        sample,
        'What is 6 times 7?',
        Completion('6 * 7 = 42\n' * 40, tokens, (-0.5,) * _TOKENS, 'token'),
        Verdict(1.0, 'equal', 'math-1'),
      )
      for sample in range(_SAMPLES)
    ]
    files.write(index, rows)
  lines = (part.to_line(row) for rows in files.read_done() for row in rows)
  store.write_whole(folder / 'dataset.jsonl', lines)
  digests.note(folder / 'dataset.jsonl')


def report(name: str, call: Callable[[], object]) -> None:
  call()  # Compiled, and in memory.
  before = time.process_time()
  call()
  print(f'{name}: {time.process_time() - before:.3f} s', flush=True)


def main() -> None:
  """Times each check."""
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('--model', default=_ASSET, help='Of the base model.')
  parser.add_argument('--parts', type=int, default=10_000)
  arguments = parser.parse_args()
  config = weights.read_config(arguments.model, 'bfloat16')
  report('headers', lambda: weights.check(arguments.model, config))
  with tempfile.TemporaryDirectory() as made:
    workdir = epath.Path(made)
    folder = workdir / 'iteration_1'
    write_iteration(folder, arguments.parts)
    report('leftovers', lambda: store.clear(workdir))
    report('digests', lambda: digests.are_whole(folder))
    names = [f'problem/{index}' for index in range(arguments.parts)]
    report('part files', lambda: store.Parts(folder / 'parts').mend(names))
  mesh = sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1])
  model = weights.load(arguments.model, mesh, 'bfloat16')
  report('fingerprint', lambda: fingerprint(model))


if __name__ == '__main__':
  main()
