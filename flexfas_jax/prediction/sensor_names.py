"""Which sensor a path or a column names, and whether that is clear.

`naming.modality_of` reads whole words between separators: `a/depth/1.png`, `1_ir.jpg`. A path in
which it finds none is of RGB. That is right for `alice/1.jpg` and wrong for `thermal/1.png` or
`ir1/1.png`, so a name that looks like a sensor's and is not read is refused here.
"""

import re
from typing import NamedTuple

from flexfas_jax.protocols import path_layouts

READ = ', '.join(path_layouts.MODALITY_WORDS)

# In lower case, a run of letters of a name. 'rgbd' names several sensors, so it says nothing.
_SENSOR = re.compile(
  r'(?!rgbd$)\w*(?:rgb|depth|infra|therm|disparity)\w*|[nsml]?w?ir'
  r'|ir(?:s|l|r|left|right|raw|cam|camera|map|frame|image|img|data)s?'
  r'|colou?r|profile|flir|lidar|radar|tof|uv|polari[sz]ation|confidence'
)
_LETTERS = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+')  # 'DepthMap1': Depth, Map


class Sensor(NamedTuple):
  """The sensor that a path names."""

  modality: str  # 'rgb' where it names none
  name: str  # the folder or file that names it; '' where none does
  plain: bool  # the name ends in the sensor's word: 'depth', 'a_depth'; a file's in numbers too


class Unclear(Exception):
  """A path names a sensor that is not read, or two; the text says which."""


def of_path(path: str) -> Sensor:
  """The sensor of an image, by its path.

  The last part of the path that names a sensor decides; 'thermal_study/rgb/1.png' is of RGB.

  Args:
    path: with forward slashes, below the folder that is read.

  Raises:
    Unclear: that part names a sensor that is not read, or two; or a folder above it is called as
      another sensor is, as in 'depth/color/1.png', a colour map.
  """
  folder, slash, file = path.rpartition('/')
  stem = file.rpartition('.')[0] or file
  found = None
  for i, part in enumerate(reversed(f'{folder}{slash}{stem}'.split('/'))):
    words = [word for word in re.split('[_.-]', part) if word]
    read = [path_layouts.modality_of(f'{word}.x') for word in words]
    unread = [w for w, m in zip(words, read, strict=True) if not m and is_sensor(w)]
    named = sorted(set(filter(None, read)))
    if found:
      alone = all(m or w in unread for w, m in zip(words, read, strict=True))
      if words and alone and (unread or named != [found.modality]):
        raise Unclear(f'{part} and {found.name} name two sensors')
      continue
    if unread:
      raise Unclear(f'{part} is not a name of a sensor that is read ({READ})')
    if len(named) > 1:
      raise Unclear(f'{part} names two sensors')
    if named:
      after = words[max(at for at, modality in enumerate(read) if modality) + 1 :]
      found = Sensor(named[0], part, not after or (i == 0 and all(map(str.isdigit, after))))
  return found or Sensor('rgb', '', True)


def is_sensor(name: str) -> bool:
  """Whether a name holds a word for a sensor, also one that is not read: 'depthmap', 'IR 1'."""
  words = [*_LETTERS.findall(name), *re.findall('[A-Za-z]+', name)]  # the latter: ToF, LiDAR
  return any(_SENSOR.fullmatch(word.lower()) for word in words)
