#!/bin/sh
# One-shot: opens enrolment to the simulation's parties. It has the coordinator's state and so its admin certificate; the
# command that it leaves, on a volume that the parties mount, is good for one hour and a limited number of them.
set -eu
collab pki token --state /state --uses "${COLLAB_MAX_PARTIES:-10}" --valid-minutes 60 > /enrolment/command.new
mv /enrolment/command.new /enrolment/command
echo "enrolment is open for ${COLLAB_MAX_PARTIES:-10} parties, for one hour"
