"""What identifies the samples of score files."""

from flexfas_jax.evaluation import disjoint, score_files
from flexfas_jax.protocols import leakage


def test_names_of_a_score_file_are_of_their_data_set():
  scores = score_files.Scores(
    ['a', 'b', 'c', 'd'], [1, 1, 0, 0], {'rgb': [0.1] * 4}, dataset=['x', 'y', 'x', ''],
    subject=['p1', 'p1', 'x/p1', 'p1'], video=['v', '', 'x/p1/v', 'v'],
  )  # fmt: skip
  assert disjoint.identity_columns(scores) == {
    'id': ['a', 'b', 'c', 'd'],
    'subject': ['x/p1', 'y/p1', 'x/p1', 'p1'],
    'video': ['x/p1/v', '', 'x/p1/v', 'p1/v'],
    leakage.VIDEO_NAME: ['x/v', '', 'x/p1/v', 'v'],
    leakage.VIDEO_WITHOUT_SUBJECT: [''] * 4,
  }
