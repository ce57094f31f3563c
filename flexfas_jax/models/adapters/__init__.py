"""Adapters for frozen backbones: one file per choice, with a class named like its file."""
