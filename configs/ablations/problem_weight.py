"""Solutions weigh alike, or problems do, which is the exact M-step of EM."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.em.iterations = 1
  if base == ablations.EMBEDDED:
    run.estep.num_samples = 24
  return ablations.compare(
    'problem_weight',
    'Weight of a problem',
    run,
    {
      'cap_10': {},
      'no_cap': {'estep': {'cap': 0}},
      'uniform': {'estep': {'cap': 0}, 'em': {'problem_weight': 'uniform'}},
    },
    axis='arm',
  )
