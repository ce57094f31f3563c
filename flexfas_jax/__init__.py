"""Flexible-modal face anti-spoofing in JAX: one model for RGB, depth and infrared, any subset."""

__version__ = '0.1.0'
