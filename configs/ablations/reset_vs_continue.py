"""Each M-step from the base, or from the model before (paper, figure 7).

`continue_state` also goes on with the optimizer's state (Online RFT in B-STaR).
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  return ablations.compare(
    'reset_vs_continue',
    'M-steps from the base or from the previous model',
    run,
    {
      'reset': {},
      'continue': {'em': {'start_from': 'previous'}},
      'continue_state': {'em': {'start_from': 'previous_state'}},
    },
    transfers=True,
  )
