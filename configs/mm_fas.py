"""MM-FAS's aggregation at several layers, with modality dropout, on the embedded data set.

  python -m flexfas_jax.main --config=configs/mm_fas.py --workdir=runs/mm_fas

Expected, on rendered faces: ACER within the data sets (intra) 0.4 % with all three modalities,
18 % with RGB alone. Time: 4.5 minutes on one CPU core (experiments/flexmodal).

As in MM-FAS, streams and joint stages may start from face recognition, and a second stage with
weaker augmentation from the first one's best step (on these few rendered people it brings nothing
that one seed could show; see README):

  python -m flexfas_jax.main --config=configs/face_recognition.py --workdir=runs/face_recognition
  python -m flexfas_jax.main --config=configs/mm_fas.py --workdir=runs/first \
    --config.pretrained.weights=runs/face_recognition
  python -m flexfas_jax.main --config=configs/mm_fas.py --workdir=runs/second \
    --config.pretrained.weights=runs/first --config.pretrained.into=all \
    --config.view.rotate=5 --config.view.crop='(0.9, 1.0)' --config.schedule.peak=1e-4

--config.optimizer.freeze="('streams_*/stage_1',)" leaves what it names as it is,
--config.optimizer.rates="{'streams_*': 0.1}" trains it more slowly. The final classifier is
trained; MM-FAS's code never gives it to the optimiser, so that it stays random:
--config.optimizer.freeze="('head',)" does the same.

  python -m flexfas_jax.main --config=configs/mm_fas.py:resnet34_caffe --workdir=runs/nn1
  python -m flexfas_jax.main --config=configs/mm_fas.py:resnet34_caffe_weak --workdir=runs/nn1a

are MM-FAS's own data (CASIA-SURF's challenge), optimiser and two stages, of one fold; :ir50,
:resnet18 and :resnet50 the same with other streams. All folds and seeds of a network, on any set:
experiments/mm_fas.

  python -m flexfas_jax.main --config=configs/mm_fas.py:flexmodal --workdir=...

is MM-FAS's ResNet34 and aggregation of type A under FlexModal's protocol: train one for all on
CASIA-SURF and CeFA, test across on WMCA. These data sets are licensed; neither was run here.
"""

from ml_collections import ConfigDict


def get_config(recipe: str = 'embedded') -> ConfigDict:
  """The config of one recipe: 'embedded', for a laptop, or one of the papers'."""
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

  # Data: set/config:split, or [a part of one], several separated by commas; or a protocol, which
  # puts its own in the place of train, val, test and threshold.
  c.data_dir = 'prepared'
  c.protocol = ''
  c.train = 'rendered_faces/surf_like:train,rendered_faces/cefa_like:train'
  c.val = 'rendered_faces/surf_like:val,rendered_faces/cefa_like:val'
  c.test = ConfigDict()
  c.test.intra = 'rendered_faces/surf_like:test,rendered_faces/cefa_like:test'
  c.test.cross = 'rendered_faces/wmca_like:test'
  # 3D masks, before the same cameras: relief and all, and never trained on.
  c.test.unseen = 'rendered_faces/cefa_like:test,rendered_faces/cefa_like:masks'
  # How each test's threshold is found: as in FlexModal, EER on val within, 0.5 across.
  c.threshold = ConfigDict({'intra': 'dev_eer', 'unseen': 'dev_eer', 'cross': 'fixed=0.5'})
  c.accept_known_leaks = ()
  c.left_out = ()  # 'val' or tests whose attacks must not be in train; a protocol of folds says it
  # A member of an ensemble: what the headers of its score files say, beside the seed.
  c.member = ConfigDict({'network': '', 'fold': ''})

  # One view for all modalities, photometric changes for each.
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
  # Depth and infrared each leave half of the samples: every sub-protocol gets a quarter.
  c.modality_dropout = ConfigDict({'depth': 0.5, 'ir': 0.5})
  # A workdir of ours to start from, or ''; into 'aggregation', 'streams', 'rgb', or 'all'.
  c.pretrained = ConfigDict(
    {'weights': '', 'architecture': 'ours', 'sha256': None, 'into': 'aggregation'}
  )

  c.loss = 'binary_cross_entropy'
  c.batch_size = 16
  c.steps = 200
  # By name: what stays as it is, and factors of the learning rate.
  c.optimizer = ConfigDict({'name': 'adamw', 'weight_decay': 0.05, 'freeze': (), 'rates': {}})
  c.schedule = ConfigDict({'name': 'warmup_cosine', 'peak': 1e-3, 'warmup': 50})
  c.clip_norm = 1.0
  c.accumulate = 1  # parts that a batch is taken in, one after the other
  # Devices: the batch goes over all; each group of `fsdp` shares one copy of the state.
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.views = ('whole',)  # of val and tests; of several, ('whole', 'flip'), the mean is judged
  c.eval_batch_size = 64
  c.eval_every = 200
  c.checkpoint_every = 200
  c.save_tries = 3  # saves that may fail in a row, a disk being full, before the run ends
  c.log_every = 10
  c.report = True  # intervals and report.html, when the tests have been scored
  return c


def flexmodal() -> ConfigDict:
  """MM-FAS's network (faces of 112 pixels), FlexModal's data, dropout, epochs and augmentation.

  The optimiser is MM-FAS's (Adam, 2e-5, betas 0.5 and 0.999, no weight decay). Its weights from
  face recognition come in by `pretrained`: {'weights': FILE, 'architecture':
  'mm_fas/resnet34_caffe', 'sha256': None, 'into': 'aggregation'}. What differs from FlexModal's
  source: see `flexmodal` in configs/vit_fusion.py.
  """
  c = ConfigDict()
  c.seed = 0

  c.data_dir = 'prepared'
  # What is trained on, chosen by, tested on and how: protocols/definitions.py.
  c.protocol = 'flexmodal'
  c.train = c.val = ''
  c.test = ConfigDict()
  c.threshold = ConfigDict()
  c.accept_known_leaks = ()

  # The whole image, its aspect not kept; colours are drawn for each modality by itself, also depth.
  c.view = ConfigDict({'flip': 0.5})
  c.photometric = ConfigDict()
  for modality in ('rgb', 'depth', 'ir'):
    c.photometric[modality] = ConfigDict({'add': 40 / 255, 'gamma': (0.5, 1.5)})
    # Addition of integers to each of three channels, which come before gamma.
    c.photometric[modality].update({'per_channel': True, 'integers': True, 'add_first': True})
  c.cutout = 15  # squares with sides 0, 2, ... 14: half of what 224 pixels get
  c.resize = 'bilinear'  # also where it shrinks, also 8-bit depth

  c.model = ConfigDict({'modalities': ('rgb', 'depth', 'ir'), 'image_size': 112})
  c.model.backbone = ConfigDict({'name': 'caffe_resnet', 'variant': '34', 'remat': False})
  c.model.fusion = ConfigDict({'name': 'multi_layer_aggregation', 'variant': 'A'})
  c.model.head = ConfigDict({'name': 'binary_logit'})
  c.model.share_streams = False
  # Black in training and in tests; the reference tests with 0 after normalisation (0.0).
  c.model.absent = 'blank'
  c.model.blank_value = -127.5 / 128
  c.model.dtype = 'float32'
  c.modality_dropout = ConfigDict({'depth': 0.5, 'ir': 0.5})

  c.loss = 'binary_cross_entropy'
  c.batch_size = 64
  c.steps = 30 * 174  # 30 epochs of 174 steps, the last batch kept
  c.optimizer = ConfigDict({'name': 'adam', 'b1': 0.5, 'b2': 0.999})
  c.schedule = ConfigDict(
    {'name': 'step_decay', 'peak': 2e-5, 'every': 20 * 174, 'gamma': 0.5, 'lead': 174}
  )
  c.clip_norm = None
  c.accumulate = 1  # parts that a batch is taken in, one after the other
  # Devices: the batch goes over all; each group of `fsdp` shares one copy of the state.
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.views = ('whole',)  # of val and tests; of several, ('whole', 'flip'), the mean is judged
  c.eval_batch_size = 64
  c.eval_every = 348  # two epochs
  c.checkpoint_every = 348
  c.save_tries = 3  # saves that may fail in a row, a disk being full, before the run ends
  c.log_every = 20
  c.report = True  # intervals and report.html, when the tests have been scored
  return c


def submitted(network: str) -> ConfigDict:
  """A member of MM-FAS's ensemble: CASIA-SURF's challenge without one attack.

  One fold and one seed; `experiments/mm_fas` has all of them. As in the source: the whole image is
  rotated before the crop; 31 epochs of 155 steps, which leave the incomplete batch out (folds 2 and
  3 have 150 and 151: change config.steps and config.schedule.epoch); a cosine over 50 epochs that
  moves once per epoch. Different from the source:
  - One logit in the place of two and a softmax, which is the same loss.
  - Images are normalised alike for all networks.
  - Colours change on every RGB image, by contrast and brightness, where the source changes every
    fifth one, and its hue, or makes it grey.
  - The best epoch is chosen by the left-out attack; the source takes the last one.
  - Samples that an epoch leaves over come first in the next one; the source drops them.
  - The crop is resized once, from the stored image, by averaging; depth by the nearest pixel. The
    source resizes all modalities to 125 pixels and the crop to 112, each bilinearly (Pillow, which
    averages where an image shrinks). A crop that would leave the image is cut to it; the source
    draws again.

  Args:
    network: 'resnet34_caffe' (NN1, NN2) and 'ir50' (NN3, NN4) were submitted; 'resnet34_caffe_weak'
      (NN1a) is the second stage of the first, one epoch of weaker augmentation at the peak: the
      source does not restore the schedule. It resumes the optimiser after 30 epochs; here the
      optimiser is fresh and the weights are the best of 31 epochs. 'resnet18' and 'resnet50' are
      torchvision's and timm's streams in the same place.
  """
  weak = network == 'resnet34_caffe_weak'
  backbone = {
    'resnet34_caffe': {'name': 'caffe_resnet', 'variant': '34', 'remat': False},
    'resnet34_caffe_weak': {'name': 'caffe_resnet', 'variant': '34', 'remat': False},
    'ir50': {'name': 'ir_resnet', 'variant': '50', 'remat': False},
    'resnet18': {'name': 'resnet', 'variant': '18', 'remat': False},
    'resnet50': {'name': 'resnet', 'variant': '50', 'remat': False},
  }[network]
  # Workdirs of configs/face_recognition.py; the originals' weights: see `flexmodal`.
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
  c.protocol = 'mm_fas_fold(fold=1)'  # 2 and 3 leave other attacks out
  c.train = c.val = ''
  c.test = ConfigDict()
  c.threshold = ConfigDict()
  c.accept_known_leaks = ()
  # What the headers of the score files say, beside the seed, for `flexfas_jax.ensemble`.
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
  c.modality_dropout = ConfigDict()  # every sample has all three
  c.pretrained = ConfigDict(
    {'weights': weights, 'architecture': 'ours', 'sha256': None, 'into': 'aggregation'}
  )
  if weak:
    c.pretrained.into = 'all'

  c.loss = 'binary_cross_entropy'
  c.batch_size = 128
  c.steps = 155 if weak else 31 * 155  # epochs of 19,922 samples
  # freeze=('head',) leaves the classifier random, as in the original's code.
  c.optimizer = ConfigDict({'name': 'adam', 'b1': 0.5, 'b2': 0.999, 'freeze': (), 'rates': {}})
  c.schedule = ConfigDict({'name': 'cosine_by_epoch', 'peak': 2e-5, 'epoch': 155, 'period': 50})
  c.clip_norm = None
  c.accumulate = 1
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  # The middle 112 of 125 pixels, and their mirror image; the mean is judged.
  c.views = ('centre=0.896', 'centre=0.896+flip')
  c.eval_batch_size = 128
  c.eval_every = 155
  c.checkpoint_every = 155
  c.save_tries = 3
  c.log_every = 20
  c.report = True
  return c
