"""No subject is in two sets, unless a published list has the leak and the user accepts it."""

import pytest

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.protocols import leakage


def side(*examples):
  """Columns of (subject, video, id) each."""
  subject, video, id_ = zip(*examples, strict=True) if examples else ((), (), ())
  return {'subject': subject, 'video': video, 'id': id_}


A = side(
  ('d/a', 'd/a/v1', 'd/a/v1/0'), ('d/b', 'd/b/v1', 'd/b/v1/0'), ('d/b', 'd/b/v1', 'd/b/v1/1')
)
B = side(('d/c', 'd/c/v1', 'd/c/v1/0'))
C = side(('d/d', 'd/d/v1', 'd/d/v1/0'))


def test_sides_that_are_apart():
  assert leakage.check(A, B, {'intra': C, 'again': C}) == []


@pytest.mark.parametrize(
  'train,val,test,said',
  [
    (A, A, C, 'subject d/a in train (1) and val (1)'),
    (A, B, A, 'subject d/b in train (2) and intra (2)'),
    (A, B, B, 'subject d/c in val (1) and intra (1)'),
    # A person who is not known: the video, or the triplet, tells.
    (side(('', 'v', 'i')), B, side(('', 'v', 'j')), 'video v in train (1) and intra (1)'),
    (side(('', '', 'i')), B, side(('', '', 'i')), 'id i in train (1) and intra (1)'),
  ],
)
def test_what_is_on_both_sides(train, val, test, said):
  with pytest.raises(DataError) as caught:
    leakage.check(train, val, {'intra': test})
  assert f': {said}' in str(caught.value)
  assert '--config.accept_known_leaks="(\'NAME\',)"' in str(caught.value)


def test_a_person_is_reported_once_and_the_unknown_never_leak():
  with pytest.raises(DataError, match='^1 leaks'):
    leakage.check(side(('d/a', 'd/a/v', 'd/a/v/0')), side(('d/a', 'd/a/v', 'd/a/v/0')), {})
  assert leakage.check(side(('', '', 'a')), side(('', '', 'b')), {'t': side(('', '', 'c'))}) == []


def test_many_leaks_fit_on_one_screen():
  many = side(*((f'd/{i}', f'd/{i}/v', f'd/{i}/v/0') for i in range(50)))
  with pytest.raises(DataError) as caught:
    leakage.check(many, many, {})
  assert '50 leaks' in str(caught.value) and '... and 40 more' in str(caught.value)
  assert len(str(caught.value).splitlines()) < 15


LEAKED = (
  'casia_cefa/AF-300',
  'casia_cefa/AF-300/1_300_1_1_1',
  'casia_cefa/AF-300/1_300_1_1_1/0026',
)


def test_the_published_leak_covers_its_own_person_alone():
  val, test = side(LEAKED, ('d/x', 'd/x/v', 'd/x/v/0')), side(LEAKED)
  with pytest.raises(DataError, match='AF-300 in val .1. and intra .1.'):
    leakage.check(A, val, {'intra': test})
  accepted = leakage.check(A, val, {'intra': test}, ('flexmodal_v1',))
  assert [(o.name, o.sets, o.accepted) for o in accepted] == [
    ('casia_cefa/AF-300', ('val', 'intra'), 'flexmodal_v1')
  ]
  assert leakage.describe_accepted(accepted) == [
    'accepted leak flexmodal_v1: 1 subject in val and intra'
  ]
  with pytest.raises(DataError, match='d/x in val'):
    leakage.check(A, val, {'intra': val}, ('flexmodal_v1',))


def test_nothing_is_accepted_by_default():
  """Each of the leaks that may be accepted is refused where nobody says so."""
  attacks = side(('d/a', 'd/a/04', 'd/a/04/0')), side(('d/a', 'd/a/05', 'd/a/05/0'))
  for train, val, tests in ((*attacks, {}), (A, side(LEAKED), {'intra': side(LEAKED)})):
    assert leakage.check(train, val, tests, leakage.known_leak_names())
    with pytest.raises(DataError, match='^1 leaks: '):
      leakage.check(train, val, tests)


def test_subjects_of_attacks_may_be_in_train_and_val_but_no_video():
  train, val = side(('d/a', 'd/a/04', 'd/a/04/0')), side(('d/a', 'd/a/05', 'd/a/05/0'))
  (accepted,) = leakage.check(train, val, {}, (leakage.SUBJECTS_OF_ATTACKS,))
  assert accepted.accepted == leakage.SUBJECTS_OF_ATTACKS
  assert leakage.check(train, val, {}, ('people_of_attacks',)) == [accepted]  # the former name
  for sides in ((train, train, {}), (train, B, {'test': val})):
    with pytest.raises(DataError, match='d/a'):
      leakage.check(*sides, (leakage.SUBJECTS_OF_ATTACKS,))


def test_an_unknown_name():
  with pytest.raises(
    ConfigError, match="called 'mine'; there are: flexmodal_v1, subjects_of_attacks"
  ):
    leakage.check(A, B, {}, ('mine',))


def species(*names):
  """Columns of attacks of these species, '' for bona fide."""
  return {'attack_type': names, 'label': ['attack' if name else 'bona_fide' for name in names]}


def test_what_a_fold_leaves_out_is_not_trained_on():
  train = species('print', 'replay', 'replay', '')
  leakage.check_left_out(train, {'val': species('mask', '', ''), 'unseen': species('')})
  with pytest.raises(DataError) as caught:
    leakage.check_left_out(train, {'val': species('mask', 'replay', ''), 'unseen': species('')})
  said = str(caught.value)
  assert 'attack replay in train (2) and val (1)' in said
  assert 'mask' not in said and 'species!=' in said and 'config.left_out=()' in said


def test_only_attacks_are_left_out():
  live = {'attack_type': ['live', ''], 'label': ['bona_fide', 'attack']}
  leakage.check_left_out(live, {'val': live})


def test_subjects_of_a_pretraining_are_not_evaluated():
  """By subject, with counts; an unknown subject never matches."""
  evaluated = {
    'val': side(('p1', 'v', 'a'), ('p1', 'v', 'b'), ('', 'v', 'c')),
    'intra': side(('p2', '', 'd')),
  }
  leakage.check_pretraining({'p3', 'v', 'a', ''}, evaluated)
  with pytest.raises(DataError) as caught:
    leakage.check_pretraining(['p2', 'p1', ''], evaluated)
  lines = str(caught.value).splitlines()
  assert lines[1:-1] == [
    'leak-subject: subject p1 in pretraining and val (2)',
    'leak-subject: subject p2 in pretraining and intra (1)',
  ]
  assert 'subject!=' in lines[-1] and 'more' not in lines[-1]
  many = side(*((f'p{i}', '', str(i)) for i in range(13)))
  with pytest.raises(DataError, match='and 3 more'):
    leakage.check_pretraining(many['subject'], {'val': many})


def test_many_left_out_species_fit_on_one_screen():
  many = species(*(f'kind{i:02}' for i in range(12)))
  with pytest.raises(DataError, match='kind00') as caught:
    leakage.check_left_out(many, {'val': many})
  assert '... and 2 more' in str(caught.value) and 'kind10' not in str(caught.value)
