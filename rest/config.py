"""Every field of a run, once: default, meaning, bounds, and where it is from.

`python -m rest.config` prints them. A field's type says what it may be, and a
section refuses anything else when it is made; `check` refuses fields that do
not go together. [P] is stated in the paper (Singh et al., arXiv:2312.06585);
where it is silent (all of fine-tuning), the source of our choice is named.
"""

import dataclasses
import enum
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin


class Free(enum.Enum):
  """What a field changes, where a run that goes on may have another value."""

  SPEED = 'how fast a run gets there'
  LENGTH = 'how far it goes'
  PLACE = 'where something lies that is known by its contents'
  OUTPUT = 'what is written beside the results'


# Numbers by the interval they lie in, where a bracket is inclusive. What is
# counted on devices is counted in 32 bits.
Count = Annotated[int, '[0, 2**31)']
Size = Annotated[int, '[1, 2**31)']
Share = Annotated[float, '[0, 1]']
Some = Annotated[float, '(0, 1]']  # A share that is not nothing.
Decay = Annotated[float, '[0, 1)']  # Adam divides by what is left of 1.
Temperature = Annotated[float, '[0, 100]']
Axis = Annotated[int, '[-1, 0) or [1, 2**20]', Free.SPEED]
Dtype = Literal['float32', 'bfloat16', 'float16']
DTYPES: tuple[str, ...] = get_args(Dtype)


@dataclass(frozen=True, slots=True)
class Section:
  """Fields, each held to its type when they are given values."""

  def __post_init__(self):
    for name, kind in _kinds(type(self)).items():
      value = getattr(self, name)
      if not _fits(kind, value):
        full = _prefix(type(self)) + name
        raise ValueError(f'{full} must {_expected(kind)}; got {value!r}.')


@dataclass(frozen=True, slots=True)
class TaskConfig(Section):
  """Which problems, and how they are asked."""

  # Problem set: a key of `rest.tasks.TASKS`, or 'path/to/task.py:MyTask', a
  # class that is made from `rest.tasks.ProblemSet`.
  name: str = ''
  # Its folder of original files, or a copy made by `python -m rest.tasks
  # prepare`; '' for embedded sets. Of 'jsonl', one file of all splits as well.
  path: Annotated[str, Free.PLACE] = ''
  # 'few_shot' [P] or 'zero_shot', where the set has both; bbh has 'cot' and
  # 'direct'; or 'chat', in the form of the model's own chat template. '' is the
  # first that the set names.
  prompt: str = ''
  # What a chat's system turn says; '': what the template says without one.
  system: str = ''
  # Examples of the set that stand before the question of a chat, as turns.
  shots: Count = 0
  # Variant of the problems, as the set's module lists them (math: 'original',
  # 'prm800k', 'math500'); '' is the first.
  split: str = ''
  # Folder of a run's iteration: only those training problems are left that its
  # dataset solves [P 5.3]; '' leaves all.
  solved_by: str = ''
  num_train: Count = 0  # Training problems, a nested random subset; 0: all.
  # Problems held out of train for stopping, chosen by a hash; of the validation
  # split where a set has its own (arithmetic 300, mbpp 90). [P] says D_val, not
  # its size.
  num_validation: Count = 300
  # Test problems, a nested random subset; 0: all. Where no test split is
  # published, as many are held out of train.
  num_test: Count = 0
  seed: Count = 0  # Of the validation split and the subsets.
  # What follows is for name='jsonl': records in JSON lines or parquet. Who
  # judges: 'math', 'exact', 'program' or 'path/to/reward.py:reward', a function
  # (problem, text) that returns a number from 0 to 1, or None for unknown.
  verifier: str = ''
  template: str = '{question}\n'  # How a question is asked.
  prefix: str = ''  # What stands before every question: examples.
  stop: tuple[str, ...] = ()  # Texts that end a completion, and are cut off.
  question_field: str = 'question'  # Of a record: what is asked.
  answer_field: str = 'answer'  # The reference; any JSON for a function.
  # For 'program': assertions, in a text or a list, or an object of the fields
  # of `rest.types.Tests`.
  tests_field: str = 'tests'
  # Which split a record is of, 'train', 'validation' or 'test', where one file
  # holds several; without it the file is all train.
  split_field: str = 'split'


@dataclass(frozen=True, slots=True)
class BaseConfig(Section):
  """The base model."""

  path: Annotated[str, Free.PLACE] = ''  # A Hugging Face checkpoint directory.
  dtype: Dtype = 'bfloat16'  # Of matrix products; weights stay float32.


@dataclass(frozen=True, slots=True)
class MeshConfig(Section):
  """Devices by axis; one may be -1: all that remain."""

  data: Axis = -1  # Copies of the weights; each works on its own rows.
  fsdp: Axis = 1  # Devices that share one copy, gathered layer by layer.
  tensor: Axis = 1  # Devices that share each matrix product.


@dataclass(frozen=True, slots=True)
class EMConfig(Section):
  """The outer loop."""

  # Most iterations, I. [P]: 3 for MATH, 2 for APPS.
  iterations: Annotated[int, '[1, 1000]', Free.LENGTH] = 3
  # Stop once an iteration does not raise validation accuracy. [P] fixes I.
  stop_on_validation: bool = False
  # What is trained on: verified samples of the 'model' [P]; 'human' solutions
  # of the problem set (the SFT baseline, no E-step) [P 5.2]; 'samples_of'
  # another run, of which this one keeps its choice, to distill it [P 5.3].
  source: Literal['model', 'human', 'samples_of'] = 'model'
  # Folder of that run's iteration: RUN/iteration_4. Or a JSONL file of what
  # something else drew, a `problem` and a `text` a line, or the output of a
  # batch in OpenAI's format (vLLM): see `rest.e_step.imported`.
  samples_of: str = ''
  # Training problems that an iteration asks, the next ones of a random order;
  # 0: all [P]. Few, with few steps from 'previous_state', come near online
  # learning.
  problems_per_iteration: Count = 0
  # Where each M-step starts: 'base' [P]; the model before, 'previous' (the
  # ablation); 'previous_state', with the state of its optimizer as well (Online
  # RFT of B-STaR).
  start_from: Literal['base', 'previous', 'previous_state'] = 'base'
  accumulate: bool = False  # Train on all iterations' data, not the last's [P].
  include_human: bool = False  # Train on human solutions too (ReST); [P] not.
  # 'count': each kept solution weighs the same [P]. 'uniform': each solved
  # problem does (the exact M-step of EM).
  problem_weight: Literal['count', 'uniform'] = 'count'
  # 'same' prompt as for sampling [P], or 'zero_shot': the question alone.
  train_prompt: Literal['same', 'zero_shot'] = 'same'
  # What the M-step stops on: 'accuracy', greedy, on validation problems (the
  # reward of [P]), or 'loss' on their human solutions.
  validation: Literal['accuracy', 'loss'] = 'accuracy'
  # Also write each model as a Hugging Face directory.
  export: Annotated[bool, Free.OUTPUT] = False


@dataclass(frozen=True, slots=True)
class Decoding(Section):
  """How a token is chosen."""

  temperature: Temperature = 0.7  # Divides the logits [P]; 0 is greedy.
  top_k: Count = 40  # Only this many best tokens [P]; 0: all.
  # Only the smallest set of best tokens with this much probability (nucleus);
  # 1: all, as in [P].
  top_p: Some = 1.0


@dataclass(frozen=True, slots=True)
class EStepConfig(Decoding):
  """What is drawn, and what of it is kept."""

  num_samples: Size = 32  # Of each problem, N. [P]: 32 for MATH, 64 for APPS.
  cap: Count = 10  # Most solutions kept of a problem [P]; 0: all.
  # Solutions that count once, before the cap: those of equal 'text'; with the
  # same 'equations' in the same order (RFT); or none ('off'). [P] does not say.
  distinct: Literal['text', 'equations', 'off'] = 'text'
  # End a problem's samples with the one that meets its cap: the same dataset,
  # sooner. [P] draws all N, and statistics of the samples are of all only then.
  stop_at_cap: bool = False
  # What a solution weighs in training, f of its reward r. 'identity': r [P]
  # (also ReST's 1[r > t] for every t below 1, as r is 0 or 1). 'exponential':
  # exp(r) (reward-weighted regression, RWR). 'best': 1 for the best of the
  # problem's samples, right or not (RAFT, with a cap of 1). 'majority': 1 for
  # those with the commonest answer, whatever is right (Huang et al.); spellings
  # that the verifier calls equal are one answer.
  weight: Literal['identity', 'exponential', 'best', 'majority'] = 'identity'
  # Whether thoughts (<think> ... </think>) are trained on with the answer that
  # follows, 'keep', or not, 'cut'. They are never judged.
  thoughts: Literal['keep', 'cut'] = 'keep'
  # Share of samples cut off at sampling.max_tokens above which the E-step ends
  # in an error. Above a half, what is kept is not what the model does well but
  # what it says briefly; and a thinking model asked with too small a limit has
  # 97 to 99 % cut off. [P] does not say.
  max_cut_off: Annotated[Share, Free.LENGTH] = 0.5
  # Ask problems without a correct sample again with the answer in the question
  # (STaR); [P 4] found false positives.
  rationalize: bool = False

  @property
  def decoding(self) -> Decoding:
    """How the samples of the E-step are drawn."""
    return Decoding(self.temperature, self.top_k, self.top_p)


@dataclass(frozen=True, slots=True)
class SamplerConfig(Section):
  """How long completions may be, and how large the table is."""

  max_tokens: Size = 512  # Longest completion in tokens, its end included.
  # Longest prompt in tokens, prefix and question together. A tight bound makes
  # a small table, and small tables are fast.
  max_prompt_tokens: Size = 1024
  # Completions drawn at the same time; 0: planned.
  rows: Annotated[Count, Free.SPEED] = 0
  # Of them, how many share a question; 0: planned.
  rows_per_slot: Annotated[Count, Free.SPEED] = 0
  # Rows down to which the table shrinks at the end of the list; 0: planned.
  # Where it shrinks, a sample may be computed in tables of other sizes when
  # only a part of the problems is drawn again, and then differ by rounding; on
  # CPUs it therefore keeps its size.
  min_rows: Count = 0
  steps_per_call: Count = 0  # Tokens between looks of the host; 0: planned.
  # Share of a device's memory that sampling may fill, weights included.
  memory_share: Some = 0.9

  @property
  def longest(self) -> int:
    """Longest sequence in tokens, prompt and completion."""
    return self.max_prompt_tokens + self.max_tokens


@dataclass(frozen=True, slots=True)
class VerifyConfig(Section):
  """How verdicts are reached."""

  # Interpreters that judge at the same time.
  workers: Annotated[int, '[1, 1024]', Free.SPEED] = 2
  # Seconds for one verdict on an answer, from dispatch. Programs have deadlines
  # of their own, by their tests.
  timeout: Annotated[float, '(0, 86400]'] = 2.0
  memory: Size = 512  # MiB of address space for a worker while it judges.
  # Completions that may wait for a verdict; who submits more waits as well.
  queue: Annotated[Size, Free.SPEED] = 1024
  # Verdicts remembered, at about 200 bytes each; 0: none.
  cache: Count = 65_536
  # Niceness of workers above this process's, so that they never starve the
  # thread that feeds the device.
  nice: Annotated[int, '[0, 19]', Free.SPEED] = 10
  # Share of samples without a verdict above which a run stops.
  max_unknown: Annotated[Share, Free.LENGTH] = 0.005
  # Judge programs where the host allows nothing better than resource limits.
  allow_weak_sandbox: bool = False


@dataclass(frozen=True, slots=True)
class MStepConfig(Section):
  """How a model is fine-tuned. [P] publishes none of these numbers."""

  # The state of 'adafactor' is a fraction of the model.
  optimizer: Literal['adamw', 'adafactor'] = 'adamw'
  # At the peak of the schedule. RFT: 2e-5 for 7B; smaller is safer.
  learning_rate: Annotated[float, '[0, 100]'] = 1e-5
  # What follows the warm-up.
  schedule: Literal['cosine', 'linear', 'constant'] = 'cosine'
  warmup: Share = 0.03  # Share of steps over which the rate rises from 0 (RFT).
  final_rate: Share = 0.0  # Of the peak, where 'cosine' and 'linear' end.
  # Of matrices, times the learning rate; never of norms and biases.
  weight_decay: Annotated[float, '[0, 100]'] = 0.0
  beta1: Decay = 0.9  # Decay of AdamW's first moment, per step.
  beta2: Decay = 0.95  # Decay of its second moment, per step.
  epsilon: Some = 1e-8  # Added to the root of the second moment.
  # Largest global norm of the gradient; 0: no limit.
  clip: Annotated[float, '[0, 1e9]'] = 1.0
  # Solutions in a step, about; what there is of a problem is in one. RSI, which
  # is this method on GSM8K: 32; VinePPO's ReST-EM: 64; RFT: 128.
  batch: Size = 32
  # Most tokens of a packed row; the longest solution must fit, with its prompt.
  # Rows are as few as this allows, and then as short as they can be.
  row_length: Size = 8192
  # Most rows that a device works on at a time; what it has more of in a step
  # follows, with the same result.
  rows: Annotated[Size, Free.SPEED] = 1
  # Whether a row holds the few-shot prefix once, and each question once for all
  # its solutions; the loss is the same.
  share_prefixes: Annotated[bool, Free.SPEED] = True
  # Times that each solution is seen; RFT: 3.
  epochs: Annotated[int, '[1, 1000]'] = 2
  max_steps: Count = 0  # Training ends then at the latest; 0: after `epochs`.
  # Which model is returned: 'best' trains to the end and takes the one with the
  # highest validation score; 'first_drop' ([P] Algorithm 1, 'while validation
  # improves') stops at the first validation that is not above the one before,
  # and takes that one; 'fixed_steps' takes the last. The untrained model is no
  # candidate.
  stop: Literal['best', 'first_drop', 'fixed_steps'] = 'best'
  # Steps between validations; the end is one. 0: none, as the end is all that
  # there is to choose.
  eval_every: Count = 0
  # Steps between checkpoints, besides those at validations; 0: only those.
  save_every: Count = 0
  # What the forward pass keeps for the backward pass: 'none' makes nothing
  # again (fastest on CPUs), 'matmuls' keeps the outputs of matrix products,
  # 'full' only the inputs of layers.
  remat: Literal['none', 'matmuls', 'full'] = 'matmuls'
  # Rank of adapters, trained instead of the weights; 0: all weights, as in [P].
  lora_rank: Count = 0
  # Adapters are scaled by alpha / rank.
  lora_alpha: Annotated[float, '(0, 1e9]'] = 16.0

  @property
  def lora_scale(self) -> float:
    """What the adapters' product is multiplied with."""
    return self.lora_alpha / self.lora_rank


@dataclass(frozen=True, slots=True)
class EvaluateConfig(Section):
  """What is measured on the test problems after each iteration."""

  num_samples: Count = 0  # For pass@k and maj@k; 0: greedy pass@1 alone.
  num_problems: Count = 0  # Test problems sampled so, at random; 0: all.
  pass_k: tuple[Size, ...] = ()  # The k of pass@k; each at most num_samples.
  temperature: Temperature = 1.0  # Of these samples; [P] figure 5.
  top_k: Count = 0  # 0: off.
  top_p: Some = 0.95  # [P] figure 5.
  # Transfer suites, tested after each iteration as well, by task, variant and
  # prompt: ('gsm8k', 'bbh:direct'); see `rest.tasks.suites`.
  suites: tuple[str, ...] = ()
  # Holds each suite's files in a folder of its task's name.
  suite_folder: Annotated[str, Free.PLACE] = ''
  suite_problems: Count = 0  # Most problems of each; 0: all.
  # Of the one completion a problem of a suite; 0 is greedy. [P]: 0.1 for the
  # Hungarian exam.
  suite_temperature: Temperature = 0.0
  # Sample the training problems from the last model, too, for the train-test
  # gap of [P] figure 4; the other models' samples are the E-steps'. They are
  # what its next E-step would draw, so that e_step.json of iteration i + 1
  # tells the training accuracy of policy i.
  on_train: bool = False


@dataclass(frozen=True, slots=True)
class LoggingConfig(Section):
  """Where metrics go besides metrics.jsonl and TensorBoard."""

  # Project of Weights & Biases; '': none. Its own files are in the run's folder
  # wandb/, or in ./wandb where the run is remote.
  wandb: Annotated[str, Free.OUTPUT] = ''


@dataclass(frozen=True, slots=True)
class Config(Section):
  """A run: ReST-EM as published, without a problem set or a model."""

  name: str = 'run'  # Names the default working directory.
  seed: Count = 0  # Of everything random: sampling, order of the data.
  # Folder (or gs://) that keeps compiled programs between runs; '': none;
  # 'auto': ~/.cache/rest on accelerators, where compiling takes minutes.
  compilation_cache: Annotated[str, Free.SPEED] = 'auto'
  # Made with the config, since sections have their names from here.
  task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
  model: BaseConfig = dataclasses.field(default_factory=BaseConfig)
  mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
  em: EMConfig = dataclasses.field(default_factory=EMConfig)
  estep: EStepConfig = dataclasses.field(default_factory=EStepConfig)
  sampling: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)
  verify: VerifyConfig = dataclasses.field(default_factory=VerifyConfig)
  mstep: MStepConfig = dataclasses.field(default_factory=MStepConfig)
  eval: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
  logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)

  def __post_init__(self):
    Section.__post_init__(self)
    check(self)


def check(config: Config) -> None:
  """Refuses fields that are good alone but do not go together.

  Raises:
    ValueError: Which, and why.
  """
  em, estep, mstep = config.em, config.estep, config.mstep
  mesh, samples = config.mesh, config.eval.num_samples
  if [mesh.data, mesh.fsdp, mesh.tensor].count(-1) > 1:
    raise ValueError(f'At most one axis of mesh may be -1; got {mesh}.')
  if (em.source == 'samples_of') != bool(em.samples_of):
    raise ValueError(
      "em.samples_of must name a folder where em.source is 'samples_of', and "
      f'nowhere else; got {em.samples_of!r} and {em.source!r}.'
    )
  if em.start_from == 'previous_state' and mstep.lora_rank:
    raise ValueError(
      "em.start_from='previous_state' needs mstep.lora_rank=0: each M-step "
      'has adapters of its own, and so has their optimizer.'
    )
  if config.task.prompt != 'chat' and (config.task.system or config.task.shots):
    raise ValueError(
      "task.system and task.shots are of chats: set task.prompt='chat'; got "
      f'{config.task.prompt!r}.'
    )
  if config.task.prompt == 'chat' and em.train_prompt != 'same':
    raise ValueError(
      "em.train_prompt must be 'same' where task.prompt is 'chat': set "
      f'task.shots=0 for a chat without examples; got {em.train_prompt!r}.'
    )
  if estep.stop_at_cap and not estep.cap:
    raise ValueError('estep.stop_at_cap needs a cap, but estep.cap is 0.')
  if estep.stop_at_cap and estep.weight != 'identity':
    raise ValueError(
      "estep.stop_at_cap needs estep.weight='identity': by other weights, a "
      f'later sample may take the place of an earlier one; got '
      f'{estep.weight!r}.'
    )
  if any(k > samples for k in config.eval.pass_k):
    raise ValueError(
      f'eval.pass_k must lie in 1..eval.num_samples={samples}, got '
      f'{config.eval.pass_k}.'
    )
  if config.logging.wandb and importlib.util.find_spec('wandb') is None:
    raise ValueError(
      f'logging.wandb={config.logging.wandb!r} needs the package wandb, which '
      "is not installed: pip install wandb, or set the field to ''."
    )


def make(tree: Mapping[str, Any]) -> Config:
  """Returns a config, checked; a field that is not given has its default.

  Args:
    tree: The fields, those of each section in a mapping of its own.

  Raises:
    ValueError: A field is wrong, or there is none of this name.
  """
  sections = {
    name: _make(kind, f'config section {name}', tree[name])
    for name, kind in _sections().items()
    if name in tree
  }
  return _make(Config, 'config', {**tree, **sections})


def fields() -> dict[str, Any]:
  """Returns the types of all fields by their full names, as in 'estep.cap'."""
  sections = _sections()
  found = {k: v for k, v in _kinds(Config).items() if k not in sections}
  for section, kind in sections.items():
    found |= {f'{section}.{k}': v for k, v in _kinds(kind).items()}
  return found


def _make(kind: Any, what: str, given: Any) -> Any:
  if not isinstance(given, Mapping):
    raise ValueError(f'{what} must hold fields; got {given!r}.')
  for name in given:
    if name not in _kinds(kind):
      raise ValueError(
        f'{what}: there is no field {name!r}; `python -m rest.config` lists '
        'all.'
      )
  return kind(**given)


def _kinds(section: type[Section]) -> dict[str, Any]:
  return {field.name: field.type for field in dataclasses.fields(section)}


def _sections() -> dict[str, type[Section]]:
  kinds = _kinds(Config).items()
  return {
    k: v for k, v in kinds if isinstance(v, type) and issubclass(v, Section)
  }


def _prefix(section: type[Section]) -> str:
  """Returns what stands before the names of a section's fields: 'estep.'."""
  found = [k for k, v in _kinds(Config).items() if v is section]
  return f'{found[0]}.' if found else ''


def _fits(kind: Any, value: Any) -> bool:
  """Whether a value is of a type; NaN lies in no interval."""
  origin, arguments = get_origin(kind), get_args(kind)
  if origin is Annotated:
    bounds = _bounds(kind)
    is_kind = _fits(arguments[0], value)
    return is_kind and (not bounds or _contains(bounds, value))
  if origin is Literal:
    return isinstance(value, str) and value in arguments
  if origin is tuple:
    items = value if isinstance(value, tuple) else [None]
    return all(_fits(arguments[0], item) for item in items)
  if kind in (int, float):  # True is an int, but no number.
    return isinstance(value, (int, kind)) and not isinstance(value, bool)
  return isinstance(value, kind)


def _expected(kind: Any) -> str:
  """Returns what a value of a type must do: the words after 'must'."""
  origin, arguments = get_origin(kind), get_args(kind)
  if origin is Literal:
    return f'be one of {", ".join(arguments)}'
  if origin is tuple:
    return f'be a tuple in which each must {_expected(arguments[0])}'
  if _bounds(kind):
    whole = ' and be whole' if arguments[0] is int else ''
    return f'lie in {_bounds(kind)}{whole}'
  base = arguments[0] if arguments else kind
  return {str: 'be text', bool: 'be True or False'}.get(base, 'be a section')


def _bounds(kind: Any) -> str:
  """Returns the intervals that a number lies in; '' for other types."""
  return next((x for x in get_args(kind)[1:] if isinstance(x, str)), '')


def _contains(bounds: str, value: float) -> bool:
  for interval in bounds.split(' or '):
    low, high = map(_number, interval[1:-1].split(','))
    above = value >= low if interval[0] == '[' else value > low
    below = value <= high if interval[-1] == ']' else value < high
    if above and below:
      return True
  return False


def _number(text: str) -> float:
  base, _, power = text.partition('**')
  return float(base) ** float(power or 1)


AS_PUBLISHED = Decoding()
FREE_FIELDS = frozenset(
  name
  for name, kind in fields().items()
  if any(isinstance(x, Free) for x in get_args(kind))
)


def _listing() -> Iterator[str]:
  """Yields the sections as they are written above, and what types mean."""
  for name, section in (('config', Config), *_sections().items()):
    written = ''
    for part in section.__mro__[-3::-1]:  # Those between it and Section.
      source = inspect.getsource(part).partition('"""\n')[2]
      written += source.partition('\n  def ')[0].partition('\n  @')[0]
    yield f'{name}: {section.__doc__}\n{written}'
  for name, kind in globals().items():
    if get_origin(kind) in (Annotated, Literal):
      yield f'{name}: must {_expected(kind)}.'
  for free in Free:
    yield f'{free}: a run goes on with another; it changes {free.value}.'


if __name__ == '__main__':
  print('\n'.join(_listing()))
