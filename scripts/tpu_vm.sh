#!/usr/bin/env bash
# Batch jobs on Cloud TPU VM slices, through gcloud only.
set -euo pipefail

usage() {
  cat <<'END'
scripts/tpu_vm.sh COMMAND SLICE [--OPTION=VALUE ...] [-- ARGUMENTS OF main.py]

  create    makes a slice
  install   puts the repository and its .venv on all workers
  run       starts main.py on all workers and leaves it running; its output goes to ~/sgflow_jax/main.log of each
  resume    creates, installs and runs again if the slice was preempted or is gone; leaves one that is READY alone
  status    says what the slice and its workers do
  stop      sends main.py SIGTERM: it saves at the next step and ends
  delete    deletes the slice, without waiting for main.py: stop it first

  --repo=URL --revision=NAME   what to install: a git repository that the workers can read; a branch, tag or commit
  --setup=COMMAND              run on all workers by install, before all else: to mount what --workdir is on
  --accelerator=TYPE           v5litepod-8 by default
  --version=NAME               the runtime; by default the one for the accelerator
  --spot                       cheaper, and may be preempted at any time
  --zone=ZONE --project=ID     by default gcloud's own
  --dry-run                    prints the commands, one a line, and runs nothing

In place of an option: SGFLOW_REPO, SGFLOW_REVISION, SGFLOW_SETUP, SGFLOW_ACCELERATOR, SGFLOW_TPU_VERSION,
CLOUDSDK_COMPUTE_ZONE, CLOUDSDK_CORE_PROJECT. What follows -- reaches main.py word for word; its processes find each
other, and the same arguments again continue the run. --workdir must be in a directory that all workers share and that
outlives the slice: a mount of Filestore (NFS), not gs://, as files are used as files; a bucket mounted by gcsfuse must
have a hierarchical namespace. A slice of several workers wants your key: ssh-add ~/.ssh/google_compute_engine.

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

# The words as a POSIX shell reads them back.
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

# tpu VERB [ARGUMENT...]: gcloud for the slice, or the words of the call.
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

# uv, because the Python of most runtimes is too old; newer ones let pip install nothing unless told so.
install() {
  on_workers "set -e; bash -c $(quoted "$setup"); git init -q sgflow_jax; cd sgflow_jax; \
git fetch -q --tags $(quoted "$repo") '+refs/heads/*:refs/remotes/origin/*'; \
git checkout -q --detach $(quoted "origin/$revision") 2>/dev/null || git checkout -q --detach $(quoted "$revision"); \
export PIP_BREAK_SYSTEM_PACKAGES=1; python3 -m pip install -q --user uv; \
test -x .venv/bin/python || python3 -m uv venv -q --seed --python=3.11 .venv; \
.venv/bin/pip install -q -r requirements.txt 'jax[tpu]'"
}

# nohup becomes main.py, so that main.pid is main.py's; after a reboot the number may be another program's.
readonly RUNNING='pgrep --pidfile main.pid --full main.py >/dev/null 2>&1'

run() {
  local shared=${workdir%/*}
  on_workers "cd sgflow_jax || exit; if $RUNNING; then echo 'main.py runs already: stop it first' >&2; exit 1; fi; \
test -d $(quoted "${shared:-/}") || { echo 'the directory of --workdir is not there: see --setup' >&2; exit 1; }; \
nohup .venv/bin/python main.py $(quoted "${arguments[@]}") >>main.log 2>&1 </dev/null & echo \$! >main.pid"
}

# look IF_DRY: sets state, in a dry run to IF_DRY.
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
if $RUNNING; then echo \"\$(uname -n): main.py runs\"; else echo \"\$(uname -n): main.py does not run\"; fi"
}

stop() { on_workers 'pkill --signal TERM --pidfile sgflow_jax/main.pid --full main.py'; }

delete() { tpu delete; }

resume() {
  look PREEMPTED || state=gone # if it is there after all, create refuses
  case $state in
    READY) echo "$slice is READY: left alone, see status" && return ;;
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
[[ $slice =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || fail "'$slice' cannot name a slice: give lower-case letters, digits, -"
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
    *) fail "unexpected argument '$1': options are written --name=value, those of main.py after --; see --help" ;;
  esac
  shift
done

case "$setup${arguments[*]-}" in
  *$'\n'*) fail "an argument has a line break: give one without" ;;
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
    [ -n "$config" ] || fail "main.py is given no --config: add -- --config=FILE.py"
    [[ $workdir = /* ]] || fail "--workdir='$workdir' is no shared directory: mount one, and add -- --workdir=/DIR"
    ;;
  *) [ ${#arguments[@]} = 0 ] || fail "$command runs no main.py: leave out -- and what follows" ;;
esac
$dry_run || command -v gcloud >/dev/null || fail "there is no gcloud: install the Google Cloud CLI, or add --dry-run"

"$command"
