"""Error rates of the check for shortcuts: python -m experiments.reliability.shortcuts

Subjects have one bona fide video and three attacks, or videos of one class alone, with ten frames
each. First, properties with 2, 6 or 100 values, drawn by frame, video or subject, independently of
the label: every report is a false alarm. Then a property that agrees with the label in a share of
the videos: every report is right.
"""

import numpy as np

from flexfas_jax.protocols import shortcuts

DRAWS, FRAMES = 300, 10


def design(n: int, crossed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(attack, subject, video) of every frame."""
  if crossed:
    attack, subject = np.tile([False, True, True, True], n), np.repeat(np.arange(n), 4)
  else:
    subject = np.repeat(np.arange(n), 2)
    attack = subject % 2 == 1
  video = np.arange(len(attack))
  return tuple(np.repeat(column, FRAMES) for column in (attack, subject, video))


def report_rate(rng, n: int, crossed: bool, draw) -> tuple[float, float]:
  """(share of draws that are reported, largest balanced accuracy)."""
  attack, subject, video = design(n, crossed)
  limit, accuracies = shortcuts._limit(attack, subject, video), []
  for _ in range(DRAWS):
    _, value = np.unique(draw(rng, attack, subject, video), return_inverse=True)
    accuracies.append(shortcuts._accuracy(value, attack, subject))
  return float(np.mean(np.array(accuracies) >= limit)), max(accuracies)


def main():
  rng = np.random.default_rng(0)
  units = {'frame': None, 'video': 2, 'subject': 1}
  print('| subjects | classes | values | drawn by | false alarms | largest |\n|' + '---|' * 6)
  for n in (4, 10, 30, 100):
    for crossed in (True, False):
      for values in (2, 6, 100):
        for unit, k in units.items():

          def draw(rng, *columns, k=k, values=values):
            unit_of_frame = np.arange(len(columns[0])) if k is None else columns[k]
            return rng.integers(0, values, unit_of_frame.max() + 1)[unit_of_frame]

          rate, largest = report_rate(rng, n, crossed, draw)
          kind = 'both' if crossed else 'one'
          print(f'| {n} | {kind} | {values} | {unit} | {rate:.2%} | {largest:.2f} |')
  print('\n| subjects | agrees in | reported |\n|---|---|---|')
  for n in (4, 10, 30, 100):
    for share in (0.6, 0.7, 0.75, 0.8, 0.9, 1.0):

      def agree(rng, attack, subject, video, share=share):
        return attack ^ (rng.uniform(size=video.max() + 1) >= share)[video]

      print(f'| {n} | {share:.0%} | {report_rate(rng, n, True, agree)[0]:.0%} |')


if __name__ == '__main__':
  main()
