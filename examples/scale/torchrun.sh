#!/usr/bin/env bash
# Training on N machines of 8 GPUs without a scheduler. The same command on every machine, with one address:
#
#   HEAD=gpu-1 NODES=4 bash examples/scale/torchrun.sh
#
# On one machine HEAD can be left out.

# What to change: the run, and its folder, which all machines have to see.
CONFIG=${CONFIG:-configs/qwen2_5_vl_7b_cpgd.yaml}
OUTPUT=${OUTPUT:-$PWD/runs/my_run}
OPTIONS=${OPTIONS:-distributed.strategy=fsdp2}
NODES=${NODES:-1}
HEAD=${HEAD:-localhost}
GPUS=${GPUS:-8}

set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
# Seconds between SIGTERM and SIGKILL, for a checkpoint.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}
# shellcheck disable=SC2086  # several options
exec python -m torch.distributed.run --nnodes "$NODES" --nproc_per_node "$GPUS" --max-restarts 0 \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29500}" --rdzv-id "$(basename "$OUTPUT")" \
    -m mm_cpgd train "$CONFIG" "output=$OUTPUT" $OPTIONS --resume
