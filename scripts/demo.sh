#!/bin/sh
# The main job from training to pictures: sh scripts/demo.sh BIN_OF_THE_ENVIRONMENT OUTPUT_FOLDER
set -eu
bin=$1 out=$2
here=$(dirname "$0")
say() { printf '\n== %s\n' "$1"; }

say "1/3 pre-training dino_ood on long-tailed digits"
"$bin/python" "$here/main_pretrain.py" --config-name dino_ood "checkpoint.dir=$out"
run=$(ls -td "$out"/dino_ood/*/ | head -n 1)
run=${run%/}

say "2/3 k-NN and linear evaluation"
"$bin/solo-ood" evaluate "$run"

say "3/3 summary and pictures"
"$bin/solo-ood" report "$run"
