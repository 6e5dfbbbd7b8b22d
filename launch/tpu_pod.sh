#!/usr/bin/env bash
# usage: ./launch/tpu_pod.sh [--dry-run] create|setup|status|delete
#        ./launch/tpu_pod.sh [--dry-run] run CONFIG RUN [--config.KEY=VALUE ...]
#
# Trains on a TPU slice of Google Cloud, one host or many, through gcloud:
#
#   create   the TPU; billed from here on, until it is deleted
#   setup    on every host: this clone's last commit, an environment with JAX for TPU, the bucket as /mnt/faceattr
#   run      the training of CONFIG on every host, in the bucket's folder RUN; again after a failure: it goes on there.
#            Data in the bucket are --config.data.path=/mnt/faceattr/FOLDER
#   status   of the TPU, and the last lines of the first host's log
#   delete   the TPU; the bucket stays
#
#   NAME     of the TPU (faceattr)                 ZONE     such as us-east5-b; TYPE  such as v5litepod-8; required
#   BUCKET   for runs and data, gs:// left out     VERSION  of its software (v2-alpha-tpuv5-lite)
#   SPOT=1   a cheaper TPU that may be taken back: SIGTERM saves, then create, setup and run again
#
# A batch is split over all chips: batch_size is a multiple of their number, and a config's own is far too small for
# many. With --config.data.shards=CHIPS each chip holds its own part of the data in memory.
# Costs what https://cloud.google.com/tpu/pricing says for TYPE, by the hour, idle hours too: delete it.
# When it hangs: `status`; a host that misses the others ends after 5 minutes and says so in its log. `create` that is
# refused has no quota or no capacity in ZONE. The first step compiles for minutes.
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

flags "$@" && set -- "${REST[@]}"
[[ $# -ge 1 ]] || { help >&2 && exit 2; }
verb="$1"
shift
tpu="${NAME:-faceattr}" zone="${ZONE:?set ZONE, such as us-east5-b}"
cloud=(gcloud compute tpus tpu-vm)

on_hosts() { # WORKER COMMAND
  run "${cloud[@]}" ssh "$tpu" --zone="$zone" --worker="$1" --command="$2"
}

case "$verb" in
  create)
    run "${cloud[@]}" create "$tpu" --zone="$zone" --accelerator-type="${TYPE:?set TYPE, such as v5litepod-8}" \
      --version="${VERSION:-v2-alpha-tpuv5-lite}" ${SPOT:+--spot}
    ;;
  setup)
    bucket="${BUCKET:?set BUCKET, for runs and data}"
    archive="$(mktemp --suffix=.tar.gz)"
    trap 'rm -f "$archive"' EXIT
    run git -C "$ROOT" archive --format=tar.gz --output="$archive" HEAD
    run "${cloud[@]}" scp "$archive" "$tpu:faceattr.tar.gz" --zone="$zone" --worker=all
    # Ubuntu's own Python may be older than 3.11, so uv brings one.
    on_hosts all "set -e
mkdir -p faceattr && tar -xzf faceattr.tar.gz -C faceattr
command -v gcsfuse >/dev/null || {
  echo \"deb https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main\" | sudo tee /etc/apt/sources.list.d/gcsfuse.list
  curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /etc/apt/trusted.gpg.d/gcsfuse.asc >/dev/null
  sudo apt-get -q update && sudo apt-get -qy install gcsfuse
}
sudo mkdir -p /mnt/faceattr && sudo chown \$USER /mnt/faceattr
mountpoint -q /mnt/faceattr || gcsfuse --implicit-dirs $(printf %q "$bucket") /mnt/faceattr
command -v ~/.local/bin/uv >/dev/null || python3 -m pip install --user --quiet uv
cd faceattr && ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python --editable . 'jax[tpu]>=0.10.2,<0.13'"
    ;;
  run)
    [[ $# -ge 2 ]] || { help >&2 && exit 2; }
    config="$1" folder="$2"
    shift 2
    check_config "$config" "$@"
    printf -v command '%q ' .venv/bin/faceattr train --coordinator=auto --config="$config" \
      --workdir="/mnt/faceattr/$folder" "$@"
    # In the background, so that it outlives this connection.
    on_hosts all "cd faceattr && export JAX_COMPILATION_CACHE_DIR=\$HOME/.jax_cache \
&& { nohup $command >train.log 2>&1 </dev/null & } && sleep 1"
    ;;
  status)
    run "${cloud[@]}" describe "$tpu" --zone="$zone" --format='value(state,health)'
    on_hosts 0 'tail -n 5 faceattr/train.log'
    ;;
  delete)
    run "${cloud[@]}" delete "$tpu" --zone="$zone" --quiet
    ;;
  *)
    echo "$verb: it is create, setup, run, status or delete; see ./launch/tpu_pod.sh --help" >&2
    exit 2
    ;;
esac
