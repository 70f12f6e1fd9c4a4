r"""ReST-EM on MATH, as in the paper (arXiv:2312.06585, figure 2 left).

  python -m rest.main --config=configs/math.py --workdir=gs://BUCKET/math \
      --config.model.path=/models/Qwen2.5-1.5B --config.task.path=/data/math

Data: the folders train/ and test/ of github.com/hendrycks/math, or the same as
train.jsonl and test.jsonl or as parquet, which need not have `unique_id`.
Hardware: one GPU of 80 GB or a TPU host for a model of 1.5 B parameters; set
`mesh` for more. An iteration draws 230,400 samples.
Expected: the paper's PaLM 2-L reaches 41.9 % on test after three iterations,
about 6 points above its start. This config has not been run in full.

12,000/500 problems instead (never compare with scores on all 5,000):
--config.task.split=prm800k
"""

from configs import base


def get_config():
  c = base.get_config()
  c.name = 'math'

  c.task.name = 'math'
  c.task.split = 'original'  # 7,500 to train and validate, 5,000 to test.
  c.task.prompt = 'few_shot'  # Minerva's four examples.

  # [P], as by default; said in full, since this is the paper's main experiment.
  c.em.iterations = 3
  c.estep.num_samples = 32
  c.estep.cap = 10
  c.estep.temperature = 0.7
  c.estep.top_k = 40

  # The examples take about 700 tokens, the longest problem about 2,100; of the
  # human solutions 99 in 100 are shorter than 1,100.
  c.sampling.max_prompt_tokens = 3072
  c.sampling.max_tokens = 1024

  c.eval.num_samples = 64  # [P] figure 5 and maj@64.
  c.eval.num_problems = 500
  c.eval.pass_k = (1, 4, 16, 64)
  return c
