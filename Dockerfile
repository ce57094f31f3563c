# docker build --build-arg EXTRA=tpu --tag IMAGE .
# docker run --rm --volume "$PWD:/shared" IMAGE --config=configs/vit_fusion.py \
#   --workdir=/shared/runs/vit_fusion --config.data_dir=/shared/prepared
# Python 3.11.16. `docker buildx imagetools inspect python:3.11-slim` prints the digest of a newer one.
ARG BASE=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
# hadolint ignore=DL3006
FROM ${BASE}

# tpu or cuda; several with commas: tpu,hub
ARG EXTRA=tpu
WORKDIR /app
RUN useradd --create-home --uid 1000 flexfas

# The dependencies by themselves: the layer stays as long as pyproject.toml does.
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY requirements/lock.txt requirements/lock.txt
COPY flexfas_jax/__init__.py flexfas_jax/__init__.py
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --constraint=requirements/lock.txt ".[${EXTRA}]"
COPY configs configs
COPY data data
COPY flexfas_jax flexfas_jax
# Configs stay, for --config=configs/NAME.py; --config=NAME is that of the installed package.
RUN pip install --no-cache-dir --no-deps --force-reinstall . \
  && rm -r flexfas_jax data build ./*.egg-info

ENV PYTHONUNBUFFERED=1
# A pod's TPU devices belong to root: for images that run there, --build-arg RUN_AS=root.
ARG RUN_AS=flexfas
USER ${RUN_AS}
# Without a shell in between: SIGTERM is for the process that saves and stops.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "flexfas_jax.main"]
CMD ["--help"]
