"""A process in which drawn tokens become graded samples: text, verdict, file.

The process that feeds the device leaves all this to others: making text,
finding answers and writing files would take turns with it in one interpreter.
No device library is imported here, and what a model wrote goes from here to
the verifiers' interpreters only.
"""

import contextlib
import pickle
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from etils import epath

from rest.config import EStepConfig, VerifyConfig
from rest.e_step.choose import meets_cap
from rest.e_step.verdicts import Answers
from rest.model.completion import complete
from rest.run import store
from rest.types import Graded, Problem, Task, Tokenizer, Verdict
from rest.verify import Pool, Request, make_request

_WRITERS = 8  # Files that are written at once: on gs:// each takes 50 ms.
_TOGETHER = 32  # Problems in a file on gs://, at most.
_GATHER_SECONDS = 5.0  # For which the first of them waits for others.
_AHEAD = 4  # Messages that are read before the first of them is done with.


@dataclass(frozen=True, slots=True)
class Setup:
  """What a grader is told once.

  Attributes:
    config: How many workers judge, and their limits.
    verifiers: Whose verdicts may be asked for.
    tokenizer: Of the model.
  """

  config: VerifyConfig
  verifiers: tuple[str, ...]
  tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class Work:
  """What is made of the samples of a list of problems.

  Attributes:
    task: How they were asked, and who judges.
    num_samples: Of each problem.
    enough: By which a problem's first samples may make further ones needless;
      None: all are wanted.
    folder: Gets part files, a problem each, on gs:// some; None: nothing goes
      to disk.
    number: Of the list. With the next one, what is left of it is dropped.
  """

  task: Task
  num_samples: int
  enough: EStepConfig | None = None
  folder: epath.Path | None = None
  number: int = 0


class Sample(NamedTuple):  # Pickled in a fifth of a dataclass's time.
  """A completion as it was drawn.

  Attributes:
    index: Of its problem, which names the part file.
    problem: Comes with the first sample of it.
    sample: Its number.
    tokens: As int32.
  """

  index: int
  problem: Problem | None
  sample: int
  tokens: bytes


@dataclass(frozen=True, slots=True)
class Done:
  """All samples of a problem of a list, judged, in order, and on disk."""

  number: int
  index: int
  rows: list[Graded]


@dataclass(frozen=True, slots=True)
class Over:
  """Nothing more comes of a list."""

  number: int


@dataclass(frozen=True, slots=True)
class Question:
  """A verdict that is asked for by itself, and in the end the verdict."""

  number: int
  asked: Request | Verdict | BaseException


READY, END, WRITTEN, GATHERED = 'ready', 'end', 'written', 'gathered'


class Grader:
  """Judges one list of problems after another.

  Invariant: all state belongs to the thread in `run`. Others only put messages
  into its inbox: the reader what the parent sends, verdicts the index of their
  problem, writers that they are done. So a problem is settled once, and each is
  in `_answers` from its first sample to its settling, then in `_over`.

  Example: of a problem with two samples come 1, its verdict, 0, its verdict.
  With the last, `settle` says that all are judged; its file is written by
  another thread, which then sends it to the parent.
  """

  def __init__(self, to: Connection, tokenizer: Tokenizer, pool: Pool):
    self._to = to
    self._sending = threading.Lock()
    self._tokenizer = tokenizer
    self._pool = pool
    self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self._room = threading.Semaphore(_AHEAD)
    self._writers = ThreadPoolExecutor(_WRITERS)
    self._settled: dict[int, list[Graded]] = {}  # They wait for others.
    self._unwritten = 0  # Problems whose files are being written.
    self._answers: dict[int, Answers] = {}
    self._ends = False

  def run(self) -> None:
    """Works until the parent goes; raises what a verdict or a file raises."""
    threading.Thread(target=self._read, daemon=True).start()
    while (message := self._inbox.get()) is not None:
      if isinstance(message, int):
        self._settle(message)
      elif message == WRITTEN:
        self._unwritten -= 1
        self._leave()
      elif message == GATHERED:
        self._write_settled()
      elif isinstance(message, Exception):
        raise message
      else:
        self._handle(message)
        self._room.release()
    self._write_settled()  # A run that is killed loses none of them.
    self._writers.shutdown()  # On gs:// nothing is written while Python ends.

  def send(self, message: object) -> None:
    """Sends to the parent; any thread may."""
    with self._sending:
      self._to.send_bytes(pickle.dumps(message))

  def _read(self) -> None:
    while True:
      self._room.acquire()
      try:
        message = self._to.recv()
      except (EOFError, ConnectionError):  # The parent has gone.
        self._pool.close()
        self._inbox.put(None)
        return
      self._inbox.put(message)

  def _handle(self, message: object) -> None:
    match message:
      case Work():
        self._write_settled()
        for answers in self._answers.values():
          answers.cancel()
        self._work = message
        self._answers.clear()
        self._over: set[int] = set()
        self._ends = False
        config = message.enough
        self._is_enough: Callable[[Sequence[Graded]], bool] = (
          (lambda rows: meets_cap(rows, config))
          if config
          else lambda rows: False
        )
      case list():
        for sample in message:
          self._take(sample)
      case Question(number, Request() as request):
        self._pool.submit(request).add_done_callback(
          lambda future: self.send(Question(number, _outcome(future)))
        )
      case _:  # END
        self._ends = True
        self._gather()
        self._leave()

  def _take(self, sample: Sample) -> None:
    """Judges a sample, unless enough of its problem are judged."""
    if sample.index in self._over:
      return
    work = self._work
    if (problem := sample.problem) is not None:
      self._answers[sample.index] = Answers(
        problem, work.task.question(problem), work.num_samples, self._is_enough
      )
    answers = self._answers[sample.index]
    tokens = memoryview(sample.tokens).cast('i').tolist()
    completion = complete(tokens, (), self._tokenizer, work.task.stop)
    request = make_request(
      work.task, answers.problem, completion.text, answers.prompt
    )
    verdict = self._pool.submit(request)  # Waits where the queue is full.
    answers.add(sample.sample, completion, verdict)
    verdict.add_done_callback(lambda _: self._inbox.put(sample.index))

  def _settle(self, index: int) -> None:
    answers = self._answers.get(index)
    if answers is None or not answers.settle():
      return
    del self._answers[index]
    self._over.add(index)
    self._settled[index] = answers.judged
    self._gather()

  def _gather(self) -> None:
    """Has what is settled written, unless it is to wait for others.

    On gs:// it waits, since each file is a request. To the run, what waits is
    in flight: it hears of a problem once that is on disk.
    """
    folder = self._work.folder
    waits = folder is not None and '://' in str(folder)
    is_last = self._ends and not self._answers
    if not waits or is_last or len(self._settled) == _TOGETHER:
      self._write_settled()
    elif len(self._settled) == 1:
      timer = threading.Timer(_GATHER_SECONDS, self._inbox.put, (GATHERED,))
      timer.daemon = True
      timer.start()

  def _write_settled(self) -> None:
    if self._settled:
      self._unwritten += len(self._settled)
      self._writers.submit(self._write, self._work, self._settled)
      self._settled = {}

  def _write(self, work: Work, groups: dict[int, list[Graded]]) -> None:
    try:
      if work.folder is not None:
        store.Parts(work.folder).write_together(groups)
      for index, rows in groups.items():
        self.send(Done(work.number, index, rows))
        self._inbox.put(WRITTEN)
    except Exception as error:  # As where the disk is full.
      self._inbox.put(error)

  def _leave(self) -> None:
    """Tells the parent when all of a list is written that was to come."""
    if not self._ends or self._answers or self._settled:
      return
    if not self._unwritten:
      self.send(Over(self._work.number))


def _outcome(future: 'Future[Verdict]') -> Verdict | BaseException:
  return future.exception() or future.result()


def main() -> None:
  """Serves the parent at the other end of the socket."""
  with Connection(socket.socket(fileno=int(sys.argv[1])).detach()) as to:
    try:
      setup: Setup = to.recv()
      with Pool(setup.config, setup.verifiers) as pool:
        to.send((READY, pool.notice))
        Grader(to, setup.tokenizer, pool).run()
    except (EOFError, ConnectionError):
      pass  # The parent has gone.
    except Exception as error:
      error.add_note(traceback.format_exc())
      with contextlib.suppress(OSError):
        to.send(error)
