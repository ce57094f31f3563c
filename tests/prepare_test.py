"""`python -m flexfas_jax.prepare`, as a user types it."""

import re

import pytest

from flexfas_jax import prepare
from tests.main_test import run


def test_help_has_grouped_options_examples_and_exit_codes():
  found = run('prepare', '--help')
  assert found.returncode == 0
  words = ('--source', '--on_bad', '--beam_runner', '--accept_known_leaks', 'CARD.md', '3   bad')
  for word in words:
    assert word in found.stdout
  sections = re.findall(r'^([a-z ]+):$', found.stdout, re.MULTILINE)
  assert sections == ['options', 'data set', 'checks', 'speed', 'examples', 'exit codes']


def test_what_stands_is_left_and_named(prepared, capsys):
  arguments = ['--dataset=rendered_faces/surf_like_tiny', f'--data_dir={prepared}']
  assert prepare.main(arguments) == 0
  said = capsys.readouterr()
  assert said.out == f'{prepared}/rendered_faces/surf_like_tiny/2.0.0\n'
  assert 'CARD.md' in said.err and 'train:' not in said.err


@pytest.mark.parametrize(
  'arguments,code,said',
  [
    (['--dataset=celeb'], 2, "no builder is called 'celeb'; there are: "),
    (['--dataset=rendered_faces/surf_like_tiny', '--source=.'], 2, 'it takes no --source'),
    (['--dataset=casia_surf'], 2, 'casia_surf has several configs; name one, .*challenge'),
    (['--dataset=casia_surf/challenge'], 2, 'name their folder with --source=DIR'),
    (['--dataset=casia_surf/challenge', '--source=nowhere'], 3, 'there is no such folder'),
    (['--dataset=casia_surf/challenges', '--source=.'], 2, 'challenge'),
    (['--dataset=casia_surf/challenge', '--source=.', '--option=x=1'], 2, "no option 'x'"),
    (
      ['--dataset=rendered_faces/surf_like_tiny', '--beam_runner=DirectRunner'],
      2,
      'it takes no --beam_runner',
    ),
    (
      ['--dataset=casia_surf/challenge', '--source=.', '--beam_runner=Nonesuch'],
      2,
      '--beam_runner=Nonesuch|the extra `beam`',
    ),
  ],
)
def test_what_cannot_be(arguments, code, said, tmp_path, capsys):

  assert prepare.main([*arguments, f'--data_dir={tmp_path}/out']) == code
  assert re.search(said, capsys.readouterr().err)
  assert not list(tmp_path.rglob('*.array_record*'))


@pytest.mark.parametrize(
  'flag', ['--option=colour', '--workers=0', '--on_bad=ignore', '--nonsense']
)
def test_wrong_usage_ends_with_2(flag):
  with pytest.raises(SystemExit) as caught:
    prepare.main(['--dataset=x', flag])
  assert caught.value.code == 2


def test_a_set_is_prepared_locally_and_copied_into_a_bucket(prepared, capsys):
  code = prepare.main(['--dataset=rendered_faces/surf_like', '--data_dir=gs://bucket/sets/'])
  assert code == 2
  said = capsys.readouterr().err.splitlines()[:3]
  assert said[0].startswith('error: --data_dir=gs://bucket/sets/: a set is prepared in a local')
  assert said[1].split()[2:] == [
    *('flexfas_jax.prepare', '--dataset=rendered_faces/surf_like', '--data_dir=prepared'),
  ]
  copy = 'gcloud storage cp -r {}/rendered_faces/{} gs://{}/rendered_faces/'
  assert said[2].strip() == copy.format('prepared', 'surf_like', 'bucket/sets')
  assert prepare.main(['--dataset=rendered_faces/x', '--data_dir=s3://bucket/sets']) == 2
  assert 's3:// is not supported' in capsys.readouterr().err
  name = 'surf_like_tiny'
  assert prepare.main([f'--dataset=rendered_faces/{name}', f'--data_dir={prepared}']) == 0
  assert copy.format(prepared, name, 'BUCKET/prepared') in capsys.readouterr().err
