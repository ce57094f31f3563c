"""Decisions of exported bundles about camera images; requires neither Flax nor the training code.

from flexfas_jax.prediction import Predictor
predictor = Predictor.load('bundle', format='onnx')
decision = predictor(rgb='face.jpg', depth='face_depth.png')

A modality that is not given is absent. A modality that is given but unusable makes the decision a
failure to acquire (`decision.unusable` names it), unless `allow_absent` names that modality.
"""

from flexfas_jax.prediction.decision import Decision
from flexfas_jax.prediction.predictor import Predictor

__all__ = ['Decision', 'Predictor']
