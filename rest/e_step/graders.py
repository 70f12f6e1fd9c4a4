"""The graders of a run, as the process that feeds the device sees them."""

import contextlib
import itertools
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from rest.config import VerifyConfig
from rest.e_step import grader
from rest.e_step.grader import Done, Question, Sample, Setup, Work
from rest.types import Halted, Tokenizer, Verdict
from rest.verify import Request

_WORKERS = 4  # Interpreters that judge, a grader: it can feed no more of them.
_PROGRAM = f'from {grader.__name__} import main; main()'
_LEAVE_SECONDS = 10.0  # For a grader whose verifiers are at work.


class Graders:
  """Processes that make graded samples of drawn tokens; a context manager.

  A problem belongs to one of them, by its index.
  """

  def __init__(
    self,
    config: VerifyConfig,
    verifiers: tuple[str, ...],
    tokenizer: Tokenizer,
  ):
    """Starts them; the first who asks them waits until they are ready.

    Args:
      config: How many workers judge, and their limits.
      verifiers: Which verifiers the tasks will name.
      tokenizer: Of the model.
    """
    count = -(-config.workers // _WORKERS)
    self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self._numbers = itertools.count()
    self._questions: dict[int, Future[Verdict]] = {}  # Not answered yet.
    self._graders = [
      _Grader(
        Setup(
          # The workers are shared out evenly.
          replace(config, workers=-(-(config.workers - place) // count)),
          verifiers,
          tokenizer,
        )
      )
      for place in range(count)
    ]
    self._lists = 0
    self._starting = threading.Lock()
    self._is_ready = False
    self._failure: Exception | None = None

  def __enter__(self) -> 'Graders':
    return self

  def __exit__(self, *error: object) -> None:
    for one in self._graders:
      one.hang_up()
    deadline = time.monotonic() + _LEAVE_SECONDS
    for one in self._graders:
      one.close(deadline)

  def ready(self) -> None:
    """Returns once they have started, which takes seconds of other cores.

    Raises:
      Halted: One's workers do not start.
      RuntimeError: A worker misjudges what is known.
    """
    with self._starting:
      if self._is_ready:
        return
      for notice in sorted({one.wait_ready() for one in self._graders} - {''}):
        print(notice, file=sys.stderr)
      for one in self._graders:
        one.listen(self._take, self._answer)
      self._is_ready = True

  def submit(self, request: Request) -> 'Future[Verdict]':
    """Asks for one verdict, as `Pool.submit` does; any thread may.

    Raises:
      Halted, OSError: Why a grader has ended; so does all that waits.
    """
    self.ready()
    future: Future[Verdict] = Future()
    number = next(self._numbers)
    self._questions[number] = future
    if self._failure:  # Looked at last, or who fails them might miss this one.
      raise self._failure
    self._graders[number % len(self._graders)].send(Question(number, request))
    return future

  def grading(self, work: Work) -> 'Grading':
    """Grades the samples of a list.

    Nobody waits for what is not done when the next one begins, or the run ends:
    it is dropped.
    """
    self.ready()
    self._lists += 1
    for one in self._graders:
      one.send(replace(work, number=self._lists))
    return Grading(self._graders, self._results, self._lists)

  def _take(self, result: Any) -> None:
    """Takes what is not an answer: of a list, or why a grader has ended."""
    if isinstance(result, Exception):
      self._failure = result
      for number in [*self._questions]:
        self._answer(Question(number, result))
    self._results.put(result)

  def _answer(self, question: Question) -> None:
    future = self._questions.pop(question.number, None)
    if future is None:  # It has failed with another grader.
      return
    if isinstance(question.asked, Verdict):
      future.set_result(question.asked)
    elif isinstance(question.asked, BaseException):
      future.set_exception(question.asked)


class Grading:
  """A list of problems whose samples are graded while they are drawn.

  Attributes:
    unjudged: Samples sent, of problems that are not settled.
  """

  def __init__(
    self,
    graders: 'list[_Grader]',
    results: 'queue.SimpleQueue[Any]',
    number: int,
  ):
    self._graders = graders
    self._results = results
    self._number = number
    self._left = len(graders)
    self._sent: dict[int, int] = {}  # Samples by problem, while unsettled.

  @property
  def unjudged(self) -> int:
    return sum(self._sent.values())

  def send(self, samples: Iterable[Sample]) -> None:
    """Has samples graded; waits where the graders are too far behind."""
    shares: dict[int, list[Sample]] = {}
    for sample in samples:
      shares.setdefault(sample.index % len(self._graders), []).append(sample)
      self._sent[sample.index] = self._sent.get(sample.index, 0) + 1
    for place, share in shares.items():
      self._graders[place].send(share)

  def settled(self) -> Iterator[Done]:
    """Yields the problems that were settled since it was last asked."""
    while not self._results.empty():
      yield from self._next()

  def finish(self) -> Iterator[Done]:
    """Yields the problems that are left, once all samples are sent."""
    for one in self._graders:
      one.send(grader.END)
    while self._left:
      yield from self._next()

  def _next(self) -> Iterator[Done]:
    result = self._results.get()
    if isinstance(result, Exception):
      raise result
    if result.number != self._number:
      return  # Of a list before, which was dropped.
    if isinstance(result, Done):
      self._sent.pop(result.index, None)
      yield result
    else:
      self._left -= 1


class _Grader:
  """One process, and the socket through which it is told."""

  def __init__(self, setup: Setup):
    ours, its = socket.socketpair()
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
    with its:
      self._process = subprocess.Popen(
        # As a module, its messages would be of classes of their own.
        [sys.executable, '-P', '-c', _PROGRAM, str(its.fileno())],
        pass_fds=[its.fileno()],
        env=environment,
        # What a terminal sends to the run is the run's to deal with.
        start_new_session=True,
      )
    self._to = Connection(ours.detach())
    self._sending = threading.Lock()
    self._thread: threading.Thread | None = None
    # It reads once it has imported: a tokenizer is more than a pipe holds.
    self._telling = threading.Thread(target=self.send, args=(setup,))
    self._telling.start()

  def wait_ready(self) -> str:
    """Returns what it has to say, once it can judge.

    Raises:
      Halted: Its workers do not start.
      RuntimeError: A worker misjudges what is known.
    """
    found = self._receive()
    if isinstance(found, Exception):
      raise found
    return found[1]

  def listen(self, take: Any, answer: Any) -> None:
    """Gives what it sends to `take`, and verdicts to `answer`."""

    def read() -> None:
      while True:
        found = self._receive()
        if isinstance(found, Question):
          answer(found)
        else:
          take(found)
        if isinstance(found, Exception):
          return

    self._thread = threading.Thread(target=read, daemon=True)
    self._thread.start()

  def send(self, message: object) -> None:
    """Sends it a message; any thread may."""
    # The reader tells if it has gone.
    with self._sending, contextlib.suppress(ConnectionError):
      self._to.send(message)

  def hang_up(self) -> None:
    """Lets it leave."""
    with (
      contextlib.suppress(OSError),  # It has left.
      socket.socket(fileno=os.dup(self._to.fileno())) as ours,
    ):
      ours.shutdown(socket.SHUT_WR)

  def close(self, deadline: float) -> None:
    """Waits until it has left, and no longer than to the deadline."""
    try:
      self._process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    for thread in (self._telling, self._thread):
      if thread:
        thread.join()
    self._to.close()

  def _receive(self) -> Any:
    try:
      return self._to.recv()
    except (EOFError, ConnectionError):
      status = self._process.wait()
      return Halted(
        f'A process that judges ended by itself, with status {status}. What '
        'was judged is on disk: run the same command again to go on.'
      )
