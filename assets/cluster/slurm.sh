#!/bin/bash
# Transcribes a folder with a Slurm job array, one shard per task:
#   sbatch --array=1-16 assets/cluster/slurm.sh /data/recordings /data/transcripts
# Run it again after a failure: what is done is skipped.
#SBATCH --job-name=omniscribe
#SBATCH --cpus-per-task=8
#SBATCH --mem=4G
#SBATCH --output=omniscribe-%A_%a.log
set -euo pipefail
: "${1:?the folder of recordings}" "${2:?the folder for transcripts}"

# Each shard has a folder of its own, so that no two tasks write one journal.
exec omniscribe transcribe "$1" --recursive \
    --shard "${SLURM_ARRAY_TASK_ID:?start with --array=1-N}/${SLURM_ARRAY_TASK_COUNT}" \
    --threads "${SLURM_CPUS_PER_TASK:-1}" \
    --format txt,json --output-dir "$2/shard-${SLURM_ARRAY_TASK_ID}" --resume
