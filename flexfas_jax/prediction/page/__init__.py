"""A local page to try a bundle on: what is asked (`answers`), how (`server`), and what is seen."""
