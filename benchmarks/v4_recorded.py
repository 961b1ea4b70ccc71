"""Edits for single neurons of macaque V4, judged by what was recorded and by no model at all.

    python benchmarks/v4_recorded.py tune --data $VISLENS_DATA --out runs/v4     # the two tuning sessions
    python benchmarks/v4_recorded.py fit --data $VISLENS_DATA --out runs/v4
    python benchmarks/v4_recorded.py report --out runs/v4 [--tune]

The generator is retrieval: an edited embedding becomes the five natural images nearest to it, and the neuron's
*recorded* responses to these are the outcome. A method learns from one half of a session's pictures and their recorded
responses; the pictures it edits, and those that an edit may become, are the other half; then the halves are swapped.
Methods are compared at the same edit angle, for α means something else to each of them. All neurons of both test
sessions, in an order that is fixed (`neuron_order`); settings were chosen on eight neurons of another monkey (190925).

Embedding: SqueezeNet's last maps, averaged, 512 numbers, each standardised over the half that is learnt from. Its
features are shared with v4_encoder.py where `--out` is the same. Every neuron is a file in `--out`, written when it is
done and skipped when the command is run again.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).parent))
from embedded_bench import Recorded
from embedded_methods import PAPER, set_angle
from judges import load_squeezenet
from provenance import provenance, provenance_line
from v4_data import NEURONS, TEST_SESSIONS, TUNING_SESSIONS, Session, load_session

from vislens_interp.backends.retrieval import RetrievalBackend
from vislens_interp.brain.backbone import Backbone
from vislens_interp.files import write_text
from vislens_interp.landscape.prior import ResponseScaler, Sense
from vislens_interp.math import angle_between
from vislens_interp.methods.controls import Shuffled
from vislens_interp.methods.directions import Centroids, DifferenceOfMeans, RidgeDirection, RidgePattern
from vislens_interp.methods.embedding_edit import DirectionEdit
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.methods.natural_images import NaturalImages
from vislens_interp.metrics.bootstrap import interval, paired_difference

RESULTS = Path(__file__).parent / "results" / "v4_recorded"
SIGN: dict[Sense, int] = {"increase": 1, "decrease": -1}
ANGLES = (10.0, 25.0, 40.0, 55.0, 75.0)
NEAREST, EDITED, TOP = 5, 80, 10
"""Neighbours whose recordings judge; pictures edited in each half; natural images of the last rows."""
LATENT_DIM = 128
TUNING_NEURONS = 10
"""Of each tuning session."""


class RandomDirection(DirectionEdit):
    """Turn every embedding towards one random direction: what any edit of that size changes."""

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        draw = torch.randn(1, x.shape[1], generator=torch.Generator().manual_seed(0))
        self.directions_ = normalize(draw.to(x), dim=1)


def landscape(**settings: Any) -> Callable[[], Any]:
    return lambda: LandscapeEdit(shuffles=0, **settings)


OURS, LANDSCAPE = "ours as shipped", "the paper's landscape, lerp"
FADE = "the paper's landscape, fading residual"
TWIN, MEANS, PATTERN = "algebraic twin (weighted centroids), lerp", "difference of means", "ridge pattern"
BRAINACTIV, SHUFFLED = "ridge direction (BrainACTIV)", "shuffled landscape (ours)"
RANDOM = "a random direction"
METHODS: dict[str, Callable[[], Any]] = {
    OURS: landscape(),
    LANDSCAPE: landscape(**{**PAPER, "top_activating_power": 0.0}),
    FADE: landscape(**{**PAPER, "top_activating_power": 0.0, "residual": "fade"}),
    TWIN: lambda: Centroids(),
    MEANS: lambda: DifferenceOfMeans(),
    PATTERN: lambda: RidgePattern(),
    BRAINACTIV: lambda: RidgeDirection(strength=None),
    SHUFFLED: lambda: Shuffled(LandscapeEdit(shuffles=0), seed=1),
    RANDOM: lambda: RandomDirection(),
}
TWIN_SLERP, FILTER = "algebraic twin, slerp", "ridge direction, not projected"
VARIANTS: dict[str, Callable[[], Any]] = {
    "ours, decoded, one axis, reach 16": landscape(residual=False, top_activating_power=0.0, axis_scale_sd=16.0),
    "ours, residual, one axis, reach 16": landscape(residual=True, top_activating_power=0.0, axis_scale_sd=16.0),
    "ours, fading residual, one axis, reach 16": landscape(
        residual="fade", top_activating_power=0.0, axis_scale_sd=16.0
    ),
    "ours, fading residual, driven 2, reach 4": landscape(residual="fade", top_activating_power=2.0, axis_scale_sd=4.0),
    "ours, fading residual, driven 3, reach 2": landscape(residual="fade", top_activating_power=3.0, axis_scale_sd=2.0),
    "ours, fading residual, driven 3, reach 4": landscape(residual="fade", top_activating_power=3.0, axis_scale_sd=4.0),
    "ours, fading residual, driven 3, reach 8": landscape(residual="fade", top_activating_power=3.0, axis_scale_sd=8.0),
    "ours, decoded, driven 3, reach 4": landscape(residual=False, top_activating_power=3.0, axis_scale_sd=4.0),
    TWIN_SLERP: lambda: Centroids(interpolation="slerp"),
    FILTER: lambda: RidgeDirection(strength=None, project=False),
}
"""What `tune` compares beside the methods."""
RIVALS = (TWIN, MEANS, PATTERN, BRAINACTIV)


class KnownEmbeddings:
    """An embedder that looks up what it computed before, by picture."""

    def __init__(self, images: Tensor, x: Tensor) -> None:
        self.dim, self.size, self.device = x.shape[1], images.shape[2], torch.device("cpu")
        self.parts: list[tuple[Tensor, Tensor]] = [(images, x)]

    def part(self, images: Tensor, rows: Tensor) -> Tensor:
        """Some of the pictures, which are known as a tensor of their own from now on."""
        chosen = images[rows]
        self.parts.append((chosen, self.parts[0][1][rows]))
        return chosen

    def __call__(self, images: Tensor) -> Tensor:
        return next(x for known, x in self.parts if known is images)


def embed(data: Path, session: Session, out: Path) -> Tensor:
    """SqueezeNet's embedding of every picture of a session, (N, 512)."""
    backbone = Backbone(load_squeezenet(data))
    features = backbone.read(session.images, cache=out / "cache", progress=True)
    return features.layer(len(backbone.layers) - 1).mean(1)


def neuron_order(session: Session) -> list[int]:
    """All neurons of a session in the order in which they are done."""
    return torch.randperm(session.responses.shape[1], generator=torch.Generator().manual_seed(1)).tolist()


class Half:
    """One half to learn from, the other to edit and to retrieve from."""

    def __init__(self, session: Session, x: Tensor, learnt: Tensor, other: Tensor) -> None:
        x = (x - x[learnt].mean(0)) / x[learnt].std(0).clamp_min(1e-6)
        embedder = KnownEmbeddings(session.images, x)
        self.fitted = embedder.part(session.images, learnt)
        gallery = embedder.part(session.images, other)
        self.backend = RetrievalBackend(
            embedder, gallery, count=NEAREST, start_from=x[learnt], latent_dim=LATENT_DIM, leave_out_own=True
        )
        self.responses, self.recorded = session.responses[learnt], session.responses[other]
        self.x = x[other][:EDITED]
        self.edited = gallery[:EDITED]

    def judge(self, neuron: int, methods: dict[str, Callable[[], Any]]) -> list[dict[str, Any]]:
        """Signed recorded changes, in SDs of the half that was learnt from, of every method, direction and angle."""
        responses = self.responses[:, [neuron]]
        scaler = ResponseScaler.fit(responses)
        recorded = scaler.standardise(self.recorded[:, [neuron]])

        def read(x: Tensor, count: int = NEAREST) -> tuple[Tensor, Tensor]:
            found = self.backend.retrieve(x, inputs=self.edited[: len(x)], count=count)
            return found.responses(recorded)[:, 0], found.cosine.mean(1)

        before, natural = read(self.x)
        rows = [{"method": "α = 0", "natural": natural.mean().item(), "level": before.mean().item()}]
        target = Recorded([f"neuron{neuron}"])
        for label, build in methods.items():
            began = time.monotonic()
            method = build().fit(target, self.backend, self.fitted, responses)
            seconds = time.monotonic() - began
            for angle in ANGLES:
                set_angle(method, angle)
                for way, sign in SIGN.items():
                    moved = method.embeddings(self.x, {0: way})
                    after, natural = read(moved)
                    reached = angle_between(moved, self.x)
                    rows.append(
                        {
                            "method": label,
                            "direction": way,
                            "angle": angle,
                            "change": (sign * (after - before)).mean().item(),
                            "right_way": (sign * (after - before) > 0).double().mean().item(),
                            "reached": reached.mean().item(),
                            "short": (reached < angle - 1).double().mean().item(),
                            "natural": natural.mean().item(),
                            "seconds": seconds,
                        }
                    )
        best = NaturalImages(TOP).fit(target, self.backend, self.fitted, responses)
        for way, sign in SIGN.items():
            chosen = self.backend.encode(self.fitted)[best.rows({0: way})]
            found = self.backend.retrieve(chosen, count=NEAREST)
            after = found.responses(recorded)[:, 0]
            oracle = (sign * recorded[:, 0]).topk(TOP).values.mean() - sign * before.mean()
            rows.append(
                {"method": "top-10", "direction": way, "change": (sign * (after.mean() - before.mean())).item()}
                | {"natural": found.cosine.mean().item(), "oracle": oracle.item()}
            )
        rows.append({"method": "random images", "level": recorded.mean().item()})
        return rows


def run(data: Path, out: Path, said: dict[str, Any], *, tune: bool, neurons: int | None, sessions: list[str]) -> None:
    loaded = {name: load_session(data, name) for name in sessions}
    halves = {}
    for name, session in loaded.items():
        x = embed(data, session, out)
        first, second = session.halves()
        halves[name] = [Half(session, x, first, second), Half(session, x, second, first)]
    count = neurons or max(session.responses.shape[1] for session in loaded.values())
    methods = METHODS | (VARIANTS if tune else {})
    for place in range(count):  # sessions side by side, so that whatever has been run holds all of them
        for name, session in loaded.items():
            order = neuron_order(session)
            if place >= len(order):
                continue
            path = out / f"{'tuning' if tune else 'neuron'}-{name}-{order[place]}.json"
            if path.exists():
                continue
            began = time.monotonic()
            found = [half.judge(order[place], methods) for half in halves[name]]
            write_text(path, json.dumps({"provenance": said, "session": name, "neuron": order[place], "halves": found}))
            print(f"{name} neuron {order[place]}: {time.monotonic() - began:.0f} s", flush=True)


def table_of(cells: list[dict[str, Any]], method: str, direction: str, angle: float | None, key: str) -> np.ndarray:
    """One number a neuron, the mean of both halves."""
    values = []
    for cell in cells:
        rows = [
            row[key]
            for half in cell["halves"]
            for row in half
            if row["method"] == method and row.get("direction") == direction and row.get("angle") == angle
        ]
        values.append(float(np.mean(rows)))
    return np.array(values)


def level_of(cells: list[dict[str, Any]], method: str, key: str) -> np.ndarray:
    return np.array(
        [np.mean([row[key] for half in cell["halves"] for row in half if row["method"] == method]) for cell in cells]
    )


def report(out: Path, said: dict[str, Any], *, tune: bool) -> tuple[str, dict[str, Any]]:
    paths = sorted(out.glob("tuning-*.json" if tune else "neuron-*.json"))
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not cells:
        raise FileNotFoundError(f"--out {out} holds no neuron yet; run `fit` first.")
    labels = [label for label in (*METHODS, *VARIANTS) if any(row["method"] == label for row in cells[0]["halves"][0])]
    sessions = sorted({cell["session"] for cell in cells})
    done = {name: sum(cell["session"] == name for cell in cells) for name in sessions}
    counts = ", ".join(f"{count} of the {NEURONS.get(name, '?')} of session {name}" for name, count in done.items())
    changes = {
        (label, way, angle): table_of(cells, label, way, angle, "change")
        for label in labels
        for way in SIGN
        for angle in ANGLES
    }
    lines = ["# Edits for V4 neurons, judged by recordings" + (" (tuning neurons)" if tune else ""), ""]
    if not tune:
        lines += verdict(changes, labels)
    lines += [
        (
            f"{len(cells)} neurons ({counts}; where not all were run, the first of a fixed random order). Signed "
            f"change of the recorded response in SDs, positive is the wanted way, with a 95 % interval (bootstrap over "
            f"neurons; a neuron is a mean over {EDITED} pictures of each half)."
        ),
        "",
    ]
    kept: dict[str, Any] = {"provenance": said, "neurons": {}, "changes": {}}
    kept["neurons"] = {name: [cell["neuron"] for cell in cells if cell["session"] == name] for name in sessions}
    for way in SIGN:
        lines += [f"## {way.capitalize()}", "", f"| method | {' | '.join(f'{angle:.0f}°' for angle in ANGLES)} |"]
        lines.append("|---" * (len(ANGLES) + 1) + "|")
        for label in labels:
            shown = []
            for angle in ANGLES:
                values = changes[label, way, angle]
                short = table_of(cells, label, way, angle, "short").mean()
                shown.append(
                    f"{interval(values, levels=('unit',))}" + (f" ({short:.0%} short)" if short > 0.05 else "")
                )
                kept["changes"].setdefault(label, {}).setdefault(way, {})[f"{angle:.0f}"] = [
                    round(value, 4) for value in values.tolist()
                ]
            lines.append(f"| {label} | {' | '.join(shown)} |")
        top = table_of(cells, "top-10", way, None, "change")
        oracle = table_of(cells, "top-10", way, None, "oracle")
        natural = level_of(cells, "random images", "level") - level_of(cells, "α = 0", "level")
        lines += [
            "| α = 0 | 0 by definition" + " |" * len(ANGLES),
            f"| nearest to the ten best pictures learnt from (no picture is edited) | {interval(top, levels=('unit',))}"
            + " |" * len(ANGLES),
            "| the ten best held-out pictures themselves (chosen by their recorded response: a bound) | "
            f"{interval(oracle, levels=('unit',))}" + " |" * len(ANGLES),
            f"| random held-out pictures | {interval(SIGN[way] * natural, levels=('unit',))}" + " |" * len(ANGLES),
            "",
        ]
    lines += [
        "## Naturalness: mean cosine to the five nearest held-out pictures",
        "",
        f"Untouched pictures: {level_of(cells, 'α = 0', 'natural').mean():.2f}.",
        "",
        f"| method | {' | '.join(f'{angle:.0f}°' for angle in ANGLES)} | seconds to fit |",
        "|---" * (len(ANGLES) + 2) + "|",
    ]
    for label in labels:
        shown = [
            f"{np.mean([table_of(cells, label, way, angle, 'natural').mean() for way in SIGN]):.2f}" for angle in ANGLES
        ]
        seconds = table_of(cells, label, "increase", ANGLES[0], "seconds").mean()
        lines.append(f"| {label} | {' | '.join(shown)} | {seconds:.2f} |")
    lines += ["", "Short: share of edits whose goal lies nearer than the angle, and which stop there.", ""]
    lines += [provenance_line(said), ""]
    return "\n".join(lines), kept


def verdict(changes: dict[Any, np.ndarray], labels: list[str]) -> list[str]:
    """Where ours wins, ties or loses against each rival, in plain words, losses first."""
    lost, even, won = [], [], []
    for rival in (label for label in RIVALS if label in labels):
        for way in SIGN:
            for angle in ANGLES:
                difference = paired_difference(changes[OURS, way, angle], changes[rival, way, angle], levels=("unit",))
                said = f"{way} at {angle:.0f}° {difference} against {rival}"
                (even if not difference.excludes_zero else won if difference.mean > 0 else lost).append(said)
    lines = []
    for title, found in (("Ours loses", lost), ("Neither way", even), ("Ours wins", won)):
        lines.append(f"**{title}** in {len(found)} of {len(lost) + len(even) + len(won)} comparisons (paired, SDs):")
        lines += [f"- {said}" for said in found] or ["- none"]
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("fit", "tune", "report"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tune", action="store_true", help="report: of the tuning neurons")
    parser.add_argument("--neurons", type=int, help="of each session, the first in the fixed order; all by default")
    parser.add_argument("--sessions", nargs="+", help="all of the tuning or test sessions by default")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    said = provenance(seed=[0, 1])
    if args.part == "report":
        text, kept = report(args.out, said, tune=args.tune)
        if not args.tune:
            write_text(RESULTS.with_suffix(".md"), text)
            write_text(RESULTS.with_suffix(".json"), json.dumps(kept, indent=1) + "\n")
        print(text)
        return
    if args.data is None:
        parser.error(f"{args.part} needs --data, the folder of real files (README, Data)")
    tune = args.part == "tune"
    sessions = args.sessions or list(TUNING_SESSIONS if tune else TEST_SESSIONS)
    if not set(sessions) <= set(TUNING_SESSIONS if tune else TEST_SESSIONS):
        parser.error(
            f"--sessions {' '.join(sessions)}: tuning is for {' '.join(TUNING_SESSIONS)} alone, testing for others"
        )
    run(
        args.data,
        args.out,
        said,
        tune=tune,
        neurons=args.neurons or (TUNING_NEURONS if tune else None),
        sessions=sessions,
    )


if __name__ == "__main__":
    main()
