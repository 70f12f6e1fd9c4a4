"""Kills at system calls and a full disk; bench/survival.py tries the many."""

import pathlib
import shutil
import subprocess

import pytest

from bench import kills


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  """Has a run that nothing happened to, and its compiled programs."""
  folder = tmp_path_factory.mktemp('kills')
  assert kills.start(folder / 'whole') == 'finished'
  return folder


@pytest.mark.skipif(not shutil.which('strace'), reason='needs strace')
def test_killed_at_system_calls_the_results_are_the_same_bytes(folder):
  workdir = folder / 'killed'
  for call, count in (('rename', 12), ('fsync', 2)):
    # The run itself, or the process that judges for it.
    assert kills.kill(workdir, call, count) in kills.KILLED
  assert kills.ended(kills.start(workdir), workdir, folder / 'whole') == 'same'


def test_a_full_disk_is_one_line_and_then_the_same_bytes(folder):
  try:  # It has room for part files, and not for a checkpoint.
    how = kills.fill(folder / 'disk', 4500, folder / 'whole')
  except subprocess.CalledProcessError:
    pytest.skip('needs the right to mount a disk')
  assert how == 'same'
