"""Human solutions among the data, and those of all iterations (ReST)."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  return ablations.compare(
    'rest_style_data',
    'What the M-step trains on',
    run,
    {
      'last_iteration': {},
      'with_human': {'em': {'include_human': True}},
      'accumulated': {'em': {'accumulate': True}},
      'both': {'em': {'include_human': True, 'accumulate': True}},
    },
  )
