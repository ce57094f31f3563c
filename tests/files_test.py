"""Atomic writes."""

import os
import pathlib

import pytest

from flexfas_jax import files


def test_a_file_is_replaced_whole(tmp_path):
  path = tmp_path / 'a.json'
  files.write_text(path, 'one\n')
  files.write_text(path, 'two\n')
  assert path.read_text() == 'two\n'
  assert os.listdir(tmp_path) == ['a.json']  # no temporary file is left


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'a.json'
  files.write_text(path, 'one\n')

  def full(self, content):
    raise OSError('no space left on device')

  monkeypatch.setattr(type(path), 'write_bytes', full)
  with pytest.raises(OSError, match='no space'):
    files.write_text(path, 'two\n')
  assert path.read_text() == 'one\n'
  assert os.listdir(tmp_path) == ['a.json']


def test_names_that_are_no_utf_8_are_escaped(tmp_path):
  path = tmp_path / 'a.txt'
  files.write_text(path, 'a\udcffb\n')
  assert path.read_bytes() == b'a\\udcffb\n'


def test_what_is_no_regular_file_is_written_to():
  read, write = os.pipe()
  files.write_text(pathlib.Path(f'/dev/fd/{write}'), 'text')
  assert os.read(read, 10) == b'text'
