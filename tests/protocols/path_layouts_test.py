"""Paths in every layout, and one id for the three files of a triplet."""

from pathlib import Path

import pytest

from flexfas_jax.errors import DataError
from flexfas_jax.protocols import path_layouts

PUBLISHED = Path(__file__).parents[3] / 'shared' / 'data' / 'flexmodal_protocols'

SURF = 'CASIA-SURF-CROP/fake_part/fake_train_part/CLKJ_AS0005/04_en_b.rssdk/color/101.jpg'
CEFA = 'CeFA/CeFA-Race/AF/AF-300/1_300_3_2_2/profile/0026.jpg'
MASK = 'CeFA/CeFA-Mask/3D-Mask/001/1_001_0_0_2_1_3/profile/0003.jpg'
WMCA = 'WMCA-Image/R_CDIT/001_01_000_2_08/color/0012.jpg'

# path: id, modality, label, attack_type, attack_category, ethnicity, part
SAID = {
  SURF: 'casia_surf/CLKJ_AS0005/04_en_b/101 rgb attack 04_en_b cut_photo - train',
  'CASIA-SURF-CROP/real_part/real_val_part/CLKJ_CS0010/real.rssdk/depth/31.jpg': (
    'casia_surf/CLKJ_CS0010/real/31 depth bona_fide - - - val'
  ),
  'Training/real_part/CLKJ_AS0005/real.rssdk/ir/101_resized.jpg': (
    'casia_surf/CLKJ_AS0005/real/101 ir bona_fide - - - train'
  ),
  '/any/where/Training/fake_part/CLKJ_AS0005/06_enm_b.rssdk/color/9.png': (
    'casia_surf/CLKJ_AS0005/06_enm_b/9 rgb attack 06_enm_b cut_photo - train'
  ),
  'CASIA_SURF/Data/Testing/fake_part/CLKJ_AS0007/05.rssdk/color/0015.jpg': (
    'casia_surf/CLKJ_AS0007/05_enm_s/0015 rgb attack 05_enm_s cut_photo - test'
  ),
  'Val/0000/000012-ir.jpg': 'casia_surf/Val/000012 ir - - - - val',
  CEFA: 'casia_cefa/AF-300/1_300_3_2_2/0026 rgb attack cloth_outdoor print AF test',
  'CASIA_CeFA/Ethnicity/EA/EA-007/3_007_1_1_1/color/0001.jpg': (
    'casia_cefa/EA-007/3_007_1_1_1/0001 rgb bona_fide - - EA train'
  ),
  'CA-250/2_250_3_1_4/depth/1.jpg': (
    'casia_cefa/CA-250/2_250_3_1_4/1 depth attack replay replay CA val'
  ),
  'train/2_007_3_1_2/profile/0001.jpg': (
    'casia_cefa/CA-007/2_007_3_1_2/0001 rgb attack cloth_indoor print CA train'
  ),
  'AF/AF-300-ID0123/1_300_1_1_1/ir/0001.jpg': (
    'casia_cefa/AF-300/1_300_1_1_1/0001 ir bona_fide - - AF test'
  ),
  MASK: 'casia_cefa/3D-Mask-001/1_001_0_0_2_1_3/0003 rgb attack 3d_mask rigidmask - test',
  'Mask/Silicone-Mask/004/2_004_1_1_2_1_3/ir/0001.jpg': (
    'casia_cefa/Silicone-Mask-004/2_004_1_1_2_1_3/0001 ir attack silicone_mask flexiblemask - test'
  ),
  WMCA: 'wmca/001/001_01_000_2_08/0012 rgb attack 2_08 papermask - -',
  'x/001_01_000_0_01/ir/0036.png': 'wmca/001/001_01_000_0_01/0036 ir bona_fide - - - -',
}  # fmt: skip


def said(path):
  s = path_layouts.parse(path)
  facts = (s.id, s.modality, s.label, s.attack_type, s.attack_category, s.ethnicity, s.part)
  return ' '.join(fact or '-' for fact in facts)


@pytest.mark.parametrize('path', SAID)
def test_what_a_path_says(path):
  assert said(path) == SAID[path]
  assert said(path) == SAID[path]  # once more, from what is kept
  assert said('/mnt/面部/' + path) == SAID[path]


@pytest.mark.parametrize(
  'path',
  [
    '',
    '0001.jpg',
    'a/b.rssdk/color/x.jpg',
    'color/0001.jpg',
    CEFA.replace('.jpg', '_resized.jpg'),
    CEFA.replace('AF-300', 'AF-301'),  # two subjects in one path
    'CeFA/AF-1/1_1/color/1.jpg',
    '001_01_000_9_99/color/0012.jpg',  # WMCA has no such instrument
    '001_01_000_2_19/color/0012.jpg',
    SURF.replace('.rssdk', ''),
    WMCA.replace('color', 'thermal'),
  ],
)
def test_what_says_nothing(path):
  assert path_layouts.parse(path) is None


@pytest.mark.parametrize(
  'path, words',
  [
    (CEFA.replace('_3_2_2/', '_3_2_9/'), '1_300_3_2_9: CeFA has no instrument 9 in session 2'),
    (CEFA.replace('_3_2_2/', '_3_3_2/'), '1_300_3_3_2: CeFA has no instrument 2 in session 3'),
    ('001_01_000_9_99/color/0012.jpg', '001_01_000_9_99: WMCA has no type 9 with instrument 99'),
    (SURF.replace('04_en_b', '07'), 'CLKJ_AS0005: CASIA-SURF has no clip 07 in fake_part'),
    (SURF.replace('04_en_b', 'real'), 'CLKJ_AS0005: CASIA-SURF has no clip real in fake_part'),
    (SURF.replace('fake', 'real'), 'CLKJ_AS0005: CASIA-SURF has no clip 04_en_b in real_part'),
  ],
)
def test_an_instrument_that_the_data_set_does_not_have(path, words):
  assert path_layouts.parse(path) is None
  assert path_layouts.find_unknown_instrument(path) == words
  assert path_layouts.find_unknown_instrument(path.replace('.jpg', 'x.jpg')) == ''


@pytest.mark.parametrize('path', ['a.jpg', SURF, CEFA, MASK, WMCA])
def test_an_instrument_that_is_known(path):
  assert path_layouts.find_unknown_instrument(path) == ''


@pytest.mark.parametrize('path', [SURF, CEFA, MASK, WMCA])
def test_a_triplet_has_one_id(path):
  color = 'profile' if 'profile' in path else 'color'
  three = [path_layouts.parse(path.replace(color, m)) for m in (color, 'depth', 'ir')]
  assert len({s.id for s in three}) == 1
  assert [s.modality for s in three] == ['rgb', 'depth', 'ir']


def test_frames_of_a_folder_keep_their_own():
  """What a folder says is read once; the frame never is."""
  for frame in ('0012', '0024', '12'):
    assert path_layouts.parse(WMCA.replace('0012', frame)).id == f'wmca/001/001_01_000_2_08/{frame}'
  assert path_layouts.parse(WMCA.replace('color', 'ir')).modality == 'ir'
  assert path_layouts.parse('Val/0000/000013-ir.jpg').id == 'casia_surf/Val/000013'


def test_wmca_names():
  assert path_layouts.wmca_video('100_03_015_2_10').attack_category == 'papermask'
  assert path_layouts.wmca_video('001_01_000_3_05').attack_category == 'replay'
  assert path_layouts.wmca_video('001_01_000_3_04').attack_category == 'print'
  for bad in ('001_01_000_2', '001_01_000_2_19', '1_01_000_2_08', ''):
    with pytest.raises(DataError):
      path_layouts.wmca_video(bad)


def test_cefa_parts():
  assert [path_layouts.cefa_part(n) for n in (0, 199, 200, 299, 300)] == [
    'train', 'train', 'val', 'val', 'test',
  ]  # fmt: skip


def test_anyones_paths():
  for path, modality, rest in (
    ('a/b/color/12.jpg', 'rgb', 'a/b/12'),
    ('color/12.jpg', 'rgb', '12'),
    ('a/IR/12.png', 'ir', 'a/12'),
    ('a/Depth_map/12.png', 'depth', 'a_map/12'),
    ('a/12-rgb.jpg', 'rgb', 'a/12'),
    ('x_depth_001.png', 'depth', 'x_001'),
    ('rgb_x/depth/1.png', 'depth', '_x/1'),
    ('nirvana/colors/irma.jpg', '', 'nirvana/colors/irma'),
    ('x/noextension', '', 'x/noextension'),
  ):
    assert (path_layouts.modality_of(path), path_layouts.without_modality(path)) == (modality, rest)


def test_the_published_lists_are_understood():
  if not PUBLISHED.is_dir():
    pytest.skip("FlexModal's protocol lists are not here")
  for path in sorted(PUBLISHED.glob('*.txt')):
    for line in path.read_text().splitlines()[::7]:
      *paths, label = line.split()
      three = [path_layouts.parse(p) for p in paths]
      assert [s.modality for s in three] == ['rgb', 'depth', 'ir'], line
      assert len({s.id for s in three}) == 1, line
      assert three[0].label == ('bona_fide' if label == '1' else 'attack'), line


def test_facts_of_a_triplet_without_a_subject():
  facts = path_layouts.parse('Val/0007/000012-color.jpg').example_fields()
  assert facts['subject'] == '' and facts['id'] == 'casia_surf/Val/000012'
