"""A pool of killable workers that turns requests into verdicts.

One thread a worker waits for its reply, so that a hung worker costs its own
deadline and nothing else. A request whose worker hung or died is asked once
more, with no other request in progress; then its verdict is unknown. (Twice
more, where Linux killed the worker: it may have been another's fault.) Every
request gets exactly one verdict, whatever happens to the workers.

Stops: texts that hang, crash or fill their judge, which cost the run nothing.
Does not stop: a wrong verdict; what is right is the verifiers' business.
"""

import sys
import threading
import time
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from rest.config import VerifyConfig
from rest.types import Halted, Verdict
from rest.verify import request as requests
from rest.verify.child import Child
from rest.verify.request import Request

LATE = 'no verdict in time, twice'  # A reason.
_STARTS = 3  # Attempts to start a worker, before the pool waits or gives up.
_KILLED_SECONDS = 300.0  # How long workers may be killed before they are ready.
_KILLED = (
  'Verifier workers are killed while they start, as where memory runs out; '
  'waiting until they live.'
)
_HANG_SECONDS = 0.1  # How long the self-test's hang may last.
_SANDBOX = 'Programs run in a sandbox of level {!r}.'
_WEAK = ' WARNING: that stops hardly anything; see verify.allow_weak_sandbox.'


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
      Halted: A worker does not start.
      RuntimeError: A worker misjudges what is known.
    """
    for name in verifiers:
      if not requests.is_verifier(name):
        raise ValueError(
          f'Verifier {name!r} is not one of {requests.VERIFIERS}.'
        )
    self._config = config
    self._verifiers = verifiers
    self._changed = threading.Condition()  # Guards all that follows.
    self._waiting: deque[_Item] = deque()
    self._retries: deque[_Item] = deque()
    self._busy = 0
    self._alone = False  # Whether what is in progress is a retry.
    self._closed = False
    self._failure = ''  # Why no worker can be had any more.
    self._waits = False  # Whether it was said that workers are killed.
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

  @property
  def notice(self) -> str:
    """What whoever starts it should read: what holds programs; '' for none."""
    with self._changed:
      sandboxes = {child.sandbox for child in self._children.values()} - {''}
    return '\n'.join(
      _SANDBOX.format(level) + _WEAK * (level == 'rlimits')
      for level in sorted(sandboxes)
    )

  def submit(self, request: Request) -> 'Future[Verdict]':
    """Queues a request; blocks while the queue is full.

    Raises:
      Halted: Its workers cannot be started.
      RuntimeError: The pool is closed.
    """
    if request.verifier not in self._verifiers:
      raise ValueError(
        f'This pool judges {self._verifiers}, not {request.verifier!r}.'
      )
    if (request.verifier == 'program') != (request.tests is not None):
      raise ValueError('Tests go with programs, and with nothing else.')
    item = _Item(request)
    known = self._known(item)
    with self._changed:
      while not (self._closed or self._failure):
        if known is not None:  # No worker need be asked.
          self._count(item, known)
          item.future.set_result(known)
          return item.future
        if len(self._waiting) < self._config.queue:
          self._waiting.append(item)
          self._changed.notify_all()
          return item.future
        self._changed.wait()
    if self._failure:
      raise Halted(self._failure)
    raise RuntimeError('This pool is closed.')

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
    known = requests.known(self._verifiers)
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

  def _serve(self) -> None:
    """Serves one worker's place until the pool closes."""
    item = None
    try:
      child = self._start()
      while (item := self._take()) is not None:
        child = self._handle(item, child)
    except Halted as error:
      self._fail(item, str(error))
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
    verdict = self._known(item)  # It may have been judged in the meantime.
    was_killed = False
    if verdict is None:
      child = self._ready(child)
      hang = request.verifier == 'hang'
      seconds = _HANG_SECONDS if hang else self._config.timeout
      reply = child.ask(requests.message(request, item.claim), seconds)
      if reply is not None:
        verdict = Verdict(**reply)
      elif not self._closed:
        was_killed = child.was_killed
        child = self._start()
    if verdict is None and self._again(item, was_killed):
      return child
    unknown = requests.verdict(request, None, LATE)
    self._settle(item, verdict or unknown)
    return child

  def _ready(self, child: Child) -> Child:
    """Returns a worker that is ready: this one, or one that replaces it.

    Invariant: it waits only for workers that others kill; one that ends by
    itself, `_STARTS` times, is an error at once. Example: all are killed for a
    minute. The third start waits 1 s, the next 2 s, then 4, 8, 16, 32 s; the
    worker of that one gets ready, and is asked what the first would have been.
    """
    deadline = time.monotonic() + _KILLED_SECONDS
    starts = 0
    while not (child.alive and child.wait_ready()):
      starts += 1
      waits = child.was_killed and time.monotonic() < deadline
      if self._closed or (starts >= _STARTS and not waits):
        raise Halted('Verifier workers do not start; see their error above.')
      if starts >= _STARTS:
        self._pause(2.0 ** (starts - _STARTS))
      child = self._start()
    self._waits = False
    return child

  def _pause(self, seconds: float) -> None:
    """Waits, as long as the pool is open, and says so once for all threads."""
    with self._changed:
      if not self._waits:
        print(_KILLED, file=sys.stderr)
      self._waits = True
      self._changed.wait_for(lambda: self._closed or self._failure, seconds)

  def _start(self) -> Child:
    child = Child(self._config, self._verifiers)
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

  def _known(self, item: '_Item') -> Verdict | None:
    """Returns the verdict that needs no worker; None if one must be asked."""
    if item.claim is None:
      return requests.verdict(item.request, 0.0, 'no answer')
    with self._changed:
      verdict = self._cache.get(item.key)
      if verdict is not None:
        self._cache.move_to_end(item.key)
        self._counts['cached'] += 1
    return verdict

  def _again(self, item: '_Item', was_killed: bool) -> bool:
    """Queues an item whose worker hung or died, to be asked again, alone."""
    with self._changed:
      self._counts['killed'] += 1
      if self._closed or (item.retry and (item.killed or not was_killed)):
        return False
      item.killed = item.retry
      self._counts['retried'] += not item.retry
      item.retry = True
      self._busy -= 1
      self._retries.append(item)
      self._changed.notify_all()
    return True

  def _settle(self, item: '_Item', verdict: Verdict) -> None:
    with self._changed:
      self._busy -= 1
      self._alone = False
      self._count(item, verdict)
      self._changed.notify_all()
    if self._closed and verdict.reward is None:  # Nobody tried twice.
      item.future.set_exception(RuntimeError('This pool is closed.'))
    else:
      item.future.set_result(verdict)

  def _count(self, item: '_Item', verdict: Verdict) -> None:
    """Counts a verdict, and remembers it if it is one."""
    if verdict.reward is None:
      self._counts['unknown'] += 1
      return
    self._counts['correct' if verdict.reward == 1 else 'incorrect'] += 1
    self._cache[item.key] = verdict
    if len(self._cache) > self._config.cache:
      self._cache.popitem(last=False)

  def _fail(self, item: '_Item | None', why: str) -> None:
    """Ends the pool: without workers, nothing more will be judged."""
    with self._changed:
      self._failure = self._failure or why
      dropped = [item, *self._drop()] if item else self._drop()
    for lost in dropped:
      if not lost.future.done():
        lost.future.set_exception(Halted(why))


@dataclass(slots=True)
class _Item:
  request: Request
  retry: bool = False  # Is asked alone.
  killed: bool = False  # Its worker was killed when it was asked alone.
  future: 'Future[Verdict]' = field(default_factory=Future)
  claim: str | None = field(init=False)  # What of the text is judged.
  key: bytes = field(init=False)  # Of its verdict in the cache.

  def __post_init__(self) -> None:
    self.claim = requests.claim(self.request)
    self.key = requests.key(self.request, self.claim)
