#!/bin/sh
# One simulated party: takes the next free number, enrols, and runs the client's daemon until its edits are merged.
# A container that is started again finds its number, its certificate and its place in the round where they were.
set -eu
host=$(hostname)
mine=/parties/by-host/$host
mkdir -p /parties/by-host
if [ ! -e "$mine" ]; then
  number=1
  until mkdir "/parties/$(printf %02d "$number")" 2>/dev/null; do
    number=$((number + 1))
    [ "$number" -le 10 ] || { echo "all ten bundled sets of edits are taken: docker-compose down -v starts afresh" >&2; exit 2; }
  done
  printf %02d "$number" > "$mine"
fi
party=$(cat "$mine")
state=/parties/$party/state
edits=/parties/$party/edits.jsonl
[ -s "$edits" ] || { collab sample-edits --of 10 --party "$party" > "$edits.new" && mv "$edits.new" "$edits"; }
# The command is the one that a person would paste: collab pki enrol --server … --token … --ca-fingerprint …
[ -e "$state/credentials/client.pem" ] || $(cat /enrolment/command) --name "party-$party" --state "$state"
exec collab-client --edits "$edits" --state "$state" --once
