"""Development and test scores must share no sample, video or subject."""

from collections.abc import Collection

from flexfas_jax import identity
from flexfas_jax.evaluation import aggregation
from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.protocols import leakage

_WAY_OUT = (
  'Remove them from one of the files; a leak that published lists have: --accept_known_leaks=NAME'
)


def check(dev: Scores, test: Scores, accept: Collection[str] = ()) -> list[str]:
  """Raises where two score files share samples, videos or subjects.

  Args:
    dev: scores that thresholds are fitted on.
    test: scores that are evaluated.
    accept: names of published leaks that are accepted, of `leakage.known_leak_names`.

  Returns:
    Notes on accepted leaks, and on subjects whose names differ in capitals or leading zeros alone.

  Raises:
    ConfigError: an unknown name in `accept`.
    DataError: anything else is shared.
  """
  train = {'id': (), 'video': (), 'subject': ()}
  sides = train, identity_columns(dev), {str(test.path): identity_columns(test)}
  leaks = leakage.check(*sides, accept, val_name=str(dev.path), way_out=_WAY_OUT)
  return [*leakage.describe_accepted(leaks), *leakage.find_similar_subjects(*sides, str(dev.path))]


def identity_columns(scores: Scores) -> leakage.Columns:
  """What identifies the samples of a score file; ids are their own.

  Besides 'id', 'video' and 'subject', `leakage.VIDEO_NAME` has the names of videos without their
  subjects (see `identity.Videos`), and `leakage.VIDEO_WITHOUT_SUBJECT` the same where nothing else
  is known of them.
  """
  videos = aggregation.identify_videos(scores)
  return {
    'id': scores.ids.tolist(),
    'video': videos.names,
    'subject': identity.subjects(scores.dataset.tolist(), scores.subject.tolist()),
    leakage.VIDEO_NAME: videos.alone,
    leakage.VIDEO_WITHOUT_SUBJECT: [
      name if without else ''
      for name, without in zip(videos.alone, videos.without_subject, strict=True)
    ],
  }
