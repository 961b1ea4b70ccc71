"""How well in-silico encoders predict single neurons of macaque V4, on pictures that they have not seen."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import package as vl
from benchmarks.common.judges import fresh_squeezenet, load_squeezenet
from benchmarks.common.script import RESULTS, once, parse, parser, provenance, publish, rounded
from benchmarks.common.v4_sessions import SIZE, TEST_SESSIONS, Session, load_session
from benchmarks.v4_encoder.report import EMBEDDING, ORDER, OURS, PAPER, PIXELS, PUBLISHED, RANDOM, cell_path, report


def pixels_only() -> nn.Module:
    """A network that shows the picture itself."""
    network: Any = nn.Sequential(nn.AvgPool2d(1))
    network.preprocess = vl.Preprocess(SIZE, [0.5], [0.5])
    return network


def squeezenet(data: Path) -> vl.Backbone:
    return vl.Backbone(load_squeezenet(data))


# A way to predict: from the data folder to the backbone, and the encoder's read-out.
WAYS: dict[str, tuple[Callable[[Path], vl.Backbone], str]] = {
    OURS: (squeezenet, "ridge"),
    EMBEDDING: (squeezenet, "ridge"),
    PIXELS: (lambda data: vl.Backbone(pixels_only(), ["0"], grid=28), "ridge"),
    PAPER: (squeezenet, "transformer"),
    RANDOM: (lambda data: vl.Backbone(fresh_squeezenet()), "ridge"),
}


def predict(label: str, data: Path, session: Session, out: Path) -> Tensor:
    """Predictions (held-out pictures, neurons) of an encoder that learnt from the others."""
    rows, held_out = session.split()
    build, readout = WAYS[label]
    backbone = build(data)
    features = backbone.read(session.images, cache=out / "cache", progress=True)
    if label == EMBEDDING:
        x = features.layer(len(backbone.layers) - 1).mean(1)
        responses = session.responses
        mean, std = responses[rows].mean(0), responses[rows].std(0)
        ridge = vl.RidgeReadout([(1, x.shape[1])], responses.shape[1])
        embedding = vl.Features(x, [(1, x.shape[1])])
        ridge.fit(embedding, (responses - mean) / std, rows, seed=0, progress=False, checkpoint=None)
        return ridge(embedding[held_out]) * std + mean
    dataset = vl.BrainDataset.from_arrays(session.images, session.responses, targets=session.neurons)
    encoder = vl.InSilicoEncoder(backbone, readout, force=True)
    place = out / f"checkpoint-{session.name}-{readout}"
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
        predicted = predict(label, data, session, out)
    found = vl.predictivity(predicted, session.responses[held_out], session.neurons)
    seconds = time.monotonic() - began
    print(f"{session.name} {label}: median R {np.median([item.r for item in found]):.3f}, {seconds:.0f} s", flush=True)
    return {
        "session": session.name,
        "way": label,
        "images": len(session.images),
        "held_out": len(held_out),
        "seconds": seconds,
        "predicted": rounded(predicted),
        "neurons": [item.to_dict() for item in found],
    }


def main() -> None:
    args = parse(parser(__doc__, "--data", "--out", "--threads", parts=("fit", "report"), needed="--data"))
    said = provenance(seed=0)
    if args.part == "report":
        publish(RESULTS / "v4_encoder", *report(args.data, args.out, said))
        return
    for label, name in itertools.product(ORDER, TEST_SESSIONS):
        make = lambda label=label, name=name: cell(label, args.data, load_session(args.data, name), args.out)  # noqa: E731
        once(cell_path(args.out, name, label), make, said)


if __name__ == "__main__":
    main()
