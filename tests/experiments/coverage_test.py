"""Simulations of coverage: what is counted, and that few tests on many cores are simulated too."""

import concurrent.futures
import csv
import math
import pathlib
import subprocess
import sys

import pytest

from experiments.evaluation import coverage_runs, simulation
from experiments.evaluation.simulation import Span, Tally
from flexfas_jax.evaluation.intervals import UNDEFINED, Interval

ROOT = pathlib.Path(__file__).parents[2]


def test_intervals_are_counted_by_hand():
  spans = [
    Span('a', 0.5, Interval(0.4, 0.5)),  # an end belongs to the interval
    Span('a', 0.5, Interval(0.5, 0.7)),
    Span('a', 0.5, Interval(0.1, 0.4)),
    Span('a', 0.5, Interval(0.6, 0.7)),
    Span('b', 0.5, Interval(0.6, 1.0)),
    Span('a', 0.5, UNDEFINED),
  ]
  found = simulation.count(spans)
  assert found == {
    'a': pytest.approx(Tally(4, too_low=1, too_high=1, width=0.7)),
    'b': pytest.approx(Tally(1, too_low=0, too_high=1, width=0.4)),
  }
  assert found['a'].row() == {
    'tests': '4',
    'coverage_percent': '50.00',
    'too_low_percent': '25.00',
    'too_high_percent': '25.00',
    'mean_width': '0.17500',
  }


def intervals_of(test, away):
  yield Span('every', 0.0, Interval(test, test + away))
  if test == 4:
    yield Span('the last', 0.0, Interval(-1, 1))


@pytest.mark.parametrize('parts', [1, 2, 5, 8, 64])
def test_parts_do_not_change_the_result(parts):
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    found = simulation.run(pool, parts, 5, intervals_of, 0.5)
  assert found == {'every': (5, 0, 4, 2.5), 'the last': (1, 0, 0, 2.0)}


def run(module, folder, *arguments):
  command = [sys.executable, '-m', f'experiments.evaluation.{module}', f'--out={folder}']
  found = subprocess.run(
    [*command, '--draws=20', *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
  )
  assert found.returncode == 0, found.stderr
  with (folder / f'{module}.csv').open() as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize('tests', [1, 3])
def test_fewer_tests_than_tasks(tmp_path, tests):
  rows = run('coverage', tmp_path, f'--tests={tests}', '--settings=2')
  assert len(rows) == 2 * 11 and {row['tests'] for row in rows} == {str(tests)}


def test_fewer_tests_over_runs_than_processes(tmp_path):
  few = ('--tests=1', '--runs', '2', '--subjects', '20', '--processes=3')
  rows = run('coverage_runs', tmp_path, *few)
  assert len(rows) == 8 * 3 * 3 and {row['tests'] for row in rows} == {'1'}


@pytest.mark.parametrize('rate', coverage_runs.RATES)
def test_simulated_runs_deviate_as_asked(rate):
  s = coverage_runs.Setting(runs=2, subjects=60, ratio=3, rate=rate)
  found = coverage_runs.deviation_of_runs(rate, coverage_runs.shift_of(s))
  assert found == pytest.approx(3 * coverage_runs.deviation_of_subjects(s), rel=1e-6)
  # Without a part of the subject, frames would be independent: the deviation is larger.
  independent = math.sqrt(rate * (1 - rate) / (60 * coverage_runs.FRAMES))
  assert independent < coverage_runs.deviation_of_subjects(s) < independent * 10**0.5
