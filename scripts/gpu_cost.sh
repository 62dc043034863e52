#!/usr/bin/env bash
# Measures the cost of training and sampling the CIFAR-10 network on one GPU, and profiles a step: rows for docs/cost.md.
#
#   scripts/gpu_cost.sh [OUT]      OUT is runs/gpu_cost by default
#
# Stops after LIMIT seconds (450 by default) with code 3; the same command continues, until everything is measured. Needs
# the packages in requirements.txt and a jax for the GPU; no data and no network.
# Results: cost.json, cost.md and cost.png in OUT, OUT/memory (float32) and OUT/sampling; OUT/profile_*.json and .txt.
set -uo pipefail

case "${1:-}" in -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;; -*) echo "error: $1: see --help" >&2; exit 2 ;; esac
SECONDS=0
out=${1:-runs/gpu_cost} limit=${LIMIT:-450} python=${PYTHON:-python}
mkdir -p "$out"

# No preallocation, so that peak memory is what was needed. Each row has its own process; the cache compiles once for all.
export XLA_PYTHON_CLIENT_PREALLOCATE=false XLA_PYTHON_CLIENT_MEM_FRACTION=.95
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$(cd "$out" && pwd)/compiled}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

# Runs a command until the limit. A command that fails or is stopped keeps the rows it finished.
within() {
    local left=$((limit - SECONDS))
    if ((left < 15)); then
        echo "$limit seconds are over: run the same command again" >&2
        exit 3
    fi
    timeout --kill-after=10 "$left" "$@" || { echo "not finished (code $?): $*" >&2; return 1; }
}

# Counts rows in parallel; compiles and times them one at a time.
cost() {
    local where=$1
    shift
    within "$python" -m eval.cost --config=configs/cifar10.py --out="$where" --processes=6 "$@"
}

profile() {
    local name=$1
    shift
    [[ -s "$out/profile_$name.json" ]] ||
        within "$python" -m eval.profile --config="configs/cifar10.py:$name" --out="$out/profile_$name.json" \
            --config.data.batch_size=512 --config.model.dtype=bfloat16 "$@" >"$out/profile_$name.txt"
}

failed=0
main='flow_matching,mean_flow,sgflow(estimator=split),sgflow(tangents=vmap)'
fast=(--config.data.batch_size=512 --dtypes=bfloat16)

# First the rows of the targets: speed at batch 512 in bfloat16, memory at batch 128 in float32.
all=("--stages=count,compile,run")
cost "$out" "${all[@]}" "${fast[@]}" --objectives="$main" --remat=none,elementwise || failed=1
cost "$out/memory" "${all[@]}" --objectives='sgflow(estimator=split),sgflow(tangents=vmap)' --remat=elementwise ||
    failed=1
profile flow_matching --config.model.remat=none || failed=1
profile sgflow || failed=1
# Then sampling and the other comparisons.
cost "$out/sampling" --stages=sample --dtypes=bfloat16 --objectives=flow_matching --config.eval.batch_size=1000 || failed=1
cost "$out" "${all[@]}" "${fast[@]}" --objectives='sgflow' --remat=none,elementwise,block || failed=1
cost "$out" "${all[@]}" "${fast[@]}" --objectives="$main" --remat=elementwise --microbatches=4 || failed=1
cost "$out" "${all[@]}" "${fast[@]}" --remat=elementwise || failed=1
if ((failed)); then
    echo "error: some measurements failed: see above, and run the same command again" >&2
    exit 1
fi
echo "everything is measured: results are in $out"
