r"""The Hungarian exam, to be graded by hand (paper, figure 10). Real sets only.

  python -m rest.tasks sheet hungarian_exam --path=/data/hungarian_exam \
      --samples=RUN/iteration_1/suites/hungarian_exam/greedy --out=sheet.csv
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.eval.suites = ('hungarian_exam',)
  run.eval.suite_temperature = 0.1  # [P]
  return ablations.compare(
    'hungarian_exam',
    'ReST-EM by iteration, with exam sheets',
    run,
    {'rest_em': {}},
  )
