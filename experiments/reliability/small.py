"""A config that is small to compile: two sensors, a network that learns little, many steps.

A run of it starts within seconds, so that it can be interrupted often. Its data is that of the
first command of the project's README, rendered: `--config.data_dir` names where it is or goes.
"""

from ml_collections import ConfigDict

from configs import vit_fusion


def get_config() -> ConfigDict:
  """The config; `steps` is meant to be changed."""
  config = vit_fusion.get_config()
  config.train = 'rendered_faces/surf_like_tiny:train'
  config.val = 'rendered_faces/surf_like_tiny:val'
  config.test = ConfigDict({'intra': 'rendered_faces/surf_like_tiny:test'})
  config.threshold = ConfigDict({'intra': 'dev_eer'})
  config.photometric = ConfigDict()
  config.model = ConfigDict({'modalities': ('rgb', 'ir'), 'image_size': 16})
  config.model.backbone = ConfigDict({'name': 'vit', 'variant': 'mu', 'patch_size': 8})
  config.model.fusion = ConfigDict({'name': 'concat'})
  config.model.head = ConfigDict({'name': 'binary_logit', 'dropout': 0.1})
  config.modality_dropout = ConfigDict({'ir': 0.5})
  config.schedule.warmup = 2
  config.report = False
  config.batch_size, config.eval_batch_size, config.steps = 8, 24, 400
  config.eval_every, config.checkpoint_every, config.log_every = 100, 10, 1
  return config
