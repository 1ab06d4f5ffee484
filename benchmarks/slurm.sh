#!/bin/bash
# An ensemble over several hosts under Slurm: one process per GPU. Every line that may differ is marked.
#
#   sbatch benchmarks/slurm.sh run.toml run1        # repeat the same line after a time limit: it continues
#
#SBATCH --job-name=glassjax
#SBATCH --nodes=4                    # <- hosts
#SBATCH --ntasks-per-node=4          # <- one process per GPU
#SBATCH --gpus-per-node=4            # <- of each host
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120            # ends as Ctrl-C does: the folder stays valid
set -euo pipefail
run=${1:?needs a run file} out=${2:?needs a folder that all hosts see}
# shellcheck disable=SC1091
source "${VENV:-$HOME/glassjax/bin/activate}" # <- where glassjax[cuda] is installed

resume=()
if [ -d "$out/checkpoint" ]; then resume=(--resume); fi
srun glassjax invert "$run" --out "$out" --distributed "${resume[@]}"
