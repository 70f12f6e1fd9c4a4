"""The gain by size of the model (paper, figures 2 and 3).

Set --config.changes.small.model.path and --config.changes.large.model.path.
There is one embedded model: on the embedded set both arms are the same.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  return ablations.compare(
    'model_size',
    'Size of the model',
    run,
    {name: {'model': {'path': run.model.path}} for name in ('small', 'large')},
  )
