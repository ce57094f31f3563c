"""Progress in a log: a line now and then, not one for each sample or step."""

import pytest

from flexfas_jax import progress


@pytest.fixture
def clock(monkeypatch):
  """A clock that moves when the test moves it."""

  class Clock:
    now = 0.0

    def monotonic(self):
      return self.now

  clock = Clock()
  monkeypatch.setattr(progress, 'time', clock)
  return clock


@pytest.mark.parametrize('total', [3, 1000, None])
def test_items_that_take_no_time_are_one_line(total, capsys):
  """Of a pipe, which pytest's capture is."""
  count = total or 7
  assert list(progress.show_progress(range(count), total, 'images')) == list(range(count))
  expected = f'images {count}/{total}  0 s left\n' if total else f'images {count}\n'
  assert capsys.readouterr().err == expected
  assert list(progress.show_progress([], 0, 'images')) == []
  assert capsys.readouterr().err == ''


def test_items_that_take_time_are_a_line_every_ten_seconds(clock, capsys):
  for _ in progress.show_progress(range(100), 100, 'images'):
    clock.now += 0.5  # 50 s in all
  assert capsys.readouterr().err.splitlines() == [
    'images 20/100  40 s left',
    'images 40/100  30 s left',
    'images 60/100  20 s left',
    'images 80/100  10 s left',
    'images 100/100  0 s left',
  ]


def test_the_time_left_does_not_include_compiling(clock, capsys):
  shown = progress.Progress('train', 400)
  clock.now += 60  # compiling
  for step in range(1, 13):
    shown.update(step)
    clock.now += 1
  assert capsys.readouterr().err.splitlines() == ['train 1/400', 'train 11/400  389 s left']


def test_steps_are_a_line_every_ten_seconds_and_the_last_once(clock, capsys):
  """The loop reports a step twice: with its metrics, and as done."""
  shown = progress.Progress('train', 100)
  for step in range(1, 101):
    clock.now += 0.5
    if step % 10 == 0:
      shown.update(step, {'loss': 0.5})
    shown.update(step)
  lines = capsys.readouterr().err.splitlines()
  assert [line.split()[1] for line in lines] == ['20/100', '40/100', '60/100', '80/100', '100/100']
  assert 'loss 0.5' in lines[-1]


def test_nothing_is_shown_where_another_process_shows_it(capsys):
  shown = progress.Progress('train', 10, silent=True)
  shown.update(10, {'loss': 0.5})
  shown.print_line('compiling')
  assert capsys.readouterr().err == ''
