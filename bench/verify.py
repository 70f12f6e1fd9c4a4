"""Rates of the verifiers: python -m bench.verify [what ...]

What is `math` and `programs` unless said otherwise. Judges real references
against themselves and against those of other problems, through the pool,
without its cache. `references` prints which of the published programs do not
pass; `soak` judges 100,000 programs and prints what the pool holds meanwhile.
Needs REST_DATA.
"""

import concurrent.futures
import gzip
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from rest import tasks
from rest.types import Tests
from rest.verify import Pool, Request, VerifyConfig, math

_SEED = 0
_ROUNDS = 5
_HELD_OUT = 90  # Validation problems of MBPP: all that it has.
_SETS = {'humaneval': '', 'humaneval_plus': '', 'mbpp': '', 'mbpp_plus': 'all'}
_SOAK = 100_000  # Programs.
_EVERY = 10  # Rounds between two lines of the soak.
_DAEMON = 'import os, time\nif os.fork() == 0:\n  time.sleep(1000)'
_CASES = pathlib.Path(__file__).parents[1] / 'tests/data/math_cases.jsonl'
_PAIRS = 40_000  # Of different answers, drawn within each subject.
# One in a hundred of the mixed stream.
_HOSTILE = (
  r'\boxed{10^{10^{10^{10}}}}',
  r'\boxed{99999999!}',
  r'\boxed{((9!)!)!}',
  r'\boxed{9^{9^{9^9}}}',
  r'\boxed{\binom{10^8}{5\cdot10^7}}',
  r'\boxed{(a+b+c+d+e)^{40}-(a+b+c+d)^{40}}',
  r'\boxed{\int_0^1 x^x dx}',
  r'\boxed{' + '(' * 1000 + 'x' + ')' * 1000 + '}',
  r'\boxed{' + r'\frac{1}{' * 300 + 'x' + '}' * 301,
  r'\boxed{\sqrt{' + '7' * 4000 + '}}',
  r'\boxed{' * 20_000,
  '"123 "' * 7_500,
  '#### 1' + ' ' * 19_900 + 'x',
  'final answer is ' * 5_000,
)


def bench_math(folder: str) -> None:
  """Prints verdicts per second on GSM8K and MATH, and what pairs come out."""
  gsm8k = [
    (record['answer'], record['answer'].split('####')[1].strip())
    for split in ('train', 'test')
    for record in _read(f'{folder}/gsm8k/{split}.jsonl')
  ]
  records = [
    record
    for split in ('train', 'test')
    for record in _read(f'{folder}/math/{split}.jsonl.gz')
  ]
  solutions = [(r['solution'], math.extract(r['solution'])) for r in records]
  solutions = [(text, answer) for text, answer in solutions if answer]
  with Pool(VerifyConfig(cache=0), ('math',)) as pool:
    _report('GSM8K against itself', pool, gsm8k)
    _report('GSM8K against others', pool, _shuffled(gsm8k))
    _report('MATH against itself', pool, solutions)
    others = _shuffled(solutions)
    plain = _report('MATH against others', pool, others)
    mixed = [
      (text if i % 100 else _HOSTILE[i // 100 % len(_HOSTILE)], gold)
      for i, (text, gold) in enumerate(others)
    ]
    rate = _report('  with 1 % hostile', pool, mixed)
    print(f'  {plain / rate:.2f} times slower')
    print(f'  {pool.stats}')
  _report_pairs(records)
  _report_cases()


def _report_cases() -> None:
  """Prints how many of the labelled cases are judged as labelled."""
  cases = [json.loads(line) for line in _CASES.read_text().splitlines()]
  wrong = [
    case
    for case in cases
    if math.is_equivalent(case['gold'], case['prediction']) != case['equal']
  ]
  accepted = sum(not case['equal'] for case in wrong)
  print(
    f'{len(cases) - len(wrong)} of {len(cases)} labelled cases are right;'
    f' {accepted} false positives, {len(wrong) - accepted} false negatives'
  )


def _report(name: str, pool: Pool, pairs: list[tuple[str, str]]) -> float:
  """Prints and returns the verdicts per second on (text, gold) pairs."""
  start = time.perf_counter()
  futures = [pool.submit(Request('math', *pair)) for pair in pairs]
  correct = sum(future.result().reward == 1 for future in futures)
  rate = len(pairs) / (time.perf_counter() - start)
  print(f'{name:24} {rate:7.0f} verdicts/s, {correct} of {len(pairs)} correct')
  return rate


def _report_pairs(records: list[dict]) -> None:
  """Prints which different references of a subject come out equal."""
  draw = random.Random(_SEED)
  subjects: dict[str, set[str]] = {}
  for record in records:
    answer = math.extract(record['solution'])
    if answer:
      subjects.setdefault(record['type'], set()).add(answer)
  groups = [sorted(subjects[name]) for name in sorted(subjects)]
  equal = []
  for i in range(_PAIRS):
    gold, answer = draw.sample(groups[i % len(groups)], 2)
    if math.judge(gold, answer).reward == 1:
      equal.append((gold, answer))
  print(f'{_PAIRS} pairs of different texts, {len(equal)} are equal:')
  for pair in equal:
    print('  {}  =  {}'.format(*pair))


def _shuffled(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
  golds = [gold for _, gold in pairs]
  random.Random(_SEED).shuffle(golds)
  return [(text, gold) for (text, _), gold in zip(pairs, golds, strict=True)]


def bench_programs(folder: str) -> None:
  """Prints programs per second: in the sandbox, and in bare interpreters.

  Both judge HumanEval's references by their checks, turn by turn, so that
  whatever else the host does falls on both. The bare ones run tests and program
  in one process, with no limit and no isolation.
  """
  records = _read(f'{folder}/humaneval/HumanEval.jsonl.gz')
  rates: dict[str, list[float]] = {
    'sandbox, tests apart': [],
    'python -I -S': [],
  }
  workers = os.cpu_count() or 1
  config = VerifyConfig(workers=workers, cache=0, nice=0)  # As the bare ones.
  with Pool(config, ('program',)) as pool:
    for i in range(_ROUNDS + 1):
      found = [_time(_sandboxed, pool, records), _time(_bare, workers, records)]
      if i:  # The first round warms up.
        for name, rate in zip(rates, found, strict=True):
          rates[name].append(rate)
  for name, found in rates.items():
    median, best = statistics.median(found), max(found)
    print(f'{name:24} {median:7.0f} programs/s, best {best:.0f}')
  ratios = [a / b for a, b in zip(*rates.values(), strict=True)]
  print(f'  {statistics.median(ratios):.2f} times as fast')


def bench_references(folder: str) -> None:
  """Prints which references of the published sets do not pass their tests."""
  with Pool(VerifyConfig(cache=0), ('program',)) as pool:
    for name, split in _SETS.items():
      held_out = _HELD_OUT if name == 'mbpp' else 0
      task = tasks.make(
        tasks.TaskConfig(
          name, f'{folder}/{name}', split=split, num_validation=held_out
        )
      )
      problems = [p for part in tasks.SPLITS for p in task.problems(part)]
      start = time.perf_counter()
      futures = [
        pool.submit(
          Request('program', task.program(p, task.target(p)), tests=p.tests)
        )
        for p in problems
      ]
      verdicts = [future.result() for future in futures]
      seconds = time.perf_counter() - start
      failed = {
        problem.id: verdict.reason
        for problem, verdict in zip(problems, verdicts, strict=True)
        if verdict.reward != 1
      }
      passed = len(problems) - len(failed)
      print(
        f'{name:16} {passed} of {len(problems)} references pass in'
        f' {seconds:.0f} s; not {failed}'
      )


def soak(folder: str) -> None:
  """Judges many programs, and prints what the workers hold, again and again.

  References, wrong programs, crashes and daemons take turns. Descriptors,
  processes and memory must stay the same.
  """
  records = _read(f'{folder}/humaneval/HumanEval.jsonl.gz')
  tests = [Tests('assert', r['test'], r['entry_point']) for r in records]
  programs = [r['prompt'] + r['canonical_solution'] for r in records]
  programs[::7] = [_DAEMON] * len(programs[::7])
  programs[::11] = ['import os\nos._exit(0)'] * len(programs[::11])
  with Pool(VerifyConfig(cache=0), ('program',)) as pool:
    for i in range(0, _SOAK, len(programs)):
      futures = [
        pool.submit(Request('program', text, tests=test))
        for text, test in zip(programs, tests, strict=True)
      ]
      unknown = sum(f.result().reward is None for f in futures)
      if i // len(programs) % _EVERY == 0:
        print(f'{i:7} programs: {_held()}, {unknown} unknown', flush=True)


def _held() -> str:
  """Returns what this process and its descendants hold."""
  processes = _family(os.getpid())
  descriptors = memory = zombies = 0
  for pid in processes:
    status = pathlib.Path(f'/proc/{pid}/status').read_text()
    fields = dict(line.split(':', 1) for line in status.splitlines())
    zombies += fields['State'].split()[0] == 'Z'
    memory += int(fields.get('VmRSS', '0 kB').split()[0])
    descriptors += len(os.listdir(f'/proc/{pid}/fd'))
  return (
    f'{len(processes)} processes, {zombies} zombies, {descriptors} descriptors,'
    f' {memory >> 10} MiB'
  )


def _family(pid: int) -> list[int]:
  found = [pid]
  for task in pathlib.Path(f'/proc/{pid}/task').iterdir():
    for child in (task / 'children').read_text().split():
      found += _family(int(child))
  return found


def _sandboxed(pool: Pool, records: list[dict]) -> int:
  futures = [
    pool.submit(
      Request(
        'program',
        record['prompt'] + record['canonical_solution'],
        tests=Tests('assert', record['test'], record['entry_point']),
      )
    )
    for record in records
  ]
  return sum(future.result().reward == 1 for future in futures)


def _bare(workers: int, records: list[dict]) -> int:
  def run(record: dict) -> bool:
    script = '\n'.join(
      [
        record['prompt'] + record['canonical_solution'],
        record['test'],
        f'check({record["entry_point"]})',
      ]
    )
    command = [sys.executable, '-I', '-S', '-c', script]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0

  with concurrent.futures.ThreadPoolExecutor(workers) as threads:
    return sum(threads.map(run, records))


def _time(judge: Callable[..., int], *arguments: Any) -> float:
  """Returns the programs per second of a judge that must pass them all."""
  start = time.perf_counter()
  passed = judge(*arguments)
  seconds = time.perf_counter() - start
  assert passed == len(arguments[-1]), f'{judge.__name__} passed {passed}.'
  return passed / seconds


def _read(path: str) -> list[dict]:
  opened = gzip.open if path.endswith('.gz') else open
  with opened(path, 'rt') as lines:
    return [json.loads(line) for line in lines]


def main() -> None:
  """Runs what is asked for, or everything."""
  folder = os.environ.get('REST_DATA', '')
  if not folder:
    raise SystemExit('Set REST_DATA to the folder of the problem sets.')
  asked = sys.argv[1:] or ['math', 'programs']
  if 'math' in asked:
    bench_math(folder)
  if 'programs' in asked:
    bench_programs(folder)
  if 'references' in asked:
    bench_references(folder)
  if 'soak' in asked:
    soak(folder)


if __name__ == '__main__':
  main()
