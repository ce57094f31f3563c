"""Manifests: what their rows are, and which are bad."""

import math

import pytest

from flexfas_jax.errors import DataError
from flexfas_jax.prediction import samples


def write(folder, *lines):
  (folder / 'm.csv').write_bytes('\n'.join(lines).encode('utf-8', 'surrogateescape'))
  return folder / 'm.csv'


def test_times(tmp_path):
  path = write(
    tmp_path, 'rgb,ir,rgb_time,infrared_time,capture_time', '1.jpg,1.png,1.5,,noon', '2.jpg,,2,,'
  )
  one, two = samples.read_manifest(path).samples
  # An empty cell of a sensor that is given: it has lost its clock.
  assert one.times['rgb'] == 1.5 and math.isnan(one.times['ir'])
  assert two.times == {'rgb': 2.0} and (one.row, two.row) == (2, 3)


@pytest.mark.parametrize(
  ('lines', 'says'),
  [
    (['rgb,rgb_time', '1.jpg,soon'], "row 2: rgb_time is 'soon', not a number of seconds"),
    (['rgb,rgb_time,color_time', '1.jpg,1,9'], 'row 2: there are two columns with the time of rgb'),
    (['rgb,rgb_time,rgb_time', '1.jpg,1,9'], 'rgb_time'),
    (['rgb,ir', 'a/1.png,a/./1.png'], 'row 2: rgb and ir are the same file, a/1.png'),
    (['rgb,ir', '1.png,/etc/1.png'], 'row 2: ir /etc/1.png is not below the root'),
    (['rgb,ir', '1.png,a/../../1.png'], 'row 2: ir ../1.png is not below the root'),
    (['rgb,id', '1.png,a', '2.png,a'], 'row 3: the id a is also that of row 2'),
    (['rgb', '1.png', '1.jpg'], 'row 3: the id 1 is also that of row 2'),
    (['rgb,id', '1.png,"a\nb"'], r"id 'a\\nb' has a line break"),
    (['rgb,subject', '1.png,"a\rb"'], 'has a line break'),
    (['rgb,id', '1.png,\udcff'], 'row 2.*not UTF-8'),
  ],
)
def test_bad_rows(tmp_path, lines, says):
  path = write(tmp_path, *lines)
  with pytest.raises(DataError, match=says):
    samples.read_manifest(path)


@pytest.mark.parametrize('name', ['thermal', 'ir1', 'depth_map', 'Infra1'])
def test_a_sensor_that_is_not_read_is_refused(tmp_path, name):
  path = write(tmp_path, f'rgb,label,{name}', '0.png,attack,', '1.png,attack,a/1.tiff')
  with pytest.raises(DataError, match=f'row 1: the column {name.lower()} holds images'):
    samples.read_manifest(path, on_bad='skip')
  path = write(tmp_path, f'rgb,{name}_camera', '1.png,2.5')  # no file
  assert len(samples.read_manifest(path).samples) == 1


def test_bad_rows_are_left_out(tmp_path):
  path = write(tmp_path, 'rgb,label', '1.png,attack', '../2.png,attack', '3.png,?', '4.png,attack')
  found = samples.read_manifest(path, on_bad='skip')
  assert [sample.id for sample in found.samples] == ['1', '4']
  assert [(bad.rule, bad.row) for bad in found.bad] == [('outside-root', 3), ('label', 4)]
  with pytest.raises(DataError, match='row 3: .*; row 4: '):
    samples.read_manifest(path)
