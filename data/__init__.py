"""Builders of data sets, each in a folder of its name, and what they share.

They are imported as `flexfas_jax.data`, in a clone by the link of that name, from the wheel because
it holds this folder there: an installation puts no package called `data` beside those of others,
and worker processes find the builders by one name. `flexfas_jax/configs` is such a link too.
"""
