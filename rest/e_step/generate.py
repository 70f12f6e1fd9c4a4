"""The E-step ('generate'): draw solutions, judge them, keep the right ones."""

from collections.abc import Sequence

from etils import epath

from rest.config import EStepConfig
from rest.e_step.choose import meets_cap
from rest.e_step.dataset import make_dataset
from rest.e_step.draw import Timing, Tools, draw_missing
from rest.e_step.summary import describe
from rest.e_step.variants import add_hinted
from rest.run import processes, store
from rest.types import Problem


def e_step(
  tools: Tools,
  problems: Sequence[Problem],
  config: EStepConfig,
  folder: epath.Path,
  iteration: int,
  max_unknown: float,
) -> Timing:
  """Makes the dataset of an iteration from the sampler's current weights.

  Args:
    tools: The sampler holds the policy of the iteration before.
    problems: The training problems, in order.
    config: N, and what is kept.
    folder: Gets parts/ (all samples), dataset.jsonl and e_step.json.
    iteration: Counted from 1; part of every sample's random key.
    max_unknown: Share of unknown verdicts above which this is an error.

  Raises:
    Preempted: `tools.should_stop` said so; what was drawn is on disk.
    Halted: Too many verdicts could not be reached, or too many samples
      were cut off.
  """
  parts = store.Parts(folder / 'parts')
  title = f'iteration {iteration}'
  timing = draw_missing(
    tools,
    problems,
    config.num_samples,
    parts,
    key=title,
    title=title,
    is_enough=lambda rows: meets_cap(rows, config),
    max_cut_off=config.max_cut_off,
  )
  groups = parts.read_all(len(problems))
  if config.rationalize:
    groups = add_hinted(
      tools, problems, config.num_samples, parts, folder, title
    )
  if processes.is_first():
    summary = make_dataset(
      groups, tools.tokenizer, config, folder, max_unknown, tools.pool
    )
    tools.live.journal.say(f'{title}: {describe(summary, config.cap)}')
  processes.barrier(title)
  return timing
