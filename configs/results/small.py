r"""GSM8K from bases of 135M and 270M parameters: where the method has a start.

  python -m rest.experiment --config=configs/results/small.py \
      --config.run.model.path=/models/SmolLM2-135M-Instruct \
      --config.run.task.path=/data/gsm8k --config.run.verify.workers=12 \
      --config.seeds="(0,)"          # and again with Gemma 3 270M

An E-step can only keep what the base draws: pass@64 tells of how many problems
that is anything, and `rest.use.sample` what the others look like.

Hardware: one GPU of 24 GB; 16 CPU cores. Not measured yet.
"""

from configs import ablations


def get_config():
  run = ablations.start('gsm8k')
  run.task.num_validation = 300
  run.em.iterations = 2
  run.estep.num_samples = 16
  run.estep.cap = 4
  run.mstep.epochs = 1
  run.sampling.max_tokens = 256  # Human solutions end before 400, most by 150.
  run.eval.num_problems = 300
  return ablations.compare(
    'results_small',
    'GSM8K, small bases',
    run,
    {'rest_em': {}},
    scores=('test', 'pass@64'),
  )
