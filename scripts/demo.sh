#!/bin/sh
# The main job from training to pictures: sh scripts/demo.sh BIN_OF_THE_ENVIRONMENT OUTPUT_FOLDER
set -eu
bin=$1 out=$2
here=$(dirname "$0")
say() { printf '\n== %s\n' "$1"; }

say "1/4 pre-training dino_ood on long-tailed digits"
"$bin/python" "$here/main_pretrain.py" --config-name dino_ood "checkpoint.dir=$out"
run=$(ls -td "$out"/dino_ood/*/ | head -n 1)
run=${run%/}
checkpoint=$(ls -t "$run"/*.ckpt | head -n 1)

say "2/4 k-NN evaluation"
"$bin/python" "$here/main_knn.py" --pretrained_checkpoint_dir "$run"

say "3/4 linear evaluation"
"$bin/python" "$here/main_linear.py" --config-name dino_ood_linear \
    "pretrained_feature_extractor='$checkpoint'"

say "4/4 summary and pictures"
"$bin/solo-ood" report "$run"
