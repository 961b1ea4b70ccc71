"""How well in-silico encoders predict single neurons of macaque V4, on pictures that they have not seen.

    python -m benchmarks.v4_encoder.run fit --data $VISLENS_DATA --out runs/v4
    python -m benchmarks.v4_encoder.run report --data $VISLENS_DATA --out runs/v4

README.md says what is measured, and how.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import package as vl
from benchmarks.common.judges import IMAGENET_MEAN, IMAGENET_STD, load_squeezenet
from benchmarks.common.provenance import RESULTS, provenance
from benchmarks.common.v4_sessions import SIZE, TEST_SESSIONS, Session, load_session
from benchmarks.v4_encoder.report import EMBEDDING, ORDER, OURS, PAPER, PIXELS, PUBLISHED, RANDOM, cell_path, report

PAGE = RESULTS / "v4_encoder"


def random_squeezenet() -> Any:
    """The same architecture with the weights that it starts from."""
    from torchvision.models import squeezenet1_0

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Any = squeezenet1_0()
    network.preprocess = vl.Preprocess(224, IMAGENET_MEAN, IMAGENET_STD)
    return network.eval()


def pixels_only() -> nn.Module:
    """A network that shows the picture itself."""
    network: Any = nn.Sequential(nn.AvgPool2d(1))
    network.preprocess = vl.Preprocess(SIZE, [0.5], [0.5])
    return network


@dataclass(frozen=True)
class Way:
    """One way to predict.

    Args:
        backbone: From the data folder to the backbone.
        encoder: Arguments of the encoder.
    """

    backbone: Callable[[Path], vl.Backbone]
    encoder: dict[str, Any]


WAYS: dict[str, Way] = {
    OURS: Way(lambda data: vl.Backbone(load_squeezenet(data)), {"readout": "ridge"}),
    EMBEDDING: Way(lambda data: vl.Backbone(load_squeezenet(data)), {"readout": "ridge"}),
    PIXELS: Way(lambda data: vl.Backbone(pixels_only(), ["0"], grid=28), {"readout": "ridge"}),
    PAPER: Way(lambda data: vl.Backbone(load_squeezenet(data)), {"readout": "transformer"}),
    RANDOM: Way(lambda data: vl.Backbone(random_squeezenet()), {"readout": "ridge"}),
}


def predict(way: Way, data: Path, session: Session, out: Path) -> Tensor:
    """Predictions (held-out pictures, neurons) of an encoder that learnt from the others."""
    rows, held_out = session.split()
    backbone = way.backbone(data)
    if way is WAYS[EMBEDDING]:
        features = backbone.read(session.images, cache=out / "cache", progress=True)
        x = features.layer(len(backbone.layers) - 1).mean(1)
        responses = session.responses
        mean, std = responses[rows].mean(0), responses[rows].std(0)
        ridge = vl.RidgeReadout([(1, x.shape[1])], responses.shape[1])
        embedding = vl.Features(x, [(1, x.shape[1])])
        ridge.fit(embedding, (responses - mean) / std, rows, seed=0, progress=False, checkpoint=None)
        return ridge(embedding[held_out]) * std + mean
    dataset = vl.BrainDataset.from_arrays(session.images, session.responses, targets=session.neurons)
    encoder = vl.InSilicoEncoder(backbone, force=True, **way.encoder)
    features = backbone.read(session.images, cache=out / "cache", progress=True)
    place = out / f"checkpoint-{session.name}-{way.encoder['readout']}"
    encoder.fit(dataset, rows=rows, held_out=held_out, features=features, checkpoint=place, progress=True)
    with torch.no_grad():
        return torch.cat([encoder(part) for part in session.images[held_out].split(32)])


def cell(label: str, data: Path, session: Session, out: Path) -> dict[str, Any]:
    began = time.monotonic()
    held_out = session.split()[1]
    if label == PUBLISHED:
        published = vl.v4_encoder(data / "macaque_v4" / session.name / "compact_models.safetensors")
        predicted = published.responses(session.images[held_out], batch_size=20, progress=True)
    else:
        predicted = predict(WAYS[label], data, session, out)
    found = vl.predictivity(predicted, session.responses[held_out], session.neurons)
    return {
        "session": session.name,
        "way": label,
        "images": len(session.images),
        "held_out": len(held_out),
        "seconds": time.monotonic() - began,
        "predicted": [[round(value, 4) for value in row] for row in predicted.tolist()],
        "neurons": [item.to_dict() for item in found],
    }


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
        vl.write_text(PAGE.with_suffix(".md"), text)
        vl.write_text(PAGE.with_suffix(".json"), json.dumps(kept, indent=1) + "\n")
        print(text)
        return
    for label in ORDER[: args.until]:
        for name in args.sessions:
            path = cell_path(args.out, name, label)
            if path.exists():
                continue
            found = cell(label, args.data, load_session(args.data, name), args.out)
            vl.write_text(path, json.dumps({"provenance": said, "found": found}))
            median = np.median([item["r"] for item in found["neurons"]])
            print(f"{name} {label}: median R {median:.3f}, {found['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
