#!/usr/bin/env bash
# usage: ./launch/gpu_checks.sh [--dry-run] [OUT]
#
# Every number of this project that takes a GPU, into the folder OUT (runs/gpu_checks), by one command on one card:
#
#   attgan-DTYPE-BATCH.json  AttGAN at 128 px and paper width: images/s, share of the card's own matrix product, phase by
#                            phase, memory and inference, in float32, TF32 and bfloat16, at batch 32 and larger ones
#   PAPER.json               the other four papers at their own size, in bfloat16; DIAT's inference beside its 0.0045 s
#   torch-*.json             AttGAN's iteration over that of PyTorch, eager and compiled, on the same card (skipped where
#                            PyTorch sees no GPU)
#   profile/                 a trace of some iterations in bfloat16, for TensorBoard's profile plugin, and
#   kernels.txt              the kernels that took longest in it
#   learning-*.json          AttGAN on drawn faces in bfloat16, and in float32 by three seeds, judged (about an hour)
#
#   --dry-run  print the commands, run none
#   QUICK=1    without the learning; some 40 minutes, estimated
#   FACEATTR   how to call the command (.venv/bin/faceattr; ./launch/local_gpu.sh makes it)
#   FACES      drawn faces to train on (synthetic:4096)
#
# It has never run as a whole: two hours of one card are an estimate. When it hangs: it prints each command before it runs
# it; a benchmark of AttGAN at 128 px took 80 s on an H100, most of it compilation. Nothing else should run on the card:
# more than a dozen programs that tuned their convolutions at once filled its 80 GB. What fails is said at the end, and
# does not keep the rest from running.
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

flags "$@" && set -- "${REST[@]}"
cd "$ROOT"
out="${1:-runs/gpu_checks}"
faceattr="${FACEATTR:-$ROOT/.venv/bin/faceattr}" python="${PYTHON:-$ROOT/.venv/bin/python}"
data="--config.data.path=${FACES:-synthetic:4096}"
failed=()
attempt() { # a command that may fail
  [[ -n $DRY_RUN ]] || printf '+ %s\n' "$*"
  run "$@" || failed+=("$*")
}
benchmark() { # NAME CONFIG [overrides]; PRECISION may say how float32 is multiplied
  attempt env ${PRECISION:+"JAX_DEFAULT_MATMUL_PRECISION=$PRECISION"} "$faceattr" benchmark --config="$2" "$data" \
    --out="$out/$1.json" "${@:3}"
}

run mkdir -p "$out"
[[ -n $DRY_RUN ]] || nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$out/card.csv"
for batch in 32 64 128 256; do
  PRECISION=highest benchmark "attgan-float32-$batch" attgan_128 --config.batch_size="$batch"
  PRECISION=tensorfloat32 benchmark "attgan-tf32-$batch" attgan_128 --config.batch_size="$batch"
  benchmark "attgan-bfloat16-$batch" attgan_128 --config.batch_size="$batch" --config.dtype=bfloat16
done
for paper in elegant_128 attribute_inverse_128; do
  benchmark "$paper" "$paper" --config.dtype=bfloat16
done
# As many attributes as its own 17, of those that are drawn.
drawn=Bald,Bangs,Black_Hair,Blond_Hair,Brown_Hair,Bushy_Eyebrows,Eyeglasses,Goatee,Gray_Hair,Male,Mouth_Slightly_Open
benchmark slgan_64 slgan_64 --config.dtype=bfloat16 \
  --config.attributes="$drawn,Mustache,Narrow_Eyes,No_Beard,Pale_Skin,Rosy_Cheeks,Smiling"
# The face network's weights cannot be had; a recogniser of drawn faces stands in for it.
attempt "$faceattr" train --config=recognizer_64:synthetic --workdir="$out/recognizer" --config.train.iterations=200
benchmark diat_128 diat_128:synthetic --config.dtype=bfloat16 --config.image_size=128 \
  --config.face.path="$out/recognizer"

if [[ -n $DRY_RUN ]] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  for mode in eager compiled; do
    for dtype in float32 tf32 bfloat16; do
      attempt "$python" -m tests.oracles.benchmark_torch --config=attgan_128 --device=cuda --mode="$mode" \
        --precision="$dtype" --out="$out/torch-$mode-$dtype.json"
    done
  done
else
  echo "PyTorch is not here, or sees no GPU: no torch-*.json"
fi

attempt "$faceattr" train --config=attgan_128 --workdir="$out/attgan" "$data" --config.dtype=bfloat16 \
  --config.train.iterations=60 '--config.train.profile=(50,55)' --config.evaluation.images=8
attempt "$python" -m tests.oracles.kernels "$out/attgan/profile" --out="$out/kernels.txt"

if [[ -z ${QUICK:-} ]]; then
  attempt "$faceattr" train --config=classifier_synthetic --workdir="$out/judge"
  for run in float32:0 float32:1 float32:2 bfloat16:0; do
    name="learning-${run/:/-}"
    attempt "$faceattr" train --config=attgan_quickstart --workdir="$out/$name" --config.dtype="${run%:*}" \
      --config.seed="${run#*:}"
    attempt "$faceattr" evaluate --workdir="$out/$name" --judge="$out/judge" --out="$out/$name-evaluation"
    attempt cp "$out/$name-evaluation/evaluation.json" "$out/$name.json"
  done
fi

if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
