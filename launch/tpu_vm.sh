#!/usr/bin/env bash
# Requests, sets up, uses and deletes one TPU slice with gcloud, without a cluster. Several slices
# need a cluster: README.md has the commands of xpk.
#
#   export TPU=flexfas ZONE=us-west4-a TYPE=v5litepod-16
#   launch/tpu_vm.sh create [--spot]
#   launch/tpu_vm.sh install [10.0.0.2:/share]       # NFS, mounted as /shared; not for a bucket
#   launch/tpu_vm.sh run --config=configs/vit_fusion.py:flexmodal \
#     --workdir=gs://BUCKET/runs/flexmodal --config.data_dir=gs://BUCKET/prepared
#   launch/tpu_vm.sh log | stop | delete
set -euo pipefail
: "${TPU:?name of the slice}" "${ZONE:?e.g. us-west4-a}" "${TYPE:=v5litepod-16}"
: "${RUNTIME:=v2-alpha-tpuv5-lite}" # of v5e; other generations have others

workers() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$1" --command="$2"
}

task=${1:?create, install, run, log, stop or delete}
shift
case $task in
  create)
    gcloud compute tpus queued-resources create "$TPU" --zone="$ZONE" --node-id="$TPU" \
      --accelerator-type="$TYPE" --runtime-version="$RUNTIME" "$@"
    echo "queued; the slice is ready when this command prints ACTIVE:"
    echo "gcloud compute tpus queued-resources describe $TPU --zone=$ZONE --format='value(state.state)'"
    ;;
  install)
    clone=$(mktemp)
    trap 'rm -f "$clone"' EXIT
    git archive --format=tar.gz --output="$clone" HEAD
    gcloud compute tpus tpu-vm scp "$clone" "$TPU:flexfas.tar.gz" --zone="$ZONE" --worker=all
    # The image's Python may be too old: uv installs one.
    # shellcheck disable=SC2016  # expanded on the workers
    workers all 'set -e; mkdir -p flexfas; tar -xzf flexfas.tar.gz -C flexfas
      python3 -m pip install --user uv; PATH=$HOME/.local/bin:$PATH
      uv venv --allow-existing --python=3.11 flexfas/.venv
      uv pip install --python=flexfas/.venv --constraints=flexfas/requirements/lock.txt \
        "./flexfas[tpu,gcs]"'
    if (($#)); then
      workers all "sudo apt-get install -y nfs-common && sudo mkdir -p /shared &&
        sudo mount $(printf %q "$1") /shared"
    fi
    ;;
  run)
    # As a service it survives the end of this connection, gets SIGTERM (in its main process) when a
    # spot slice is preempted, and restarts after a crash on any worker, which ends the others too.
    # It does not restart after the exit codes 2, 3 and 4: the same command would fail again.
    workers all "sudo systemd-run --unit=flexfas --uid=\$(id -u) --collect \
      --working-directory=\$PWD/flexfas --setenv=PYTHONUNBUFFERED=1 \
      --property=KillMode=mixed --property=TimeoutStopSec=300 \
      --property=Restart=on-failure --property=RestartSec=10 \
      --property='RestartPreventExitStatus=2 3 4' \
      --property=StartLimitIntervalSec=1d --property=StartLimitBurst=20 \
      \$PWD/flexfas/.venv/bin/python -m flexfas_jax.main$(printf ' %q' "$@") --distributed"
    ;;
  log) workers "${1:-0}" 'sudo journalctl --unit=flexfas --follow --output=cat' ;;
  stop) workers all 'sudo systemctl stop flexfas' ;; # saves first; `run` resumes
  delete) gcloud compute tpus queued-resources delete "$TPU" --zone="$ZONE" --force ;;
  *)
    echo "error: unknown task $task" >&2
    exit 2
    ;;
esac
