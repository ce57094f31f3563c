"""Protocols: the data on which a paper trains and tests, its thresholds and metrics. Data, no code.

A protocol is named by `config.protocol`, with its fields in parentheses:

  --config.protocol=flexmodal
  --config.protocol='cefa_1(ethnicity=CA)'
  --config.protocol='leave_one_attack_out(set=rendered_faces/surf_like, attack=eyes_flat)'

`lookup.make_protocol` fills in the fields. Selections (`protocols/selection.py`) are of sets that
`prepare` made. Users keep licensed lists; builders turn them into columns (`grandtest`,
`mm_fas_fold1`, ...).
"""

from collections.abc import Mapping
from typing import NamedTuple

FLEXMODAL_SUBSETS = ('rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir')


class Protocol(NamedTuple):
  """Data, thresholds and metrics of an experiment. `{field}` in a selection is filled in.

  Attributes:
    source: the paper or document, and which parts are inferred or our own.
    train, val: selections, several separated by commas. Checkpoints are selected and thresholds
      fitted on val only.
    test: {name: selections}.
    threshold: {name of the test: rule of `thresholds.RULES`}.
    subsets: of modalities that are reported; empty: all that the model supports.
    metrics: of `results.json`, those of the printed table, as reported by the paper; the file has
      all.
    fields: {field: its values}, the default first; without values, any value must be given. Values
      that are a mapping each give several texts: {value: {name: text}}, filled in for {name}.
    leaks: known leaks of this protocol, as published or by construction.
    left_out: 'val' or tests whose attacks must not be trained on.
    by_video: also report every test by video, the mean over its frames.
  """

  source: str
  train: str
  val: str
  test: Mapping[str, str]
  threshold: Mapping[str, str]
  subsets: tuple[str, ...] = ()
  metrics: tuple[str, ...] = ('acer', 'apcer', 'bpcer', 'eer', 'auc')
  fields: Mapping[str, tuple[str, ...] | Mapping[str, Mapping[str, str]]] = {}
  leaks: tuple[str, ...] = ()
  left_out: tuple[str, ...] = ()
  by_video: bool = False


PROTOCOLS: dict[str, Protocol] = {}

# FlexModal, and the same on small rendered sets.
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
  source='The same with every row of the published lists, also redundant and leaked ones.',
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
  source='Our own: the structure of FlexModal on RENDERED faces; materials of masks that are not '
  'trained on are a separate test.',
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

# Domain generalisation and unseen materials.
_DOMAINS = tuple(f'rendered_faces/{name}_like' for name in ('wmca', 'surf', 'padisi', 'cefa'))


def _others(target: str, split: str) -> str:
  return ', '.join(f'{name}{{size}}:{split}' for name in _DOMAINS if name != target)


PROTOCOLS['rendered_domains'] = Protocol(
  source="Our own: MMDG's scheme on RENDERED faces. Three domains are trained on, the fourth is "
  'tested; thresholds are fitted on the val parts of the three.',
  train='{sources_train}',
  val='{sources_val}',
  test={'sources': '{sources_test}', 'target': '{target_set}{size}:test'},
  threshold={'sources': 'dev_eer', 'target': 'dev_eer'},
  subsets=FLEXMODAL_SUBSETS,
  metrics=('hter', 'auc', 'apcer', 'bpcer'),
  fields={
    'target': {
      domain.partition('/')[2]: {
        'target_set': domain,
        **{f'sources_{split}': _others(domain, split) for split in ('train', 'val', 'test')},
      }
      for domain in _DOMAINS
    },
    'size': ('', '_tiny'),
  },
)
PROTOCOLS['rendered_materials'] = Protocol(
  source='Our own: masks of one material are in neither train nor val, on RENDERED faces; `others` '
  'are the materials that no part has masks of.',
  train='rendered_faces/surf_like{size}:train[species!=mask_{material}], '
  'rendered_faces/cefa_like{size}:train[species!=mask_{material}]',
  val='rendered_faces/surf_like{size}:val[species!=mask_{material}], '
  'rendered_faces/cefa_like{size}:val[species!=mask_{material}]',
  test={
    'seen': 'rendered_faces/surf_like{size}:test[species!=mask_{material}], '
    'rendered_faces/cefa_like{size}:test[species!=mask_{material}]',
    'material': 'rendered_faces/surf_like{size}:test[species=bona_fide,mask_{material}], '
    'rendered_faces/cefa_like{size}:test[species=bona_fide,mask_{material}]',
    'others': 'rendered_faces/cefa_like{size}:test[species=bona_fide], '
    'rendered_faces/cefa_like{size}:masks',
  },
  threshold={'seen': 'dev_eer', 'material': 'dev_eer', 'others': 'dev_eer'},
  subsets=FLEXMODAL_SUBSETS,
  metrics=_FLEXMODAL_METRICS,
  left_out=('material',),
  fields={'material': ('silicone', 'resin', 'plaster', 'textile'), 'size': ('', '_tiny')},
)

# CASIA-SURF: three kinds of cut photos are trained on, three others tested.
_SURF_METRICS = ('tpr@fpr=1e-2', 'tpr@fpr=1e-3', 'tpr@fpr=1e-4', 'apcer', 'bpcer', 'acer')
PROTOCOLS['casia_surf_official'] = Protocol(
  source='Zhang et al., CASIA-SURF, CVPR 2019 and TBIOM 2020. The published splits hold live '
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
  source='The same left-out attacks on the crops of FlexModal, whose lists mix all six.',
  train='casia_surf/flexmodal:train[species=bona_fide,04_en_b,05_enm_s,06_enm_b]',
  val='casia_surf/flexmodal:val[species=bona_fide,01_e_s,02_e_b,03_en_s]',
  test={'test': 'casia_surf/flexmodal:test[species=bona_fide,01_e_s,02_e_b,03_en_s]'},
  threshold={'test': 'dev_eer'},
  metrics=_SURF_METRICS,
)

# CeFA. Tests include all masks of the data set; the official lists name 1,079 of its videos of 3D
# masks and 44 of silicone ones.
_CEFA = {'set': ('casia_cefa/release',)}
_CEFA_SOURCE = (
  'Liu et al., CASIA-SURF CeFA, WACV 2021. The rule for the threshold is inferred; the '
  'test has all masks, the official lists a part. '
)
PROTOCOLS['cefa_1'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 1: an unseen ethnicity.',
  train='{set}:train[ethnicity={ethnicity}]',
  val='{set}:val[ethnicity={ethnicity}]',
  test={'test': '{set}:test[ethnicity!={ethnicity}], {set}:masks'},
  threshold={'test': 'dev_eer'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields={'ethnicity': ('AF', 'CA', 'EA'), **_CEFA},
)
PROTOCOLS['cefa_2'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 2: an unseen attack.',
  train='{set}:train[category=bona_fide,{attack}]',
  val='{set}:val[category=bona_fide,{attack}]',
  test={'test': '{set}:test[category!={attack}], {set}:masks'},
  threshold={'test': 'dev_eer'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields={'attack': ('print', 'replay'), **_CEFA},
)
PROTOCOLS['cefa_3'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 3: an unseen modality. Thresholds are fitted on val under the '
  'tested modality, which the lists do not specify; the trained modality is the comparison.',
  train='{set}:train[modalities={modality}]',
  val='{set}:val',
  test={'test': '{set}:test, {set}:masks'},
  threshold={'test': 'dev_eer'},
  subsets=('rgb', 'depth', 'ir'),
  metrics=('apcer', 'bpcer', 'acer'),
  fields={'modality': ('rgb', 'depth', 'ir'), **_CEFA},
)
PROTOCOLS['cefa_4'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 4: an unseen ethnicity and an unseen attack. The attack that is '
  'trained on (replay) follows from the counts of its lists.',
  train='{set}:train[ethnicity={ethnicity} & category=bona_fide,replay]',
  val='{set}:val[ethnicity={ethnicity} & category=bona_fide,replay]',
  test={'test': '{set}:test[ethnicity!={ethnicity} & category!=replay], {set}:masks'},
  threshold={'test': 'dev_eer'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields={'ethnicity': ('AF', 'CA', 'EA'), **_CEFA},
)
PROTOCOLS['cefa_5'] = Protocol(
  source=_CEFA_SOURCE + 'Protocol 5: bias; trained on all, evaluated for each ethnicity. Training '
  'on all is inferred from its figures.',
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

# WMCA. `set` includes the split; the columns come from the data set's protocol files.
_WMCA = {'set': ('wmca/preprocessed:whole', 'wmca/flexmodal:test')}
_WMCA_SOURCE = 'George et al., WMCA, TIFS 2019: the threshold where BPCER is 1 % on dev. '
PROTOCOLS['wmca_grandtest'] = Protocol(
  source=_WMCA_SOURCE + 'All attacks in every split, clients disjoint.',
  train='{set}[grandtest=train]',
  val='{set}[grandtest=dev]',
  test={'eval': '{set}[grandtest=eval]'},
  threshold={'eval': 'dev_bpcer=1%'},
  metrics=('apcer', 'bpcer', 'acer'),
  fields=_WMCA,
)
PROTOCOLS['wmca_leave_one_out'] = Protocol(
  source=_WMCA_SOURCE + 'One category is not trained on, and is the only attack of the test.',
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

# MMDG: trains on some of CeFA (c), PADISI (p), CASIA-SURF (s), WMCA (w), tests on others.
_MMDG = {
  'c': tuple(f'casia_cefa/{{lists}}:{split}' for split in ('train', 'val', 'test')),
  'p': tuple(f'padisi/face:whole[part0={split}]' for split in ('train', 'val', 'test')),
  's': tuple(f'casia_surf/{{lists}}:{split}' for split in ('train', 'val', 'test')),
  'w': tuple(f'wmca/{{lists}}:test[grandtest={split}]' for split in ('train', 'dev', 'eval')),
}
# The published lists have redundant rows, and in CeFA's val a frame of a subject of its test. CeFA
# is never source and target at once, so that no subject is on both sides.
_MMDG_ROWS = {
  'cleaned': {'lists': 'flexmodal'},
  'published': {'lists': 'flexmodal_published'},
}
_MMDG_SOURCE = (
  'Lin et al., MMDG, CVPR 2024. Its list files are those of FlexModal (c, s), of WMCA (w) and of '
  "PADISI's first fold (p). It trains on the train parts and tests on the target's test part. "
  'Thresholds are fitted on the val parts of the sources, which the papers of this line do not '
  'read: theirs come from the test, as `hter_at_test_eer` does, and so does their epoch. '
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
        '1': 'Protocol 1: all sensors, an unseen data set.',
        '2': 'Protocol 2: the same, with sensors missing in the test.',
        '3': 'Protocol 3: two data sets to train on.',
      }[_number],
      train=', '.join(_MMDG[name][0] for name in _sources),
      val=', '.join(_MMDG[name][1] for name in _sources),
      test={'test': ', '.join(_MMDG[name][2] for name in _target)},
      threshold={'test': 'dev_eer'},
      subsets=('rgb', 'rgb+depth', 'rgb+ir') if _number == '2' else ('rgb+depth+ir',),
      metrics=('hter', 'auc', 'hter_at_test_eer', 'eer'),
      fields={'rows': _MMDG_ROWS},
      by_video=True,
    )

# MM-FAS: three folds, each without one of the three attacks of CASIA-SURF's training.
PROTOCOLS['mm_fas_fold'] = Protocol(
  source='Parkin & Grinchuk, Recognizing Multi-Modal Face Spoofing with Face Recognition Networks, '
  'CVPRW 2019: their fold lists, which `prepare` reads with --lists. The left-out attack is val; '
  'the source monitored the official val, which is the test here. A subject whose left-out '
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
  source='The same on any set, without lists: a third of the live subjects and one attack are val.',
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
  source="MM-FAS's folds on RENDERED faces, version 1, which has CASIA-SURF's six attacks alone: 4 "
  'to 6 are trained on except the left-out one, 1 to 3 never; members of all folds are compared '
  'and averaged on `dev`.',
  train='rendered_faces/v1_surf_like{size}:train[species=' + _CUT + ' & species!={attack}], '
  'rendered_faces/v1_surf_like{size}:train[species=bona_fide & subject%3!={part}]',
  val='rendered_faces/v1_surf_like{size}:train[species={attack}], '
  'rendered_faces/v1_surf_like{size}:train[species=bona_fide & subject%3={part}]',
  test={
    'dev': 'rendered_faces/v1_surf_like{size}:val[species=bona_fide,' + _CUT + ']',
    'seen': 'rendered_faces/v1_surf_like{size}:test[species=bona_fide,' + _CUT + ']',
    'unseen': 'rendered_faces/v1_surf_like{size}:test'
    '[species=bona_fide,eyes_flat,eyes_curved,eyes_nose_flat]',
    'cross': 'rendered_faces/v1_wmca_like{size}:test',
  },
  threshold={'dev': 'dev_eer', 'seen': 'dev_eer', 'unseen': 'dev_eer', 'cross': 'dev_eer'},
  subsets=FLEXMODAL_SUBSETS,
  fields={'attack': tuple(_CUT.split(',')), 'part': ('0', '1', '2'), 'size': ('', '_tiny')},
  leaks=('subjects_of_attacks',),
  left_out=('val',),
)

# Any set with splits, and any of its species.
PROTOCOLS['splits'] = Protocol(
  source="Common practice: the set's own splits.",
  train='{set}:{train}',
  val='{set}:{val}',
  test={'intra': '{set}:{test}'},
  threshold={'intra': 'dev_eer'},
  fields={'set': (), 'train': ('train',), 'val': ('val',), 'test': ('test',)},
)
PROTOCOLS['leave_one_attack_out'] = Protocol(
  source='Common practice: one species is in neither train nor val, and has its own test.',
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
