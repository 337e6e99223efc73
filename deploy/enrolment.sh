#!/bin/sh
# One-shot: lets the simulation's parties enrol. It runs beside the coordinator, with its admin certificate, and leaves
# a token that is good for one hour and a limited number of parties on a volume that only they mount.
set -eu
collab pki token --state /state --server "$COLLAB_SERVER" --uses "${COLLAB_MAX_PARTIES:-10}" --valid-minutes 60 --json > /enrolment/token.json.new
mv /enrolment/token.json.new /enrolment/token.json
echo "enrolment is open for ${COLLAB_MAX_PARTIES:-10} parties, for one hour"
