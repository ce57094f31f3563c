"""ResNet with squeeze-and-excitation fusion and modality dropout, on the embedded data set.

  python -m flexfas_jax.main --config=configs/resnet_fusion.py --workdir=runs/resnet_fusion

Expected on the rendered faces: ACER within the data sets (intra) 18.5 % with all three modalities,
29.2 % with RGB alone (one run); with twice the steps and a fusion without dropout 13.6 and 28.1 %,
means of three runs. Time: 4 minutes on one CPU core (experiments/flexmodal).

  python -m flexfas_jax.main --config=configs/resnet_fusion.py:flexmodal --workdir=...

is the paper's recipe for ResNet50 from ImageNet with concatenation, its default, trained on
CASIA-SURF and CeFA and tested on WMCA (licensed data; prepared by their builders). Not run here.
"""

from ml_collections import ConfigDict


def get_config(recipe: str = 'embedded') -> ConfigDict:
  """The config of a recipe: 'embedded', for a laptop, or 'flexmodal', the paper's."""
  recipes = {'embedded': embedded, 'flexmodal': flexmodal}
  if recipe not in recipes:
    raise ValueError(f'resnet_fusion has no recipe {recipe!r}; choose one of: {", ".join(recipes)}')
  return recipes[recipe]()


def embedded() -> ConfigDict:
  """One small model for RGB, depth and infrared in any subset, on rendered faces."""
  c = ConfigDict()
  c.seed = 0

  # Data sets: set/config:split, optionally with [a condition], several separated by commas. A
  # protocol replaces train, val, test and threshold.
  c.data_dir = 'prepared'
  c.protocol = ''
  c.train = 'rendered_faces/surf_like:train,rendered_faces/cefa_like:train'
  c.val = 'rendered_faces/surf_like:val,rendered_faces/cefa_like:val'
  c.test = ConfigDict()
  c.test.intra = 'rendered_faces/surf_like:test,rendered_faces/cefa_like:test'
  c.test.cross = 'rendered_faces/wmca_like:test'
  # Masks of three materials that are in neither training nor val, in front of the same cameras.
  c.test.unseen = 'rendered_faces/cefa_like:test,rendered_faces/cefa_like:masks'
  # The threshold of each test, as in FlexModal: EER on val within the data sets, 0.5 across.
  c.threshold = ConfigDict({'intra': 'dev_eer', 'unseen': 'dev_eer', 'cross': 'fixed=0.5'})
  c.accept_known_leaks = ()

  # Geometry is shared by all modalities; photometric changes are per modality.
  c.view = ConfigDict({'flip': 0.5, 'rotate': 10.0, 'crop': (0.75, 1.0)})
  c.photometric = ConfigDict()
  c.photometric.rgb = ConfigDict({'add': 0.1, 'contrast': 0.2, 'gamma': 0.3, 'per_channel': True})
  c.photometric.ir = ConfigDict({'add': 0.05, 'contrast': 0.2, 'gamma': 0.3})
  c.cutout = 0
  c.resize = 'area'

  c.model = ConfigDict({'modalities': ('rgb', 'depth', 'ir'), 'image_size': 64})
  c.model.backbone = ConfigDict({'name': 'resnet', 'variant': 'pico', 'remat': False})
  c.model.fusion = ConfigDict({'name': 'squeeze_excite', 'reduction': 8, 'dropout': 0.1})
  c.model.head = ConfigDict({'name': 'binary_logit', 'dropout': 0.1})
  c.model.share_streams = False
  c.model.absent = 'token'
  c.model.dtype = 'float32'
  # Depth and infrared are each dropped from half of the samples: each sub-protocol gets a quarter.
  c.modality_dropout = ConfigDict({'depth': 0.5, 'ir': 0.5})
  c.trainable = ()  # patterns of what trains; (): everything

  c.loss = 'binary_cross_entropy'
  c.batch_size = 16
  c.gradient_modulation = None  # or {'name': 'regrad'}
  c.domain = 'dataset'  # a column; its values are the domains
  c.sampler = ConfigDict()  # or {'balance': ('domain', 'label')}
  c.steps = 200
  c.optimizer = ConfigDict({'name': 'adamw', 'weight_decay': 0.05})
  c.schedule = ConfigDict({'name': 'warmup_cosine', 'peak': 1e-3, 'warmup': 50})
  c.clip_norm = 1.0
  c.accumulate = 1  # number of parts that a batch is split into, to save memory
  # Decay of a moving average of the weights, such as 0.999, which is then evaluated and exported.
  c.ema = 0.0
  # The batch is sharded over all devices, the state over groups of `fsdp` devices.
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.views = (
    'whole',
  )  # of val and tests; the mean of several, e.g. ('whole', 'flip'), is evaluated
  c.eval_batch_size = 64
  c.eval_every = 200
  c.checkpoint_every = 200
  c.save_tries = 3  # consecutive failed saves (a full disk) that end the run
  c.log_every = 10
  c.report = True  # write intervals and report.html after scoring the tests
  c.pass_if = ''  # a requirement on every test, such as 'apcer_max<=5%,bpcer<=3%'
  c.test_toml = ''  # file with what a laboratory states in the report
  return c


def flexmodal() -> ConfigDict:
  """Flex-Modal-FAS with ResNet50, which was not released.

  The optimizer is SGD as in a comment of its training script (momentum 0.9, weight decay 5e-5); its
  learning rate is unknown. Other differences from the source: see `flexmodal` in
  configs/vit_fusion.py.
  """
  c = ConfigDict()
  c.seed = 0

  c.data_dir = 'prepared'
  # Training, validation and test sets, and thresholds: protocols/definitions.py.
  c.protocol = 'flexmodal'
  c.train = c.val = ''
  c.test = ConfigDict()
  c.threshold = ConfigDict()
  c.accept_known_leaks = ()

  # The whole image, aspect ratio not kept; each modality changes its own colours, also depth.
  c.view = ConfigDict({'flip': 0.5})
  c.photometric = ConfigDict()
  for modality in ('rgb', 'depth', 'ir'):
    c.photometric[modality] = ConfigDict({'add': 40 / 255, 'gamma': (0.5, 1.5)})
    # Integers are added to each of three channels, before gamma.
    c.photometric[modality].update({'per_channel': True, 'integers': True, 'add_first': True})
  c.cutout = 29  # squares with sides 0, 2, ... 28
  c.resize = 'bilinear'  # also for downsizing, also for 8-bit depth

  c.model = ConfigDict({'modalities': ('rgb', 'depth', 'ir'), 'image_size': 224})
  c.model.backbone = ConfigDict({'name': 'resnet', 'variant': '50', 'remat': False})
  c.model.fusion = ConfigDict({'name': 'concat', 'dropout': 0.3})
  c.model.head = ConfigDict({'name': 'binary_logit', 'dropout': 0.3})
  c.model.share_streams = False
  # Black in training and tests; the reference tests with 0 after normalisation (0.0).
  c.model.absent = 'blank'
  c.model.blank_value = -127.5 / 128
  c.model.dtype = 'float32'
  c.modality_dropout = ConfigDict({'depth': 0.5, 'ir': 0.5})
  c.trainable = ()  # patterns of what trains; (): everything
  c.pretrained = ConfigDict(
    {
      'weights': 'hub:timm/resnet50.a1_in1k',
      'architecture': 'timm/resnet50',
      'sha256': None,
      'into': 'streams',
    }
  )

  c.loss = 'binary_cross_entropy'
  c.batch_size = 64
  c.gradient_modulation = None  # or {'name': 'regrad'}
  c.domain = 'dataset'  # a column; its values are the domains
  c.sampler = ConfigDict()  # or {'balance': ('domain', 'label')}
  c.steps = 30 * 174  # 30 epochs of 174 steps, including the last batch
  c.optimizer = ConfigDict({'name': 'sgd', 'weight_decay': 5e-5, 'momentum': 0.9, 'decay': 'all'})
  c.schedule = ConfigDict(
    {'name': 'step_decay', 'peak': 1e-3, 'every': 20 * 174, 'gamma': 0.5, 'lead': 174}
  )
  c.clip_norm = None
  c.accumulate = 1  # number of parts that a batch is split into, to save memory
  # Decay of a moving average of the weights, such as 0.999, which is then evaluated and exported.
  c.ema = 0.0
  # The batch is sharded over all devices, the state over groups of `fsdp` devices.
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.views = (
    'whole',
  )  # of val and tests; the mean of several, e.g. ('whole', 'flip'), is evaluated
  c.eval_batch_size = 64
  c.eval_every = 348  # two epochs
  c.checkpoint_every = 348
  c.save_tries = 3  # consecutive failed saves (a full disk) that end the run
  c.log_every = 20
  c.report = True  # write intervals and report.html after scoring the tests
  c.pass_if = ''  # a requirement on every test, such as 'apcer_max<=5%,bpcer<=3%'
  c.test_toml = ''  # file with what a laboratory states in the report
  return c
