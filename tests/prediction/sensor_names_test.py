"""Which sensor a path names."""

import pytest

from flexfas_jax.prediction import sensor_names


@pytest.mark.parametrize(
  ('path', 'modality', 'plain'),
  [
    ('1.png', 'rgb', True),
    ('alice/first/1.png', 'rgb', True),  # no sensor's word: 'first' holds 'ir'
    ('Irene/girls/circle.png', 'rgb', True),
    ('a/Depth/1.png', 'depth', True),
    ('p/nir/1.png', 'ir', True),
    ('s1_infrared/1.png', 'ir', True),
    ('a_ir.jpg', 'ir', True),
    ('ir_0001.png', 'ir', True),
    ('ir/ir_0001.png', 'ir', True),
    ('Val/0001/000000-color.jpg', 'rgb', True),
    ('thermal_study/rgb/1.png', 'rgb', True),  # what is deepest decides
    ('wmca_rgbd/depth/1.png', 'depth', True),
    ('RGBD/1.png', 'rgb', True),
    ('depth_map/1.png', 'depth', False),
    ('IR_0/1.png', 'ir', False),
    ('depth_alice_01.png', 'depth', False),
  ],
)
def test_what_is_clear(path, modality, plain):
  found = sensor_names.find_sensor(path)
  assert (found.modality, found.plain) == (modality, plain)


@pytest.mark.parametrize(
  'path',
  [
    *('ir1/1.png', 'infra1/1.png', 'infra/1.png', 'infrared2/1.png', 'IRLeft/1.png', 'irL/1.png'),
    *('thermal/1.png', 'Thermal_0/1.png', 'swir/1.png', 'lwir/1.png', 'flir/1.png', 'tof/1.png'),
    *('ToF/1.png', '1_LiDAR.png', 'a/FLiR0/1.png'),
    *('depthmap/1.png', 'DepthMap/1.png', 'depth map/1.png', 'depths/1.png', 'disparity/1.png'),
    *('1_thermal.png', '1_ir2.png', '1_depthmap.png', 'confidence/1.png', 'uv/1.png', 'irs/1.png'),
    *('rgb2/1.png', 'a/b/ir1/c/1.png'),
  ],
)
def test_a_sensor_that_is_not_read(path):
  with pytest.raises(sensor_names.UnclearName, match='does not name a supported sensor'):
    sensor_names.find_sensor(path)


@pytest.mark.parametrize(
  'path',
  [
    'depth/color/1.png',  # a colour map
    'depth_color/1.png',
    'aligned_depth_to_color/1.png',
    'rgb/1_depth.png',
    'thermal/rgb/1.png',
    'ir1/color/1.png',
  ],
)
def test_two_sensors(path):
  with pytest.raises(sensor_names.UnclearName, match='two sensors'):
    sensor_names.find_sensor(path)
