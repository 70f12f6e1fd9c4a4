"""Prepares, checks and exports problem sets.

python -m rest.tasks prepare math --path=MATH --out=prepared
python -m rest.tasks leaks mbpp --path=mbpp --num_validation=90
python -m rest.tasks sheet hungarian_exam --path=exam --samples=FOLDER
  --out=sheet.csv
"""

import argparse
from collections.abc import Sequence

from etils import epath

from rest import tasks
from rest.run.command import check_out, refusing
from rest.tasks import files, leaks
from rest.tasks.problem_set import ProblemSet
from rest.tasks.sets.hungarian_exam import sheet


def main(argv: Sequence[str] | None = None) -> None:
  """Runs what the command line says."""
  arguments = _parser().parse_args(argv)
  with refusing():
    if arguments.action == 'sheet':
      check_out(arguments.out)
    config = tasks.TaskConfig(
      name=arguments.task,
      path=arguments.path,
      prompt=arguments.prompt,
      split=arguments.split,
      num_validation=arguments.num_validation,
    )
    task = tasks.make(config)
    match arguments.action:
      case 'prepare':
        _prepare(task, arguments.out)
      case 'leaks':
        _leaks(task)
      case 'sheet':
        _sheet(task, arguments.samples, arguments.out)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rest.tasks',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  actions = parser.add_subparsers(dest='action', required=True)
  prepare = actions.add_parser(
    'prepare', help='write an array_record copy that tfds.data_source reads'
  )
  check = actions.add_parser('leaks', help='list what a run would drop')
  export = actions.add_parser('sheet', help='write answers to grade by hand')
  for action in (prepare, check, export):
    action.add_argument('task', help='as task.name of a run')
    action.add_argument('--path', default='', help='folder of the files')
    action.add_argument('--split', default='', help='variant of the problems')
    action.add_argument('--prompt', default='', help='few_shot, zero_shot, ...')
    action.add_argument(
      '--num_validation', type=int, default=0, help='held out of train'
    )
  prepare.add_argument('--out', required=True, help='folder for copies')
  export.add_argument('--out', required=True, help='CSV file to write')
  export.add_argument(
    '--samples', required=True, help='folder of part files of a run'
  )
  return parser


def _prepare(task: ProblemSet, out: str) -> None:
  # Half a second to import, and nothing else here needs it.
  from rest.tasks import prepared

  print(f'Written. Set task.path to {prepared.prepare(task, out)}')


def _leaks(task: ProblemSet) -> None:
  found = leaks.find(task)
  for leak in found:
    print(f'{leak.split} {leak.problem_id}: {leak.reason} as {leak.source}')
  sizes = {split: len(task.problems(split)) for split in tasks.SPLITS}
  print(f'{len(found)} to drop of {sizes}.')


def _sheet(task: ProblemSet, samples: str, out: str) -> None:
  answers = [
    (record.text('problem'), record.text('text'))
    for path in sorted(epath.Path(samples).glob('part-*.jsonl*'))
    if path.name.endswith(('.jsonl', '.jsonl.gz'))
    for record in files.read_jsonl(path)
  ]
  if not answers:
    raise ValueError(f'--samples={samples!r} has no part files in it.')
  epath.Path(out).write_text(sheet(task.problems('test'), answers))
  print(f'{len(answers)} answers in {out}')


if __name__ == '__main__':
  main()
