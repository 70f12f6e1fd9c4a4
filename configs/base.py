"""Every field of a run, with unit, meaning and source; the paper's values.

Other configs say only how they differ. [P] is stated in the paper (Singh et
al., arXiv:2312.06585); where it is silent (all of fine-tuning), the source of
our choice is named. Fields are data: `rest.main` checks them.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """Returns ReST-EM as published, without a problem set or a model."""
  c = ConfigDict()
  c.name = 'run'  # Names the default working directory.
  c.seed = 0  # Of everything random: sampling, order of the data.
  # Folder (or gs://) that keeps compiled programs between runs; '' keeps none.
  c.compilation_cache = ''

  c.task = ConfigDict()
  c.task.name = ''  # Problem set: a key of rest.tasks.TASKS.
  c.task.path = ''  # Its folder of original or prepared files; '' if embedded.
  c.task.prompt = 'few_shot'  # [P]; or 'zero_shot' (bbh: 'cot', 'direct').
  c.task.split = ''  # Variant of the split; '' is the first that the set names.
  # Folder of an iteration: train only on the problems of its dataset [P 5.3].
  c.task.solved_by = ''
  c.task.num_train = 0  # Training problems, a nested random subset; 0: all.
  # Problems held out of train for stopping. [P] says D_val, not its size.
  c.task.num_validation = 300
  c.task.num_test = 0  # Test problems, a nested random subset; 0: all.
  c.task.seed = 0  # Of the validation split and the subsets.

  c.model = ConfigDict()
  c.model.path = ''  # Base model: a Hugging Face checkpoint directory.
  c.model.dtype = 'bfloat16'  # Of matrix products; weights stay float32.

  c.mesh = ConfigDict()  # Devices by axis; one may be -1: all that remain.
  c.mesh.data = -1  # Copies of the weights, each with its own rows.
  c.mesh.fsdp = 1  # Devices that share one copy, gathered layer by layer.
  c.mesh.tensor = 1  # Devices that share each matrix product.

  c.em = ConfigDict()
  c.em.iterations = 3  # I. [P]: 3 for MATH, 2 for APPS.
  # Stop once an iteration does not raise validation accuracy. [P] fixes I.
  c.em.stop_on_validation = False
  # 'model': verified samples [P]. 'human': the SFT baseline, no E-step [P 5.2].
  # 'samples_of': another run's samples, to distill it [P 5.3].
  c.em.source = 'model'
  c.em.samples_of = ''  # Folder of that run's iteration: RUN/iteration_4.
  # Problems that an iteration asks, the next ones of a random order; 0: all
  # [P]. Few, with few steps from 'previous_state', come near online learning.
  c.em.problems_per_iteration = 0
  # Of each M-step: 'base' [P], 'previous' (the ablation), or 'previous_state',
  # with the optimizer's state as well (Online RFT of B-STaR).
  c.em.start_from = 'base'
  c.em.accumulate = False  # Train on all iterations' data, not the last's [P].
  c.em.include_human = False  # Train on human solutions too (ReST); [P] not.
  # 'count': each solution weighs the same [P]. 'uniform': each solved problem
  # does (the exact M-step of EM).
  c.em.problem_weight = 'count'
  # 'same' prompt as for sampling [P], or 'zero_shot': the question alone.
  c.em.train_prompt = 'same'
  # What the M-step stops on: 'accuracy' on validation problems (the reward of
  # [P]), or 'loss' on their human solutions.
  c.em.validation = 'accuracy'
  c.em.export = False  # Also write each model as a Hugging Face directory.

  c.estep = ConfigDict()
  c.estep.num_samples = 32  # N. [P]: 32 for MATH, 64 for APPS.
  c.estep.cap = 10  # Most solutions kept a problem [P]; 0: all.
  # Solutions that count once, before the cap: of equal 'text', of equal
  # 'equations' (RFT), or 'off'. [P] does not say.
  c.estep.distinct = 'text'
  # Draw no more of a problem whose cap is met: the same dataset, sooner. [P]
  # draws all N, and statistics of the samples are of all only then.
  c.estep.stop_at_cap = False
  # f(r), by which a solution weighs: 'identity' [P]; 'exponential' (RWR),
  # 'best' of a problem (RAFT), 'majority' answer (Huang et al.).
  c.estep.weight = 'identity'
  # Share of samples cut off at sampling.max_tokens above which the E-step ends:
  # most of what is left would be short answers. [P] does not say.
  c.estep.max_cut_off = 0.5
  # Ask unsolved problems again with the answer in the question (STaR); [P 4]
  # found false positives.
  c.estep.rationalize = False

  c.sampling = ConfigDict()
  c.sampling.temperature = 0.7  # [P]; 0 is greedy.
  c.sampling.top_k = 40  # [P]; 0: off.
  c.sampling.top_p = 1.0  # Nucleus; 1: off, as in [P].
  c.sampling.max_tokens = 512  # Longest completion, in tokens.
  c.sampling.max_prompt_tokens = 1024  # Longest prompt, in tokens.
  c.sampling.rows = 0  # Completions drawn at once; 0: planned.
  c.sampling.rows_per_slot = 0  # Of them, on one question; 0: planned.
  c.sampling.min_rows = 0  # Rows the table shrinks to at the end; 0: planned.
  c.sampling.steps_per_call = 0  # Tokens between looks of the host; 0: planned.
  c.sampling.memory_share = 0.9  # Of device memory that sampling may fill.

  c.verify = ConfigDict()
  c.verify.workers = 2  # Interpreters that judge at the same time.
  c.verify.timeout = 2.0  # Seconds for one verdict on a math answer.
  c.verify.memory = 512  # MiB that such a worker may hold.
  c.verify.queue = 1024  # Completions that may wait for a verdict.
  c.verify.cache = 65_536  # Verdicts remembered, about 200 bytes each.
  c.verify.nice = 10  # Niceness of workers above this process's.
  c.verify.max_unknown = 0.005  # Share without verdict that stops a run.
  # Judge programs where the host allows nothing better than resource limits.
  c.verify.allow_weak_sandbox = False

  c.mstep = ConfigDict()  # [P] publishes none of these numbers.
  c.mstep.optimizer = 'adamw'  # Or 'adafactor': less memory.
  c.mstep.learning_rate = 1e-5  # Peak. RFT: 2e-5 for 7B; smaller is safer.
  c.mstep.schedule = 'cosine'  # After warm-up: 'cosine', 'linear', 'constant'.
  c.mstep.warmup = 0.03  # Share of steps over which the rate rises (RFT).
  c.mstep.final_rate = 0.0  # Share of the peak at the end.
  c.mstep.weight_decay = 0.0  # Of matrices; never of norms and biases.
  c.mstep.beta1 = 0.9  # Decay of AdamW's first moment.
  c.mstep.beta2 = 0.95  # Decay of its second moment.
  c.mstep.epsilon = 1e-8  # Added to the root of the second moment.
  c.mstep.clip = 1.0  # Largest gradient norm; 0: no limit.
  c.mstep.row_length = 2048  # Tokens in a packed row.
  c.mstep.rows = 16  # Packed rows in a step, over all devices.
  c.mstep.accumulate = 1  # Parts a step is worked on in, to save memory.
  c.mstep.epochs = 2  # Times each solution is seen (RFT: 3).
  c.mstep.max_steps = 0  # 0: no limit but `epochs`.
  # 'best' by validation, 'first_drop' ([P], while validation improves), or
  # 'fixed_steps'.
  c.mstep.stop = 'best'
  c.mstep.eval_every = 0  # Steps between validations; 0: only at the end.
  c.mstep.save_every = 0  # Steps between checkpoints; 0: at validations.
  c.mstep.remat = 'matmuls'  # Kept for the backward pass: see MStepConfig.
  c.mstep.lora_rank = 0  # Rank of adapters; 0: all weights, as in [P].
  c.mstep.lora_alpha = 16.0  # Adapters are scaled by alpha / rank.

  c.eval = ConfigDict()  # On test problems, after each iteration.
  c.eval.num_samples = 0  # For pass@k and maj@k; 0: greedy pass@1 alone.
  c.eval.num_problems = 0  # Test problems sampled so; 0: all.
  c.eval.pass_k = ()  # The k of pass@k.
  c.eval.temperature = 1.0  # [P] figure 5.
  c.eval.top_k = 0  # Off.
  c.eval.top_p = 0.95  # [P] figure 5.
  # Transfer suites by task, variant and prompt: ('gsm8k', 'bbh:direct').
  c.eval.suites = ()
  c.eval.suite_folder = ''  # Holds each one's files in a folder of its name.
  c.eval.suite_problems = 0  # Most problems of each; 0: all.
  c.eval.suite_temperature = 0.0  # Greedy; [P] 0.1 for the Hungarian exam.
  # Sample the training problems from the last model, too, for the train-test
  # gap of [P] figure 4; the other models' samples are the E-steps'.
  c.eval.on_train = False

  c.logging = ConfigDict()  # metrics.jsonl and TensorBoard are always written.
  c.logging.wandb = ''  # Project of Weights & Biases; '': none.
  return c
