"""What is damaged is what is missing."""

import contextlib
import gzip

import jax.numpy as jnp
import pytest

from rest.model.fingerprint import fingerprint
from rest.run import digests, part, store
from rest.types import Completion, Graded, Verdict

# Of the lines; of the file as it stands on disk below.
DAMAGES = {
  'empty': lambda data: b'',
  'cut at a line': lambda data: data[: data.index(b'\n') + 1],
  'cut in a line': lambda data: data[:-10],
  'NUL': lambda data: bytes(len(data)),
  'binary': lambda data: bytes(range(256)) * 4,
  'foreign': lambda data: b'{"not": "ours"}\n',
  'a line twice': lambda data: data[: data.index(b'\n') + 1] + data,
  'a bit flipped in the text': lambda data: data.replace(b'42', b'43', 1),
  'a bit flipped in a number': lambda data: data.replace(b'5, 2]', b'5, 3]', 1),
}


def _rows(problem: str = 'p') -> list[Graded]:
  return [
    Graded(
      problem,
      sample,
      'q',
      Completion(f'{sample} 42', (5, 2), (), 'token'),
      Verdict(1.0, 'equal', 'math-1'),
    )
    for sample in range(3)
  ]


FILE_DAMAGES = {
  'empty': lambda data: b'',
  'cut': lambda data: data[:-1],
  'NUL': lambda data: bytes(len(data)),
  'more behind it': lambda data: data + bytes(8),
  'twice': lambda data: data + data,
  'not packed': lambda data: gzip.decompress(data),
  'lines of two files': lambda data: _packed(gzip.decompress(data) * 2),
} | {
  name: lambda data, damage=damage: _packed(damage(gzip.decompress(data)))
  for name, damage in DAMAGES.items()
}


def _packed(lines: bytes) -> bytes:
  return gzip.compress(lines, mtime=0)


@pytest.mark.parametrize('name', FILE_DAMAGES)
def test_a_damaged_part_is_put_aside_and_missing(tmp_path, name):
  parts = store.Parts(tmp_path)
  for index, problem in enumerate('pq'):
    parts.write(index, _rows(problem))
  path = tmp_path / 'part-000000.jsonl.gz'
  data = path.read_bytes()
  assert parts.mend(['p', 'q']) == []
  damaged = FILE_DAMAGES[name](data)
  assert damaged != data
  path.write_bytes(damaged)
  (why,) = parts.mend(['p', 'q'])
  assert str(path) in why
  assert parts.done() == {1}
  assert path.with_name(f'{path.name}.damaged-1').read_bytes() == damaged
  parts.write(0, _rows())
  assert path.read_bytes() == data


def test_a_part_of_another_problem_or_a_folder_in_its_place_is_put_aside(
  tmp_path,
):
  parts = store.Parts(tmp_path)
  parts.write(0, _rows('q'))
  (tmp_path / 'part-000001.jsonl.gz').mkdir()
  first, second = parts.mend(['p', 'q'])
  assert 'another problem' in first
  assert 'part-000001.jsonl.gz.damaged-1' in second
  assert parts.done() == set()


def test_a_file_of_some_problems_is_whole_or_put_aside_with_all(tmp_path):
  parts = store.Parts(tmp_path)
  parts.write_together({5: _rows('f'), 0: _rows('a'), 3: _rows('d')})
  parts.write(1, _rows('b'))
  path = tmp_path / 'part-000000-000003-000005.jsonl.gz'
  data = path.read_bytes()
  assert parts.mend('abcdef') == []
  two = data[: data.rindex(b'\x1f\x8b')]
  for damaged in (data[:-1], data + data, two, bytes(len(data))):
    path.write_bytes(damaged)
    (why,) = parts.mend('abcdef')
    assert str(path) in why
    assert parts.done() == {1}
    path.write_bytes(data)
  (why,) = parts.mend('abcxef')
  assert 'another problem' in why


def test_no_bit_of_a_part_can_flip_and_change_a_sample(tmp_path):
  parts = store.Parts(tmp_path)
  parts.write(0, _rows())
  path = tmp_path / 'part-000000.jsonl.gz'
  data = path.read_bytes()
  for bit in range(8 * len(data)):
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(store.Damaged):
      assert part.unpack(bytes(flipped), path) == [_rows()]


@pytest.mark.parametrize('damage', ['none', *DAMAGES])
def test_parts_of_older_runs_are_not_packed_and_are_read(tmp_path, damage):
  parts = store.Parts(tmp_path)
  lines = ''.join(part.to_line(row, 3) for row in _rows()).encode()
  path = tmp_path / 'part-000000.jsonl'
  path.write_bytes(DAMAGES[damage](lines) if damage != 'none' else lines)
  parts.write(1, _rows('q'))
  assert parts.done() == {0, 1}
  said = parts.mend(['p', 'q'])
  assert len(said) == (damage != 'none')
  if damage == 'none':
    assert parts.read(0) == _rows()
    assert list(parts.read_done()) == [_rows(), _rows('q')]


def test_parts_of_still_older_runs_have_no_checksums_and_are_read(tmp_path):
  parts = store.Parts(tmp_path)
  path = tmp_path / 'part-000000.jsonl'
  lines = [part.to_line(row, 3) for row in _rows()]
  old = [f'{line[: line.index(", " + chr(34) + "of")]}}}' for line in lines]
  path.write_text('\n'.join(old) + '\n')
  assert parts.mend(['p']) == []
  assert parts.read(0) == _rows()


def test_a_file_that_is_not_what_was_noted_is_put_aside(tmp_path):
  path = tmp_path / 'test.json'
  said: list[str] = []
  store.write_json(path, {'pass_1': 0.5})
  assert digests.is_there(path, said.append)  # Nothing is known of it.
  digests.note(path)
  assert digests.is_there(path, said.append)
  path.write_text(path.read_text().replace('5', '6'))
  assert not digests.is_there(path, said.append)
  assert 'test.json.damaged-1' in said[0]
  assert not path.exists()
  path.mkdir()
  assert not digests.is_there(path, said.append)
  assert 'test.json.damaged-2' in said[1]


def test_broken_digests_say_nothing(tmp_path):
  path = tmp_path / 'test.json'
  store.write_json(path, {})
  (tmp_path / 'digests.json').write_text('{')
  assert digests.is_there(path, print)
  digests.note(path)
  assert digests.noted(path)


def test_weights_are_known_by_every_bit_and_its_place():
  weights = {'a': jnp.arange(6.0).reshape(2, 3), 'b': jnp.ones(4, jnp.bfloat16)}
  known = fingerprint(weights)
  assert fingerprint(dict(weights)) == known
  a, b = weights['a'], weights['b']
  flipped = a.at[1, 2].set(jnp.nextafter(a[1, 2], 9.0))
  assert fingerprint({'a': flipped, 'b': b}) != known
  assert fingerprint({'a': a[::-1], 'b': b}) != known
  assert fingerprint({'a': a[:, ::-1], 'b': b}) != known
  assert fingerprint({'a': a, 'c': b}) != known
