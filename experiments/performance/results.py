"""Results as a CSV file, a table and a figure; each case replaces its own rows alone."""

import csv
import pathlib
from collections.abc import Mapping, Sequence

from experiments.performance.timing import COLUMNS

START, END = '<!-- results.csv -->\n', '<!-- end -->\n'


def read(file: pathlib.Path) -> list[dict]:
  """The rows of a CSV file; none if it does not exist."""
  if not file.exists():
    return []
  with file.open(newline='') as lines:
    return list(csv.DictReader(lines))


def replace(
  file: pathlib.Path,
  rows: Sequence[Mapping],
  columns: Sequence[str] = COLUMNS,
  key: Sequence[str] = ('case',),
) -> list[dict]:
  """Replaces the rows with the same cells under `key`; returns all rows, sorted by these cells."""

  def cells(row: Mapping) -> list[str]:
    return [str(row[column]) for column in key]

  new = [cells(row) for row in rows]
  rows = sorted([*(row for row in read(file) if cells(row) not in new), *rows], key=cells)
  with file.open('w', newline='') as lines:
    writer = csv.DictWriter(lines, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  return rows


def table(rows: list[dict]) -> str:
  """The rows as Markdown."""
  lines = [
    '| what | ratio | lowest to highest | ours | the other | load |',
    '| --- | ---: | ---: | ---: | ---: | ---: |',
  ]
  for row in rows:
    ends = f'{row["low"]} to {row["high"]}'
    times = f'{row["ours"]} {row["unit"]} | {row["other"]} {row["unit"]}'
    lines.append(f'| {row["figure"]} | {row["ratio"]} | {ends} | {times} | {row["load"]} |')
  return '\n'.join(lines) + '\n'


def write_table(readme: pathlib.Path, rows: list[dict]) -> None:
  """Writes the table between the two marks of a README, if it has them."""
  text = readme.read_text() if readme.exists() else ''
  if START in text and END in text:
    before, rest = text.split(START, 1)
    readme.write_text(before + START + table(rows) + END + rest.split(END, 1)[1])


def draw(rows: list[dict], file: pathlib.Path) -> None:
  """Plots every ratio with its spread; 1 is the speed of the other side."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt
  from matplotlib import ticker

  figure, axis = plt.subplots(figsize=(12, 1.2 + 0.24 * len(rows)), layout='constrained')
  for place, row in enumerate(rows):
    ratio, low, high = (float(row[name]) for name in ('ratio', 'low', 'high'))
    axis.errorbar(ratio, place, xerr=[[ratio - low], [high - ratio]], fmt='o', color='#0072b2')
  axis.axvline(1, color='grey', linewidth=1)
  axis.set_yticks(range(len(rows)), [row['figure'] for row in rows])
  axis.set_ylim(len(rows) - 0.5, -0.5)  # the first at the top
  axis.set_xscale('log')
  axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axis.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
  axis.xaxis.set_minor_locator(ticker.NullLocator())
  axis.set_xlabel('ratio: median, lowest to highest')
  axis.grid(axis='x', alpha=0.3)
  figure.savefig(file, dpi=110)
  plt.close(figure)
