#!/bin/bash
# Unattended on a CUDA machine: train the silicon prior, then the benchmarks and the acceptance table, each part in under 10 minutes. Results: $OUT.
#
#   OUT=results bash benchmarks/gpu.sh                        # from the repository's root: all parts
#   STAGES=run OUT=results bash benchmarks/gpu.sh             # one part
#
# Settings (environment):
#   OUT       folder for results (required)
#   MINUTES   of training over all calls (default 5); 0 skips it
#   RESUME    folder with silicon.npz, silicon.train.npz and silicon.csv of an earlier call, to continue from it
#   CELLS     training cells (default benchmarks/data/silicon_cells.extxyz.gz)
#   TARGETS   cells for the acceptance table, FILE or FILE@frame, space separated (default: frames 0 and 1 of benchmarks/data/silicon_targets.extxyz.gz)
#   NETWORK   JSON of EquivariantNetwork's options, e.g. '{"channels": 96, "blocks": 4}'
#   TRAINING  JSON of TrainingOptions, e.g. '{"batch": 16, "learning_rate": 0.002}'
#   STAGES    of "train run ensembles large peers silicon materials published" (default all)
#   MATERIAL_MINUTES   of training for each of the six priors of the five materials (default 1.4)
#   PUBLISHED_MINUTES  of training of the paper's network, a third of them at noise of 0.1 to 0.3 A, with a graph to 3.5 A instead of 5 (with that it
#             learned nothing in 11 minutes of a CPU core: materials_tried.md); its guidance is then one row of the table over the materials (default 5, at most 6)
#   RUN_OPTIONS, SILICON_OPTIONS   more options of run.py and silicon.py, e.g. --seconds 0.5, --smoke
#
# The machine's python3 brings jax, flax, optax, numpy, scipy and matplotlib. What it lacks travels as wheels in .whl/ (never committed):
#   pip download --no-deps --only-binary=:all: --python-version 3.12 -d .whl jraph jax-md ase
# PYTHON picks another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${OUT:?needs OUT, a folder for the results}"
python=${PYTHON:-python3} cells=${CELLS:-benchmarks/data/silicon_cells.extxyz.gz} stages=${STAGES:-train run ensembles large peers silicon materials published}
export PYTHONUNBUFFERED=1 MPLBACKEND=Agg MINUTES=${MINUTES:-5} NETWORK=${NETWORK:-'{}'} TRAINING=${TRAINING:-'{"batch": 16}'} RESUME=${RESUME:-}
export XLA_PYTHON_CLIENT_PREALLOCATE=false
mkdir -p "$OUT"

if compgen -G ".whl/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
    export PYTHONPATH=/tmp/site
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
"$python" -c 'import jax; print("jax", jax.__version__, jax.devices())'

prior=$OUT/silicon.npz
if [ -n "$RESUME" ]; then
    for kind in npz train.npz csv; do
        if [ -f "$RESUME/silicon.$kind" ]; then cp "$RESUME/silicon.$kind" "$OUT/silicon.$kind"; fi
    done
fi

if [[ " $stages " == *" train "* && $MINUTES != 0 ]]; then
    "$python" - "$prior" "$cells" <<'PYTHON' 2>&1 | tee "$OUT/train.log"
import json, os, sys

from glassjax.io import read_structures
from glassjax.priors.prior import make_network
from glassjax.priors.training import TrainingOptions, train

out, *files = sys.argv[1:]
cells = read_structures(files)
network = make_network(dict(name="equivariant", options=dict(elements=1) | json.loads(os.environ["NETWORK"])))
options = TrainingOptions(minutes=float(os.environ["MINUTES"]), **json.loads(os.environ["TRAINING"]))
print(len(cells), "cells;", network, options)


def report(step, seconds, losses):
    if step % 500 == 0:
        print(step, round(seconds), losses)


train(cells, out=out, network=network, elements=("Si",), options=options, resume=bool(os.environ["RESUME"]), report=report)
PYTHON
fi

[ -f "$prior" ] || prior=silicon # the shipped one

# rows of run.py as one part; what does not fit or lacks a package is a row that says so, and the next part goes on
rows() {
    local part=$1
    shift
    # shellcheck disable=SC2086
    timeout -k 10 590 "$python" benchmarks/run.py --prior "$prior" --host gpu --out "$OUT/run.json" ${RUN_OPTIONS:-} --rows "$@" 2>&1 |
        tee "$OUT/$part.log" || echo "part $part failed: see $part.log"
}
wanted() { [[ " $stages " == *" $1 "* ]]; }

if wanted run; then rows run 'pair_histogram*' 'score_*' 'training/*/8x216/glassjax' 'unguided/*/1x216/glassjax' 'guided/*/[18]x216/glassjax' 'guided/*/64x216/glassjax'; fi
if wanted ensembles; then rows ensembles 'guided/*/256x216/glassjax' 'ensemble/equivariant/256x216/glassjax' 'inversion/equivariant/256x216/glassjax'; fi
if wanted large; then rows large 'guided/*/1x1000/glassjax' 'guided/*/1x5000/glassjax' 'guided/equivariant/1x17576/glassjax' 'inversion/equivariant/1x5000/glassjax'; fi
if wanted peers; then rows peers 'unguided/*/1x216/torch-*' 'guided/*/1x216/torch-*' 'guided/*/8x216/torch-*' 'training/*/1x216/torch-near'; fi
if [[ " $stages " == *" silicon "* ]]; then
    unseen=benchmarks/data/silicon_targets.extxyz.gz
    # shellcheck disable=SC2086
    timeout -k 10 590 "$python" benchmarks/silicon.py --prior "$prior" --targets ${TARGETS:-$unseen@0 $unseen@1} --chunk 8 --out "$OUT/silicon.json" ${SILICON_OPTIONS:-} 2>&1 | tee "$OUT/silicon.log"
fi
if wanted materials; then # each begins from the committed parameters; only what was trained here goes to $OUT
    rm -rf /tmp/priors
    cp -r benchmarks/priors /tmp/priors
    timeout -k 10 590 "$python" benchmarks/materials.py train --minutes "${MATERIAL_MINUTES:-1.4}" --batch 32 --folder /tmp/priors --work /tmp/work 2>&1 |
        tee "$OUT/materials.log" || echo "part materials failed: see materials.log"
    mkdir -p "$OUT/materials"
    for file in /tmp/work/*.npz /tmp/work/*.csv; do
        if [[ -f $file && $file != *.train.npz ]]; then cp "$file" "$OUT/materials/"; fi
    done
fi
if wanted published; then # silicon, where the table's own prior was trained; four replicas are few seconds beside the training
    network=/tmp/published/silicon.npz first=/tmp/published/first.npz
    rm -rf /tmp/published
    mkdir /tmp/published
    learn=("$python" -m glassjax train benchmarks/data/training_silicon.extxyz.gz --network meshgraphnet --cutoff 3.5 --floor 0 --batch 16 --learning-rate 0.001)
    read -r begin rest < <("$python" -c "print(${PUBLISHED_MINUTES:-5} / 3, ${PUBLISHED_MINUTES:-5} * 2 / 3)")
    {
        timeout -k 10 160 "${learn[@]}" --sigma-min 0.1 --sigma-max 0.3 --minutes "$begin" --out "$first" &&
            timeout -k 10 270 "${learn[@]}" --sigma-max 0.9 --minutes "$rest" --out "$network" --start "$first" &&
            cp "$network" "$OUT/meshgraphnet_silicon.npz" && cp "${network%.npz}.csv" "$OUT/meshgraphnet_silicon.csv" &&
            timeout -k 10 150 "$python" benchmarks/materials.py table --only silicon --conditions 2.5 --methods published --meshgraphnet "$network" \
                --replicas 4 --ensembles "$OUT/published" --results "$OUT/published.json" # both to be merged into benchmarks/
    } 2>&1 | tee "$OUT/published.log" || echo "part published failed: see published.log"
fi
