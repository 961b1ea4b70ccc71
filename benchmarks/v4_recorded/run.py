"""Edits for single neurons of macaque V4, judged by what was recorded and by no model at all."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import Recorded, set_angle
from benchmarks.common.judges import load_squeezenet
from benchmarks.common.script import RESULTS, once, parse, parser, provenance, publish, shuffled
from benchmarks.common.v4_sessions import TEST_SESSIONS, TUNING_SESSIONS, Session, load_session
from benchmarks.v4_recorded.methods import ANGLES, METHODS, SIGN, VARIANTS
from benchmarks.v4_recorded.report import EDITED, NEAREST, TOP, report

LATENT_DIM = 128
TUNING_NEURONS = 10  # of each tuning session


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
    backbone = vl.Backbone(load_squeezenet(data))
    features = backbone.read(session.images, cache=out / "cache", progress=True)
    return features.layer(len(backbone.layers) - 1).mean(1)


def neuron_order(count: int) -> list[int]:
    """All neurons of a session in the order in which they are done."""
    return shuffled(count, 1).tolist()


class Half:
    """One half to learn from, the other to edit and to retrieve from."""

    def __init__(self, session: Session, x: Tensor, learnt: Tensor, other: Tensor) -> None:
        x = (x - x[learnt].mean(0)) / x[learnt].std(0).clamp_min(1e-6)
        embedder = KnownEmbeddings(session.images, x)
        self.fitted = embedder.part(session.images, learnt)
        gallery = embedder.part(session.images, other)
        self.backend = vl.RetrievalBackend(
            embedder, gallery, count=NEAREST, start_from=x[learnt], latent_dim=LATENT_DIM, leave_out_own=True
        )
        self.responses, self.recorded = session.responses[learnt], session.responses[other]
        self.x = x[other][:EDITED]
        self.edited = gallery[:EDITED]

    def judge(self, neuron: int, methods: dict[str, Callable[[], Any]]) -> list[dict[str, Any]]:
        """Signed recorded changes, in SDs of the half that was learnt from, of every method, direction and angle."""
        responses = self.responses[:, [neuron]]
        scaler = vl.ResponseScaler.fit(responses)
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
            for angle, (way, sign) in itertools.product(ANGLES, SIGN.items()):
                set_angle(method, angle)
                moved = method.embeddings(self.x, {0: way})
                after, natural = read(moved)
                short = vl.angle_between(moved, self.x) < angle - 1
                rows.append(
                    {
                        "method": label,
                        "direction": way,
                        "angle": angle,
                        "change": (sign * (after - before)).mean().item(),
                        "short": short.double().mean().item(),
                        "natural": natural.mean().item(),
                        "seconds": seconds,
                    }
                )
        best = vl.NaturalImages(TOP).fit(target, self.backend, self.fitted, responses)
        for way, sign in SIGN.items():
            chosen = self.backend.encode(self.fitted)[best.rows({0: way})]
            found = self.backend.retrieve(chosen, count=NEAREST)
            after = found.responses(recorded)[:, 0]
            oracle = (sign * recorded[:, 0]).topk(TOP).values.mean() - sign * before.mean()
            change = (sign * (after.mean() - before.mean())).item()
            rows.append({"method": "top-10", "direction": way, "change": change, "oracle": oracle.item()})
        rows.append({"method": "random images", "level": recorded.mean().item()})
        return rows


def run(data: Path, out: Path, said: dict[str, Any], *, tune: bool, neurons: int | None, sessions: list[str]) -> None:
    loaded = {name: load_session(data, name) for name in sessions}
    halves = {}
    for name, session in loaded.items():
        x = embed(data, session, out)
        halves[name] = [Half(session, x, *session.sides(half)) for half in (0, 1)]
    count = neurons or max(session.responses.shape[1] for session in loaded.values())
    methods = METHODS | (VARIANTS if tune else {})
    for place in range(count):  # sessions side by side, so that whatever has been run holds all of them
        for name, session in loaded.items():
            for neuron in neuron_order(session.responses.shape[1])[place : place + 1]:
                make = lambda name=name, neuron=neuron: {  # noqa: E731
                    "provenance": said,
                    "session": name,
                    "neuron": neuron,
                    "halves": [half.judge(neuron, methods) for half in halves[name]],
                }
                once(out / f"{'tuning' if tune else 'neuron'}-{name}-{neuron}.json", make)


def main() -> None:
    command = parser(__doc__, "--data", "--out", "--threads", parts=("fit", "tune", "report"))
    command.add_argument("--tune", action="store_true", help="report: of the tuning neurons")
    command.add_argument("--neurons", type=int, help="of each session, the first in the fixed order; all by default")
    args = parse(command)
    said = provenance(seed=[0, 1])
    if args.part == "report":
        publish(args.out / "tuning" if args.tune else RESULTS / "v4_recorded", *report(args.out, said, tune=args.tune))
        return
    tune = args.part == "tune"
    neurons = args.neurons or (TUNING_NEURONS if tune else None)
    run(
        args.data, args.out, said, tune=tune, neurons=neurons, sessions=list(TUNING_SESSIONS if tune else TEST_SESSIONS)
    )


if __name__ == "__main__":
    main()
