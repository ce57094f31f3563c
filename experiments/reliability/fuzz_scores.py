"""Mutates score files, their headers and prediction manifests, and counts the results of reading.

  python -m experiments.reliability.fuzz_scores -n 2000

Each mutation is run in this process: score files and headers through `flexfas_jax.score`, manifests
through `prediction.samples.read_manifest`. Mutations are of bytes, cells, rows and columns, or of
the JSON's structure. Each must end with a documented exit code (0, 2, 3, 4), never with another
exception, and memory must not grow by 200 MB. Prints counts per kind; the exit code is 1 if a
condition fails. The same seed gives the same mutations.
"""

import argparse
import collections
import contextlib
import csv
import io
import json
import os
import pathlib
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

from flexfas_jax import score
from flexfas_jax.errors import FlexfasError
from flexfas_jax.evaluation import score_files
from flexfas_jax.prediction import samples

_DOCUMENTED = (0, 2, 3, 4)
_MOST_GROWTH = 200  # MB
_SHOWN = 5  # exceptions that are printed
_BYTES = (
  b'\0', b'\xff', b'\xef\xbb\xbf', b'\xff\xfe', b'\r', b'\r\n', b'\n', b'\n\n', b'"', b'""', b',',
  b';', b'\t', b' ', b'\xc2\xa0', b"'", b'#', b'sep=;\n', b'=', b'\\', b'\xed\xa0\x80', b'\x1a',
  b'\xe2\x80\xa8', b'\x0c', b'e', b'-', b'0', b'9' * 5000, b'a' * 140_000,
)  # fmt: skip
_CELLS = (
  '', ' ', '\xa0', '\u200b', 'nan', 'NaN', 'inf', '-inf', '1e999', '1e-999', '-1', '2', '0.5',
  '1.0', '0,5', '50%', '50 %', '0_5', '0x1p-1', '1' * 400, '٠٫٥', '−0.5', '[0.5]', 'tensor(0.5)',
  'NA', 'None', 'True', 'false', 'live', 'bona_fide', 'attack', 'Attack ', 'id', 'label', 'score',
  'rgb', 'rgb+depth', 'rgb@flip', '@', 'rgb@', 'a#2', 't0', 'subject', '=1+1', '"', '\n', '\r',
  '\t', ',', 'x' * 140_000, '../../etc/passwd', '/dev/zero', 'C:\\x', 'gs://b/x', 'a\0b',
  '0', '1', 'split',
  '99999999999999999999', 'Zo\u0308e', '\ud7ff', '\U0001f600', 'train', 'all', 'rgb_time', 'left',
)  # fmt: skip
_VALUES = (
  None, True, False, 0, -1, 1.5, float('nan'), float('inf'), 10**400, '', 'x', 'high is attack',
  [], [1], ['id'], ['score'], ['rgb'], ['subject', 'subject'], {}, {'x': 1}, {'network': []},
  {'network': 'a/b'}, {'seed': None}, [[[]]], 'x' * 100_000,
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('-n', type=int, default=2000, help='mutations of each kind')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args(argv)
  good = True
  with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    for name, kind in _KINDS.items():
      good &= _run(name, kind, args.n, random.Random(f'{args.seed} {name}'))
  return 0 if good else 1


def _run(name: str, kind: Callable[[random.Random], int], n: int, rng: random.Random) -> bool:
  for _ in range(20):  # what is loaded and cached once
    _outcome(kind, rng)
  before, start = _memory(), time.monotonic()
  outcomes = collections.Counter(_outcome(kind, rng) for _ in range(n))
  codes = {code: count for code, count in outcomes.items() if isinstance(code, int)}
  faults = collections.Counter({f: count for f, count in outcomes.items() if f not in codes})
  growth, seconds = _memory() - before, time.monotonic() - start
  wrong = {code: count for code, count in codes.items() if code not in _DOCUMENTED}
  ended = ', '.join(f'{count} with {code}' for code, count in sorted(codes.items()))
  print(f'{name}: {n} mutations, {ended}; {sum(faults.values())} tracebacks; '
        f'memory +{growth} MB; {seconds:.0f} s')  # fmt: skip
  for fault, count in faults.most_common(_SHOWN):
    print(f'  {count} {fault}')
  return not faults and not wrong and growth < _MOST_GROWTH


def _outcome(kind: Callable[[random.Random], int], rng: random.Random) -> int | str:
  """The exit code of one mutation, or what a user would see as a traceback."""
  _write()
  try:
    with (
      open(os.devnull, 'w') as nothing,
      contextlib.redirect_stdout(nothing),
      contextlib.redirect_stderr(nothing),
    ):
      return kind(rng)
  except Exception as error:
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__} at {pathlib.Path(at.filename).name}:{at.lineno}'


def _memory() -> int:
  """The most memory that this process has had, in MB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _rows(side: str) -> list[list[str]]:
  rows = [['id', 'dataset', 'subject', 'video', 'label', 'attack_type', 'attack_category',
           'ethnicity', 'rgb', 'rgb+depth']]  # fmt: skip
  for i in range(40):
    attack = i % 2
    kind = ('print', 'mask')[i % 4 // 2] if attack else ''
    rows.append([
      f'{side}/s{i // 4}/v{i // 2}/{i}', 'set', f'{side}{i // 4}', f'v{i // 2}',
      ('bona_fide', 'attack')[attack], kind, kind, 'AB'[i // 4 % 2],
      f'{0.8 - 0.5 * attack + (i * 7 % 11 - 5) / 40:.4f}', f'{0.7 - 0.4 * attack + i / 400:.4f}',
    ])  # fmt: skip
  return rows


def _manifest() -> list[list[str]]:
  rows = [['rgb', 'depth', 'ir', 'label', 'attack_type', 'subject', 'video', 'frame', 'split',
           'rgb_time', 'left']]  # fmt: skip
  for i in range(20):
    label = ('bona_fide', 'attack')[i % 2]
    rows.append([f's{i}/rgb/{i}.png', f's{i}/depth/{i}.png', '', label, '', f's{i}', 'v', str(i),
                 'test', f'{i}.5', '3'])  # fmt: skip
  return rows


def _text(rows: list[list[str]], delimiter: str = ',') -> bytes:
  text = io.StringIO(newline='')
  csv.writer(text, delimiter=delimiter, lineterminator='\n').writerows(rows)
  return text.getvalue().encode('utf-8', 'surrogatepass')


def _write() -> None:
  """The files that mutations start from."""
  for side in ('test', 'dev'):
    rows = _rows(side)
    ids, label = zip(*((row[0], int(row[4] == 'bona_fide')) for row in rows[1:]), strict=True)
    pathlib.Path(f'{side}.csv').write_bytes(_text(rows))
    pathlib.Path(f'{side}.json').write_text(json.dumps({
      'list_hash': score_files.list_hash(ids, label), 'polarity': 'high is bona fide',
      'weights_hash': 'abc', 'code_version': '1', 'config': {'seed': 1}, 'step': 3,
    }, indent=2))  # fmt: skip


def _mutated_bytes(content: bytes, rng: random.Random) -> bytes:
  for _ in range(rng.choice((1, 1, 1, 2, 5))):
    a = rng.randrange(len(content) + 1)
    b = min(len(content), a + rng.choice((0, 1, 2, 10, 200)))
    how = rng.randrange(5)
    if how == 0:
      content = content[:a]  # cut off
    elif how == 1:
      content = content[:a] + content[b:]
    elif how == 2:
      content = content[:a] + rng.choice(_BYTES) + content[b:]
    elif how == 3:
      content = content[:b] + content[a:]  # twice
    elif content:
      a = min(a, len(content) - 1)
      content = content[:a] + bytes([content[a] ^ 1 << rng.randrange(8)]) + content[a + 1 :]
  return content


def _mutated_cells(rows: list[list[str]], rng: random.Random) -> bytes:
  delimiter = rng.choice((',', ',', ',', ';', '\t', '|', ' '))
  for _ in range(rng.choice((1, 1, 2, 5))):
    row = rng.choice(rows[1:]) if rng.random() < 0.7 and len(rows) > 1 else rows[0]
    at = rng.randrange(len(row)) if row else 0
    how = rng.randrange(8)
    if how < 3 and row:
      row[at] = rng.choice(_CELLS)
    elif how == 3 and row:
      del row[at]
    elif how == 4:
      row.insert(at, rng.choice(_CELLS))
    elif how == 5:
      rows.insert(rng.randrange(len(rows)), list(rng.choice(rows)))
    elif how == 6:  # a column, changed throughout
      make = rng.choice((str.upper, str.title, lambda c: f' {c} ', lambda c: c.replace('.', ','),
                         lambda c: '', lambda c: f'{c}%', lambda c: f'[{c}]',
                         lambda c: '1.0'))  # fmt: skip
      for one in rows[rng.choice((0, 1)) :]:
        if at < len(one):
          one[at] = make(one[at])
    else:
      for one in rows:
        one.append('')
  return _text(rows, delimiter)


def _mutated_json(value, rng: random.Random):
  """A value with something in it replaced, left out or added."""
  if isinstance(value, dict) and value and rng.random() < 0.8:
    key = rng.choice(sorted(value))
    how = rng.randrange(4)
    if how == 0:
      return {k: v for k, v in value.items() if k != key}
    if how == 1:
      more = rng.choice(('columns', 'member', 'thresholds', 'list_hash', 'trained_steps', 'x'))
      return value | {more: rng.choice(_VALUES)}
    return value | {key: _mutated_json(value[key], rng)}
  return rng.choice(_VALUES)


def _score(rng: random.Random) -> int:
  options = rng.choice(
    ([], ['--dev=dev.csv'], ['--dev=dev.csv', '--by_video'], ['--group_by=ethnicity'],
     ['--labels=1=bona_fide,0=attack'], ['--columns=test.csv'], ['--against=dev.csv'],
     ['--high_is=attack'], ['--reference_metrics'])
  )  # fmt: skip
  try:
    return score.main(['test.csv', '--bootstrap=0', *options])
  except SystemExit as end:
    return end.code


def _of_score_file(rng: random.Random) -> int:
  content = _text(_rows('test'))
  content = (
    _mutated_bytes(content, rng) if rng.random() < 0.5 else _mutated_cells(_rows('test'), rng)
  )
  pathlib.Path('test.csv').write_bytes(content)
  if rng.random() < 0.8:  # with its header, another list is refused before anything else
    pathlib.Path('test.json').unlink()
  return _score(rng)


def _of_header(rng: random.Random) -> int:
  path = pathlib.Path('test.json')
  if rng.random() < 0.4:
    path.write_bytes(_mutated_bytes(path.read_bytes(), rng))
  elif rng.random() < 0.1:
    path.write_text('{"list_hash":' * 50_000)
  else:
    header = json.loads(path.read_text())
    for _ in range(rng.choice((1, 2, 3))):
      header = _mutated_json(header, rng)
    path.write_text(json.dumps(header))
  return _score(rng)


def _of_manifest(rng: random.Random) -> int:
  rows = _manifest()
  content = _mutated_bytes(_text(rows), rng) if rng.random() < 0.5 else _mutated_cells(rows, rng)
  pathlib.Path('manifest.csv').write_bytes(content)
  labels = rng.choice((None, {'live': 'bona_fide'}))
  try:
    samples.read_manifest('manifest.csv', None, labels)
  except FlexfasError as error:
    return error.exit_code
  return 0


_KINDS = {'score file': _of_score_file, 'header': _of_header, 'manifest': _of_manifest}

if __name__ == '__main__':
  sys.exit(main())
