"""STaR: one greedy solution a problem, rationalized where it is wrong.

Without STaR's growing number of steps.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  return ablations.compare(
    'star',
    'STaR',
    run,
    {
      'rest_em': {},
      'star': {
        'estep': {'num_samples': 1, 'temperature': 0.0, 'rationalize': True},
      },
      'star_no_hints': {
        'estep': {'num_samples': 1, 'temperature': 0.0},
      },
    },
    transfers=True,
  )
