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
        'sampling': {'temperature': 0.0},
        'estep': {'num_samples': 1, 'rationalize': True},
      },
      'star_no_hints': {
        'sampling': {'temperature': 0.0},
        'estep': {'num_samples': 1},
      },
    },
    transfers=True,
  )
