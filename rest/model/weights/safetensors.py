"""The safetensors format, read by ranges of rows and written as a stream.

A file is the length of its header (eight bytes), the header (JSON: dtype, shape
and byte range of each tensor), then the bytes. This reader knows bfloat16,
works on gs:// paths, and reads no more rows than asked for; it is safe to use
from several threads.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

_DTYPES = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
_CHUNK = 1 << 24  # Numbers read at once.
_LONGEST_HEADER = 100_000_000  # Bytes; the same as in the safetensors library.
_NAMES = {str(dtype): name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Tensor:
  """Where a tensor lies.

  Attributes:
    file: The file.
    kind: Type of its numbers, as the file names it.
    shape: As the file has it.
    start: Offset of its first byte in the file.
    stop: Offset behind its last byte.
  """

  file: epath.Path
  kind: str
  shape: tuple[int, ...]
  start: int
  stop: int

  @property
  def dtype(self) -> np.dtype[Any]:
    """NumPy's name for `kind`."""
    return _DTYPES[self.kind]


def index(path: str) -> dict[str, Tensor]:
  """Returns all tensors of a checkpoint directory by name.

  As in transformers, model.safetensors counts before an index, an index only
  says which files there are, and of a tensor in two of them the last counts.
  Only headers are read.

  Raises:
    FileNotFoundError: There are no weights, or a shard of them is missing.
    ValueError: A file is truncated, or is no safetensors file; the index is
      none; or two shards give a tensor different shapes.
  """
  folder = epath.Path(path)
  listing = folder / 'model.safetensors.index.json'
  if (folder / 'model.safetensors').exists():
    return _read_header(folder / 'model.safetensors')
  if not listing.exists():
    raise FileNotFoundError(
      f'{path} holds neither model.safetensors nor {listing.name}.'
    )
  shards = _read_listing(listing)
  tensors: dict[str, Tensor] = {}
  for name in sorted(set(shards.values())):
    if not (folder / name).exists():
      raise FileNotFoundError(f'{listing} names {name}, which is not there.')
    found = _read_header(folder / name)
    for twice in tensors.keys() & found.keys():
      if tensors[twice].shape != found[twice].shape:
        raise ValueError(
          f'{folder / name}: {twice} has shape {found[twice].shape}, but '
          f'{tensors[twice].shape} in {tensors[twice].file.name}.'
        )
    tensors |= found
  for name, shard in shards.items():
    if name not in tensors:
      raise ValueError(f'{listing} places {name} in {shard}; it is not there.')
  return tensors


def read_rows(tensor: Tensor, start: int, stop: int) -> np.ndarray:
  """Returns rows of a tensor, in the file's dtype; the array is read-only."""
  dtype = tensor.dtype
  row_bytes = math.prod(tensor.shape[1:]) * dtype.itemsize
  size = (stop - start) * row_bytes
  with tensor.file.open('rb') as file:
    file.seek(tensor.start + start * row_bytes)
    data = file.read(size)
  if len(data) != size:
    raise ValueError(f'{tensor.file} became shorter while it was read.')
  rows = np.frombuffer(data, dtype)
  return rows.reshape(stop - start, *tensor.shape[1:])


def check_kind(name: str, tensor: Tensor) -> None:
  """Raises ValueError if the tensor's numbers are none that we read."""
  if tensor.kind not in _DTYPES:
    raise ValueError(
      f'{tensor.file}: {name} has dtype {tensor.kind}, which is not supported; '
      f'expected one of {", ".join(_DTYPES)}.'
    )


def same(a: Tensor, b: Tensor) -> bool:
  """Whether two tensors hold the same numbers; reads a few rows at a time."""
  known = {a.kind, b.kind} <= _DTYPES.keys()
  if a.shape != b.shape or not a.shape or not known:
    return False
  rows = max(1, _CHUNK // max(1, math.prod(a.shape[1:])))
  for start in range(0, a.shape[0], rows):
    stop = min(start + rows, a.shape[0])
    left, right = (read_rows(x, start, stop).astype('f8') for x in (a, b))
    if not np.array_equal(left, right):
      return False
  return True


def is_zero(tensor: Tensor) -> bool:
  """Whether a tensor holds zeros only."""
  if tensor.kind not in _DTYPES or not tensor.shape:
    return False
  return not read_rows(tensor, 0, tensor.shape[0]).astype('f8').any()


def plan(
  shapes: dict[str, tuple[int, ...]], dtype: str, limit: int
) -> list[list[str]]:
  """Returns the names of the tensors of each file, at most `limit` bytes."""
  files: list[list[str]] = [[]]
  room = limit
  for name, shape in shapes.items():
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > room and files[-1]:
      files.append([])
      room = limit
    files[-1].append(name)
    room -= size
  return files


def write(
  folder: epath.Path,
  shapes: dict[str, tuple[int, ...]],
  tensors: Iterator[np.ndarray],
  dtype: str,
  limit: int,
) -> None:
  """Writes model.safetensors, or shards of it with their index.

  Args:
    folder: An existing directory.
    shapes: By name, in the order of `tensors`.
    tensors: The arrays, one at a time.
    dtype: Of all tensors.
    limit: Most bytes of tensors in one file.
  """
  files = plan(shapes, dtype, limit)
  weight_map: dict[str, str] = {}
  total = 0
  for i, names in enumerate(files):
    name = f'model-{i + 1:05}-of-{len(files):05}.safetensors'
    name = 'model.safetensors' if len(files) == 1 else name
    entries, end = _layout(names, shapes, dtype)
    header = json.dumps(entries).encode()
    header += b' ' * (-len(header) % 8)  # So that tensors are aligned.
    with (folder / name).open('wb') as file:
      file.write(len(header).to_bytes(8, 'little') + header)
      for tensor_name in names:
        tensor = np.ascontiguousarray(next(tensors), dtype)
        assert tensor.shape == shapes[tensor_name]
        file.write(tensor.tobytes())
    weight_map |= dict.fromkeys(names, name)
    total += end
  if len(files) > 1:
    listing = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    text = json.dumps(listing, indent=2) + '\n'
    (folder / 'model.safetensors.index.json').write_text(text)


def _layout(
  names: Sequence[str], shapes: Mapping[str, tuple[int, ...]], dtype: str
) -> tuple[dict[str, Any], int]:
  """Returns the header of one file, and how many bytes follow it."""
  entries: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  end = 0
  for name in names:
    start = end
    end += math.prod(shapes[name]) * np.dtype(dtype).itemsize
    entries[name] = {
      'dtype': _NAMES[dtype],
      'shape': list(shapes[name]),
      'data_offsets': [start, end],
    }
  return entries, end


def _read_listing(listing: epath.Path) -> dict[str, str]:
  """Returns the name of the file of each tensor."""
  try:
    shards = json.loads(listing.read_text())['weight_map']
    if all(isinstance(shard, str) for shard in shards.values()):
      return shards
  except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
    pass
  raise ValueError(
    f'{listing} is no index: it must be JSON with a weight_map, which gives '
    'the file of each tensor.'
  )


def _read_header(file: epath.Path) -> dict[str, Tensor]:
  """Returns the tensors of a file, whose bytes they must share without gaps.

  Invariant: in order of place, each starts where the one before stops, from
  the end of the header to that of the file. So none can overlap, lie outside
  the file, or hide behind another of its name.

  Example: a header of 200 bytes with a of [0, 8] and b of [8, 32] needs a file
  of 8 + 200 + 32 bytes; b of [4, 28] would start in the middle of a.
  """
  size = file.stat().length
  with file.open('rb') as f:
    length = int.from_bytes(f.read(8), 'little')
    if size < 8 or length > size - 8:
      raise ValueError(
        f'{file} is truncated, or no safetensors file: it has {size} bytes, '
        f'its header alone would have {length}.'
      )
    text = f.read(length) if length <= _LONGEST_HEADER else b''
  try:
    entries = dict(json.loads(text))
  except (RecursionError, TypeError, ValueError) as error:
    raise ValueError(
      f'{file} is no safetensors file: of its header of {length} bytes, JSON '
      f'says {error}.'
    ) from error
  entries.pop('__metadata__', None)
  end = 8 + length
  tensors = {
    name: _tensor(file, name, entry, end) for name, entry in entries.items()
  }
  for name in sorted(tensors, key=lambda name: tensors[name].start):
    if tensors[name].start != end:
      raise ValueError(
        f'{file}: {name} starts at byte {tensors[name].start}, but what is '
        f'before it stops at {end}.'
      )
    end = tensors[name].stop
  if size != end:
    raise ValueError(
      f'{file} is truncated, or its header is wrong: that promises {end} '
      f'bytes, there are {size}.'
    )
  return tensors


def _tensor(file: epath.Path, name: str, entry: Any, base: int) -> Tensor:
  match entry:
    case {
      'dtype': str(kind),
      'shape': [*shape],
      'data_offsets': [start, stop],
    } if all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop)):
      pass
    case _:
      raise ValueError(f'{file}: {name} is no tensor, but {entry!r:.100}.')
  tensor = Tensor(file, kind, tuple(shape), base + start, base + stop)
  # What else there is, such as whole numbers in a part that nobody reads, is
  # refused where it is wanted.
  if kind in _DTYPES:
    size = math.prod(shape) * _DTYPES[kind].itemsize
    if stop - start != size:
      raise ValueError(
        f'{file}: {name} has {stop - start} bytes, which is not {kind} '
        f'{tensor.shape}.'
      )
  return tensor
