"""One file per format: its name is the key of `--formats`.

Each has `FIXED_SUBSETS` (whether fixed subsets of the modalities get files of their own),
`check()`, which raises a ConfigError if an extra is missing, and `write(graph, trained, folder,
val)`, which returns the entries of the card's `models`. `prediction/runners/` has a runner of the
same name.
"""
