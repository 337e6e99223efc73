"""Kills servers and clients at every durable transition, and looks whether anything is different afterwards.

    python tests/chaos/run.py                          # every transition, before and after
    python tests/chaos/run.py --only claims:commit/SqlStore.record/Settle:1:after    # one kill again
    python tests/chaos/run.py --side claims --side reports

A kill: a federation is put back to the same state, one process is started that will SIGKILL itself at a durable
transition (`doomed.py`), and the round goes on; when the process is dead the same command is started again. The round
must end, its weights and sums must have the digests of the round that nothing interrupts, and no more than 16 MiB may
have been sent again. Transitions are found by tracing that round: a new one is walked without being named here.

*server*: a real server, two light parties with random edits over the real protocol, the second round.
*claims*, *reports*: the same with parties whose edits meet, found before the merge, or where edits failed after it;
*decisions*: an admin decides what was found, and a round later otherwise. The verdicts, too, must be those of the round
that nothing interrupts.
*claims-client*, *reports-client*: a real `collab-client` whose edits meet those of two light parties: its ledger must
be the same too, but for the clock. Of these five sides commits are walked alone.
*bulk*: the same with a layer so wide that an upload is 20 MiB.
*found*: a server on an empty folder; then a party enrols.
*client*: a real `collab-client` with eight edits (search for z, keys, uploads, new weights, scores) and a light party.
*enrol*, *enrol-server*: `collab pki enrol`, killed itself or by its server's death; then the same command again.
"""

if __name__ == "__main__":  # who is forked reads this file, and nothing of it
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))  # for what the tests have in common

    from walk import main

    main()
