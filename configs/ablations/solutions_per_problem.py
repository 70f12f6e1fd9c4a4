"""How many solutions to each problem are kept: 10 in the paper."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.em.iterations = 1
  if base == ablations.EMBEDDED:
    run.estep.num_samples = 24
  return ablations.compare(
    'solutions_per_problem',
    'Solutions kept of each problem',
    run,
    {
      'cap_10': {},
      'cap_3': {'estep': {'cap': 3}},
      'cap_1': {'estep': {'cap': 1}},
      'all': {'estep': {'cap': 0}},
    },
    axis='arm',
  )
