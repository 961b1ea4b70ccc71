"""The table of encoders of V4 neurons."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import package as vl
from benchmarks.common.findings import Aim, Findings, measure
from benchmarks.common.script import provenance_line, read
from benchmarks.common.tables import bracketed, fill, table
from benchmarks.common.v4_sessions import TEST_SESSIONS, load_session

AIM, AIM_SESSION = 0.50, "201025"
DRAWS = 1000
OURS, PAPER = "ridge on all layers of SqueezeNet", "transformers on all layers of SqueezeNet (the paper's read-out)"
RANDOM = "ridge on all layers of a SqueezeNet with random weights"
PIXELS, EMBEDDING = "ridge on pixels (28 x 28)", "ridge on SqueezeNet's embedding (512 numbers)"
PUBLISHED = "published networks, one a neuron (may have seen these pictures)"
ORDER = (OURS, EMBEDDING, PIXELS, PUBLISHED, PAPER, RANDOM)  # the cheap ones first
BASELINES = (EMBEDDING, PIXELS)


def correlations(predicted: NDArray[np.float64], recorded: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's R of each column: (K,)."""
    a, b = predicted - predicted.mean(0), recorded - recorded.mean(0)
    return (a * b).sum(0) / np.maximum(np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0), 1e-12)


def median_intervals(
    predicted: dict[str, NDArray[np.float64]], recorded: NDArray[np.float64]
) -> dict[str, tuple[float, float, float]]:
    """Median R over neurons with a 95 % interval: neurons are drawn first, then pictures, the same for all ways."""
    rng = np.random.default_rng(0)
    images, neurons = recorded.shape
    medians: dict[str, list[float]] = {label: [] for label in predicted}
    for _ in range(DRAWS):
        columns, rows = rng.integers(neurons, size=neurons), rng.integers(images, size=images)
        truth = recorded[rows][:, columns]
        for label, values in predicted.items():
            medians[label].append(float(np.median(correlations(values[rows][:, columns], truth))))
    found = {}
    for label, values in predicted.items():
        low, high = np.quantile(medians[label], [0.025, 0.975])
        found[label] = (float(np.median(correlations(values, recorded))), float(low), float(high))
    return found


def report(data: Path, out: Path, said: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    kept: dict[str, Any] = {"provenance": said, "aim": {"session": AIM_SESSION, "median_r": AIM}, "sessions": {}}
    lines: list[str] = []
    for name in TEST_SESSIONS:
        session = load_session(data, name)
        held_out = session.split()[1]
        paths = {label: cell_path(out, name, label) for label in ORDER}
        cells = {label: read(path)["found"] for label, path in paths.items() if path.exists()}
        if absent := [label for label in ORDER if label not in cells]:
            lines += [f"Not run yet on session {name}: {'; '.join(absent)}.", ""]
        if not cells:
            continue
        recorded = session.responses[held_out].double().numpy()
        medians = median_intervals({label: np.array(found["predicted"]) for label, found in cells.items()}, recorded)
        if name == AIM_SESSION and OURS in medians:
            lines += [aim_line(medians, recorded.shape[1]), ""]
        learnt = f"{len(session.images) - len(held_out)} pictures learnt, {len(held_out)} held out"
        lines += [f"## Session {name}: {recorded.shape[1]} neurons, {learnt}", ""]
        columns = ("median R [95 %]", "mean R", "quartiles", "median R²", "not above chance", "seconds")
        rows = ([label, *row_of(label, found, medians[label])] for label, found in cells.items())
        lines += table([("read-out and backbone", *columns), *rows])
        kept["sessions"][name] = {
            label: {"median_r": medians[label]}
            | {key: {item["target"]: round(item[key], 4) for item in found["neurons"]} for key in ("r", "r2")}
            for label, found in cells.items()
        }
    return fill(__file__, "page", sessions=lines, source=provenance_line(said)), kept


def aim_line(medians: dict[str, tuple[float, float, float]], neurons: int) -> str:
    best = max((label for label in (OURS, PAPER) if label in medians), key=lambda label: medians[label][0])
    beaten = [medians[best][0] > medians[label][0] for label in BASELINES if label in medians]
    verdict = "met" if medians[best][0] >= AIM and all(beaten) else "MISSED"
    return (
        f"Aim, median held-out R over all {neurons} neurons of {AIM_SESSION} at least {AIM:.2f} and above both "
        f"baselines: **{verdict}** ({best}: {medians[best][0]:.3f})."
    )


def row_of(label: str, found: dict[str, Any], median: tuple[float, float, float]) -> list[str]:
    items = [vl.Predictivity(**item) for item in found["neurons"]]
    r, r2 = np.array([item.r for item in items]), np.array([item.r2 for item in items])
    quarters = ", ".join(f"{one:.2f}" for one in np.quantile(r, [0.25, 0.75]))
    doubts = sum(item.doubt is not None for item in items)
    scale = "another scale" if label == PUBLISHED else f"{np.median(r2):.2f}"
    shown = [bracketed(median, ".3f"), f"{r.mean():.3f}", quarters, scale]
    return [*shown, f"{doubts} of {len(r)}", f"{found['seconds']:.0f}"]


def cell_path(out: Path, session: str, label: str) -> Path:
    return out / f"cell-{session}-{ORDER.index(label)}.json"


def findings(numbers: dict[str, Any]) -> Findings:
    """Held-out pictures of single V4 neurons: the aim that the file carries, and both baselines beaten."""
    aim = numbers["aim"]
    held = numbers["sessions"].get(aim["session"], {})
    medians = {label: found["median_r"] for label, found in held.items()}
    ours = [label for label in (OURS, PAPER) if label in medians]
    if not ours:
        return Findings((Aim(f"No encoder of ours has been measured on {aim['session']}.", None),))
    best = max(ours, key=lambda label: medians[label][0])
    value, neurons = medians[best][0], f"{len(held[best]['r'])} neurons of {aim['session']}"
    aims = [Aim(f"{best}: median R {value:.3f} over {neurons} (wanted: {aim['median_r']}).", value >= aim["median_r"])]
    for label in BASELINES:
        other = medians.get(label)
        said = "not measured" if other is None else f"{other[0]:.3f}"
        aims.append(Aim(f"{best}: {value:.3f}, {label}: {said} (wanted: above).", other and value > other[0]))
    what, spread = f"V4 neurons, {best}: median held-out R", "95 % bootstrap over neurons, pictures"
    return Findings(tuple(aims), (measure(what, medians[best], "", neurons, spread=spread),))
