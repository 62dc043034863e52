#!/usr/bin/env bash
# Runs batch jobs on Cloud TPU VM slices, using only gcloud.
set -euo pipefail

usage() {
  cat <<'END'
scripts/tpu_vm.sh COMMAND SLICE [--OPTION=VALUE ...] [-- ARGUMENTS OF main.py]

  create    creates a slice
  install   installs the repository and its .venv on all workers
  run       starts main.py on all workers in the background; it writes to ~/sgflow_jax/main.log on each
  resume    recreates a preempted or deleted slice, installs and runs; leaves a READY slice alone
  status    prints the state of the slice, and of main.py on each worker
  stop      sends main.py SIGTERM: it saves at the next step and exits
  delete    deletes the slice without waiting for main.py: stop it first

  --repo=URL --revision=NAME   what to install: a git repository the workers can read; a branch, tag or commit
  --setup=COMMAND              run by install on all workers, first: to mount the storage of --workdir
  --accelerator=TYPE           v5litepod-8 by default
  --version=NAME               the runtime; by default chosen for the accelerator
  --spot                       cheaper; may be preempted at any time
  --zone=ZONE --project=ID     by default gcloud's own
  --dry-run                    prints the commands, one per line, and runs nothing

Environment variables for the options: SGFLOW_REPO, SGFLOW_REVISION, SGFLOW_SETUP, SGFLOW_ACCELERATOR, SGFLOW_TPU_VERSION,
CLOUDSDK_COMPUTE_ZONE, CLOUDSDK_CORE_PROJECT. Arguments after -- are passed to main.py unchanged; its processes find
each other, and the same arguments continue the run. --workdir must be in a directory that all workers share and that
outlives the slice: a mount of Filestore (NFS), not gs://, since main.py needs a file system. A bucket mounted by
gcsfuse must have a hierarchical namespace. A slice of several workers needs your key: ssh-add
~/.ssh/google_compute_engine.

  export SGFLOW_REPO=https://HOST/NAME.git SGFLOW_REVISION=v1 SGFLOW_ACCELERATOR=v5litepod-16
  export SGFLOW_SETUP='sudo mkdir -p /mnt/shared && sudo mount -t nfs FILESTORE:/share /mnt/shared'
  scripts/tpu_vm.sh create run1 --spot && scripts/tpu_vm.sh install run1
  scripts/tpu_vm.sh run run1 -- --config=configs/cifar10.py --workdir=/mnt/shared/run1
  scripts/tpu_vm.sh resume run1 --spot -- --config=configs/cifar10.py --workdir=/mnt/shared/run1
END
}

fail() {
  echo "error: $1" >&2
  exit 2
}

# Quotes words so that a POSIX shell reads them back unchanged.
quoted() {
  local word quote="'" escaped="'\\''" line=
  for word; do
    case $word in
      *[!A-Za-z0-9_@%+=:,./-]* | '') word="'${word//$quote/$escaped}'" ;;
    esac
    line+="${line:+ }$word"
  done
  printf '%s' "$line"
}

# tpu VERB [ARGUMENT...]: calls gcloud for the slice, or prints the call.
tpu() {
  local call=(gcloud compute tpus tpu-vm "$1" "$slice" "${common[@]}" "${@:2}")
  if $dry_run; then
    quoted "${call[@]}"
    echo
  else
    "${call[@]}"
  fi
}

on_workers() { tpu ssh --worker=all --command="$1"; }

create() {
  local options=(--accelerator-type="$accelerator" --version="$version")
  if $spot; then options+=(--spot); fi
  tpu create "${options[@]}"
}

# uv brings its own Python: that of most runtimes is too old. PIP_BREAK_SYSTEM_PACKAGES: newer ones refuse pip without it.
install() {
  on_workers "set -e; bash -c $(quoted "$setup"); git init -q sgflow_jax; cd sgflow_jax; \
git fetch -q --tags $(quoted "$repo") '+refs/heads/*:refs/remotes/origin/*'; \
git checkout -q --detach $(quoted "origin/$revision") 2>/dev/null || git checkout -q --detach $(quoted "$revision"); \
export PIP_BREAK_SYSTEM_PACKAGES=1; python3 -m pip install -q --user uv; \
test -x .venv/bin/python || python3 -m uv venv -q --seed --python=3.11 .venv; \
.venv/bin/pip install -q -r requirements.txt 'jax[tpu]'"
}

# nohup becomes main.py, so main.pid holds the id of main.py. After a reboot another program may have that id.
readonly RUNNING='pgrep --pidfile main.pid --full main.py >/dev/null 2>&1'

run() {
  local shared=${workdir%/*}
  on_workers "cd sgflow_jax || exit; if $RUNNING; then echo 'main.py is already running: stop it first' >&2; exit 1; fi; \
test -d $(quoted "${shared:-/}") || { echo 'the directory of --workdir does not exist: see --setup' >&2; exit 1; }; \
nohup .venv/bin/python main.py $(quoted "${arguments[@]}") >>main.log 2>&1 </dev/null & echo \$! >main.pid"
}

# look IF_DRY: sets state; in a dry run, to IF_DRY.
look() {
  if $dry_run; then
    state=$1
    tpu describe '--format=value(state)'
  else
    state=$(tpu describe '--format=value(state)')
  fi
}

status() {
  look READY
  $dry_run || echo "$slice is $state"
  [ "$state" != READY ] || on_workers "cd sgflow_jax || exit; tail -n 3 main.log; \
if $RUNNING; then echo \"\$(uname -n): main.py is running\"; else echo \"\$(uname -n): main.py is not running\"; fi"
}

stop() { on_workers 'pkill --signal TERM --pidfile sgflow_jax/main.pid --full main.py'; }

delete() { tpu delete; }

resume() {
  look PREEMPTED || state=gone # if it exists after all, create fails
  case $state in
    READY) echo "$slice is READY: nothing to do, see status" && return ;;
    PREEMPTED | TERMINATED) delete ;;
    gone) ;;
    *) echo "error: $slice is $state: try again later, or delete it" >&2 && exit 1 ;;
  esac
  create
  install
  run
}

command=${1:-}
case $command in
  create | install | run | resume | status | stop | delete) ;;
  -h | --help | help) usage && exit ;;
  *) fail "unknown command '$command': use create, install, run, resume, status, stop or delete; see --help" ;;
esac
slice=${2:-}
[[ $slice =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || fail "'$slice' is not a slice name: use lower-case letters, digits and -"
shift 2

accelerator=${SGFLOW_ACCELERATOR:-v5litepod-8} version=${SGFLOW_TPU_VERSION:-}
repo=${SGFLOW_REPO:-} revision=${SGFLOW_REVISION:-} setup=${SGFLOW_SETUP:-}
common=(--quiet) arguments=() spot=false dry_run=false
while [ $# -gt 0 ]; do
  case $1 in
    --accelerator=?*) accelerator=${1#*=} ;;
    --version=?*) version=${1#*=} ;;
    --repo=?*) repo=${1#*=} ;;
    --revision=?*) revision=${1#*=} ;;
    --setup=?*) setup=${1#*=} ;;
    --zone=?* | --project=?*) common+=("$1") ;;
    --spot) spot=true ;;
    --dry-run) dry_run=true ;;
    --) shift && arguments=("$@") && break ;;
    *) fail "unexpected argument '$1': write options as --name=value, and those of main.py after --; see --help" ;;
  esac
  shift
done

case "$setup${arguments[*]-}" in
  *$'\n'*) fail "an argument has a line break: remove it" ;;
esac
if [ -z "$version" ]; then
  case $accelerator in
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    *) version=tpu-ubuntu2204-base ;;
  esac
fi
case $command in
  install | resume)
    [[ $repo != '' && $repo != -* ]] || fail "--repo is missing: give --repo=URL"
    [[ $revision != '' && $revision != -* ]] || fail "--revision is missing: give --revision=BRANCH, TAG or COMMIT"
    ;;
esac
case $command in
  run | resume)
    config='' workdir=''
    for argument in ${arguments[@]+"${arguments[@]}"}; do
      case $argument in
        --config=?*) config=${argument#*=} ;;
        --workdir=?*) workdir=${argument#*=} ;;
      esac
    done
    workdir=${workdir%/}
    [ -n "$config" ] || fail "main.py needs --config: add -- --config=FILE.py"
    [[ $workdir = /* ]] || fail "--workdir='$workdir' is not an absolute path: mount a shared directory and add -- --workdir=/DIR"
    ;;
  *) [ ${#arguments[@]} = 0 ] || fail "$command does not run main.py: remove -- and what follows it" ;;
esac
$dry_run || command -v gcloud >/dev/null || fail "gcloud was not found: install the Google Cloud CLI, or add --dry-run"

"$command"
