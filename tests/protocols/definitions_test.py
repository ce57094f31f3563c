"""Protocols are data: each can be read and filled in, and names only what exists."""

import pytest

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.evaluation import results, thresholds
from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.protocols import leakage, selection
from flexfas_jax.protocols.definitions import PROTOCOLS

FREE = {'set': 'a/b', 'attack': 'x'}  # for fields that may be anything


def filled(name):
  """The protocol with each value of its fields, one field at a time."""
  free = [f'{f}={FREE[f]}' for f, values in PROTOCOLS[name].fields.items() if not values]
  for field, values in PROTOCOLS[name].fields.items() or [('', ('',))]:
    for value in values or (FREE[field],):
      own = [] if not field or not values else [f'{field}={value}']
      yield lookup.make_protocol(f'{name}({", ".join(free + own)})')


@pytest.mark.parametrize('name', PROTOCOLS)
def test_a_protocol_can_be_read(name):
  scores = Scores(
    ids=['a', 'b'], label=[1, 0], scores={'rgb': [0.9, 0.1]}, attack_category=['', 'print']
  )
  known = results.compute(scores, 'fixed=0.5')['rgb']
  for protocol in filled(name):
    for names in (protocol.train, protocol.val, *protocol.test.values()):
      assert [selection.parse(one) for one in selection.split_selections(names)]
    assert protocol.test and set(protocol.test) == set(protocol.threshold)
    assert 'val' not in protocol.test and 'train' not in protocol.test  # names of score files
    for rule in protocol.threshold.values():
      assert thresholds.needs_dev(rule) in (True, False)
    assert protocol.metrics and set(protocol.metrics) <= set(known)
    subsets = [subset.split('+') for subset in protocol.subsets]
    assert all(s == [m for m in ('rgb', 'depth', 'ir') if m in s] and s for s in subsets)
    assert set(protocol.leaks) <= set(leakage.known_leak_names())
    assert len(protocol.source) > 20


def test_fields_are_filled_in():
  found = lookup.make_protocol(' cefa_1 (ethnicity = CA, set=casia_cefa/mine)')
  assert found.train == 'casia_cefa/mine:train[ethnicity=CA]'
  assert found.test == {'test': 'casia_cefa/mine:test[ethnicity!=CA], casia_cefa/mine:masks'}
  assert lookup.make_protocol('cefa_1').val == 'casia_cefa/release:val[ethnicity=AF]'


@pytest.mark.parametrize(
  'text,match',
  [
    ('flexmodel', "unknown protocol 'flexmodel'; choose one of: flexmodal, "),
    ('cefa_1(', 'is not a protocol; write name, or name'),
    ('cefa_1(CA)', "'CA' sets no field of: ethnicity, set"),
    ('cefa_1(attack=print)', "'attack=print' sets no field of: ethnicity, set"),
    ('flexmodal(x=1)', "'x=1' sets no field of: none"),
    ('leave_one_attack_out(set=a/b)', r'needs its field .attack.: leave_one_attack_out\(attack='),
  ],
)
def test_a_protocol_that_is_not_there(text, match):
  with pytest.raises(ConfigError, match=match):
    lookup.make_protocol(text)


def test_what_is_trained_on_is_what_the_papers_say():
  """The pairs that matter, in words that can be held against the papers."""
  one = lookup.make_protocol('cefa_4(ethnicity=EA)')
  assert 'ethnicity=EA' in one.train and 'bona_fide,replay' in one.train
  assert 'ethnicity!=EA' in one.test['test'] and 'category!=replay' in one.test['test']
  fold = lookup.make_protocol('mm_fas_fold(fold=2)')
  assert 'mm_fas_fold2=train' in fold.train and 'mm_fas_fold2=val' in fold.val
  like = lookup.make_protocol('mm_fas_like(set=s/c, attack=x, part=1)')
  assert like.train == (
    's/c:train[species!=bona_fide,x], s/c:train[species=bona_fide & subject%3!=1]'
  )
  target = lookup.make_protocol('mmdg_1_csw_p')
  assert 'padisi' not in target.train + target.val and 'padisi' in target.test['test']
  assert lookup.make_protocol('mmdg_1_cps_w') == lookup.make_protocol('mmdg_1_cps_w(rows=cleaned)')
  published = lookup.make_protocol('mmdg_3_ps_cw(rows=published)')
  assert published.train == 'padisi/face:whole[part0=train], casia_surf/flexmodal_published:train'
  assert published.val == 'padisi/face:whole[part0=val], casia_surf/flexmodal_published:val'
  assert published.test == {  # both sets are one test
    'test': 'casia_cefa/flexmodal_published:test, wmca/flexmodal_published:test[grandtest=eval]'
  }
  with pytest.raises(ConfigError, match="unknown rows of mmdg_1_cps_w 'all'; .* cleaned, publ"):
    lookup.make_protocol('mmdg_1_cps_w(rows=all)')
  assert lookup.make_protocol('mmdg_2_csw_p').subsets == ('rgb', 'rgb+depth', 'rgb+ir')
  assert lookup.make_protocol('wmca_leave_one_out(attack=prints)').threshold == {
    'eval': 'dev_bpcer=1%'
  }
