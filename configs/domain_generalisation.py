"""Domain generalisation: trains on three domains, tests on a fourth.

  python -m flexfas_jax.main --config=configs/domain_generalisation.py:erm --workdir=runs/erm \
    --config.protocol='rendered_domains(target=wmca_like)'

The domains are the four RENDERED sets. A small hybrid ViT starts from weights of the three sources
(faces or masked images), which the command of `experiments/domain_generalisation` trains first:
`--config.pretrained.weights=RUN`. Without it, from random ones. Recipes:

  erm            full fine-tuning with the binary cross-entropy, which the others are compared with
  prototypes     erm, and MMDG's single-side prototypes (CVPR 2024)
  angle          erm, and DADM's mean angle loss (ICCV 2025)
  hyperplanes    a hyperplane for each domain; their mean decides (DADM)
  lora           LoRA on queries and values of the frozen backbone
  prompts        prompts for each missing case, with a consistency loss (after VP-FAS, TDSC 2024)
  mmdg           U-Adapters between modalities and prototypes (MMDG), without ReGrad
  mmdg_released  the same with ReGrad as the released code applies it: no adapter is reached
  mmdg_regrad    the same with ReGrad, corrected

For the licensed data and weights of the hub; not run here:

  erm_mmdg       full fine-tuning of a ViT-B on MMDG's protocol, as DADM's trainer sets it

Every batch has as many samples of each domain and class. With `--oracle=target`, the results also
have the least HTER over all evaluations of the target, which papers print.

Expected: experiments/domain_generalisation has error rates and times.
"""

from ml_collections import ConfigDict


def get_config(recipe: str = 'erm') -> ConfigDict:
  """The config of a recipe; see above."""
  recipes = {
    'erm': erm,
    'prototypes': prototypes,
    'angle': angle,
    'hyperplanes': hyperplanes,
    'lora': lora,
    'prompts': prompts,
    'mmdg': mmdg,
    'mmdg_released': mmdg_released,
    'mmdg_regrad': mmdg_regrad,
    'erm_mmdg': erm_mmdg,
  }
  if recipe not in recipes:
    raise ValueError(
      f'domain_generalisation has no recipe {recipe!r}; choose one of: {", ".join(recipes)}'
    )
  return recipes[recipe]()


def erm() -> ConfigDict:
  """Full fine-tuning on the pooled domains (empirical risk minimisation)."""
  c = ConfigDict()
  c.seed = 0

  c.data_dir = 'prepared'
  c.protocol = 'rendered_domains(target=wmca_like)'
  c.train = c.val = ''  # the protocol's
  c.test = ConfigDict()
  c.threshold = ConfigDict()
  c.pass_if = ''  # a requirement on every test, such as 'apcer_max<=5%,bpcer<=3%'
  c.test_toml = ''  # file with what a laboratory states in the report
  c.accept_known_leaks = ()

  c.view = ConfigDict({'flip': 0.5, 'rotate': 10.0, 'crop': (0.75, 1.0)})
  c.photometric = ConfigDict()
  c.photometric.rgb = ConfigDict({'add': 0.1, 'contrast': 0.2, 'gamma': 0.3, 'per_channel': True})
  c.photometric.ir = ConfigDict({'add': 0.05, 'contrast': 0.2, 'gamma': 0.3})
  c.cutout = 0
  c.resize = 'area'

  c.model = ConfigDict({'modalities': ('rgb', 'depth', 'ir'), 'image_size': 48})
  c.model.backbone = ConfigDict({'name': 'vit', 'variant': 'pico', 'patch_size': 16})
  c.model.backbone.update({'stem': 'resnet', 'layer_scale': 0.1, 'adapters': ()})
  c.model.backbone.update({'scan': False, 'remat': False})
  c.model.fusion = ConfigDict({'name': 'concat', 'dropout': 0.1})
  c.model.head = ConfigDict({'name': 'binary_logit', 'dropout': 0.1})
  c.model.share_streams = True
  c.model.absent = 'token'
  c.model.frozen_statistics = False
  c.model.dtype = 'float32'
  c.pretrained = ConfigDict(
    {'weights': '', 'architecture': 'ours', 'sha256': None, 'into': 'streams'}
  )
  c.trainable = ()  # all
  c.modality_dropout = ConfigDict({'depth': 0.5, 'ir': 0.5})

  c.loss = ConfigDict({'binary_cross_entropy': {}})
  c.batch_size = 18
  c.gradient_modulation = None
  c.domain = 'dataset'  # a column; its values are the domains
  c.sampler = ConfigDict({'balance': ('domain', 'label')})
  c.steps = 300
  c.optimizer = ConfigDict({'name': 'adamw', 'weight_decay': 0.05})
  c.schedule = ConfigDict({'name': 'warmup_cosine', 'peak': 1e-3, 'warmup': 30})
  c.clip_norm = 1.0
  c.accumulate = 1  # number of parts that a batch is split into, to save memory
  c.ema = 0.0
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.views = ('whole',)
  c.eval_batch_size = 64
  c.eval_every = 75
  c.checkpoint_every = 75
  c.save_tries = 3  # consecutive failed saves (a full disk) that end the run
  c.log_every = 10
  c.report = False
  return c


def prototypes() -> ConfigDict:
  """Full fine-tuning; features of each modality are pulled to prototypes, attacks by domain."""
  c = erm()
  c.model.modality_features = True
  c.loss.single_side_prototypes = ConfigDict({'domains': 3, 'period': 108, 'weight': 0.3})
  return c


def angle() -> ConfigDict:
  """Full fine-tuning; the angles between modalities are alike in all domains."""
  c = erm()
  c.model.modality_features = True
  c.loss.mean_angle = ConfigDict({'domains': 3, 'weight': 0.2})
  return c


def hyperplanes() -> ConfigDict:
  """Full fine-tuning with a hyperplane for each domain."""
  c = erm()
  c.model.head = ConfigDict({'name': 'domain_hyperplanes', 'domains': 3, 'dropout': 0.1})
  c.loss = ConfigDict({'domain_hyperplanes': {}})
  return c


def lora() -> ConfigDict:
  """LoRA on queries and values of the frozen backbone."""
  c = erm()
  freeze_backbone(c)
  adapter = {'name': 'lora', 'targets': ('q', 'v'), 'rank': 8, 'alpha': 8.0, 'dropout': 0.4}
  c.model.backbone.adapters = (adapter,)
  return c


def prompts() -> ConfigDict:
  """Prompts for each missing case; features of a subset follow those of all modalities."""
  c = erm()
  freeze_backbone(c)
  c.model.backbone.adapters = ({'name': 'prompts', 'length': 4, 'contextual': True},)
  c.model.full_features = True
  c.loss.subset_consistency = ConfigDict({'weight': 1.0})
  return c


def freeze_backbone(c: ConfigDict) -> None:
  """Trains adapters, tokens, fusion and head alone."""
  c.model.frozen_statistics = True
  c.trainable = ('adapters', 'token', 'fusion', 'head')


def mmdg() -> ConfigDict:
  """MMDG's network on the small ViT, with its prototypes; the sum of all gradients."""
  c = erm()
  c.model.frozen_statistics = True
  c.model.backbone.adapters = ({'name': 'uncertain_cross', 'width': 8, 'theta': 0.5},)
  c.model.backbone.per_modality = ('cls_token', 'pos_embed')
  c.model.backbone.output = 'class_token'
  c.model.fusion = ConfigDict({'name': 'plain_concat'})
  c.model.absent = 'exclude'
  c.model.modality_features = True
  c.trainable = ('adapters', 'cls_token', 'pos_embed', 'block_3', 'norm', 'head')
  c.loss.single_side_prototypes = ConfigDict({'domains': 3, 'period': 108, 'weight': 0.3})
  return c


def mmdg_released() -> ConfigDict:
  """ReGrad as the released code applies it: to the class tokens and positions alone."""
  c = mmdg()
  c.gradient_modulation = ConfigDict({'name': 'regrad', 'reaches': ('cls_token', 'pos_embed')})
  return c


def mmdg_regrad() -> ConfigDict:
  """ReGrad on every tensor that trains."""
  c = mmdg()
  c.gradient_modulation = ConfigDict({'name': 'regrad'})
  return c


def erm_mmdg() -> ConfigDict:
  """ViT-B from ImageNet on CeFA, PADISI and CASIA-SURF, tested on WMCA (MMDG's protocol 1).

  Rate, batch, epochs and augmentation are those of DADM's trainer, by MMDG's authors; the step is
  selected on the sources' val, which that trainer does not read.
  """
  c = erm()
  c.protocol = 'mmdg_1_cps_w'
  c.view = ConfigDict({'flip': 0.5})
  c.photometric = ConfigDict()
  for modality in ('rgb', 'depth', 'ir'):
    c.photometric[modality] = ConfigDict({'add': 40 / 255, 'gamma': (0.5, 1.5)})
    c.photometric[modality].update({'per_channel': True, 'integers': True, 'add_first': True})
  c.resize = 'bilinear'
  c.model.image_size = 224
  c.model.backbone = ConfigDict({'name': 'vit', 'variant': 'B'})
  c.model.dtype = 'bfloat16'
  c.pretrained = ConfigDict(
    {
      'weights': 'hub:timm/vit_base_patch16_224.augreg_in21k_ft_in1k',
      'architecture': 'timm/vit_base_patch16_224',
      'sha256': None,
      'into': 'streams',
    }
  )
  c.batch_size = 16
  c.sampler = ConfigDict()
  c.steps = 80 * 762  # epochs of 12,187 samples
  c.optimizer = ConfigDict({'name': 'adam', 'weight_decay': 5e-5, 'decay': 'all'})
  c.schedule = ConfigDict({'name': 'constant', 'peak': 5e-5})
  c.clip_norm = None
  c.eval_every = 762
  c.checkpoint_every = 762
  return c
