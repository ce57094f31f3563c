"""Face recognition, MM-FAS's pretraining: people are told apart, on the embedded data set.

  python -m flexfas_jax.main --config=configs/face_recognition.py --workdir=runs/face_recognition

Expected, on rendered faces of 67 people who were not trained on (intra): EER 7.8 %, verification
accuracy 92.4 %; of a third data set (cross) 13.6 % and 85.2 %. Time: 6 minutes on one CPU core.
The best step then starts MM-FAS's streams and its joint stages:

  python -m flexfas_jax.main --config=configs/mm_fas.py --workdir=runs/mm_fas \
    --config.pretrained.weights=runs/face_recognition

An attribute in the place of people, and accuracy by class in the place of pairs: --config.target=
ethnicity, or gender, or any column of the sets' manifests; it must be known of all of them.

MM-FAS's own networks, on folders of identities (data/face_identities), 112 pixels; not run here:

  --config=configs/face_recognition.py:resnet34_caffe    SphereFace on CASIA-WebFace
  --config=configs/face_recognition.py:ir50              ArcFace on MS1M
"""

from ml_collections import ConfigDict


def get_config(recipe: str = 'embedded') -> ConfigDict:
  """The config of one recipe: 'embedded', for a laptop, 'resnet34_caffe' or 'ir50'."""
  recipes = {'embedded': embedded, 'resnet34_caffe': resnet34_caffe, 'ir50': ir50}
  if recipe not in recipes:
    raise ValueError(
      f'face_recognition has no recipe {recipe!r}; choose one of: {", ".join(recipes)}'
    )
  return recipes[recipe]()


def embedded() -> ConfigDict:
  """A small network and ArcFace's margin, on the 95 people of two rendered training sets."""
  c = ConfigDict()
  c.seed = 0

  # What is told apart: the values of a column among config.train; those of 'subject' are people.
  c.task = 'identities'
  c.target = 'subject'
  c.data_dir = 'prepared'
  c.protocol = ''  # of attacks alone
  people = '{}[species=bona_fide & modalities=rgb]'
  surf, cefa = 'rendered_faces/surf_like', 'rendered_faces/cefa_like'
  c.train = f'{people.format(surf + ":train")},{people.format(cefa + ":train")}'
  # Other people: pictures of one person in two videos, and of two people, are compared.
  c.val = f'{people.format(surf + ":val")},{people.format(cefa + ":val")}'
  c.test = ConfigDict()
  c.test.intra = f'{people.format(surf + ":test")},{people.format(cefa + ":test")}'
  c.test.cross = people.format('rendered_faces/wmca_like:test')
  c.threshold = ConfigDict()  # pairs need none
  c.pairs = 20_000  # of either kind, at most
  c.accept_known_leaks = ()

  c.view = ConfigDict({'flip': 0.5, 'rotate': 10.0, 'crop': (0.75, 1.0)})
  c.photometric = ConfigDict()
  c.photometric.rgb = ConfigDict({'add': 0.1, 'contrast': 0.2, 'gamma': 0.3, 'per_channel': True})
  c.cutout = 0
  c.resize = 'area'

  c.model = ConfigDict({'modalities': ('rgb',), 'image_size': 64})
  c.model.backbone = ConfigDict({'name': 'caffe_resnet', 'variant': 'pico', 'remat': False})
  c.model.fusion = ConfigDict({'name': 'single'})
  c.model.head = ConfigDict({'name': 'identity_cosine', 'identities': 0})  # 0: as many as there are
  c.model.share_streams = True
  c.model.absent = 'exclude'
  c.model.dtype = 'float32'
  c.modality_dropout = ConfigDict()

  c.loss = ConfigDict({'arc_face': {'margin': 0.3, 'scale': 16.0}})
  c.batch_size = 32
  c.steps = 1000
  c.optimizer = ConfigDict({'name': 'adamw', 'weight_decay': 0.05})
  c.schedule = ConfigDict({'name': 'warmup_cosine', 'peak': 3e-3, 'warmup': 50})
  c.clip_norm = 5.0
  c.accumulate = 1  # parts that a batch is taken in, one after the other
  # Devices: the batch goes over all; each group of `fsdp` shares one copy of the state.
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.eval_batch_size = 64
  c.eval_every = 250
  c.checkpoint_every = 250
  c.save_tries = 3  # saves that may fail in a row, a disk being full, before the run ends
  c.log_every = 25
  return c


def resnet34_caffe() -> ConfigDict:
  """MM-FAS's ResNet34 on CASIA-WebFace with SphereFace's settings (Liu et al., CVPR 2017).

  The original's weights are of another challenge, whose settings are not known. Otherwise than in
  SphereFace: 112 x 112 pixels; the embedding is the average of the last map, without a layer after
  it; `blend` is fixed where theirs falls to 5.
  """
  c = ConfigDict()
  c.seed = 0

  c.task = 'identities'
  c.target = 'subject'
  c.data_dir = 'prepared'
  c.protocol = ''
  c.train = 'face_identities/casia_webface:train'
  c.val = 'face_identities/casia_webface:val'
  c.test = ConfigDict({'intra': 'face_identities/casia_webface:test'})
  c.threshold = ConfigDict()
  c.pairs = 100_000
  c.accept_known_leaks = ()

  c.view = ConfigDict({'flip': 0.5})
  c.photometric = ConfigDict()
  c.cutout = 0
  c.resize = 'area'

  c.model = ConfigDict({'modalities': ('rgb',), 'image_size': 112})
  c.model.backbone = ConfigDict({'name': 'caffe_resnet', 'variant': '34', 'remat': False})
  c.model.fusion = ConfigDict({'name': 'single'})
  c.model.head = ConfigDict({'name': 'identity_cosine', 'identities': 0})
  c.model.share_streams = True
  c.model.absent = 'exclude'
  c.model.dtype = 'float32'
  c.modality_dropout = ConfigDict()

  c.loss = ConfigDict({'sphere_face': {'margin': 4, 'blend': 5.0}})
  c.batch_size = 128
  c.steps = 28_000
  c.optimizer = ConfigDict({'name': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4, 'decay': 'all'})
  c.schedule = ConfigDict({'name': 'steps_at', 'peak': 0.1, 'at': (16_000, 24_000), 'gamma': 0.1})
  c.clip_norm = 5.0  # not in the paper, whose blend is 1500 while the rate is high
  c.accumulate = 1
  # The classifier, 512 x 10,575, is cut over the devices of a group of `fsdp`.
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.eval_batch_size = 128
  c.eval_every = 2000
  c.checkpoint_every = 2000
  c.save_tries = 3
  c.log_every = 50
  return c


def ir50() -> ConfigDict:
  """IR-50 on MS1M with ArcFace's settings (Deng et al., CVPR 2019).

  Otherwise than there: the embedding is the average of the last map, without a layer after it.
  """
  c = ConfigDict()
  c.seed = 0

  c.task = 'identities'
  c.target = 'subject'
  c.data_dir = 'prepared'
  c.protocol = ''
  c.train = 'face_identities/ms1m:train'
  c.val = 'face_identities/ms1m:val'
  c.test = ConfigDict({'intra': 'face_identities/ms1m:test'})
  c.threshold = ConfigDict()
  c.pairs = 100_000
  c.accept_known_leaks = ()

  c.view = ConfigDict({'flip': 0.5})
  c.photometric = ConfigDict()
  c.cutout = 0
  c.resize = 'area'

  c.model = ConfigDict({'modalities': ('rgb',), 'image_size': 112})
  c.model.backbone = ConfigDict({'name': 'ir_resnet', 'variant': '50', 'remat': False})
  c.model.fusion = ConfigDict({'name': 'single'})
  c.model.head = ConfigDict({'name': 'identity_cosine', 'identities': 0})
  c.model.share_streams = True
  c.model.absent = 'exclude'
  c.model.dtype = 'float32'
  c.modality_dropout = ConfigDict()

  c.loss = ConfigDict({'arc_face': {'margin': 0.5, 'scale': 64.0}})
  c.batch_size = 512
  c.steps = 180_000
  c.optimizer = ConfigDict({'name': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4, 'decay': 'all'})
  c.schedule = ConfigDict({'name': 'steps_at', 'peak': 0.1, 'at': (100_000, 160_000), 'gamma': 0.1})
  c.clip_norm = None
  c.accumulate = 1
  # The classifier, 512 x 85,000, is cut over the devices of a group: --config.mesh.fsdp=8.
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.eval_batch_size = 512
  c.eval_every = 5000
  c.checkpoint_every = 5000
  c.save_tries = 3
  c.log_every = 100
  return c
