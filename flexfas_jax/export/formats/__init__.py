"""One file per format: its name is the key of `--formats`.

Each has `FILES` (what it writes of a graph, as (suffix, precision) pairs), `SUBSETS` (whether also
for fixed subsets of the modalities), `check()`, which raises a ConfigError where an extra is
missing, and `write(graph, folder, source) -> entries of the card's models`.
"""
