r"""MBPP from Qwen2.5-Coder-Instruct, one iteration; and HumanEval after it.

  python -m rest.experiment --config=configs/results/mbpp.py \
      --config.run.model.path=/models/Qwen2.5-Coder-0.5B-Instruct \
      --config.run.task.path=/data/mbpp \
      --config.run.eval.suite_folder=/data --config.run.verify.workers=12

Hardware: one GPU of 80 GB; 16 CPU cores. Measured on one NVIDIA H200, from a
4-bit copy made bfloat16 again, by three runs of `rest.main` with these fields,
3 minutes each; greedy test accuracy, seeds 0, 1 and 2: MBPP (500 problems) from
32.8 to 37.8, 39.4 and 40.6, +6.5 (+3.2 to +9.9); HumanEval (164) from 43.9 to
39.6, 42.1 and 44.5, -1.8 (-8.7 to +5.1). Three more runs of seed 0, by later
versions: MBPP from 33.6 to 39.0 and 35.6, from 33.8 to 36.6.

Of the 1.5B one run of seed 0, two iterations (8 minutes of a shared H200), in
which nothing is gained: MBPP 52.6 [48.2, 56.9] before, then 49.0 [44.6, 53.4]
and 51.6 [47.2, 56.0]; HumanEval 56.1, 52.4, 49.4; HumanEval+ 51.2, 47.0, 43.9.
docs/experiments.md tells the rest.
"""

from configs import ablations


def get_config():
  run = ablations.start('mbpp')
  run.em.iterations = 1
  run.estep.num_samples = 32
  run.eval.num_samples = 0
  run.eval.pass_k = ()
  return ablations.compare(
    'results_mbpp',
    'MBPP, Qwen2.5-Coder-Instruct',
    run,
    {'rest_em': {}},
    transfers=True,
  )
