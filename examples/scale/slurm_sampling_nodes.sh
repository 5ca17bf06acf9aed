#!/usr/bin/env bash
# Training and sampling on machines of their own under SLURM: vLLM servers on the first, training on the others.
#
#   sbatch --nodes 6 examples/scale/slurm_sampling_nodes.sh      # 2 that sample, 4 that train
#
#SBATCH --job-name=mm-cpgd
#SBATCH --nodes=6
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append

# What to change: the environments, the model, the run, and its folder, which all machines have to see.
VENV=${VENV:-$PWD/.venv}
VLLM_VENV=${VLLM_VENV:-$VENV}
MODEL=${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}
CONFIG=${CONFIG:-configs/qwen2_5_vl_7b_cpgd.yaml}
OUTPUT=${OUTPUT:-$PWD/runs/my_run}
OPTIONS=${OPTIONS:-distributed.strategy=fsdp2}
# Machines that sample, and GPUs of one server: 1 for models up to 14B, 2 or 4 for 32B.
SAMPLING_NODES=${SAMPLING_NODES:-2}
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}
# Lengths; limits of images have to be the config's: --mm-processor-kwargs {"max_pixels":1003520}
VLLM_OPTIONS=${VLLM_OPTIONS:---max-model-len 16384 --gpu-memory-utilization 0.9}

set -euo pipefail
export HF_HOME=${HF_HOME:-$PWD/.cache/huggingface}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
gpus=${SLURM_NTASKS_PER_NODE:-8}
servers=$((gpus / TENSOR_PARALLEL))
sampling=("${nodes[@]:0:SAMPLING_NODES}")
training=("${nodes[@]:SAMPLING_NODES}")
list() { local IFS=,; echo "$*"; }

urls=()
for node in "${sampling[@]}"; do
    for ((number = 0; number < servers; number++)); do
        urls+=("http://$node:$((8000 + number))")
    done
done

# One server per TENSOR_PARALLEL GPUs. New weights reach it as files in a shared folder.
# shellcheck disable=SC2016,SC2086  # a task's own variables; several options
srun --nodes="${#sampling[@]}" --nodelist="$(list "${sampling[@]}")" --ntasks-per-node="$servers" \
    --ntasks=$((servers * ${#sampling[@]})) --gpu-bind=none --output="server-%j-%t.log" \
    bash -c '
        first=$((SLURM_LOCALID * $1)); shift
        port=$((8000 + SLURM_LOCALID))
        CUDA_VISIBLE_DEVICES=$(seq -s, "$first" $((first + $1 - 1))) VLLM_SERVER_DEV_MODE=1 \
            exec "$2/bin/vllm" serve "$3" --port "$port" --tensor-parallel-size "$1" --seed 0 \
            --enable-prefix-caching --logprobs-mode processed_logprobs "${@:4}"
    ' server "$TENSOR_PARALLEL" "$TENSOR_PARALLEL" "$VLLM_VENV" "$MODEL" $VLLM_OPTIONS &
server_step=$!
trap 'kill "$server_step" 2>/dev/null || true; wait "$server_step" 2>/dev/null || true' EXIT

source "$VENV/bin/activate"
MASTER_ADDR=${training[0]}
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
WORLD_SIZE=$((gpus * ${#training[@]}))
export MASTER_ADDR MASTER_PORT WORLD_SIZE

# shellcheck disable=SC2016,SC2086
srun --nodes="${#training[@]}" --nodelist="$(list "${training[@]}")" --ntasks-per-node="$gpus" \
    --ntasks="$WORLD_SIZE" --kill-on-bad-exit=1 --gpu-bind=none bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
    exec python -m mm_cpgd train "$@" --resume
' task "$CONFIG" "output=$OUTPUT" "policy.model=$MODEL" rollout.engine=vllm rollout.vllm.mode=server \
    "rollout.vllm.urls=[$(list "${urls[@]}")]" rollout.vllm.weights=folder \
    "rollout.vllm.weights_folder=$OUTPUT/weights" rollout.vllm.wait=1800 $OPTIONS &
training_step=$!

# SLURM tells this script ten minutes before the end (--signal), and not the servers, which are needed until the
# run has written its checkpoint and ended with 143.
trap 'kill -TERM "$training_step"' TERM
status=0
wait "$training_step" || status=$?
while kill -0 "$training_step" 2>/dev/null; do  # the signal ended the first wait
    status=0
    wait "$training_step" || status=$?
done

# Out of time: the same job goes on from its checkpoint when it gets machines again.
if [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
