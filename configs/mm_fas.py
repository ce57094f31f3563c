"""MM-FAS's aggregation at several layers, with modality dropout, on the embedded data set.

  python -m flexfas_jax.main --config=configs/mm_fas.py --workdir=runs/mm_fas

Expected on the rendered faces: ACER within the data sets (intra) 16.9 % with all three modalities,
29.6 % with RGB alone (one run). Time: 4.5 minutes on one CPU core (experiments/flexmodal).

As in MM-FAS, streams and joint stages can be initialised from face recognition, and a second stage
with weaker augmentation from the best step of the first (from faces, three seeds have lower errors
on average, without significance: docs/reference/measurements.md; see also experiments/mm_fas):

  python -m flexfas_jax.main --config=configs/face_recognition.py --workdir=runs/face_recognition
  python -m flexfas_jax.main --config=configs/mm_fas.py --workdir=runs/first \
    --config.pretrained.weights=runs/face_recognition
  python -m flexfas_jax.main --config=configs/mm_fas.py --workdir=runs/second \
    --config.pretrained.weights=runs/first --config.pretrained.into=all \
    --config.view.rotate=5 --config.view.crop='(0.9, 1.0)' --config.schedule.peak=1e-4

--config.trainable="('fusion', 'head')" freezes all other parameters;
--config.optimizer.rates="{'streams_*': 0.1}" lowers their learning rate. MM-FAS's code never passes
the final classifier to the optimizer, so that it stays random; here it is trained, unless
--config.trainable="('streams_*', 'fusion', 'token_*')" is given.

  python -m flexfas_jax.main --config=configs/mm_fas.py:resnet34_caffe --workdir=runs/nn1
  python -m flexfas_jax.main --config=configs/mm_fas.py:resnet34_caffe_weak --workdir=runs/nn1a

are the two stages of one fold with MM-FAS's data (the CASIA-SURF challenge) and optimizer; :ir50,
:resnet18 and :resnet50 use other streams. All folds and seeds of a network: experiments/mm_fas.

  python -m flexfas_jax.main --config=configs/mm_fas.py:flexmodal --workdir=...

is MM-FAS's ResNet34 and aggregation of type A under FlexModal's protocol: trained on CASIA-SURF and
CeFA, tested on WMCA. These data sets are licensed; none of these recipes was run here.
"""

from ml_collections import ConfigDict


def get_config(recipe: str = 'embedded') -> ConfigDict:
  """The config of a recipe: 'embedded', for a laptop, or one of the papers'."""
  own = {'embedded': embedded, 'flexmodal': flexmodal}
  members = ('resnet34_caffe', 'resnet34_caffe_weak', 'ir50', 'resnet18', 'resnet50')
  if recipe not in (*own, *members):
    raise ValueError(
      f'mm_fas has no recipe {recipe!r}; choose one of: {", ".join((*own, *members))}'
    )
  return own[recipe]() if recipe in own else submitted(recipe)


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
  c.left_out = ()  # 'val' or tests whose attack types must not be in train; set by fold protocols
  # Of an ensemble's member; written to its score files' headers, with the seed.
  c.member = ConfigDict({'network': '', 'fold': ''})

  # Geometry is shared by all modalities; photometric changes are per modality.
  c.view = ConfigDict({'flip': 0.5, 'rotate': 10.0, 'crop': (0.75, 1.0)})
  c.photometric = ConfigDict()
  c.photometric.rgb = ConfigDict({'add': 0.1, 'contrast': 0.2, 'gamma': 0.3, 'per_channel': True})
  c.photometric.ir = ConfigDict({'add': 0.05, 'contrast': 0.2, 'gamma': 0.3})
  c.cutout = 0
  c.resize = 'area'

  c.model = ConfigDict({'modalities': ('rgb', 'depth', 'ir'), 'image_size': 64})
  c.model.backbone = ConfigDict({'name': 'caffe_resnet', 'variant': 'pico', 'remat': False})
  c.model.fusion = ConfigDict({'name': 'multi_layer_aggregation', 'variant': 'A'})
  c.model.head = ConfigDict({'name': 'binary_logit', 'dropout': 0.1})
  c.model.share_streams = False
  c.model.absent = 'token'
  c.model.dtype = 'float32'
  # Depth and infrared are each dropped from half of the samples: each sub-protocol gets a quarter.
  c.modality_dropout = ConfigDict({'depth': 0.5, 'ir': 0.5})
  # The workdir of a run, or ''; its weights go into 'aggregation', 'streams', 'rgb', or 'all'.
  c.pretrained = ConfigDict(
    {'weights': '', 'architecture': 'ours', 'sha256': None, 'into': 'aggregation'}
  )

  c.loss = 'binary_cross_entropy'
  c.batch_size = 16
  c.gradient_modulation = None  # or {'name': 'regrad'}
  c.domain = 'dataset'  # a column; its values are the domains
  c.sampler = ConfigDict()  # or {'balance': ('domain', 'label')}
  c.steps = 200
  # rates: {name: factor of the learning rate}.
  c.optimizer = ConfigDict({'name': 'adamw', 'weight_decay': 0.05, 'rates': {}})
  c.trainable = ()  # names of the parameters that train; (): all
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
  """MM-FAS's network (faces of 112 pixels), FlexModal's data, dropout, epochs and augmentation.

  The optimizer is MM-FAS's (Adam, 2e-5, betas 0.5 and 0.999, no weight decay). To use its face
  recognition weights, set `pretrained` to {'weights': FILE, 'architecture':
  'mm_fas/resnet34_caffe', 'sha256': None, 'into': 'aggregation'}. Differences from FlexModal's
  source: see `flexmodal` in configs/vit_fusion.py.
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
  c.cutout = 15  # squares with sides 0, 2, ... 14: half of those for 224 pixels
  c.resize = 'bilinear'  # also for downsizing, also for 8-bit depth

  c.model = ConfigDict({'modalities': ('rgb', 'depth', 'ir'), 'image_size': 112})
  c.model.backbone = ConfigDict({'name': 'caffe_resnet', 'variant': '34', 'remat': False})
  c.model.fusion = ConfigDict({'name': 'multi_layer_aggregation', 'variant': 'A'})
  c.model.head = ConfigDict({'name': 'binary_logit'})
  c.model.share_streams = False
  # Black in training and tests; the reference tests with 0 after normalisation (0.0).
  c.model.absent = 'blank'
  c.model.blank_value = -127.5 / 128
  c.model.dtype = 'float32'
  c.modality_dropout = ConfigDict({'depth': 0.5, 'ir': 0.5})
  c.trainable = ()  # patterns of what trains; (): everything

  c.loss = 'binary_cross_entropy'
  c.batch_size = 64
  c.gradient_modulation = None  # or {'name': 'regrad'}
  c.domain = 'dataset'  # a column; its values are the domains
  c.sampler = ConfigDict()  # or {'balance': ('domain', 'label')}
  c.steps = 30 * 174  # 30 epochs of 174 steps, including the last batch
  c.optimizer = ConfigDict({'name': 'adam', 'b1': 0.5, 'b2': 0.999})
  c.schedule = ConfigDict(
    {'name': 'step_decay', 'peak': 2e-5, 'every': 20 * 174, 'gamma': 0.5, 'lead': 174}
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


def submitted(network: str) -> ConfigDict:
  """A member of MM-FAS's ensemble: CASIA-SURF's challenge without one attack.

  One fold and one seed; `experiments/mm_fas` has all of them. As in the source: the whole image is
  rotated before the crop; 31 epochs of 155 steps, without the incomplete batch (folds 2 and 3 have
  150 and 151 steps: change config.steps and config.schedule.epoch); a cosine over 50 epochs that is
  constant within an epoch. Differences from the source:
  - One logit instead of two with a softmax, which is the same loss.
  - All networks use the same normalisation.
  - Contrast and brightness of every RGB image change; the source changes every fifth image, also
    its hue, or makes it grey.
  - The best epoch is selected on the left-out attack; the source uses the last one.
  - Samples left over in an epoch come first in the next one; the source drops them.
  - The crop is resized once, from the stored image, by averaging; depth by the nearest pixel. The
    source resizes all modalities to 125 pixels and the crop to 112, bilinearly (with Pillow, which
    averages when downsizing). A crop that exceeds the image is clipped; the source draws another.

  Args:
    network: 'resnet34_caffe' (NN1, NN2) and 'ir50' (NN3, NN4) were submitted. 'resnet34_caffe_weak'
      (NN1a) is the second stage of the first: one epoch of weaker augmentation at the peak learning
      rate, since the source does not restore the schedule. The source resumes the optimizer after
      30 epochs; here the optimizer starts fresh, from the best weights of 31 epochs. 'resnet18' and
      'resnet50' are torchvision's and timm's streams.
  """
  weak = network == 'resnet34_caffe_weak'
  backbone = {
    'resnet34_caffe': {'name': 'caffe_resnet', 'variant': '34', 'remat': False},
    'resnet34_caffe_weak': {'name': 'caffe_resnet', 'variant': '34', 'remat': False},
    'ir50': {'name': 'ir_resnet', 'variant': '50', 'remat': False},
    'resnet18': {'name': 'resnet', 'variant': '18', 'remat': False},
    'resnet50': {'name': 'resnet', 'variant': '50', 'remat': False},
  }[network]
  # Workdirs of configs/face_recognition.py; for the original weights see `flexmodal`.
  weights = {
    'resnet34_caffe': 'runs/resnet34_caffe',
    'resnet34_caffe_weak': 'runs/nn1',
    'ir50': 'runs/ir50',
    'resnet18': '',
    'resnet50': '',
  }[network]

  c = ConfigDict()
  c.seed = 7  # and 704

  c.data_dir = 'prepared'
  c.protocol = 'mm_fas_fold(fold=1)'  # folds 2 and 3 leave out other attacks
  c.train = c.val = ''
  c.test = ConfigDict()
  c.threshold = ConfigDict()
  c.accept_known_leaks = ()
  # Written to the score files' headers, with the seed, for `flexfas_jax.ensemble`.
  c.member = ConfigDict({'network': network, 'fold': '1'})

  c.view = ConfigDict({'flip': 0.5, 'rotate': 45.0, 'crop': (0.2, 1.0), 'aspect': (0.75, 4 / 3)})
  c.view.rotate_first = True
  c.photometric = ConfigDict({'rgb': {'add': 0.1, 'contrast': 0.5}})
  if weak:
    c.view.rotate, c.view.crop = 30.0, (0.5, 1.0)
    c.photometric = ConfigDict({'rgb': {'add': 0.05, 'contrast': 0.25}})
  c.cutout = 0
  c.resize = 'area'

  c.model = ConfigDict({'modalities': ('rgb', 'depth', 'ir'), 'image_size': 112})
  c.model.backbone = ConfigDict(backbone)
  c.model.fusion = ConfigDict({'name': 'multi_layer_aggregation', 'variant': 'A'})
  c.model.head = ConfigDict({'name': 'binary_logit'})
  c.model.share_streams = False
  c.model.absent = 'blank'
  c.model.dtype = 'float32'
  c.modality_dropout = ConfigDict()  # every sample has all modalities
  c.pretrained = ConfigDict(
    {'weights': weights, 'architecture': 'ours', 'sha256': None, 'into': 'aggregation'}
  )
  if weak:
    c.pretrained.into = 'all'

  c.loss = 'binary_cross_entropy'
  c.batch_size = 128
  c.gradient_modulation = None  # or {'name': 'regrad'}
  c.domain = 'dataset'  # a column; its values are the domains
  c.sampler = ConfigDict()  # or {'balance': ('domain', 'label')}
  c.steps = 155 if weak else 31 * 155  # epochs of 19,922 samples
  c.optimizer = ConfigDict({'name': 'adam', 'b1': 0.5, 'b2': 0.999, 'rates': {}})
  # ('streams_*', 'fusion') leaves the classifier random, as in the original code.
  c.trainable = ()
  c.schedule = ConfigDict({'name': 'cosine_by_epoch', 'peak': 2e-5, 'epoch': 155, 'period': 50})
  c.clip_norm = None
  c.accumulate = 1
  c.ema = 0.0
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  # The central 112 of 125 pixels, and their mirror image; the mean is evaluated.
  c.views = ('centre=0.896', 'centre=0.896+flip')
  c.eval_batch_size = 128
  c.eval_every = 155
  c.checkpoint_every = 155
  c.save_tries = 3
  c.log_every = 20
  c.report = True
  c.pass_if = ''  # a requirement on every test, such as 'apcer_max<=5%,bpcer<=3%'
  c.test_toml = ''  # file with what a laboratory states in the report
  return c
