"""ReST-EM, with several seeds, and its transfer (paper, figures 2 and 3)."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  if base == ablations.EMBEDDED:
    run.em.iterations = 3
  return ablations.compare(
    'main_loop',
    'ReST-EM by iteration',
    run,
    {'rest_em': {}},
    transfers=True,
  )
