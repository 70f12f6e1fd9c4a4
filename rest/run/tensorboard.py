"""TensorBoard event files, written without TensorFlow.

A file is a list of records (length, checksum, bytes, checksum), each of them
an `Event` protocol buffer; scalars need six of its fields. A library for this,
tensorboardX, loads torch wherever it is installed: seconds at every start.
"""

import struct


def _crc_table() -> tuple[int, ...]:
  table = []
  for value in range(256):
    for _ in range(8):
      value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    table.append(value)
  return tuple(table)


_CRC_TABLE = _crc_table()


def header(time: float) -> bytes:
  """Returns what a file begins with; `time` is in seconds since 1970."""
  return _record(_double(1, time) + _bytes(3, b'brain.Event:2'))


def scalars(time: float, step: int, values: dict[str, float]) -> bytes:
  """Returns the record of a step's values, by tag."""
  summary = b''.join(
    _bytes(1, _bytes(1, tag.encode()) + _float(2, value))
    for tag, value in values.items()
  )
  return _record(_double(1, time) + _int(2, step) + _bytes(5, summary))


def crc32c(data: bytes) -> int:
  """Returns the Castagnoli checksum (RFC 3720, appendix B.4)."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
  return crc ^ 0xFFFFFFFF


def _record(data: bytes) -> bytes:
  length = struct.pack('<Q', len(data))
  return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
  # Rotated and shifted, so that a checksum of checksums is no fixed point.
  crc = crc32c(data)
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
  return struct.pack('<I', masked)


def _varint(value: int) -> bytes:
  out = bytearray()
  while value > 0x7F:
    out.append(value & 0x7F | 0x80)
    value >>= 7
  out.append(value)
  return bytes(out)


def _int(field: int, value: int) -> bytes:
  return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
  return _varint(field << 3 | 1) + struct.pack('<d', value)


def _bytes(field: int, value: bytes) -> bytes:
  return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
  return _varint(field << 3 | 5) + struct.pack('<f', value)
