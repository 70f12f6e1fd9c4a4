r"""ReST-EM on the introductory problems of APPS, as in the paper (figure 3).

  python -m rest.main --config=configs/apps.py --workdir=gs://BUCKET/apps \
      --config.model.path=/models/Qwen2.5-Coder-1.5B \
      --config.task.path=/data/APPS

Data: the folders train/ and test/ of github.com/hendrycks/apps, or the same as
train.jsonl and test.jsonl. The paper trains on 2,342 of the 2,639 introductory
problems and does not say which; here all that have tests and a solution.
Hardware: one GPU of 80 GB or a TPU host, and a Linux that allows the sandbox.
Expected: the paper gains 5.6 (PaLM 2-S*) to 6.4 (PaLM 2-L) points on test,
nearly all in the first iteration. This config has not been run in full.
"""

from configs import base


def get_config():
  c = base.get_config()
  c.name = 'apps'

  c.task.name = 'apps'
  c.task.split = 'introductory'
  c.task.prompt = 'few_shot'  # Two examples: standard input, and a call.
  c.task.num_validation = 200

  c.em.iterations = 2  # [P]
  c.estep.num_samples = 64  # [P]
  c.estep.cap = 10  # [P]
  c.estep.temperature = 0.7  # [P]
  c.estep.top_k = 40  # [P]

  # The examples take about 300 tokens; statements run to several thousand.
  c.sampling.max_prompt_tokens = 4096
  c.sampling.max_tokens = 1024

  c.eval.num_samples = 10
  c.eval.pass_k = (1, 2, 5, 10)  # [P] figure 5.
  return c
