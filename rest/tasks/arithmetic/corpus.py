"""What the embedded base model was pretrained on: solutions, many wrong.

Other problems of the same situations, solved by two kinds of author. A hasty
one falls into nearly every trap of a story: adds the size of one group, not of
all of them; takes a third for what is left; forgets the last step. A prompt
does not say who will answer, so a model of this text answers as the commoner
author does, and can be taught to answer as the careful one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rest.tasks.arithmetic import arithmetic, situations


@dataclass(frozen=True, slots=True)
class Noise:
  """How wrong the corpus is. All are probabilities.

  Attributes:
    hasty: Of a hasty author, for levels 1 to 5. Above one half, the greedy
      answer falls into the trap.
    hasty_trapped: That a hasty author falls into a trap.
    careful_trapped: That a careful author falls into a trap.
    slip: Of a wrong result in a step; later steps go on with it.
    wrong_sign: Of a wrong operation in a step; later steps go on with it.
    stop_early: Of a solution that breaks off after some step.
  """

  hasty: tuple[float, float, float, float, float] = (0.3, 0.4, 0.6, 0.65, 0.7)
  hasty_trapped: float = 0.9
  careful_trapped: float = 0.05
  slip: float = 0.01
  wrong_sign: float = 0.01
  stop_early: float = 0.02


@dataclass(frozen=True, slots=True)
class Document:
  """One training text, `prompt + completion`."""

  prompt: str
  completion: str
  level: str
  correct: bool


def corpus(num_documents: int, seed: int, noise: Noise) -> Iterator[Document]:
  """Yields documents about problems in no split of the task.

  Document i depends on the seed and i alone, so a stream can start anywhere.
  """
  known = {
    problem.question
    for split in ('train', 'validation', 'test')
    for problem in arithmetic.problems(split)
  }
  levels = tuple(situations.LEVELS)
  for index in range(num_documents):
    dice = situations.Dice('corpus', seed, index)
    level = levels[index % len(levels)]
    yield _document(dice, _other_story(dice, level, known), noise)


def _other_story(
  dice: situations.Dice, level: str, known: set[str]
) -> situations.Story:
  while True:
    story = situations.tell(dice, level, '')
    if story.question not in known:
      return story


def _document(
  dice: situations.Dice, story: situations.Story, noise: Noise
) -> Document:
  right = situations.solve(story, situations.Author(), dice)[-1].result
  hasty = dice.chance(noise.hasty[int(story.level) - 1])
  author = situations.Author(
    trapped=noise.hasty_trapped if hasty else noise.careful_trapped,
    slip=noise.slip,
    wrong_sign=noise.wrong_sign,
  )
  steps = situations.solve(story, author, dice)
  if dice.chance(noise.stop_early):
    steps = steps[: dice.number(1, len(steps))]
  answer = steps[-1].result
  return Document(
    prompt=arithmetic.ask(story.question),
    completion=arithmetic.write_up(steps, answer),
    level=story.level,
    correct=answer == right,
  )
