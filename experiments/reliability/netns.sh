#!/usr/bin/env bash
# Several machines on one: a network namespace for each process, joined by a switch. Needs root.
#
#   experiments/reliability/netns.sh [--hosts=2] [--devices=2] [--logs=DIR] [--signal=TERM:1:20]
#     [--cut=1:20] [--program='python -m flexfas_jax.main'] -- --config=... --workdir=...
#
# What comes after -- goes to every process, and --distributed --coordinator=10.77.0.1:PORT
# --num_processes=N --process_id=I after it. The file system is shared, as it would be by NFS.
#   --hosts=N         how many processes, each with its own address 10.77.0.(I+1), hostname and lo
#   --devices=N       CPU devices that each of them has
#   --logs=DIR        what host I writes goes to DIR/hostI.log (default: to the terminal, by name)
#   --signal=S:I:T    signal S goes to host I after T seconds; for I `all`, to every host
#   --cut=I:T         host I's cable is pulled after T seconds: its process lives, but receives nothing
# Ends with the exit code of the first host whose code is not 0.
set -euo pipefail

die() {
  echo "error: $1" >&2
  exit 2
}

hosts=2 devices=2 port=8476 logs='' signal='' cut='' program='python -m flexfas_jax.main'
while (($#)); do
  case $1 in
    --hosts=*) hosts=${1#*=} ;;
    --devices=*) devices=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --logs=*) logs=${1#*=} ;;
    --signal=*) signal=${1#*=} ;;
    --cut=*) cut=${1#*=} ;;
    --program=*) program=${1#*=} ;;
    --)
      shift
      break
      ;;
    *) die "no option $1; what the processes get comes after --" ;;
  esac
  shift
done
[[ $hosts =~ ^[1-9][0-9]?$ && $devices =~ ^[1-9][0-9]?$ ]] || die '--hosts, --devices: 1 to 99'
[[ -z $signal || $signal =~ ^[A-Z0-9]+:([0-9]+|all):[0-9.]+$ ]] || die '--signal=TERM:1:20'
[[ -z $cut || $cut =~ ^[0-9]+:[0-9.]+$ ]] || die '--cut=1:20'
((EUID == 0)) || die 'network namespaces need root'
[[ -z $logs ]] || mkdir -p "$logs"
read -ra command <<<"$program"

# The bridge is in a namespace too: the machine's own network is left alone, and several runs can
# be made at once.
name=flexfas$$
switch=$name-switch
pids=() timers=()
scratch=$(mktemp -d)

# shellcheck disable=SC2329  # by the trap
cleanup() {
  trap '' INT TERM
  local pid i
  for pid in "${timers[@]}" "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  wait || true
  for ((i = 0; i < hosts; i++)); do ip netns del "$name-$i" 2>/dev/null || true; done
  ip netns del "$switch" 2>/dev/null || true
  rm -rf "$scratch"
}
trap cleanup EXIT
# A signal for this script is one for every host; what they end with is waited for.
again=0
trap 'again=1; for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done' INT TERM

ip netns add "$switch"
ip -n "$switch" link add name switch type bridge
ip -n "$switch" link set switch up
echo '127.0.0.1 localhost' >"$scratch/hosts"
for ((i = 0; i < hosts; i++)); do
  ip netns add "$name-$i"
  ip -n "$name-$i" link set lo up
  ip -n "$switch" link add "port$i" type veth peer name eth0 netns "$name-$i"
  ip -n "$switch" link set "port$i" master switch up
  ip -n "$name-$i" addr add "10.77.0.$((i + 1))/24" dev eth0
  ip -n "$name-$i" link set eth0 up
  echo "10.77.0.$((i + 1)) host$i" >>"$scratch/hosts"
done

# Collectives on CPUs (gloo) send the others the address that a host's own name resolves to: every
# host needs its own name, and an /etc/hosts with it. exec all the way: $! is the process itself.
# shellcheck disable=SC2016  # for the inner shell
inner='hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"'
for ((i = 0; i < hosts; i++)); do
  if [[ $logs ]]; then exec {out}>"$logs/host$i.log"; else exec {out}> >(sed -u "s/^/host$i: /"); fi
  JAX_PLATFORMS=cpu XLA_FLAGS="--xla_force_host_platform_device_count=$devices ${XLA_FLAGS:-}" \
    PYTHONUNBUFFERED=1 ip netns exec "$name-$i" unshare --uts --mount \
    sh -c "$inner" sh "host$i" "$scratch/hosts" "${command[@]}" "$@" --distributed \
    "--coordinator=10.77.0.1:$port" "--num_processes=$hosts" "--process_id=$i" \
    >&"$out" 2>&1 </dev/null &
  pids+=($!)
  exec {out}>&-
done

if [[ $signal ]]; then
  IFS=: read -r what which when <<<"$signal"
  (
    sleep "$when"
    for ((i = 0; i < hosts; i++)); do
      [[ $which != all && $which != "$i" ]] || kill "-$what" "${pids[i]}"
    done
    echo "netns: sent $what to host $which after $when s" >&2
  ) &
  timers+=($!)
fi
if [[ $cut ]]; then
  IFS=: read -r which when <<<"$cut"
  (
    sleep "$when"
    ip -n "$switch" link set "port$which" down
    echo "netns: cut host $which off after $when s" >&2
  ) &
  timers+=($!)
fi

code=0
for ((i = 0; i < hosts; i++)); do
  again=1
  while ((again)); do # a trapped signal ends `wait` early
    again=0 status=0
    wait "${pids[i]}" || status=$?
  done
  echo "netns: host $i ended with $status" >&2
  ((code)) || code=$status
done
exit "$code"
