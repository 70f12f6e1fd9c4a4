"""Unsolved problems asked again with the answer in the question (STaR).

The paper left it out: it found many false positives.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  if base == ablations.EMBEDDED:
    run.estep.num_samples = 2  # So that some problems stay unsolved.
  return ablations.compare(
    'rationalization',
    'Rationalization',
    run,
    {'off': {}, 'on': {'estep': {'rationalize': True}}},
  )
