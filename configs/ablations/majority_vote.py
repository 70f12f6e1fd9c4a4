"""The majority vote over 64 samples, before and after (paper, section 5.2)."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.eval.num_samples = 32 if base == ablations.EMBEDDED else 64
  run.eval.num_problems = 100 if base == ablations.EMBEDDED else 0
  return ablations.compare(
    'majority_vote',
    'Majority vote before and after',
    run,
    {'rest_em': {}},
    scores=('test', 'maj'),
  )
