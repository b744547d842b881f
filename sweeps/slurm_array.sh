#!/bin/bash
# W&B agents for one sweep as a SLURM job array: one agent with one GPU per task.
#   wandb sweep sweeps/gtsrb.yaml                     # prints entity/project/sweep_id
#   sbatch sweeps/slurm_array.sh entity/project/sweep_id
# SLURM sends SIGTERM 90 s before the time limit: the run saves a checkpoint, and W&B requeues it for
# any task that sees the same WANDB_DIR.
#SBATCH --job-name=sweep
#SBATCH --array=0-3
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@90
#SBATCH --requeue
#SBATCH --output=sweep-%A_%a.log
set -euo pipefail
: "${1:?usage: sbatch sweeps/slurm_array.sh entity/project/sweep_id}"
cd "${SLURM_SUBMIT_DIR:-.}"
source .venv/bin/activate
export WANDB_DIR=${WANDB_DIR:-$PWD/runs/slurm}  # on a disk that all nodes share
mkdir -p "$WANDB_DIR"

# The batch shell gets the signal, not the agent: pass it on, so that the agent's run gets it too.
wandb agent --forward-signals "$1" &
agent=$!
trap 'kill -TERM $agent' TERM
wait $agent || wait $agent
