"""Writes a model of a run as a Hugging Face directory, with a model card.

  python -m rest.use.export WORKDIR --iteration=2 --out=DIR

The directory holds the weights (adapters, if the run trained such, are merged),
config.json, the base model's tokenizer, generation_config.json and README.md,
which says how the model was made. It appears only when whole.
"""

import argparse
import json
from collections.abc import Sequence

import jax
from etils import epath
from jax.sharding import Mesh

from rest.model import sharding, weights
from rest.run import scores, store
from rest.run.command import refusing
from rest.run.opened import Opened, open_run
from rest.types import Tokenizer
from rest.use import card


def main(argv: Sequence[str] | None = None) -> None:
  """Runs what the command line says."""
  arguments = _parser().parse_args(argv)
  # The host has the memory, and the accelerator may be at work on the run.
  jax.config.update('jax_platforms', 'cpu')
  with refusing():
    run = open_run(arguments.workdir, arguments.base)
    iteration = arguments.iteration
    if iteration is None:
      iterations = (0, *run.trained())
      rows = [scores.read_row(run.folder(i), i) for i in iterations]
      iteration = scores.chosen(rows, run.record).iteration
    iteration = run.check(iteration)
    if iteration == 0:
      raise ValueError(
        f'Nothing is trained in iteration 0: it is the base model, {run.base}.'
      )
    _check_empty(arguments.out)
    mesh = sharding.make_mesh(sharding.MeshConfig(), jax.devices('cpu')[:1])
    export_model(run, iteration, arguments.out, mesh, arguments.dtype)
  print(f'Iteration {iteration} of {run.workdir} is in {arguments.out}.')


def export_model(
  run: Opened, iteration: int, out: str, mesh: Mesh, dtype: str = 'float32'
) -> None:
  """Writes the model of an iteration; every process must call it.

  What was there is replaced once the new directory is whole.

  Args:
    run: Where it comes from.
    iteration: One whose M-step is finished; 1 or more.
    out: The directory to write.
    mesh: Where the model is put on its way.
    dtype: Of the tensors in the files.

  Raises:
    FileNotFoundError: The base model is not where it was.
    ValueError: There is no such model.
  """
  tokenizer = run.tokenizer()
  model = run.load(iteration, mesh)
  folders = [run.folder(index) for index in range(iteration + 1)]
  limit = store.section(run.record, 'sampling')['max_tokens']
  texts = {
    'README.md': card.model_card(run.record, folders),
    'generation_config.json': _generation_config(tokenizer, limit),
  }
  weights.save(model, out, run.base, dtype, texts=texts)


def _generation_config(tokenizer: Tokenizer, limit: int) -> str:
  """Returns settings under which the model answers as in its evaluation."""
  settings = {
    'bos_token_id': tokenizer.bos,
    'do_sample': False,
    'eos_token_id': list(tokenizer.eos),
    'max_new_tokens': limit,
    'pad_token_id': tokenizer.pad,
  }
  return json.dumps(settings, indent=2) + '\n'


def _check_empty(out: str) -> None:
  folder = epath.Path(out)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ValueError(
      f'--out={out} exists and is not an empty directory: choose another.'
    )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rest.use.export',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('workdir', metavar='WORKDIR', help='directory of the run')
  parser.add_argument(
    '--iteration',
    type=int,
    help='whose model; default: the one that validation chooses',
  )
  parser.add_argument('--out', required=True, help='directory to write')
  parser.add_argument(
    '--dtype',
    choices=('float32', 'bfloat16'),
    default='float32',
    help='of the tensors; default: float32, as trained',
  )
  parser.add_argument(
    '--base', help='where the base model is now, if it has moved'
  )
  return parser


if __name__ == '__main__':
  main()
