"""Causal traces as pictures: three heat maps side by side, as in ROME's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collabedit.client.layer_choice import Averages
    from collabedit.client.tracing import Kind, Trace

PANELS: Final[dict[Kind, tuple[str, str]]] = {
    "hidden": ("One hidden state", "Purples"),
    "mlp": ("MLP outputs", "Greens"),
    "attention": ("Attention outputs", "Reds"),
}
DOTS_PER_INCH: Final = 130
CELL: Final = 0.36  # inches: a row's height
WIDEST: Final = 18.0  # inches


@dataclass(frozen=True)
class HeatMap:
    """What a picture shows. values: by kind, [rows][layers], indirect effects; labels: of the rows, from the top;
    window: layers restored together in the MLP and attention panels; outlined: (row, layers) to frame in the MLP panel,
    those that are recommended. Effects below 0 are drawn as 0.
    """

    title: str
    labels: tuple[str, ...]
    values: dict[Kind, Sequence[Sequence[float]]]
    window: int
    outlined: tuple[int, tuple[int, ...]] | None = None

    def draw(self, path: Path) -> None:
        """Writes the picture as a PNG. Raises OSError."""
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        depth = len(self.values["hidden"][0])
        size = (min(WIDEST, max(10.5, 3.2 + 0.25 * depth)), 1.9 + CELL * len(self.labels))
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.06))
        figure.suptitle(self.title, fontsize=13)
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, kind in zip(panels, PANELS, strict=True):
            self._panel(figure, axes, kind)
        panels[0].set_yticks(range(len(self.labels)), self.labels, fontsize=11)
        if self.outlined is not None:
            _frame(panels[list(PANELS).index("mlp")], *self.outlined)
        figure.savefig(path, dpi=DOTS_PER_INCH, format="png", metadata={"Software": "collabedit"})

    def _panel(self, figure: Any, axes: Any, kind: Kind) -> None:
        from matplotlib.ticker import MaxNLocator

        name, colours = PANELS[kind]
        rows = self.values[kind]
        image = axes.imshow(rows, cmap=colours, aspect="auto", vmin=0.0, vmax=max(1e-6, *map(max, rows)))
        framed = kind == "mlp" and self.outlined is not None and self.outlined[1]
        axes.set_title(f"{name} (dashed: recommended)" if framed else name, fontsize=12)
        around = f"middle of a window of {self.window} layers" if self.window > 1 else "layer"
        axes.set_xlabel("layer" if kind == "hidden" else around, fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="x", labelsize=10)
        bar = figure.colorbar(image, ax=axes, pad=0.02)
        bar.set_label("mean indirect effect" if self.outlined is not None else "indirect effect", fontsize=10)
        bar.ax.tick_params(labelsize=9)


def _frame(axes: Any, row: int, layers: tuple[int, ...]) -> None:
    """A dashed line around the recommended layers."""
    from matplotlib.patches import Rectangle

    if layers:
        corner, width = (layers[0] - 0.5, row - 0.5), len(layers)
        axes.add_patch(
            Rectangle(corner, width, 1, fill=False, edgecolor="black", linestyle="--", linewidth=1.8, clip_on=False)
        )


def of_all(
    model: str,
    traces: Sequence[Trace],
    found: Averages,
    layers: tuple[int, ...],
    window: int,
    means: tuple[float, float],
) -> HeatMap:
    """The averages over all facts, one row a token class. means: of P(object), clean and corrupted."""
    labels = tuple(str(name) for name in found)
    title = f"{model}: {len(traces)} facts, mean P(object) {means[0]:.3f} clean, {means[1]:.3f} corrupted"
    values: dict[Kind, Sequence[Sequence[float]]] = {
        kind: [by_kind[kind].mean for by_kind in found.values()] for kind in PANELS
    }
    return HeatMap(title, labels, values, window, (labels.index("last subject token"), layers))


def of_one(model: str, trace: Trace, window: int) -> HeatMap:
    """One fact, one row a token; the subject's are starred."""
    probe = trace.probe
    labels = tuple(
        (text.strip() or "(special)") + ("*" if probe.first <= index <= probe.last else "")
        for index, text in enumerate(probe.tokens)
    )
    effects = trace.effects.tolist()
    said = f"P({probe.fact.target_new}) {trace.clean:.3f} clean, {trace.corrupted:.3f} corrupted"
    return HeatMap(f"{model}: {said}", labels, dict(zip(PANELS, effects, strict=True)), window)
