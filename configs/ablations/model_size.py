"""The gain by size of the model, and its transfer (paper, figures 2 and 3).

Of the embedded set, `medium` is the embedded model; the others are made first:

  python -m rest.use.pretrain --config=configs/pretrain_quickstart.py:0.3m
  python -m rest.use.pretrain --config=configs/pretrain_quickstart.py:6m
  python -m rest.experiment --config=configs/ablations/model_size.py

Other models are set by --config.changes.ARM.model.path; those of a real set
must be: its arms are `small` and `large`.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  paths = {'small': run.model.path, 'large': run.model.path}
  if base == ablations.EMBEDDED:
    paths = {
      'small': 'pretrain_0.3m/model',
      'medium': run.model.path,
      'large': 'pretrain_6m/model',
    }
  return ablations.compare(
    'model_size',
    'Size of the model',
    run,
    {arm: {'model': {'path': path}} for arm, path in paths.items()},
    transfers=True,
  )
