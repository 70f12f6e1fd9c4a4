r"""Where the time of a profile went: python -m bench.trace RUN/profile/sample

Of what `python -m rest.main --profile` took of a phase: how long each device
worked, at what, and where the host's threads were meanwhile, by functions of
`rest`, what they called included.
"""

import pathlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax

import rest

_KERNELS = 25  # Named; the rest is one line.
_FUNCTIONS = 12  # A thread.
_SHORT = 0.02  # Share of the time below which a thread is left out.


class Span(NamedTuple):
  """Something that took time.

  Attributes:
    name: Of a kernel, without its number, or of a Python function.
    start: Seconds.
    end: Seconds.
  """

  name: str
  start: float
  end: float


def main() -> None:
  """Prints what the newest profile in the folder holds."""
  (folder,) = sys.argv[1:]
  files = sorted(pathlib.Path(folder).rglob('*.xplane.pb'))
  data = jax.profiler.ProfileData.from_file(str(files[-1]))
  ours = {
    path.name for path in pathlib.Path(rest.__file__).parent.rglob('*.py')
  }
  length = 0.0
  for plane in data.planes:
    if not plane.name.startswith('/device:GPU'):
      continue
    spans = [
      span
      for line in plane.lines
      if line.name.startswith('Stream')
      for span in _spans(line.events)
    ]
    if spans:
      length = _device(plane.name, spans)
  for plane in data.planes:
    if plane.name == '/host:CPU':
      for line in plane.lines:
        calls = [s for s in _spans(line.events) if _file(s.name) in ours]
        _thread(line.name, calls, length)


def _spans(events: Iterable[Any]) -> Iterator[Span]:
  for event in events:
    start = event.start_ns / 1e9
    yield Span(event.name, start, start + event.duration_ns / 1e9)


def _file(name: str) -> str:
  """Returns the file of a function: '$drawing.py:88 run' is of drawing.py."""
  return name.removeprefix('$').split(':')[0]


def _device(name: str, spans: list[Span]) -> float:
  """Prints what a device did; returns the seconds from first to last."""
  length = max(s.end for s in spans) - min(s.start for s in spans)
  busy = _covered(spans)
  print(f'{name}: {length:.3f} s, busy {busy:.3f} ({busy / length:.1%})')
  seconds: defaultdict[str, float] = defaultdict(float)
  times: Counter[str] = Counter()
  for span in spans:
    kernel = re.sub(r'[._]?\d+', '', span.name)[:60]
    seconds[kernel] += span.end - span.start
    times[kernel] += 1
  shown = sorted(seconds.items(), key=lambda x: -x[1])[:_KERNELS]
  for kernel, taken in shown:
    each = taken / times[kernel] * 1e6
    print(
      f'  {taken / length:6.1%} {times[kernel]:8} x {each:9.1f} us {kernel}'
    )
  other = (sum(seconds.values()) - sum(taken for _, taken in shown)) / length
  print(f'  {other:6.1%} of {len(seconds) - len(shown)} other kernels')
  return length


def _covered(spans: list[Span]) -> float:
  """Returns the seconds in which any of them was under way."""
  covered, until = 0.0, float('-inf')
  for span in sorted(spans, key=lambda span: span.start):
    covered += max(0.0, span.end - max(span.start, until))
    until = max(until, span.end)
  return covered


def _thread(name: str, calls: list[Span], length: float) -> None:
  """Prints in which functions a thread of the host was."""
  if not calls or _covered(calls) < _SHORT * length:
    return
  print(f'thread {name}: {_covered(calls):.3f} s in functions of rest')
  by_name: dict[str, list[Span]] = {}
  for call in calls:
    by_name.setdefault(call.name, []).append(call)
  taken = {name: _covered(spans) for name, spans in by_name.items()}
  for name in sorted(taken, key=taken.__getitem__, reverse=True)[:_FUNCTIONS]:
    print(f'  {taken[name]:8.3f} s {len(by_name[name]):7} x {name[1:]}')


if __name__ == '__main__':
  main()
