r"""BIG-Bench Hard after every iteration (paper, figure 9). Real sets only.

  python -m rest.experiment --config=configs/ablations/bbh.py:math \
      --config.run.eval.suite_folder=/data ...
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.eval.suites = ('bbh:direct', 'bbh:cot')
  run.sampling.max_prompt_tokens = 4096
  return ablations.compare(
    'bbh',
    'BIG-Bench Hard by iteration',
    run,
    {'rest_em': {}},
    scores=('test', 'suites/bbh-direct', 'suites/bbh-cot'),
  )
