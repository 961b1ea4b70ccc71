"""How well in-silico encoders predict single neurons of macaque V4, on pictures that they have not seen.

    python benchmarks/v4_encoder.py fit --data $VISLENS_DATA --out runs/v4
    python benchmarks/v4_encoder.py report --data $VISLENS_DATA --out runs/v4

All neurons of both test sessions; one split of the pictures (benchmarks/v4_data.py), fixed before anything was fitted.
What may be chosen (the grid, what features are divided by) was chosen on another session (190925). The published
networks stand beside: half of the pictures of a session were used to map the authors' ensemble to its neurons, which
half is not recorded, so that they may have been fitted to what is held out here.

Every cell is a file in `--out`, with the predictions, written when it is done and skipped when the command is run
again; features are kept there too, and an interrupted training goes on.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from judges import IMAGENET_MEAN, IMAGENET_STD, load_squeezenet
from provenance import provenance, provenance_line
from v4_data import SIZE, TEST_SESSIONS, Session, load_session

from vislens_interp.brain.backbone import Backbone, Features
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.encoder import InSilicoEncoder
from vislens_interp.brain.predictivity import Predictivity, predictivity
from vislens_interp.brain.readouts import RidgeReadout
from vislens_interp.brain.v4 import v4_encoder
from vislens_interp.files import write_text
from vislens_interp.preprocess import Preprocess

RESULTS = Path(__file__).parent / "results" / "v4_encoder"
AIM, AIM_SESSION = 0.50, "201025"
DRAWS = 1000


def random_squeezenet() -> Any:
    """The same architecture with the weights that it starts from."""
    from torchvision.models import squeezenet1_0

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Any = squeezenet1_0()
    network.preprocess = Preprocess(224, IMAGENET_MEAN, IMAGENET_STD)
    return network.eval()


def pixels_only() -> nn.Module:
    """A network that shows the picture itself."""
    network: Any = nn.Sequential(nn.AvgPool2d(1))
    network.preprocess = Preprocess(SIZE, [0.5], [0.5])
    return network


@dataclass(frozen=True)
class Way:
    """One way to predict.

    Args:
        backbone: From the data folder to the backbone.
        encoder: Arguments of the encoder.
    """

    backbone: Callable[[Path], Backbone]
    encoder: dict[str, Any]


OURS, PAPER = "ridge on all layers of SqueezeNet", "transformers on all layers of SqueezeNet (the paper's read-out)"
RANDOM = "ridge on all layers of a SqueezeNet with random weights"
PIXELS, EMBEDDING = "ridge on pixels (28 x 28)", "ridge on SqueezeNet's embedding (512 numbers)"
PUBLISHED = "published networks, one a neuron (may have seen these pictures)"
WAYS: dict[str, Way] = {
    OURS: Way(lambda data: Backbone(load_squeezenet(data)), {"readout": "ridge"}),
    EMBEDDING: Way(lambda data: Backbone(load_squeezenet(data)), {"readout": "ridge"}),
    PIXELS: Way(lambda data: Backbone(pixels_only(), ["0"], grid=28), {"readout": "ridge"}),
    PAPER: Way(lambda data: Backbone(load_squeezenet(data)), {"readout": "transformer"}),
    RANDOM: Way(lambda data: Backbone(random_squeezenet()), {"readout": "ridge"}),
}
ORDER = (OURS, EMBEDDING, PIXELS, PUBLISHED, PAPER, RANDOM)
"""The cheap ones first."""
BASELINES = (EMBEDDING, PIXELS)


def predict(way: Way, data: Path, session: Session, out: Path) -> Tensor:
    """Predictions (held-out pictures, neurons) of an encoder that learnt from the others."""
    rows, held_out = session.split()
    backbone = way.backbone(data)
    if way is WAYS[EMBEDDING]:
        features = backbone.read(session.images, cache=out / "cache", progress=True)
        x = features.layer(len(backbone.layers) - 1).mean(1)
        responses = session.responses
        mean, std = responses[rows].mean(0), responses[rows].std(0)
        ridge = RidgeReadout([(1, x.shape[1])], responses.shape[1])
        embedding = Features(x, [(1, x.shape[1])])
        ridge.fit(embedding, (responses - mean) / std, rows, seed=0, progress=False, checkpoint=None)
        return ridge(embedding[held_out]) * std + mean
    dataset = BrainDataset.from_arrays(session.images, session.responses, targets=session.neurons)
    encoder = InSilicoEncoder(backbone, force=True, **way.encoder)
    features = backbone.read(session.images, cache=out / "cache", progress=True)
    place = out / f"checkpoint-{session.name}-{way.encoder['readout']}"
    encoder.fit(dataset, rows=rows, held_out=held_out, features=features, checkpoint=place, progress=True)
    with torch.no_grad():
        return torch.cat([encoder(part) for part in session.images[held_out].split(32)])


def cell(label: str, data: Path, session: Session, out: Path) -> dict[str, Any]:
    began = time.monotonic()
    held_out = session.split()[1]
    if label == PUBLISHED:
        published = v4_encoder(data / "macaque_v4" / session.name / "compact_models.safetensors")
        predicted = published.responses(session.images[held_out], batch_size=20, progress=True)
    else:
        predicted = predict(WAYS[label], data, session, out)
    found = predictivity(predicted, session.responses[held_out], session.neurons)
    return {
        "session": session.name,
        "way": label,
        "images": len(session.images),
        "held_out": len(held_out),
        "seconds": time.monotonic() - began,
        "predicted": [[round(value, 4) for value in row] for row in predicted.tolist()],
        "neurons": [item.to_dict() for item in found],
    }


def correlations(predicted: NDArray[np.float64], recorded: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's R of each column: (K,)."""
    a, b = predicted - predicted.mean(0), recorded - recorded.mean(0)
    return (a * b).sum(0) / np.maximum(np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0), 1e-12)


def median_intervals(
    predicted: dict[str, NDArray[np.float64]], recorded: NDArray[np.float64], draws: int = DRAWS, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Median R over neurons with a 95 % interval: neurons are drawn first, then pictures, the same for all ways."""
    rng = np.random.default_rng(seed)
    images, neurons = recorded.shape
    medians: dict[str, list[float]] = {label: [] for label in predicted}
    for _ in range(draws):
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
    lines = ["# How well single V4 neurons are predicted", ""]
    kept: dict[str, Any] = {"provenance": said, "aim": {"session": AIM_SESSION, "median_r": AIM}, "sessions": {}}
    for name in TEST_SESSIONS:
        session = load_session(data, name)
        _, held_out = session.split()
        recorded = session.responses[held_out].double().numpy()
        cells = {}
        for label in ORDER:
            path = cell_path(out, name, label)
            if path.exists():
                cells[label] = json.loads(path.read_text(encoding="utf-8"))["found"]
        absent = [label for label in ORDER if label not in cells]
        if absent:
            lines += [f"Not run yet on session {name}: {'; '.join(absent)}.", ""]
        if not cells:
            continue
        predicted = {label: np.array(found["predicted"]) for label, found in cells.items()}
        medians = median_intervals(predicted, recorded)
        if name == AIM_SESSION and OURS in medians:
            best = max((label for label in (OURS, PAPER) if label in medians), key=lambda label: medians[label][0])
            beaten = [medians[best][0] > medians[label][0] for label in BASELINES if label in medians]
            verdict = "met" if medians[best][0] >= AIM and all(beaten) else "MISSED"
            lines += [
                (
                    f"Aim, median held-out R over all {recorded.shape[1]} neurons of {name} at least {AIM:.2f} and "
                    f"above both baselines: **{verdict}** ({best}: {medians[best][0]:.3f})."
                ),
                "",
            ]
        lines += [
            (
                f"## Session {name}: {recorded.shape[1]} neurons, {len(session.images) - len(held_out)} pictures "
                f"learnt, {len(held_out)} held out"
            ),
            "",
            "| read-out and backbone | median R [95 %] | mean R | quartiles | median R² | not above chance | seconds |",
            "|---|---|---|---|---|---|---|",
        ]
        for label, found in cells.items():
            items = [Predictivity(**item) for item in found["neurons"]]
            r, r2 = np.array([item.r for item in items]), np.array([item.r2 for item in items])
            median, low, high = medians[label]
            low_quarter, high_quarter = np.quantile(r, [0.25, 0.75])
            doubts = sum(item.doubt is not None for item in items)
            said_r2 = "another scale" if label == PUBLISHED else f"{np.median(r2):.2f}"
            lines.append(
                f"| {label} | {median:.3f} [{low:.3f}, {high:.3f}] | {r.mean():.3f} | {low_quarter:.2f}, "
                f"{high_quarter:.2f} | {said_r2} | {doubts} of {len(r)} | {found['seconds']:.0f} |"
            )
        kept["sessions"][name] = {
            label: {
                "median_r": medians[label],
                "r": {item["target"]: round(item["r"], 4) for item in found["neurons"]},
                "r2": {item["target"]: round(item["r2"], 4) for item in found["neurons"]},
            }
            for label, found in cells.items()
        }
        lines.append("")
    lines += [
        (
            "Interval: bootstrap, neurons drawn first, then held-out pictures (the same for every row). Not above "
            "chance: one-sided t-test of R, p ≥ 0.05. The responses are averages over repetitions, so that no noise "
            "ceiling can be computed. Seconds include features that were not in the cache yet, on a busy core."
        ),
        "",
        provenance_line(said),
        "",
    ]
    return "\n".join(lines), kept


def cell_path(out: Path, session: str, label: str) -> Path:
    place = ORDER.index(label)
    return out / f"cell-{session}-{place}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("fit", "report"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sessions", nargs="+", default=list(TEST_SESSIONS), choices=TEST_SESSIONS)
    parser.add_argument("--until", type=int, help="stop after so many ways, the cheap ones first; all by default")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    said = provenance(seed=0)
    if args.part == "report":
        text, kept = report(args.data, args.out, said)
        write_text(RESULTS.with_suffix(".md"), text)
        write_text(RESULTS.with_suffix(".json"), json.dumps(kept, indent=1) + "\n")
        print(text)
        return
    for label in ORDER[: args.until]:
        for name in args.sessions:
            path = cell_path(args.out, name, label)
            if path.exists():
                continue
            found = cell(label, args.data, load_session(args.data, name), args.out)
            write_text(path, json.dumps({"provenance": said, "found": found}))
            median = np.median([item["r"] for item in found["neurons"]])
            print(f"{name} {label}: median R {median:.3f}, {found['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
