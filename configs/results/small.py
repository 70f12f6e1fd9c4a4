r"""GSM8K from bases of 135M and 270M parameters: where the method has a start.

  python -m rest.experiment --config=configs/results/small.py \
      --config.run.model.path=/models/SmolLM2-135M-Instruct \
      --config.run.task.path=/data/gsm8k --config.run.verify.workers=12 \
      --config.seeds="(0,)"          # and again with Gemma 3 270M

An E-step can only keep what the base draws: pass@64 tells of how many problems
that is anything, and `rest.use.sample` what the others look like.

Hardware: one GPU of 24 GB; 16 CPU cores. Measured on one NVIDIA H200 that three
other runs shared, from a 4-bit copy made bfloat16 again, one seed, one
iteration (7 minutes), SmolLM2: greedy test accuracy, 1,319 problems, 95 %
intervals: base 2.0 [1.3, 2.9], `rest_em` 2.7 [2.0, 3.8]; pass@64 (300 problems)
34.3 and 42.0, of which most is luck: docs/experiments.md. Not measured yet: the
second iteration, Gemma 3 270M, a GPU of 24 GB.
"""

from configs import ablations, results


def get_config():
  run = results.start()
  run.em.iterations = 2
  run.sampling.max_tokens = 256  # Human solutions end before 400, most by 150.
  run.eval.num_problems = 300
  return ablations.compare(
    'results_small',
    'GSM8K, small bases',
    run,
    {'rest_em': {}},
    scores=('test', 'pass@64'),
  )
