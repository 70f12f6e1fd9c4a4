"""Rates of the verifiers: python -m bench.verify [math] [programs]

Judges real reference solutions against themselves and against those of other
problems, through the pool, without its cache. Needs REST_DATA.
"""

import gzip
import json
import os
import random
import sys
import time

from rest.verify import Pool, Request, VerifyConfig, math

_SEED = 0
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


def _read(path: str) -> list[dict]:
  opened = gzip.open if path.endswith('.gz') else open
  with opened(path, 'rt') as lines:
    return [json.loads(line) for line in lines]


def main() -> None:
  """Runs what is asked for, or everything."""
  folder = os.environ.get('REST_DATA', '')
  if not folder:
    raise SystemExit('Set REST_DATA to the folder of the problem sets.')
  asked = sys.argv[1:] or ['math']
  if 'math' in asked:
    bench_math(folder)


if __name__ == '__main__':
  main()
