#!/usr/bin/env bash
# usage: IMAGE=IMAGE CLAIM=CLAIM ./launch/jobset.sh [--dry-run] [--hosts N] [--per-host P] [--accelerator TYPE]
#                            [--topology T] gpu|tpu CONFIG FOLDER [--config.KEY=VALUE ...]
#
# Trains CONFIG on Kubernetes, on N hosts of P GPUs or TPU chips each (1, and 8 GPUs or 4 chips), by launch/jobset.yml:
# a JobSet (the cluster needs its controller: https://jobset.sigs.k8s.io). It starts again by itself where a host is
# taken back or fails, 20 times at most, and goes on from the last checkpoint; so does the same command after
# `kubectl delete jobset NAME`. It has been rendered and parsed, never applied to a cluster.
#
#   --dry-run      check the config and print the manifest, apply nothing
#   --accelerator  the nodes' kind on Google's clusters, such as nvidia-h100-80gb or tpu-v5-lite-podslice (any nodes)
#   --topology     of a TPU slice, such as 2x4, which has N x P chips
#   IMAGE          of a container with the package and JAX's build for the accelerator: FROM python:3.12-slim; COPY . /src;
#                  RUN pip install /src 'jax[cuda12]>=0.10.2,<0.13' (or jax[tpu])
#   CLAIM          a persistent volume claim that all hosts may write to (ReadWriteMany), mounted as /faceattr: the run is
#                  its FOLDER; data in it are --config.data.path=/faceattr/DATA
#   NAME           of the JobSet (faceattr)
#
# batch_size is a multiple of N x P; with --config.data.shards=N x P each device holds its own part of the data.
# Costs N hosts by the hour, from when they are scheduled. When it hangs: `kubectl get pods` (Pending: no such nodes, or
# all taken; `kubectl describe pod` says), `kubectl logs -f jobs/NAME-hosts-0`; a host that misses the others ends after
# 5 minutes and says where it waited.
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

hosts=1 per_host='' accelerator='' topology=''
flag() {
  case "$1" in
    --hosts) hosts="${2:?}" ;;
    --per-host) per_host="${2:?}" ;;
    --accelerator) accelerator="${2:?}" ;;
    --topology) topology="${2:?}" ;;
    *) return 1 ;;
  esac
}
flags "$@" && set -- "${REST[@]}"
[[ $# -ge 3 ]] || { help >&2 && exit 2; }
kind="$1" config="$2" folder="$3"
shift 3
name="${NAME:-faceattr}"

json() { # its arguments as a list of strings, which YAML reads, too
  local text='' argument
  for argument in "$@"; do
    argument="${argument//\\/\\\\}"
    text+="${text:+, }\"${argument//\"/\\\"}\""
  done
  echo "[$text]"
}

case "$kind" in
  gpu)
    resource=nvidia.com/gpu per_host="${per_host:-8}" annotations='{}'
    selector="${accelerator:+"cloud.google.com/gke-accelerator: $accelerator"}"
    ;;
  tpu)
    # All hosts in one pool of nodes, which is a slice.
    resource=google.com/tpu per_host="${per_host:-4}"
    annotations='{alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool}'
    selector="${accelerator:+"cloud.google.com/gke-tpu-accelerator: $accelerator"}"
    selector+="${topology:+"${selector:+, }cloud.google.com/gke-tpu-topology: $topology"}"
    ;;
  *) echo "$kind: it is gpu or tpu; see ./launch/jobset.sh --help" >&2 && exit 2 ;;
esac
check_config "$config" "$@"

manifest="$(<"$ROOT/launch/jobset.yml")"
fill() { # NAME VALUE
  manifest="${manifest//"\${$1}"/"$2"}"
}
fill NAME "$name"
fill IMAGE "${IMAGE:?set IMAGE, of a container with the package}"
fill CLAIM "${CLAIM:?set CLAIM, of the volume for runs and data}"
fill HOSTS "$hosts"
fill PER_HOST "$per_host"
fill RESOURCE "$resource"
fill SELECTOR "{$selector}"
fill ANNOTATIONS "$annotations"
fill COMMAND "$(json faceattr train --config="$config" --workdir="/faceattr/$folder" "$@")"

if [[ -n $DRY_RUN ]]; then
  echo "$manifest"
else
  kubectl apply -f - <<<"$manifest"
fi
