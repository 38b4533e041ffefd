#!/usr/bin/env bash
# One sweep over all hosts of a Cloud TPU slice, in which each runs the same command:
#   TPU=my-slice ZONE=us-central2-b experiments/cluster/tpu_pod.sh --estimator ppo --over learning_rate=1e-4:1e-2
# The repository must lie in ~/pg on every host, installed with the extra 'tpu'. The same command goes on at the next
# chunk; process 0 has the results, which OUT on a mounted bucket keeps beyond the life of the slice.
set -euo pipefail

: "${TPU:?the name of the slice}" "${ZONE:?its zone}"
OUT=${OUT:-results/sweeps}
flags=$(printf ' %q' "$@")
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all \
    --command "cd ~/pg && .venv/bin/python experiments/sweep.py --distributed --out $(printf %q "$OUT")$flags"
