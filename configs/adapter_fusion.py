"""Adapters, LoRA and prompts on a frozen, pretrained ViT, on the embedded data set.

  python -m flexfas_jax.main --config=configs/face_recognition.py:vit --workdir=runs/faces
  python -m flexfas_jax.main --config=configs/adapter_fusion.py:conv --workdir=runs/conv \
    --config.pretrained.weights=runs/faces

The first command pretrains the small ViT on faces; without `pretrained` the second one runs, and
trains adapters of a random network, which means little. Recipes for a laptop, rendered faces:

  linear         no adapter: the head alone
  full           no adapter: everything trains
  conv           convolutional adapters with a central difference (DADM's Convpass)
  ama            one convolution over all present modalities of a joint sequence (IJCV 2024)
  mmdg           U-Adapters between modalities (CVPR 2024)
  mmdg_regrad    the same with MMDG's training: single-side prototypes and ReGrad, corrected
  mmdg_plus      U-Adapters of MMDG++ (TPAMI 2025)
  lora_dinov2    LoRA on queries and values, FlexModal's fusion
  lora_clip      FoundPAD's head as well: features of unit norm (WACVW 2025)
  prompts        prompts for each missing case, with a consistency loss (after VP-FAS, TDSC 2024)

Expected: experiments/adapters has their error rates and times.

Recipes for the licensed data and foundation weights (extra `hub`); not run here:

  mmdg_published         MMDG's network and protocol; the settings are those of DADM's trainer, by
                         the same authors, since MMDG's were not published
  lora_clip_published    FoundPAD's settings, with RGB, depth and infrared in the place of RGB alone
  lora_dinov2_flexmodal  ViT-B/14 of DINOv2 with registers on FlexModal's protocol

No settings were published for conv, ama, mmdg_plus and prompts in this form.
"""

from ml_collections import ConfigDict

CONV = {'name': 'conv', 'width': 8, 'theta': 0.7, 'dropout': 0.1}
LORA = {'name': 'lora', 'targets': ('q', 'v'), 'rank': 8, 'alpha': 8.0, 'dropout': 0.4}


def get_config(recipe: str = 'conv') -> ConfigDict:
  """The config of a recipe; see above."""
  recipes = {
    'conv': conv,
    'linear': linear,
    'full': full,
    'ama': ama,
    'mmdg': mmdg,
    'mmdg_regrad': mmdg_regrad,
    'mmdg_plus': mmdg_plus,
    'lora_dinov2': lora_dinov2,
    'lora_clip': lora_clip,
    'prompts': prompts,
    'mmdg_published': mmdg_published,
    'lora_clip_published': lora_clip_published,
    'lora_dinov2_flexmodal': lora_dinov2_flexmodal,
  }
  if recipe not in recipes:
    raise ValueError(
      f'adapter_fusion has no recipe {recipe!r}; choose one of: {", ".join(recipes)}'
    )
  return recipes[recipe]()


def embedded() -> ConfigDict:
  """What all recipes for a laptop share: a small frozen ViT, rendered faces."""
  c = ConfigDict()
  c.seed = 0

  c.data_dir = 'prepared'
  c.protocol = ''
  c.train = 'rendered_faces/surf_like:train,rendered_faces/cefa_like:train'
  c.val = 'rendered_faces/surf_like:val,rendered_faces/cefa_like:val'
  c.test = ConfigDict()
  c.test.intra = 'rendered_faces/surf_like:test,rendered_faces/cefa_like:test'
  c.test.cross = 'rendered_faces/wmca_like:test'
  c.threshold = ConfigDict({'intra': 'dev_eer', 'cross': 'dev_eer'})
  c.accept_known_leaks = ()

  c.view = ConfigDict({'flip': 0.5, 'rotate': 10.0, 'crop': (0.75, 1.0)})
  c.photometric = ConfigDict()
  c.photometric.rgb = ConfigDict({'add': 0.1, 'contrast': 0.2, 'gamma': 0.3, 'per_channel': True})
  c.photometric.ir = ConfigDict({'add': 0.05, 'contrast': 0.2, 'gamma': 0.3})
  c.cutout = 0
  c.resize = 'area'

  c.model = ConfigDict({'modalities': ('rgb', 'depth', 'ir'), 'image_size': 64})
  c.model.backbone = ConfigDict({'name': 'vit', 'variant': 'pico', 'patch_size': 16})
  c.model.backbone.update({'stem': 'resnet', 'layer_scale': 0.1, 'adapters': ()})
  c.model.backbone.update({'scan': False, 'remat': False})
  c.model.fusion = ConfigDict({'name': 'concat', 'dropout': 0.1})
  c.model.head = ConfigDict({'name': 'binary_logit', 'dropout': 0.1})
  c.model.share_streams = True
  c.model.absent = 'token'
  c.model.frozen_statistics = True
  c.model.dtype = 'float32'
  c.pretrained = ConfigDict(
    {'weights': '', 'architecture': 'ours', 'sha256': None, 'into': 'streams'}
  )
  # What trains; the rest of the backbone is frozen.
  c.trainable = ('adapters', 'token', 'fusion', 'head')
  c.modality_dropout = ConfigDict({'depth': 0.5, 'ir': 0.5})

  c.loss = ConfigDict({'binary_cross_entropy': {}})
  c.batch_size = 16
  c.gradient_modulation = None  # or {'name': 'regrad'}
  c.domain = 'dataset'  # a column; its values are the domains
  c.sampler = ConfigDict()  # or {'balance': ('domain', 'label')}
  c.steps = 600
  c.optimizer = ConfigDict({'name': 'adamw', 'weight_decay': 0.05})
  c.schedule = ConfigDict({'name': 'warmup_cosine', 'peak': 1e-3, 'warmup': 50})
  c.clip_norm = 1.0
  c.accumulate = 1  # number of parts that a batch is split into, to save memory
  c.ema = 0.0
  c.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  c.views = ('whole',)
  c.eval_batch_size = 64
  c.eval_every = 200
  c.checkpoint_every = 200
  c.save_tries = 3  # consecutive failed saves (a full disk) that end the run
  c.log_every = 10
  c.report = True
  c.pass_if = ''  # a requirement on every test, such as 'apcer_max<=5%,bpcer<=3%'
  c.test_toml = ''  # file with what a laboratory states in the report
  return c


def linear() -> ConfigDict:
  """The frozen backbone's features, and a trained fusion and head."""
  c = embedded()
  c.trainable = ('token', 'fusion', 'head')
  return c


def full() -> ConfigDict:
  """Full fine-tuning, which adapters are compared with."""
  c = embedded()
  c.model.frozen_statistics = False
  c.trainable = ()
  return c


def conv() -> ConfigDict:
  """Convolutional adapters beside attention and MLP of each block, one set for each modality."""
  c = embedded()
  c.model.backbone.adapters = ({**CONV, 'per_modality': True},)
  return c


def ama() -> ConfigDict:
  """One sequence of all modalities; adapters for one, two and three modalities."""
  c = embedded()
  c.model.backbone.sequence = 'joint'
  c.model.backbone.adapters = ({'name': 'ama', 'parts': 'dynamic', 'width': 8},)
  return c


def mmdg() -> ConfigDict:
  """MMDG's network on the small ViT: its last block trains, too."""
  c = embedded()
  c.model.backbone.adapters = ({'name': 'uncertain_cross', 'width': 8, 'theta': 0.5},)
  c.model.backbone.per_modality = ('cls_token', 'pos_embed')
  c.model.backbone.output = 'class_token'
  c.model.fusion = ConfigDict({'name': 'plain_concat'})
  c.model.absent = 'exclude'
  c.trainable = ('adapters', 'cls_token', 'pos_embed', 'block_3', 'norm', 'head')
  return c


def mmdg_regrad() -> ConfigDict:
  """MMDG's network and training, between the two rendered sets as domains."""
  c = mmdg()
  add_prototypes(c, domains=2, period=94)
  return c


def add_prototypes(c: ConfigDict, domains: int, period: int) -> None:
  """MMDG's losses: prototypes of bona fide and of each domain's attacks, averaged by epoch."""
  c.model.modality_features = True
  c.loss.single_side_prototypes = ConfigDict({'domains': domains, 'period': period, 'weight': 0.3})
  c.gradient_modulation = ConfigDict({'name': 'regrad'})


def mmdg_plus() -> ConfigDict:
  """MMDG++'s network without its text tower: a projection for each modality, unit norm."""
  c = embedded()
  c.model.backbone.adapters = ({'name': 'uncertain_cross_plus', 'width': 8, 'theta': 0.5},)
  c.model.backbone.per_modality = ('cls_token', 'pos_embed', 'projection')
  c.model.backbone.output = 'class_token'
  c.model.backbone.projection = 64
  c.model.backbone.unit_norm = True
  c.model.fusion = ConfigDict({'name': 'plain_concat'})
  c.model.absent = 'exclude'
  c.trainable = ('adapters', 'cls_token', 'pos_embed', 'projection', 'head')
  return c


def lora_dinov2() -> ConfigDict:
  """LoRA on queries and values."""
  c = embedded()
  c.model.backbone.adapters = (LORA,)
  return c


def lora_clip() -> ConfigDict:
  """LoRA, and FoundPAD's head: a linear layer on features of unit norm."""
  c = embedded()
  c.model.backbone.adapters = (LORA,)
  c.model.backbone.output = 'class_token'
  c.model.backbone.unit_norm = True
  c.model.fusion = ConfigDict({'name': 'plain_concat'})
  c.trainable = ('adapters', 'token', 'head')
  return c


def prompts() -> ConfigDict:
  """Prompts for each of the seven subsets; features of a subset follow those of all modalities."""
  c = embedded()
  c.model.backbone.adapters = ({'name': 'prompts', 'length': 4, 'contextual': True},)
  c.model.full_features = True
  c.loss = ConfigDict({'binary_cross_entropy': {}, 'subset_consistency': {'weight': 1.0}})
  return c


def foundation() -> ConfigDict:
  """What the recipes for licensed data and foundation weights share."""
  c = embedded()
  c.test = ConfigDict()
  c.threshold = ConfigDict()
  c.train = c.val = ''
  c.view = ConfigDict({'flip': 0.5})
  c.resize = 'bilinear'
  c.model.image_size = 224
  c.model.dtype = 'bfloat16'
  c.clip_norm = None
  c.eval_every = 500
  c.checkpoint_every = 500
  return c


def mmdg_published() -> ConfigDict:
  """MMDG on its protocol 1 (train on CeFA, PADISI and CASIA-SURF, test on WMCA).

  Differences from the source:
  - ImageNet weights of timm, with their position embedding, replaced by random values there.
  - One patch projection for all modalities: the source's three are equal and frozen.
  - The certainty in closed form, where the source draws 20 times, also in its test.
  - Prototypes and ReGrad are corrected: the released ones cannot run, or reach six of 134 tensors.
  - The best step is selected on the sources' val, not on the test.
  """
  c = foundation()
  c.protocol = 'mmdg_1_cps_w'
  c.model.backbone = ConfigDict({'name': 'vit', 'variant': 'B', 'output': 'class_token'})
  c.model.backbone.adapters = ({'name': 'uncertain_cross', 'width': 8, 'theta': 0.5},)
  c.model.backbone.per_modality = ('cls_token', 'pos_embed')
  c.model.fusion = ConfigDict({'name': 'plain_concat'})
  c.model.head = ConfigDict({'name': 'binary_logit'})
  c.model.absent = 'exclude'
  c.pretrained = ConfigDict(
    {
      'weights': 'hub:timm/vit_base_patch16_224.augreg_in21k_ft_in1k',
      'architecture': 'timm/vit_base_patch16_224',
      'sha256': None,
      'into': 'streams',
    }
  )
  c.trainable = ('adapters', 'cls_token', 'pos_embed', 'block_11', 'norm', 'head')
  c.modality_dropout = ConfigDict()  # every sample has all modalities
  c.photometric = ConfigDict()
  for modality in ('rgb', 'depth', 'ir'):
    c.photometric[modality] = ConfigDict({'add': 40 / 255, 'gamma': (0.5, 1.5)})
    c.photometric[modality].update({'per_channel': True, 'integers': True, 'add_first': True})
  c.batch_size = 16
  c.steps = 80 * 762  # epochs of 12,187 samples
  add_prototypes(c, domains=3, period=762)
  c.optimizer = ConfigDict({'name': 'adam', 'weight_decay': 5e-5, 'decay': 'all'})
  c.schedule = ConfigDict({'name': 'constant', 'peak': 5e-5})
  return c


def lora_clip_published() -> ConfigDict:
  """FoundPAD's settings on FlexModal's protocol: LoRA on CLIP's image tower, ViT-B/16.

  Differences from the source:
  - RGB, depth and infrared in the place of RGB alone.
  - One logit with the binary cross-entropy, in the place of two sigmoids.
  - Flip alone, without RandAugment.
  - One norm of all gradients is limited, in the place of two.
  - The threshold is fitted on val, and videos are not standardised.
  """
  c = foundation()
  c.protocol = 'flexmodal'
  c.model.backbone = ConfigDict({'name': 'vit', 'variant': 'B', 'output': 'class_token'})
  c.model.backbone.update({'patch_bias': False, 'pre_norm': True, 'epsilon': 1e-5})
  c.model.backbone.update({'activation': 'quick_gelu', 'statistics': 'clip'})
  c.model.backbone.update({'projection': 512, 'unit_norm': True})
  c.model.backbone.adapters = (LORA,)
  c.model.fusion = ConfigDict({'name': 'plain_concat'})
  c.model.head = ConfigDict({'name': 'binary_logit'})
  c.pretrained = ConfigDict(
    {
      'weights': 'hub:timm/vit_base_patch16_clip_224.openai',
      'architecture': 'timm/vit_base_patch16_clip_quickgelu_224',
      'sha256': None,
      'into': 'streams',
    }
  )
  c.trainable = ('adapters', 'token', 'head')
  c.photometric = ConfigDict()
  c.batch_size = 512
  c.steps = 40 * 22  # epochs
  c.optimizer = ConfigDict({'name': 'adamw', 'weight_decay': 0.05, 'decay': 'all'})
  c.optimizer.rates = {'adapters': 1e-3}  # 1e-6 for LoRA, 1e-3 for the head
  c.schedule = ConfigDict({'name': 'constant', 'peak': 1e-3})
  c.clip_norm = 5.0
  c.eval_every = 44
  c.checkpoint_every = 44
  return c


def lora_dinov2_flexmodal() -> ConfigDict:
  """LoRA on DINOv2's ViT-B/14 with registers, on FlexModal's protocol.

  No settings were published for several modalities; rates are ours.
  """
  c = foundation()
  c.protocol = 'flexmodal'
  c.model.backbone = ConfigDict({'name': 'vit', 'variant': 'B', 'patch_size': 14})
  c.model.backbone.update({'registers': 4, 'class_position': False, 'layer_scale': 1e-5})
  c.model.backbone.update({'statistics': 'imagenet'})
  c.model.backbone.adapters = (LORA,)
  c.model.fusion = ConfigDict({'name': 'cross_attention', 'form': 'symmetric', 'scaled': True})
  c.pretrained = ConfigDict(
    {
      'weights': 'hub:timm/vit_base_patch14_reg4_dinov2.lvd142m',
      'architecture': 'timm/vit_base_patch14_reg4_dinov2',
      'sha256': None,
      'into': 'streams',
    }
  )
  c.batch_size = 64
  c.steps = 30 * 174
  c.schedule = ConfigDict({'name': 'warmup_cosine', 'peak': 1e-4, 'warmup': 174})
  return c
