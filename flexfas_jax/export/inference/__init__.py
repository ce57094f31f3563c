"""The program of an inference, made smaller before a converter reads it: see `simplify.py`."""
