#!/usr/bin/env bash
# Training on N machines of 8 GPUs under SLURM, one task per GPU:
#
#   sbatch --nodes 1 examples/scale/slurm.sh
#   sbatch --nodes 4 examples/scale/slurm.sh
#
#SBATCH --job-name=mm-cpgd
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append

# What to change: the environment, the run, and its folder, which all machines have to see.
VENV=${VENV:-$PWD/.venv}
CONFIG=${CONFIG:-configs/qwen2_5_vl_7b_cpgd.yaml}
OUTPUT=${OUTPUT:-$PWD/runs/my_run}
OPTIONS=${OPTIONS:-distributed.strategy=fsdp2}

set -euo pipefail
source "$VENV/bin/activate"
export HF_HOME=${HF_HOME:-$PWD/.cache/huggingface}  # shared: a hub model is downloaded once
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

# Processes find one another at the first machine, on a port that no other job there uses.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT WORLD_SIZE=$SLURM_NTASKS

# Every task sees all GPUs of its machine and takes the one of its number. SLURM sends SIGTERM ten minutes before
# the end (--signal): the run writes a checkpoint and ends with 143. One that fails ends all (--kill-on-bad-exit).
status=0
# shellcheck disable=SC2016,SC2086  # a task's own variables; several options
srun --kill-on-bad-exit=1 --gpu-bind=none bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
    exec python -m mm_cpgd train "$@" --resume
' task "$CONFIG" "output=$OUTPUT" $OPTIONS || status=$?

# Out of time: the same job goes on from its checkpoint when it gets machines again.
if [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
