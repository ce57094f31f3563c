"""Which data a paper trains on, tests on, and how it judges: data, no code.

A protocol is named by `config.protocol`, with fields in brackets where it has some:

  --config.protocol=flexmodal
  --config.protocol='cefa_1(ethnicity=CA)'
  --config.protocol='leave_one_attack_out(set=rendered_faces/surf_like, attack=eyes_flat)'

`lookup.make_protocol` fills the fields in. Selections are lines of `protocols/selection.py`,
over sets that `prepare` made; lists that are licensed stay with their users, whose builders turn
them into columns (`grandtest`, `mm_fas_fold1`, ...).
"""

from collections.abc import Mapping
from typing import NamedTuple

FLEXMODAL_SUBSETS = ('rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir')


class Protocol(NamedTuple):
  """A way to train and to judge; `{field}` in a text is filled in.

  Attributes:
    source: the paper or document, and what of this is inferred or ours.
    train, val: selections, several separated by commas. Checkpoints are chosen, and thresholds
      fitted, on val alone.
    test: {name: selections}.
    threshold: {name of the test: rule of `thresholds.RULES`}.
    subsets: of modalities that are reported; empty: all that the model serves.
    metrics: of `results.json`, those that the papers report, for the printed table; the file has
      all.
    fields: {field: values it may have}, the first its default; no values: it must be given, and
      may be anything.
    leaks: known leaks that this protocol has, as published or by its construction.
    left_out: 'val' or tests none of whose attacks may be trained on.
  """

  source: str
  train: str
  val: str
  test: Mapping[str, str]
  threshold: Mapping[str, str]
  subsets: tuple[str, ...] = ()
  metrics: tuple[str, ...] = ('acer', 'apcer', 'bpcer', 'eer', 'auc')
  fields: Mapping[str, tuple[str, ...]] = {}
  leaks: tuple[str, ...] = ()
  left_out: tuple[str, ...] = ()


PROTOCOLS: dict[str, Protocol] = {}

# FlexModal, and the same in miniature on the embedded set.
_FLEXMODAL_METRICS = ('acer', 'apcer', 'bpcer', 'tpr@fpr=1e-2', 'tpr@fpr=1e-3')
PROTOCOLS['flexmodal'] = Protocol(
  source='Yu et al., Flexible-Modal Face Anti-Spoofing: A Benchmark, CVPRW 2023, with redundant '
  'rows dropped and the leaked row (AF-300) taken out of val.',
  train='casia_surf/flexmodal:train, casia_cefa/flexmodal:train',
  val='casia_surf/flexmodal:val, casia_cefa/flexmodal:val',
  test={
    'intra': 'casia_surf/flexmodal:test, casia_cefa/flexmodal:test',
    'cross': 'wmca/flexmodal:test',
  },
  threshold={'intra': 'dev_eer', 'cross': 'fixed=0.5'},
  subsets=FLEXMODAL_SUBSETS,
  metrics=_FLEXMODAL_METRICS,
)
PROTOCOLS['flexmodal_published'] = Protocol(
  source='The same, every row of the published lists counted, also redundant and leaked ones.',
  train='casia_surf/flexmodal_published:train, casia_cefa/flexmodal_published:train',
  val='casia_surf/flexmodal_published:val, casia_cefa/flexmodal_published:val',
  test={
    'intra': 'casia_surf/flexmodal_published:test, casia_cefa/flexmodal_published:test',
    'cross': 'wmca/flexmodal_published:test',
  },
  threshold={'intra': 'dev_eer', 'cross': 'fixed=0.5'},
  subsets=FLEXMODAL_SUBSETS,
  metrics=_FLEXMODAL_METRICS,
  leaks=('flexmodal_v1',),
)
PROTOCOLS['rendered_flexmodal'] = Protocol(
  source='Ours: the structure of FlexModal on RENDERED faces; masks are a test of their own.',
  train='rendered_faces/surf_like{size}:train, rendered_faces/cefa_like{size}:train',
  val='rendered_faces/surf_like{size}:val, rendered_faces/cefa_like{size}:val',
  test={
    'intra': 'rendered_faces/surf_like{size}:test, rendered_faces/cefa_like{size}:test',
    'cross': 'rendered_faces/wmca_like{size}:test',
    'unseen': 'rendered_faces/cefa_like{size}:test, rendered_faces/cefa_like{size}:masks',
  },
  threshold={'intra': 'dev_eer', 'unseen': 'dev_eer', 'cross': 'fixed=0.5'},
  subsets=FLEXMODAL_SUBSETS,
  metrics=_FLEXMODAL_METRICS,
  fields={'size': ('', '_tiny')},
)

# CASIA-SURF: train on three ways of cutting a photo, be tested on three others.
_SURF_METRICS = ('tpr@fpr=1e-2', 'tpr@fpr=1e-3', 'tpr@fpr=1e-4', 'apcer', 'bpcer', 'acer')
PROTOCOLS['casia_surf_official'] = Protocol(
  source='Zhang et al., CASIA-SURF, CVPR 2019 and TBIOM 2020. The splits as handed out hold live '
  'faces with attacks 4 to 6 (train) and 1 to 3 (val, test). The rule for the threshold is '
  'inferred; TPR@FPR has none.',
  train='{set}:train',
  val='{set}:val',
  test={'test': '{set}:test'},
  threshold={'test': 'dev_eer'},
  metrics=_SURF_METRICS,
  fields={'set': ('casia_surf/challenge', 'casia_surf/release')},
)
PROTOCOLS['casia_surf_official_crops'] = Protocol(
  source='The same attacks left out, on the crops of FlexModal, whose lists mix all six.',
  train='casia_surf/flexmodal:train[species=bona_fide,04_en_b,05_enm_s,06_enm_b]',
  val='casia_surf/flexmodal:val[species=bona_fide,01_e_s,02_e_b,03_en_s]',
  test={'test': 'casia_surf/flexmodal:test[species=bona_fide,01_e_s,02_e_b,03_en_s]'},
  threshold={'test': 'dev_eer'},
  metrics=_SURF_METRICS,
)

# CeFA. Tests always include the masks, all of which the data set holds: the official lists name
# 1,079 of its videos of 3D masks and 44 of silicone ones.
_CEFA = {'set': ('casia_cefa/release',)}
_CEFA_SOURCE = (
  'Liu et al., CASIA-SURF CeFA, WACV 2021. The rule for the threshold is inferred; all masks are '
  'in the test, where the official lists name a part. '
)
PROTOCOLS['cefa_1'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 1: an ethnicity that was not trained on.',
  train='{set}:train[ethnicity={ethnicity}]',
  val='{set}:val[ethnicity={ethnicity}]',
  test={'test': '{set}:test[ethnicity!={ethnicity}], {set}:masks'},
  threshold={'test': 'dev_eer'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields={'ethnicity': ('AF', 'CA', 'EA'), **_CEFA},
)
PROTOCOLS['cefa_2'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 2: an attack that was not trained on.',
  train='{set}:train[category=bona_fide,{attack}]',
  val='{set}:val[category=bona_fide,{attack}]',
  test={'test': '{set}:test[category!={attack}], {set}:masks'},
  threshold={'test': 'dev_eer'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields={'attack': ('print', 'replay'), **_CEFA},
)
PROTOCOLS['cefa_3'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 3: a modality that was not trained on. Thresholds are fitted on '
  'val under the modality that is tested, which the lists that we know of do not settle; the row '
  'of the trained modality is the comparison.',
  train='{set}:train[modalities={modality}]',
  val='{set}:val',
  test={'test': '{set}:test, {set}:masks'},
  threshold={'test': 'dev_eer'},
  subsets=('rgb', 'depth', 'ir'),
  metrics=('apcer', 'bpcer', 'acer'),
  fields={'modality': ('rgb', 'depth', 'ir'), **_CEFA},
)
PROTOCOLS['cefa_4'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 4: neither the ethnicity nor the attack was trained on. Which '
  'attack is trained on (replay) follows from the counts of its lists.',
  train='{set}:train[ethnicity={ethnicity} & category=bona_fide,replay]',
  val='{set}:val[ethnicity={ethnicity} & category=bona_fide,replay]',
  test={'test': '{set}:test[ethnicity!={ethnicity} & category!=replay], {set}:masks'},
  threshold={'test': 'dev_eer'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields={'ethnicity': ('AF', 'CA', 'EA'), **_CEFA},
)
PROTOCOLS['cefa_5'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 5: bias; trained on all, judged for each ethnicity. That it is '
  'trained on all is inferred from its figures.',
  train='{set}:train',
  val='{set}:val',
  test={
    'AF': '{set}:test[ethnicity=AF]',
    'CA': '{set}:test[ethnicity=CA]',
    'EA': '{set}:test[ethnicity=EA]',
  },
  threshold={'AF': 'dev_eer', 'CA': 'dev_eer', 'EA': 'dev_eer'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields=_CEFA,
)

# WMCA. `set` has its split: the columns come from the protocol files of the data set.
_WMCA = {'set': ('wmca/preprocessed:whole', 'wmca/flexmodal:test')}
_WMCA_SOURCE = 'George et al., WMCA, TIFS 2019: the threshold where BPCER is 1 % on dev. '
PROTOCOLS['wmca_grandtest'] = Protocol(
  source=_WMCA_SOURCE + 'All attacks in every split, clients apart.',
  train='{set}[grandtest=train]',
  val='{set}[grandtest=dev]',
  test={'eval': '{set}[grandtest=eval]'},
  threshold={'eval': 'dev_bpcer=1%'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields=_WMCA,
)
PROTOCOLS['wmca_leave_one_out'] = Protocol(
  source=_WMCA_SOURCE + 'One category is not trained on, and alone in the test.',
  train='{set}[LOO_{attack}=train]',
  val='{set}[LOO_{attack}=dev]',
  test={'eval': '{set}[LOO_{attack}=eval]'},
  threshold={'eval': 'dev_bpcer=1%'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields={
    'attack': (
      *('fakehead', 'flexiblemask', 'glasses', 'papermask', 'prints', 'replay', 'rigidmask'),
    ),
    **_WMCA,
  },
)

# MMDG: train on some of CeFA (c), PADISI (p), CASIA-SURF (s), WMCA (w), be tested on another.
_MMDG = {
  'c': tuple(f'casia_cefa/flexmodal:{split}' for split in ('train', 'val', 'test')),
  'p': tuple(f'padisi/face:whole[part0={split}]' for split in ('train', 'val', 'test')),
  's': tuple(f'casia_surf/flexmodal:{split}' for split in ('train', 'val', 'test')),
  'w': tuple(f'wmca/flexmodal:test[grandtest={split}]' for split in ('train', 'dev', 'eval')),
}
_MMDG_SOURCE = (
  'Lin et al., MMDG, CVPR 2024. Its list files are those of FlexModal (c, s), of WMCA (w) and of '
  "PADISI's first fold (p). That training takes the train parts, and the test the target's test "
  'part, is inferred; thresholds are fitted on the val parts of the sources, where later papers '
  'of this line fit them on the test. '
)
for _sources, _target, _numbers in (
  ('cps', 'w', '12'),
  ('cpw', 's', '12'),
  ('csw', 'p', '12'),
  ('psw', 'c', '12'),
  ('cw', 'ps', '3'),
  ('ps', 'cw', '3'),
):
  for _number in _numbers:
    PROTOCOLS[f'mmdg_{_number}_{_sources}_{_target}'] = Protocol(
      source=_MMDG_SOURCE
      + {
        '1': 'Protocol 1: all sensors, a data set that was not trained on.',
        '2': 'Protocol 2: the same, with sensors missing at the test.',
        '3': 'Protocol 3: two data sets to train on.',
      }[_number],
      train=', '.join(_MMDG[name][0] for name in _sources),
      val=', '.join(_MMDG[name][1] for name in _sources),
      test={'test': ', '.join(_MMDG[name][2] for name in _target)},
      threshold={'test': 'dev_eer'},
      subsets=('rgb', 'rgb+depth', 'rgb+ir') if _number == '2' else ('rgb+depth+ir',),
      metrics=('hter', 'auc'),
    )

# MM-FAS: three folds, each without one of the three attacks of CASIA-SURF's training.
PROTOCOLS['mm_fas_fold'] = Protocol(
  source='Parkin & Grinchuk, Recognizing Multi-Modal Face Spoofing with Face Recognition Networks, '
  'CVPRW 2019: their fold lists, which `prepare` finds with --lists. The left-out attack is val, '
  'where the source watched the official val, which is the test here. A person whose left-out '
  'attack is in val has other attacks in train, as in the source.',
  train='casia_surf/challenge:train[mm_fas_fold{fold}=train]',
  val='casia_surf/challenge:train[mm_fas_fold{fold}=val]',
  test={'official_val': 'casia_surf/challenge:val'},
  threshold={'official_val': 'dev_eer'},
  metrics=('tpr@fpr=1e-2', 'tpr@fpr=1e-3', 'tpr@fpr=1e-4', 'acer'),
  fields={'fold': ('1', '2', '3')},
  leaks=('subjects_of_attacks',),
  left_out=('val',),
)
PROTOCOLS['mm_fas_like'] = Protocol(
  source='The same on any set, without lists: a third of the live people, and one attack, are val.',
  train='{set}:{train}[species!=bona_fide,{attack}], '
  '{set}:{train}[species=bona_fide & subject%3!={part}]',
  val='{set}:{train}[species={attack}], {set}:{train}[species=bona_fide & subject%3={part}]',
  test={'test': '{set}:{test}'},
  threshold={'test': 'dev_eer'},
  metrics=('tpr@fpr=1e-2', 'tpr@fpr=1e-3', 'tpr@fpr=1e-4', 'acer'),
  fields={
    'set': (),
    'attack': (),
    'part': ('0', '1', '2'),
    'train': ('train',),
    'test': ('test',),
  },
  leaks=('subjects_of_attacks',),
  left_out=('val',),
)

_CUT = 'eyes_nose_curved,eyes_nose_mouth_flat,eyes_nose_mouth_curved'  # 4 to 6 of CASIA-SURF
PROTOCOLS['rendered_mm_fas'] = Protocol(
  source="MM-FAS's folds on RENDERED faces: CASIA-SURF's attacks 4 to 6 are trained on but for the "
  'one that is left out, 1 to 3 never; `dev` is what members of all folds are compared and '
  'averaged by.',
  train='rendered_faces/surf_like{size}:train[species=' + _CUT + ' & species!={attack}], '
  'rendered_faces/surf_like{size}:train[species=bona_fide & subject%3!={part}]',
  val='rendered_faces/surf_like{size}:train[species={attack}], '
  'rendered_faces/surf_like{size}:train[species=bona_fide & subject%3={part}]',
  test={
    'dev': 'rendered_faces/surf_like{size}:val[species=bona_fide,' + _CUT + ']',
    'seen': 'rendered_faces/surf_like{size}:test[species=bona_fide,' + _CUT + ']',
    'unseen': 'rendered_faces/surf_like{size}:test'
    '[species=bona_fide,eyes_flat,eyes_curved,eyes_nose_flat]',
    'cross': 'rendered_faces/wmca_like{size}:test',
  },
  threshold={'dev': 'dev_eer', 'seen': 'dev_eer', 'unseen': 'dev_eer', 'cross': 'dev_eer'},
  subsets=FLEXMODAL_SUBSETS,
  fields={'attack': tuple(_CUT.split(',')), 'part': ('0', '1', '2'), 'size': ('', '_tiny')},
  leaks=('subjects_of_attacks',),
  left_out=('val',),
)

# Any set that has splits, and any of its species.
PROTOCOLS['splits'] = Protocol(
  source="Common practice: the set's own splits.",
  train='{set}:{train}',
  val='{set}:{val}',
  test={'intra': '{set}:{test}'},
  threshold={'intra': 'dev_eer'},
  fields={'set': (), 'train': ('train',), 'val': ('val',), 'test': ('test',)},
)
PROTOCOLS['leave_one_attack_out'] = Protocol(
  source='Common practice: one species is neither trained on nor in val, and tested by itself.',
  train='{set}:{train}[species!={attack}]',
  val='{set}:{val}[species!={attack}]',
  test={
    'seen': '{set}:{test}[species!={attack}]',
    'unseen': '{set}:{test}[species=bona_fide,{attack}]',
  },
  threshold={'seen': 'dev_eer', 'unseen': 'dev_eer'},
  left_out=('unseen',),
  fields={'set': (), 'attack': (), 'train': ('train',), 'val': ('val',), 'test': ('test',)},
)
