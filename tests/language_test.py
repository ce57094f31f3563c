"""The project's words: plain technical English, without the dialect that it once had.

`python tests/language_test.py [PATH ...]` prints the words that are left, by file.
"""

import collections
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Files and folders without a word of the list. Links (flexfas_jax/data, flexfas_jax/configs) are
# not followed.
CLEAN = (
  *('flexfas_jax', 'data', 'configs', 'experiments', 'launch'),
  *('README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'docs'),
)
SUFFIXES = {'.py', '.md', '.toml', '.yaml', '.yml', '.sh', '.sbatch', '.jinja', '.html', '.js'}
# Words of identifiers, comments, messages and documents, with what to write in their place.
WORDS = {
  'tell tells told say says said saying': 'report, log, state; a note, a warning, a message',
  'heed heeds heeded': 'handle',
  'donor donors donate donated': 'pretrained source, init_from_run',
  'judge judges judged judging judgement judgements': 'evaluate, evaluation',
  'person persons people': 'subject, subjects; identities',
  'picture pictures': 'image, images',
  'remark remarks': 'note, notes',
  'whoever nobody somebody': 'name who it is: the user, the caller, no subject',
  'anew': 'again',
  'mended broken': 'fixed, regressed (paired decisions); damaged',
  'too_few': 'insufficient_samples',
  'overlaps': 'leakage',
  'conventions': 'reference metrics',
  'naming': 'path layout',
  'of_ours': 'our',
  'stand_in stands_in': 'placeholder, fallback',
  'otherwise_than': 'different from',
  'in_its_stead': 'instead',
  'set_aside': 'quarantine, stash',
  'looked_at': 'read, inspected',
  'asked_for': 'requested',
}
INSTEAD = {word: instead for words, instead in WORDS.items() for word in words.split()}
# Texts that may stand, by a pattern of the paths where they may: (pattern, text, why).
EXCEPTIONS = (
  ('', 'BrokenPipeError', "Python's name"),
  ('', 'broken_pipe', "named as Python's BrokenPipeError"),
  ('', 'broken pipe', 'the term of POSIX'),
  ('', '.tell()', "Python's method of files"),
  ('^flexfas_jax/prediction/card', "'remarks'", 'the key of `notes` in earlier bundles'),
  ('^flexfas_jax/prediction/card', '`remarks`', 'the key of `notes` in earlier bundles'),
  ('', 'donate_argnums', "jax.jit's argument"),
  ('', 'may donate', "JAX's term for giving up buffers"),
  ('', 'BrokenProcessPool', "Python's name"),
  ('^flexfas_jax/training', "'people", 'file and key of `subjects.json` in earlier workdirs'),
  ('^flexfas_jax/training', "'remark'", 'the key of `note` in earlier workdirs'),
  ('^flexfas_jax/protocols', "'people_of_attacks'", 'the former name of subjects_of_attacks'),
  ('^flexfas_jax/protocols', "'picture_indoor'", 'a species of CASIA-CeFA, part of stored data'),
  ('^flexfas_jax/protocols', "'picture_outdoor'", 'a species of CASIA-CeFA, part of stored data'),
  ('^flexfas_jax/score.py', "'--conventions'", 'the former name of --reference_metrics'),
  ('^experiments/evaluation/README', 'where few people err', 'from the subject of a commit'),
  ('^data/manifest/README', '`picture`', 'a value of --option video'),
  ('^CHANGELOG|^docs/reference/files', '`people.json`', 'the former name of subjects.json'),
  ('^CHANGELOG', '`people_of_attacks`', 'the former name of subjects_of_attacks'),
  ('^CHANGELOG|^docs/how-to/evaluate', '`--conventions`', 'the former --reference_metrics'),
  ('^data/manifest/', 'video=picture', 'a value of --option video'),
  ('^data/manifest/', "'picture'", 'a value of --option video'),
)
# "too few" is English; `too_few` was a name.
_NAMES = ('too_few',)
# `of_ours` is "of ours", too, also across lines with comment signs.
_PHRASES = [word.split('_') for word in INSTEAD if '_' in word and word not in _NAMES]


def words_left(path: pathlib.Path) -> list[tuple[int, str]]:
  """(line, word of INSTEAD) of everything in a file that EXCEPTIONS does not allow."""
  text = path.read_text(encoding='utf-8')
  place = path.relative_to(ROOT).as_posix()
  for pattern, allowed, _ in EXCEPTIONS:
    if re.search(pattern, place):
      text = text.replace(allowed, '')
  words = [
    (number, word.lower())
    for number, line in enumerate(text.splitlines(), 1)
    # Identifiers fall into their words: camelCase, CONSTANTS, snake_case.
    for word in re.findall(r'[A-Z]?[a-z]+|[A-Z]+(?![a-z])', line)
  ]
  left = [(number, word) for number, word in words if word in INSTEAD]
  for number, line in enumerate(text.splitlines(), 1):
    left += [(number, name) for name in _NAMES if name in line]
  for phrase in _PHRASES:
    for i in range(len(words) - len(phrase) + 1):
      if [word for _, word in words[i : i + len(phrase)]] == phrase:
        left.append((words[i][0], '_'.join(phrase)))
  return sorted(left)


def files_in(place: str) -> list[pathlib.Path]:
  """Of a file, a folder, or a pattern of them."""
  paths = [path for start in ROOT.glob(place) for path in (start, *start.rglob('*'))]
  return sorted(path for path in paths if path.suffix in SUFFIXES and path.is_file())


@pytest.mark.parametrize('place', CLEAN)
def test_plain_technical_english(place):
  files = files_in(place)
  assert files, place
  left = [
    f'{file.relative_to(ROOT)}:{line}: {word!r}; write: {INSTEAD[word]}'
    for file in files
    for line, word in words_left(file)
  ]
  assert not left, '\n'.join(left)


def test_words_are_detected_in_identifiers_messages_and_phrases(tmp_path, monkeypatch):
  monkeypatch.setattr(f'{__name__}.ROOT', tmp_path)
  file = tmp_path / 'a.py'
  file.write_text("too_few = 1\nclass ToldTwice: ...\nf'{N_PEOPLE}'\n# of\n# ours, broken pipe\n")
  assert words_left(file) == [(1, 'too_few'), (2, 'told'), (3, 'people'), (4, 'of_ours')]
  file.write_text('# essay, teller, retold, imagesaid, overlap\nexcept BrokenPipeError:\n')
  assert words_left(file) == []


def main(places: list[str]) -> None:
  """Prints how often which words are left in which files."""
  total = collections.Counter()
  for place in places or CLEAN:
    for file in files_in(place):
      if counts := collections.Counter(word for _, word in words_left(file)):
        total += counts
        details = ', '.join(f'{word} {n}' for word, n in counts.most_common())
        print(f'{counts.total():5} {file.relative_to(ROOT)}: {details}')
  print(f'{total.total():5} in all: ' + ', '.join(f'{w} {n}' for w, n in total.most_common()))


if __name__ == '__main__':
  main(sys.argv[1:])
