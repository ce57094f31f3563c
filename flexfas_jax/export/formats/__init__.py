"""One file per format: its name is the key of `--formats`.

Each has `SUBSETS` (whether fixed subsets of the modalities get files of their own), `check()`,
which raises a ConfigError where an extra is missing, and `write(graph, source, folder)`, which
gives the entries of the card's `models`. A runner of the same name is in `prediction/runners/`.
"""
