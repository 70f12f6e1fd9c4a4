"""A pool of killable workers that turns requests into verdicts.

One thread a worker waits for its reply, so that a hung worker costs its own
deadline and nothing else. A request whose worker hung or died is asked once
more, with no other request in progress; then its verdict is unknown. Every
request gets exactly one verdict, whatever happens to the workers.

Stops: texts that hang, crash or fill their judge, which cost the run nothing.
Does not stop: a wrong verdict; what is right is the verifiers' business.
"""

import hashlib
import sys
import threading
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field

from rest.config import VerifyConfig
from rest.types import Problem, Task, Tests, Verdict
from rest.verify import exact, math
from rest.verify.child import Child

_ANSWERS = {'math': math, 'exact': exact}  # Who judge an extracted answer.
_VERIFIERS = (*_ANSWERS, 'program', 'hang')
LATE = 'no verdict in time, twice'  # A reason.
_STARTS = 3  # Attempts to start a worker, before the pool gives up.
_HANG_SECONDS = 0.1  # How long the self-test's hang may last.
_SANDBOX = 'Programs run in a sandbox of level {!r}.'
_WEAK = ' WARNING: that stops hardly anything; see verify.allow_weak_sandbox.'


@dataclass(frozen=True, slots=True)
class Request:
  """One text to be judged.

  Attributes:
    verifier: 'math', 'exact' or 'program'; or 'hang', which never answers,
      for drills.
    text: The completion; for 'program', the whole program.
    gold: The reference answer or solution, for 'math' and 'exact'.
    tests: How the program is judged, for 'program'.
  """

  verifier: str
  text: str
  gold: str = ''
  tests: Tests | None = None


def make_request(task: Task, problem: Problem, text: str) -> Request:
  """Returns what the pool is asked about a completion's text."""
  if task.verifier == 'program':
    program = task.program(problem, text)
    return Request('program', program, tests=problem.tests)
  return Request(task.verifier, text, gold=problem.answer or '')


@dataclass(frozen=True, slots=True)
class Stats:
  """What a pool has done so far.

  Attributes:
    correct: Verdicts of reward 1.
    incorrect: Verdicts of reward below 1.
    unknown: Verdicts of no reward.
    cached: How many of these verdicts came from the cache.
    retried: Requests asked a second time.
    killed: Workers that hung or died, and were replaced.
    waiting: Requests without a verdict now.
  """

  correct: int
  incorrect: int
  unknown: int
  cached: int
  retried: int
  killed: int
  waiting: int


class Pool:
  """Judges requests in worker processes; a context manager."""

  def __init__(self, config: VerifyConfig, verifiers: tuple[str, ...]):
    """Starts the workers and tests them.

    Args:
      config: How many workers, and their limits.
      verifiers: Which verifiers the requests will name.

    Raises:
      RuntimeError: A worker does not start, or misjudges what is known.
    """
    for name in verifiers:
      if name not in _VERIFIERS:
        raise ValueError(f'Verifier {name!r} is not one of {_VERIFIERS}.')
    self._config = config
    self._verifiers = verifiers
    self._changed = threading.Condition()  # Guards all that follows.
    self._waiting: deque[_Item] = deque()
    self._retries: deque[_Item] = deque()
    self._busy = 0
    self._alone = False  # Whether what is in progress is a retry.
    self._closed = False
    self._failure = ''  # Why no worker can be had any more.
    self._counts: Counter[str] = Counter()
    self._cache: OrderedDict[bytes, Verdict] = OrderedDict()
    self._children: dict[str, Child] = {}  # By the name of their thread.
    self._threads = [
      threading.Thread(target=self._serve, name=f'verify-{i}', daemon=True)
      for i in range(config.workers)
    ]
    for thread in self._threads:
      thread.start()
    try:
      self._self_test()
    except BaseException:
      self.close()
      raise

  def __enter__(self) -> 'Pool':
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  @property
  def stats(self) -> Stats:
    """Counts so far, the start-up self-test left out."""
    with self._changed:
      waiting = len(self._waiting) + len(self._retries) + self._busy
      names = [n for n in Stats.__slots__ if n != 'waiting']
      counts = {name: self._counts[name] for name in names}
    return Stats(**counts, waiting=waiting)

  def submit(self, request: Request) -> 'Future[Verdict]':
    """Queues a request; blocks while the queue is full.

    Raises:
      RuntimeError: The pool is closed, or its workers cannot be started.
    """
    if request.verifier not in self._verifiers:
      raise ValueError(
        f'This pool judges {self._verifiers}, not {request.verifier!r}.'
      )
    if (request.verifier == 'program') != (request.tests is not None):
      raise ValueError('Tests go with programs, and with nothing else.')
    item = _Item(request)
    with self._changed:
      while not (self._closed or self._failure):
        if len(self._waiting) < self._config.queue:
          self._waiting.append(item)
          self._changed.notify_all()
          return item.future
        self._changed.wait()
    raise RuntimeError(self._failure or 'This pool is closed.')

  def close(self) -> None:
    """Kills what runs, cancels what waits, and leaves no process behind."""
    with self._changed:
      self._closed = True
      dropped = self._drop()
      if self._busy:
        for child in self._children.values():
          child.kill()
    for item in dropped:
      item.future.cancel()
    for thread in self._threads:
      thread.join()

  def _drop(self) -> 'list[_Item]':
    dropped = [*self._waiting, *self._retries]
    self._waiting.clear()
    self._retries.clear()
    self._changed.notify_all()
    return dropped

  def _self_test(self) -> None:
    """Asks what is known; a verifier that misbehaves must not start a run."""
    known = _known(self._verifiers)
    verdicts = [self.submit(request) for request, _ in known]
    for (request, reward), future in zip(known, verdicts, strict=True):
      verdict = future.result()
      if verdict.reward != reward:
        raise RuntimeError(
          f'The {request.verifier} verifier misjudges a known case: expected '
          f'reward {reward}, got {verdict} for {request}.'
        )
    # Queued as a retry, so that it is asked once only.
    hang = _Item(Request('hang', ''), retry=True)
    with self._changed:
      self._retries.append(hang)
      self._changed.notify_all()
    if hang.future.result().reward is not None:
      raise RuntimeError('A worker that hangs was not killed at its deadline.')
    with self._changed:
      self._counts.clear()
      self._cache.clear()
      sandboxes = {child.sandbox for child in self._children.values()} - {''}
    for level in sandboxes:
      print(
        _SANDBOX.format(level) + _WEAK * (level == 'rlimits'), file=sys.stderr
      )

  def _serve(self) -> None:
    """Serves one worker's place until the pool closes."""
    item = None
    try:
      child = self._start()
      while (item := self._take()) is not None:
        child = self._handle(item, child)
    except Exception as error:  # Without a thread, items would wait for ever.
      self._fail(item, f'The verifier pool failed: {error!r}')
    finally:
      if last := self._children.get(threading.current_thread().name):
        last.close()

  def _handle(self, item: '_Item', child: Child) -> Child:
    """Settles an item, or queues it for its retry; returns the worker now.

    Invariant: an item that was taken leaves here settled or in the queue of
    retries, once at most, and the worker that is returned has no request open.
    Example: a worker is killed while it judges x. It is replaced, x is queued;
    once nothing else runs x is asked alone, and a second loss makes it unknown.
    """
    request = item.request
    claim = _claim(request)
    key = _key(request, claim)
    verdict = self._recall(key)
    if verdict is None and claim is None:
      verdict = _verdict(request, 0.0, 'no answer')
    if verdict is None:
      child = self._ready(child)
      hang = request.verifier == 'hang'
      seconds = _HANG_SECONDS if hang else self._config.timeout
      reply = child.ask(_message(request, claim), seconds)
      if reply is not None:
        verdict = Verdict(**reply)
      elif not self._closed:
        child = self._start()
    if verdict is None and self._again(item):
      return child
    unknown = _verdict(request, None, LATE)
    self._settle(item, key, verdict or unknown)
    return child

  def _ready(self, child: Child) -> Child:
    """Returns a worker that is ready: this one, or one that replaces it."""
    for _ in range(_STARTS):
      if child.alive and child.wait_ready():
        return child
      if self._closed:
        break
      child = self._start()
    raise RuntimeError('Verifier workers do not start; see their error above.')

  def _start(self) -> Child:
    child = Child(
      self._verifiers,
      memory=self._config.memory,
      nice=self._config.nice,
      allow_weak_sandbox=self._config.allow_weak_sandbox,
    )
    with self._changed:
      self._children[threading.current_thread().name] = child
    return child

  def _take(self) -> '_Item | None':
    """Returns the next item to ask, or None when the pool is over.

    A retry waits until nothing else runs, and nothing else runs beside it.
    """
    with self._changed:
      while not (self._closed or self._failure):
        item = None
        if self._retries:
          if not self._busy:
            item = self._retries.popleft()
        elif self._waiting and not self._alone:
          item = self._waiting.popleft()
          self._changed.notify_all()  # There is room in the queue.
          if not item.future.set_running_or_notify_cancel():
            continue
        if item is not None:
          self._busy += 1
          self._alone = item.retry
          return item
        self._changed.wait()
    return None

  def _recall(self, key: bytes) -> Verdict | None:
    with self._changed:
      verdict = self._cache.get(key)
      if verdict is not None:
        self._cache.move_to_end(key)
        self._counts['cached'] += 1
    return verdict

  def _again(self, item: '_Item') -> bool:
    """Queues an item whose worker hung or died, to be asked once, alone."""
    with self._changed:
      self._counts['killed'] += 1
      if item.retry or self._closed:
        return False
      item.retry = True
      self._busy -= 1
      self._counts['retried'] += 1
      self._retries.append(item)
      self._changed.notify_all()
    return True

  def _settle(self, item: '_Item', key: bytes, verdict: Verdict) -> None:
    with self._changed:
      self._busy -= 1
      self._alone = False
      if verdict.reward is None:
        self._counts['unknown'] += 1
      else:
        self._counts['correct' if verdict.reward == 1 else 'incorrect'] += 1
        self._cache[key] = verdict
        if len(self._cache) > self._config.cache:
          self._cache.popitem(last=False)
      self._changed.notify_all()
    if self._closed and verdict.reward is None:  # Nobody tried twice.
      item.future.set_exception(RuntimeError('This pool is closed.'))
    else:
      item.future.set_result(verdict)

  def _fail(self, item: '_Item | None', why: str) -> None:
    """Ends the pool: without workers, nothing more will be judged."""
    with self._changed:
      self._failure = self._failure or why
      dropped = [item, *self._drop()] if item else self._drop()
    for lost in dropped:
      if not lost.future.done():
        lost.future.set_exception(RuntimeError(why))


@dataclass(slots=True)
class _Item:
  request: Request
  retry: bool = False
  future: 'Future[Verdict]' = field(default_factory=Future)


def _claim(request: Request) -> str | None:
  """Returns what is judged: the answer in the text, or the program."""
  if request.verifier in _ANSWERS:
    return _ANSWERS[request.verifier].extract(request.text)
  return request.text


def _key(request: Request, claim: str | None) -> bytes:
  """Returns a digest of all that the verdict depends on."""
  version = _verdict(request, None, '').verifier
  parts = repr((version, request.gold, claim, request.tests))
  data = parts.encode(errors='surrogatepass')
  return hashlib.blake2b(data, digest_size=16).digest()


def _message(request: Request, claim: str | None) -> dict[str, object]:
  """Returns what a worker is sent."""
  message: dict[str, object] = {'verifier': request.verifier, 'text': claim}
  if request.tests is None:
    return message | {'gold': request.gold}
  return message | {'tests': asdict(request.tests)}


def _verdict(request: Request, reward: float | None, reason: str) -> Verdict:
  """Returns a verdict that needed no worker, or that none would give."""
  judge = _ANSWERS.get(request.verifier)
  return Verdict(reward, reason, judge.VERSION if judge else request.verifier)


def _known(verifiers: tuple[str, ...]) -> list[tuple[Request, float]]:
  """Returns requests whose rewards are beyond doubt."""
  known: list[tuple[Request, float]] = []
  if 'math' in verifiers:
    known += [
      (
        Request('math', r'So it is $\boxed{\frac{\sqrt{8}}{2}}$.', r'\sqrt2'),
        1,
      ),
      (Request('math', 'The total is 17.\n#### 17', '18'), 0),
      (Request('math', r'\boxed{x^2 - 1}', '(x - 1)(x + 2)'), 0),
    ]
  if 'exact' in verifiers:
    known += [
      (Request('exact', 'So the answer is (B).', '(B)'), 1),
      (Request('exact', 'So the answer is (A).', '(B)'), 0),
    ]
  if 'program' in verifiers:
    tests = Tests('assert', 'def check(f):\n  assert f(2) == 3\n', 'f')
    echo = Tests('stdin', inputs=('7\n',), outputs=('7\n',))
    known += [
      (Request('program', 'def f(x):\n  return x + 1\n', tests=tests), 1),
      (Request('program', 'def f(x):\n  return x\n', tests=tests), 0),
      (Request('program', 'while True:\n  pass\n', tests=echo), 0),
      (Request('program', 'import os\nos._exit(0)\n', tests=tests), 0),
    ]
  return known
