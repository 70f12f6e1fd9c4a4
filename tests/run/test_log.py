"""What a run says of itself while it runs."""

import io
import pathlib
import struct
import sys
from typing import Any

import pytest
from etils import epath
from tqdm import tqdm

from rest.run import tensorboard
from rest.run.log import Journal, LoggingConfig, read_journal
from rest.run.progress import Drawing, progress
from rest.types import Preempted


def _records(data: bytes) -> list[bytes]:
  """Reads an event file, as TensorBoard frames it."""
  found = []
  while data:
    (length,) = struct.unpack('<Q', data[:8])
    found.append(data[12 : 12 + length])
    data = data[16 + length :]
  return found


def test_the_checksum_is_castagnoli():
  assert tensorboard.crc32c(b'123456789') == 0xE3069283
  assert tensorboard.crc32c(bytes(32)) == 0x8A9136AA


def test_an_event_file_holds_what_was_written(tmp_path):
  with Journal(epath.Path(tmp_path)) as journal:
    journal.write('train', 2, 7, loss=0.5)
    journal.write('score', 2, None, test=0.25)
  (steps,) = (tmp_path / 'tensorboard/iteration_2').iterdir()
  version, step = _records(steps.read_bytes())
  assert version.endswith(b'brain.Event:2')
  assert step[9:11] == b'\x10\x07'  # Field 2, the step.
  assert b'train/loss' in step
  assert step.endswith(struct.pack('<f', 0.5))
  (whole,) = (tmp_path / 'tensorboard').glob('events*')
  assert b'score/test' in _records(whole.read_bytes())[1]


def test_a_journal_goes_on_after_a_broken_line(tmp_path):
  with Journal(epath.Path(tmp_path)) as journal:
    journal.write('train', 1, 1, loss=3.0)
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"kind": "tra')
  with Journal(epath.Path(tmp_path)) as journal:
    journal.write('train', 1, 2, loss=2.0)
  entries = list(read_journal(tmp_path))
  assert [entry['step'] for entry in entries] == [1, 2]
  assert entries[1]['loss'] == 2.0


def test_a_journal_without_a_folder_writes_and_says_nothing(capsys):
  with Journal() as journal:
    journal.write('train', 1, 1, loss=3.0)
    journal.say('kept 3 of 4')
  assert capsys.readouterr() == ('', '')


def _wandb_records(folder: pathlib.Path) -> list[Any]:
  """Reads the runs that W&B keeps where there is no network, oldest first."""
  import wandb
  from wandb.proto import wandb_internal_pb2

  wandb.teardown()  # Its process may still be writing when `finish` returns.
  found = []
  for path in sorted(folder.glob('wandb/offline-run-*/*.wandb')):
    data, at, record = path.read_bytes(), 7, b''  # After the file's header.
    while at + 7 <= len(data):
      left = 32768 - at % 32768  # Of the block, as in LevelDB's logs.
      if left < 7:
        at += left
        continue
      _, length, part = struct.unpack_from('<IHB', data, at)
      record += data[at + 7 : at + 7 + length]
      at += 7 + length
      if part in (1, 4):  # Whole, or the last one.
        found.append(wandb_internal_pb2.Record.FromString(record))
        record = b''
  return found


def test_a_run_that_is_started_again_goes_on_in_wandb(tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.setenv('WANDB_SILENT', 'true')
  workdir = epath.Path(tmp_path) / 'quickstart'
  stops = (ArithmeticError, Preempted, None)
  for step, stop in enumerate(stops, 1):
    try:
      with Journal(workdir, LoggingConfig('project'), {'seed': 3}) as journal:
        journal.write('train', 1, step, loss=1 / step)
        journal.write('score', 1, None, test=0.5)
        if stop:
          raise stop
    except (ArithmeticError, Preempted):
      pass
  records = _wandb_records(workdir)
  runs = [record.run for record in records if record.HasField('run')]
  assert len(runs) == 3
  assert {run.run_id for run in runs} == {
    (workdir / 'wandb_id.txt').read_text()
  }
  assert {run.display_name for run in runs} == {'quickstart'}
  config = {x.key: x.value_json for x in runs[0].config.update}
  assert config['seed'] == '3'
  rows = [record.history for record in records if record.HasField('history')]
  assert [row.step.num for row in rows] == list(range(6))
  values = {'/'.join(x.nested_key) or x.key: x.value_json for x in rows[2].item}
  assert values['train/loss'] == '0.5'
  assert values['train/step'] == '2'
  ends = [record.exit for record in records if record.HasField('exit')]
  assert [end.exit_code for end in ends] == [1, 1, 0]
  assert sum(record.HasField('preempting') for record in records) == 1


def test_another_run_in_a_folder_of_that_name_is_another_in_wandb(
  tmp_path, monkeypatch
):
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.setenv('WANDB_SILENT', 'true')
  for place in ('here', 'there'):
    (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / place)
    with Journal(epath.Path('quickstart'), LoggingConfig('project')):
      pass
  here, there = (
    (tmp_path / place / 'quickstart/wandb_id.txt').read_text()
    for place in ('here', 'there')
  )
  assert here != there


def test_bars_are_lines_where_nobody_watches(monkeypatch):
  stream = io.StringIO()
  monkeypatch.setattr(sys, 'stderr', stream)
  with (
    progress(4, 'iteration 1: training', 'steps') as bar,
    progress(2, 'validation', 'samples') as inner,
  ):
    bar.set_postfix_str('loss 0.5', refresh=False)
    bar.update(2)
    bar.refresh()
    inner.refresh()
  lines = stream.getvalue().split('\n')
  assert lines.pop() == ''
  assert all(line and line.isprintable() for line in lines)
  assert any('2 of 4' in line and 'loss 0.5' in line for line in lines)


def test_sampling_goes_on_where_bars_are_off():
  # As with TQDM_DISABLE=1.
  drawing = Drawing(tqdm(total=2, disable=True), 2, lambda: 0)
  for tokens in (3, 4):
    drawing.drawn([tokens])
