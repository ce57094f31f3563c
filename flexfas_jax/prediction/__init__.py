"""Decides with a bundle, from pictures as cameras write them; neither Flax nor training needed.

from flexfas_jax.prediction import Predictor
predictor = Predictor.load('bundle', format='onnx')
decision = predictor(rgb='face.jpg', depth='face_depth.png')

A modality that is given and unusable makes `decision` a failure to acquire (`decision.unusable`
names it), unless `allow_absent` has it; one that is not given is absent.
"""

from flexfas_jax.prediction.decision import Decision
from flexfas_jax.prediction.predictor import Predictor

__all__ = ['Decision', 'Predictor']
