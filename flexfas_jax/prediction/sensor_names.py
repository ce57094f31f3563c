"""Finds the sensor that a path or a column names.

`path_layouts.modality_of` reads whole words between separators: `a/depth/1.png`, `1_ir.jpg`. A path
without such a word is RGB. That is right for `alice/1.jpg` and wrong for `thermal/1.png` or
`ir1/1.png`: names that look like those of other sensors are errors.
"""

import re
from typing import NamedTuple

from flexfas_jax.protocols import path_layouts

RECOGNIZED = ', '.join(path_layouts.MODALITY_WORDS)

# Matches a lower-case run of letters of a name. 'rgbd' names several sensors, hence none.
_SENSOR = re.compile(
  r'(?!rgbd$)\w*(?:rgb|depth|infra|therm|disparity)\w*|[nsml]?w?ir'
  r'|ir(?:s|l|r|left|right|raw|cam|camera|map|frame|image|img|data)s?'
  r'|colou?r|profile|flir|lidar|radar|tof|uv|polari[sz]ation|confidence'
)
_LETTERS = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+')  # 'DepthMap1': Depth, Map


class Sensor(NamedTuple):
  """The sensor that a path names."""

  modality: str  # 'rgb' if the path names none
  name: str  # the folder or file that names it; '' if none does
  plain: (
    bool  # the name ends in the sensor's word: 'depth', 'a_depth'; in a file, numbers may follow
  )


class UnclearName(Exception):
  """A path names an unsupported sensor, or two; the message names them."""


def find_sensor(path: str) -> Sensor:
  """Finds the sensor of an image by the last part of its path that names one.

  'thermal_study/rgb/1.png' is RGB.

  Args:
    path: with forward slashes, relative to the folder of the samples.

  Raises:
    UnclearName: that part names an unsupported sensor, or two; or a folder above it has the name of
      another sensor, as in 'depth/color/1.png', a colour map.
  """
  folder, slash, file = path.rpartition('/')
  stem = file.rpartition('.')[0] or file
  sensor = None
  for i, part in enumerate(reversed(f'{folder}{slash}{stem}'.split('/'))):
    words = [word for word in re.split('[_.-]', part) if word]
    modalities = [path_layouts.modality_of(f'{word}.x') for word in words]
    pairs = list(zip(words, modalities, strict=True))
    unsupported = [word for word, modality in pairs if not modality and is_sensor(word)]
    named = sorted(set(filter(None, modalities)))
    if sensor:  # check the folders above it
      only_sensors = all(modality or word in unsupported for word, modality in pairs)
      if words and only_sensors and (unsupported or named != [sensor.modality]):
        raise UnclearName(f'{part} and {sensor.name} name two sensors')
      continue
    if unsupported:
      raise UnclearName(f'{part} does not name a supported sensor ({RECOGNIZED})')
    if len(named) > 1:
      raise UnclearName(f'{part} names two sensors')
    if named:
      last = max(at for at, modality in enumerate(modalities) if modality)
      after = words[last + 1 :]
      is_file = i == 0
      plain = not after or (is_file and all(map(str.isdigit, after)))
      sensor = Sensor(named[0], part, plain)
  return sensor or Sensor('rgb', '', True)


def is_sensor(name: str) -> bool:
  """Whether a name holds a word for any sensor, supported or not: 'depthmap', 'IR 1'."""
  words = [*_LETTERS.findall(name), *re.findall('[A-Za-z]+', name)]  # the latter: ToF, LiDAR
  return any(_SENSOR.fullmatch(word.lower()) for word in words)
