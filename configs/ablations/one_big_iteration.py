"""One iteration with three times the samples (paper, section 5.3)."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  return ablations.compare(
    'one_big_iteration',
    'Three iterations or one with as many samples',
    run,
    {
      'one_big': {
        'em': {'iterations': 1},
        'estep': {'num_samples': run.estep.num_samples * 3},
      },
      'three': {'em': {'iterations': 3}},
      'one': {'em': {'iterations': 1}},
    },
    axis='arm',
  )
