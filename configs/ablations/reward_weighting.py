"""What a solution weighs: f of its reward, by method (paper, section 4).

ReST's rising threshold is the identity here: rewards are 0 or 1.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  return ablations.compare(
    'reward_weighting',
    'Weight of a solution by its reward',
    run,
    {
      'identity': {},
      'exponential': {'estep': {'weight': 'exponential', 'cap': 0}},
      'best_of_n': {'estep': {'weight': 'best', 'cap': 1}},
      'majority': {'estep': {'weight': 'majority'}},
    },
  )
