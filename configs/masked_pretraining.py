"""Masked pretraining of a ViT on RGB, depth and infrared, on the embedded data set.

  python -m flexfas_jax.main --config=configs/masked_pretraining.py --workdir=runs/masked

After M2A2E (Yu et al., "Rethinking Vision Transformer and Masked Autoencoder in Multimodal Face
Anti-Spoofing", IJCV 2024), which has no public code: a part of the patches of one modality, drawn
for each sample, is hidden, and the network rebuilds these and the other two modalities.
No label is read. `flexfas_jax/models/masked_autoencoder.py` has the network.

Expected on RENDERED faces: reconstruction error 0.545 on val; 1 is the error of each patch's mean.
A step takes half a second on one CPU core, shared with other work.

Frozen features (adapter_fusion:linear with --config.steps=300, one seed), AUC in percent from this
start / from random weights:
  within, all sensors 79.5 / 73.9   depth 71.6 / 64.7   infrared 65.3 / 67.0   RGB 63.7 / 64.6
  across, all sensors 75.9 / 76.1   depth 72.5 / 67.9   infrared 64.7 / 61.1   RGB 59.5 / 65.3
The mean EER of val over all subsets does not improve: 37.7 / 36.7.

The best step then initialises the streams of any ViT with the same fields:

  python -m flexfas_jax.main --config=configs/adapter_fusion.py:full --workdir=runs/full \
    --config.pretrained.weights=runs/masked

--config.train and --config.val take any sets, --config.protocol the train and val parts of any
protocol: 'rendered_domains(target=wmca_like)' has three of the four rendered sets. Give the
protocol, or the sets, that the second command trains on, so that nothing of its test is seen.

ViT-B with the settings of MAE on FlexModal's train part; not run here:

  --config=configs/masked_pretraining.py:vit_b
"""

from ml_collections import ConfigDict


def get_config(recipe: str = 'embedded') -> ConfigDict:
  """The config of a recipe: 'embedded', for a laptop, or 'vit_b'."""
  recipes = {'embedded': embedded, 'vit_b': vit_b}
  if recipe not in recipes:
    raise ValueError(
      f'masked_pretraining has no recipe {recipe!r}; choose one of: {", ".join(recipes)}'
    )
  return recipes[recipe]()


def embedded() -> ConfigDict:
  """The small ViT of adapter_fusion, on two rendered training sets."""
  c = ConfigDict()
  c.seed = 0

  c.task = 'reconstruction'
  c.data_dir = 'prepared'
  c.protocol = ''  # its train and val parts; no test is read
  c.train = 'rendered_faces/surf_like:train,rendered_faces/cefa_like:train'
  c.val = 'rendered_faces/surf_like:val,rendered_faces/cefa_like:val'
  c.test = ConfigDict()
  c.threshold = ConfigDict()
  c.accept_known_leaks = ()

  c.view = ConfigDict({'flip': 0.5, 'crop': (0.5, 1.0)})  # the same for all modalities
  c.photometric = ConfigDict()
  c.cutout = 0
  c.resize = 'area'

  c.model = ConfigDict({'modalities': ('rgb', 'depth', 'ir'), 'image_size': 64})
  c.model.backbone = ConfigDict({'name': 'vit', 'variant': 'pico', 'patch_size': 16})
  c.model.backbone.update({'stem': 'resnet', 'layer_scale': 0.1})
  c.model.backbone.update({'scan': False, 'remat': False})
  c.model.decoder = ConfigDict({'width': 96, 'depth': 2, 'heads': 3})
  c.model.mask_ratio = 0.4
  c.model.dtype = 'float32'
  c.modality_dropout = ConfigDict()
  c.trainable = ()  # patterns of what trains; (): everything

  c.loss = ConfigDict({'masked_reconstruction': {}})
  c.batch_size = 32
  c.domain = 'dataset'  # a column; its values are the domains
  c.sampler = ConfigDict()  # or {'balance': ('domain',)}
  c.steps = 1000
  c.optimizer = ConfigDict({'name': 'adamw', 'b2': 0.95, 'weight_decay': 0.05})
  c.schedule = ConfigDict({'name': 'warmup_cosine', 'peak': 1e-3, 'warmup': 100})
  c.clip_norm = 5.0
  c.accumulate = 1  # number of parts that a batch is split into, to save memory
  c.ema = 0.0
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.eval_batch_size = 64
  c.eval_every = 200
  c.checkpoint_every = 200
  c.save_tries = 3  # consecutive failed saves (a full disk) that end the run
  c.log_every = 25
  return c


def vit_b() -> ConfigDict:
  """ViT-B/16 for 400 epochs of FlexModal's train part, CASIA-SURF and CeFA, 11,097 samples.

  Optimizer, rate and schedule are those of MAE's pretraining, with 400 epochs as in M2A2E. The
  encoder's positions are learned, as in timm's ViT, where MAE's are fixed.
  """
  c = embedded()
  c.protocol = 'flexmodal'
  c.train = c.val = ''
  c.view = ConfigDict({'flip': 0.5, 'crop': (0.2, 1.0)})
  c.resize = 'bilinear'
  c.model.image_size = 224
  c.model.backbone = ConfigDict({'name': 'vit', 'variant': 'B', 'patch_size': 16})
  c.model.backbone.update({'scan': False, 'remat': False})
  c.model.decoder = ConfigDict({'width': 512, 'depth': 4, 'heads': 16})
  c.model.dtype = 'bfloat16'
  c.batch_size = 256
  epoch = 43  # steps
  c.steps = 400 * epoch
  c.schedule.peak = 1.5e-4 * c.batch_size / 256
  c.schedule.warmup = 40 * epoch
  c.clip_norm = None
  c.eval_every = 20 * epoch
  c.checkpoint_every = 20 * epoch
  return c
