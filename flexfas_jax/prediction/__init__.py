"""Decides with a bundle, from pictures as cameras write them; neither Flax nor training needed.

from flexfas_jax.prediction import Predictor
predictor = Predictor.load('bundle', format='onnx')
decision = predictor(rgb='face.jpg', depth='face_depth.png')
"""

from flexfas_jax.prediction.decision import Decision
from flexfas_jax.prediction.predictor import Predictor

__all__ = ['Decision', 'Predictor']
