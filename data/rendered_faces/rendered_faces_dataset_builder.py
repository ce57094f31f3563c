"""TFDS builder of the rendered faces. See README.md in this folder."""

import re

import tensorflow_datasets as tfds

from flexfas_jax.data import triplets
from flexfas_jax.data.rendered_faces import populations, render
from flexfas_jax.data.rendered_faces.v2 import attacks, domains
from flexfas_jax.errors import ConfigError

_CURRENT = 2  # the version of a config's name without one
_DESCRIPTIONS = {
  (1, 'surf_like'): 'cut photos; background blacked out; depth as 8-bit visualisation',
  (1, 'cefa_like'): 'prints and replay; masks as a test of their own; three groups; depth in mm, '
  '16 bit',
  (1, 'wmca_like'): 'seven categories of attack, test only; another sensor; depth in mm, 16 bit',
  (2, 'surf_like'): 'cut photos, moulded prints, masks; background blacked out; structured light, '
  '8 bit',
  (2, 'cefa_like'): 'prints, replay, masks; other materials as a test of their own; three groups; '
  'stereo, mm',
  (2, 'wmca_like'): 'eight categories of attack; structured light, mm',
  (2, 'padisi_like'): 'partial attacks, make-up, masks, mannequin, replay; time of flight, mm',
}
_PLANS = {1: populations, 2: domains}


def _parse(name: str) -> tuple[int, str]:
  """Splits 'v1_surf_like_x4' into the version and the name of the config in it."""
  match = re.fullmatch(r'(?:v(?P<version>[12])_)?(?P<rest>.*)', name)
  version = int(match['version'] or _CURRENT)
  try:
    _PLANS[version].parse(match['rest'])
  except ValueError as error:
    raise ConfigError(str(error)) from None
  return version, match['rest']


def version_of(config: str) -> str:
  """The version in which a config is rendered, such as '2.0.0'."""
  return f'{_parse(config)[0]}.0.0'


def _config(name: str) -> tfds.core.BuilderConfig:
  version, rest = _parse(name)
  dataset, _ = _PLANS[version].parse(rest)
  description = f'RENDERED: {_DESCRIPTIONS[version, dataset]}.'
  return tfds.core.BuilderConfig(name=name, version=version_of(name), description=description)


class Builder(triplets.TripletBuilder):
  """Renders one config: surf_like, cefa_like, wmca_like or padisi_like.

  Append _tiny or _xN for other sizes; v1_ before a name picks version 1, which has no padisi_like.
  """

  VERSION = tfds.core.Version('2.0.0')
  SUPPORTED_VERSIONS = [tfds.core.Version('1.0.0')]
  RELEASE_NOTES = {
    '1.0.0': 'First release.',
    '2.0.0': 'Heads of MakeHuman, attacks with relief, masks in training, four domains.',
  }
  BUILDER_CONFIGS = [_config(name) for name in domains.DATASETS] + [
    _config(f'v1_{name}') for name in populations.DATASETS
  ]

  def __init__(self, *, workers: int | None = None, **kwargs):
    """As in TFDS.

    Args:
      workers: rendering processes; None takes as many as there are cores. The bytes that come
        out are the same for any number.
      **kwargs: TFDS's own.
    """
    self._workers = workers
    super().__init__(**kwargs)

  def _create_builder_config(self, builder_config, version):
    # TFDS wants every config listed; a size is any number, so it is made on request.
    if isinstance(builder_config, str):
      _parse(builder_config)
      if builder_config not in {config.name for config in self.BUILDER_CONFIGS}:
        return _config(builder_config)
    return super()._create_builder_config(builder_config, version)

  def download_and_prepare(self, **kwargs):
    """As in TFDS; the processes that render end with it."""
    with render.Renderer(self._workers) as self._renderer:
      super().download_and_prepare(**kwargs)

  def _splits(self, dl_manager):
    version, name = _parse(self.builder_config.name)
    video = None if version == 1 else attacks.render_video
    return {
      split: (sum(v.frames for v in videos), self._renderer.examples(videos, video))
      for split, videos in _PLANS[version].plan(name).items()
    }
