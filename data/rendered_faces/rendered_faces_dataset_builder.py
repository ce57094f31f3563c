"""TFDS builder of the rendered faces. See README.md in this folder."""

import tensorflow_datasets as tfds

from flexfas_jax.data import triplets
from flexfas_jax.data.rendered_faces import populations, render
from flexfas_jax.errors import ConfigError

_DESCRIPTIONS = {
  'surf_like': 'cut photos; background blacked out; depth as 8-bit visualisation',
  'cefa_like': 'prints and replay; masks as a test of their own; three groups; depth in mm, 16 bit',
  'wmca_like': 'seven categories of attack, test only; another sensor; depth in mm, 16 bit',
}


def _config(name: str) -> tfds.core.BuilderConfig:
  dataset, _ = populations.parse(name)
  return tfds.core.BuilderConfig(name=name, description=f'RENDERED: {_DESCRIPTIONS[dataset]}.')


class Builder(triplets.TripletBuilder):
  """Renders one config: surf_like, cefa_like or wmca_like, with _tiny or _xN for other sizes."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  BUILDER_CONFIGS = [_config(name) for name in populations.DATASETS]

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
      try:
        populations.parse(builder_config)
      except ValueError as error:
        raise ConfigError(str(error)) from None
      if builder_config not in populations.DATASETS:
        return _config(builder_config)
    return super()._create_builder_config(builder_config, version)

  def download_and_prepare(self, **kwargs):
    """As in TFDS; the processes that render end with it."""
    with render.Renderer(self._workers) as self._renderer:
      super().download_and_prepare(**kwargs)

  def _splits(self, dl_manager):
    return {
      split: (sum(video.frames for video in videos), self._renderer.examples(videos))
      for split, videos in populations.plan(self.builder_config.name).items()
    }
