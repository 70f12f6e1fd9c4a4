"""Makes the dataset of an iteration, and says what became of its samples."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from etils import epath

from rest.config import EStepConfig
from rest.e_step.choose import choose, to_kept
from rest.e_step.summary import EStepSummary, Tally
from rest.run import dataset, store
from rest.types import Graded, Halted, Kept, Tokenizer
from rest.verify import Pool
from rest.verify.answers import reader


def make_dataset(
  groups: Iterable[Sequence[Graded]],
  tokenizer: Tokenizer,
  config: EStepConfig,
  folder: epath.Path,
  max_unknown: float,
  pool: Pool,
) -> EStepSummary:
  """Writes dataset.jsonl and e_step.json.

  Args:
    groups: All samples of each problem; those numbered `config.num_samples` and
      above were drawn with a hint, and count where no other is kept.
    tokenizer: Of the model that is to be trained.
    config: What is kept.
    folder: Of the iteration.
    max_unknown: Share of unknown verdicts above which this is an error.
    pool: Says which answers are equal, where they vote.

  Raises:
    Halted: Too many verdicts are unknown, or too many samples were cut off.
  """
  kept: list[Kept] = []
  tally = Tally()
  for group in groups:
    rows = [row for row in group if row.sample < config.num_samples]
    hinted = [row for row in group if row.sample >= config.num_samples]
    answers = reader(group, pool)
    choices = choose(rows, config, answers)
    chosen = [to_kept(c.row, c.weight) for c in choices if c.kept]
    hints = [] if chosen else choose(hinted, config, answers)
    from_hints = [to_kept(c.row, c.weight, True) for c in hints if c.kept]
    kept += chosen + from_hints
    tally.add(choices, hinted=len(from_hints))
  summary = tally.summary()
  if summary.unknown > max_unknown * summary.sampled:
    raise Halted(
      f'{summary.unknown} of {summary.sampled} verdicts are unknown, more than '
      f'verify.max_unknown={max_unknown} allows: {summary.reasons}. Nothing is '
      'lost: mend the verifier, delete the parts concerned, and run again.'
    )
  check_cut_off(summary.ended['limit'], summary.sampled, config.max_cut_off)
  store.write_json(folder / 'e_step.json', asdict(summary))
  dataset.write_dataset(folder / 'dataset.jsonl', kept, tokenizer)
  return summary


def check_cut_off(cut_off: int, sampled: int, most: float) -> None:
  """Refuses to go on where too many samples do not come to their end."""
  if cut_off > most * sampled:
    raise Halted(
      f'{cut_off:,} of {sampled:,} samples were cut off at the length limit, '
      f'more than estep.max_cut_off={most} allows: only short answers would be '
      'learnt. Raise sampling.max_tokens (in another --workdir), or see in '
      'parts/ whether the model ever writes an end; raise estep.max_cut_off '
      'where this is as it should be. What was drawn is on disk.'
    )
