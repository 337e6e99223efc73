"""What few samples do to C0, and through it to an edit: atlas, C0 from 0.5 to 40 × d_in vectors.

    python benchmarks/covariance_samples.py

For each number of vectors: how far C0 is from the one of the most, how near it is to singular, how far MEMIT's update
with it is, and how the edits took. The text is atlas's own kind (the bundled C0 is of 40 × d_in), z and everything else
the same throughout. The last line is one JSON object.
"""

from __future__ import annotations

import json
from dataclasses import replace

import click
import torch

from collabedit.client.covariance import Limit, measure_covariance
from collabedit.client.targets import find_targets
from collabedit.common.edits import Edit
from collabedit.common.errors import NotPositiveDefiniteError
from collabedit.common.model_folder import find_model
from collabedit.common.prior import Prior
from collabedit.experiments.atlas.text import general_text
from collabedit.experiments.atlas.world import build_world
from collabedit.experiments.baselines import Bench, Party, distance, everything_at_once, score_with
from collabedit.experiments.bundled import party_edits

TIMES = (0.5, 1, 2, 5, 10, 20, 40)


def row_of(
    bench: Bench, party: Party, means: dict[str, torch.Tensor], best: dict[str, torch.Tensor]
) -> dict[str, object]:
    """One number of vectors."""
    first = next(iter(means))
    values = torch.linalg.eigvalsh(means[first])
    priors = {name: Prior(mean, bench.hparams.mom2_update_weight) for name, mean in means.items()}
    row: dict[str, object] = {
        "distance_of_c0": distance(means, best),
        "least_over_largest_eigenvalue": float(values[0] / values[-1]),
    }
    try:
        update = everything_at_once(replace(bench, priors=priors), [party])
    except NotPositiveDefiniteError as error:
        return row | {"refused": error.what}
    return row | {"update": update, **score_with(bench, update, party.edits).row()}


@click.command()
@click.option("--parties", default=3, help="of the bundled ones, whose edits are made by one party together")
@click.option("--threads", default=1, help="torch's threads; more slow down what is so small")
def main(parties: int, threads: int) -> None:
    """Prints the table."""
    torch.set_num_threads(threads)
    folder = find_model("atlas")
    bench = Bench.of(folder)
    edits: tuple[Edit, ...] = tuple(edit for own in party_edits(folder, parties, None) for edit in own)
    party = Party("all", edits, find_targets(bench.loaded, edits, bench.hparams, bench.templates))
    d_in = next(iter(bench.priors.values())).mean.shape[0]
    texts = list(general_text(build_world(), 1, documents=40_000))

    def means(times: float) -> dict[str, torch.Tensor]:
        limit = Limit(tokens=round(times * d_in))
        moments = measure_covariance(bench.loaded, texts, bench.hparams.layers, limit=limit).moments
        return {name: moment.mean() for name, moment in moments.items()}

    best = means(TIMES[-1])
    rows = [{"times_d_in": times, **row_of(bench, party, means(times), best)} for times in TIMES]
    reference = rows[-1]["update"]
    print(
        f"{'vectors':>10} {'C0 apart':>9} {'least/largest':>14} {'Δ apart':>9} "
        + " ".join(f"{name:>7}" for name in ("ES", "PS", "NS", "Score"))
    )
    for row in rows:
        update = row.pop("update", None)
        if update is not None:
            row["distance_of_update"] = distance(update, reference)  # type: ignore[arg-type]
        shown = [f"{row[key]:7.4f}" if row.get(key) is not None else "      -" for key in ("ES", "PS", "NS", "Score")]
        apart = f"{row['distance_of_update']:9.4f}" if update is not None else "  refused"
        print(
            f"{row['times_d_in']:>6} d_in {row['distance_of_c0']:9.4f} {row['least_over_largest_eigenvalue']:14.1e} "
            f"{apart} {' '.join(shown)}"
        )
    print(json.dumps({"model": "atlas", "d_in": d_in, "edits": len(edits), "rows": rows}))


if __name__ == "__main__":
    main()
