#!/usr/bin/env bash
# A TPU slice without a cluster: queued, set up, run and given back with gcloud.
#
#   export TPU=flexfas ZONE=us-west4-a TYPE=v5litepod-16
#   launch/tpu_vm.sh create [--spot]
#   launch/tpu_vm.sh install [10.0.0.2:/share]       # NFS, mounted as /shared
#   launch/tpu_vm.sh run --config=configs/vit_fusion.py:flexmodal \
#     --workdir=/shared/runs/flexmodal --config.data_dir=/shared/prepared
#   launch/tpu_vm.sh log | stop | delete
set -euo pipefail
: "${TPU:?the name to give the slice}" "${ZONE:?where, e.g. us-west4-a}" "${TYPE:=v5litepod-16}"
: "${RUNTIME:=v2-alpha-tpuv5-lite}" # of v5e; each generation has its own

workers() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$1" --command="$2"
}

task=${1:?create, install, run, log, stop or delete}
shift
case $task in
  create)
    gcloud compute tpus queued-resources create "$TPU" --zone="$ZONE" --node-id="$TPU" \
      --accelerator-type="$TYPE" --runtime-version="$RUNTIME" "$@"
    echo "waits its turn; it is there when this says ACTIVE:"
    echo "gcloud compute tpus queued-resources describe $TPU --zone=$ZONE --format='value(state.state)'"
    ;;
  install)
    clone=$(mktemp)
    trap 'rm -f "$clone"' EXIT
    git archive --format=tar.gz --output="$clone" HEAD
    gcloud compute tpus tpu-vm scp "$clone" "$TPU:flexfas.tar.gz" --zone="$ZONE" --worker=all
    # The image's Python may be older than ours: uv brings one along.
    # shellcheck disable=SC2016  # for the other side to expand
    workers all 'set -e; mkdir -p flexfas; tar -xzf flexfas.tar.gz -C flexfas
      python3 -m pip install --user uv; PATH=$HOME/.local/bin:$PATH
      uv venv --allow-existing --python=3.11 flexfas/.venv
      uv pip install --python=flexfas/.venv --constraints=flexfas/requirements/lock.txt \
        "./flexfas[tpu]"'
    if (($#)); then
      workers all "sudo apt-get install -y nfs-common && sudo mkdir -p /shared &&
        sudo mount $(printf %q "$1") /shared"
    fi
    ;;
  run)
    # As a service: it outlives this connection, is told when a spot slice is taken away, and begins
    # again after a crash on any worker, for those on the others end then too. SIGTERM is for the
    # main process. After 2, 3 and 4 it stays down: the same command would end in the same way.
    workers all "sudo systemd-run --unit=flexfas --uid=\$(id -u) --collect \
      --working-directory=\$PWD/flexfas --setenv=PYTHONUNBUFFERED=1 \
      --property=KillMode=mixed --property=TimeoutStopSec=300 \
      --property=Restart=on-failure --property=RestartSec=10 \
      --property='RestartPreventExitStatus=2 3 4' \
      --property=StartLimitIntervalSec=1d --property=StartLimitBurst=20 \
      \$PWD/flexfas/.venv/bin/python -m flexfas_jax.main$(printf ' %q' "$@") --distributed"
    ;;
  log) workers "${1:-0}" 'sudo journalctl --unit=flexfas --follow --output=cat' ;;
  stop) workers all 'sudo systemctl stop flexfas' ;; # saves first; `run` goes on
  delete) gcloud compute tpus queued-resources delete "$TPU" --zone="$ZONE" --force ;;
  *)
    echo "error: no task $task" >&2
    exit 2
    ;;
esac
