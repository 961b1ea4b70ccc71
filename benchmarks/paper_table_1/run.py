"""The paper's Table 1 by its own protocol, on the published data, for those who have them; its numbers beside.

    python -m benchmarks.paper_table_1.run --nsd DIR --out runs/nsd --device cuda --inception WEIGHTS
    python -m benchmarks.paper_table_1.run --things-eeg DIR --out runs/eeg --device cuda --inception WEIGHTS

    --backend cifar10 --backbone cifar10_convnet --readout ridge --test 8

README.md says what is measured, and how.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import package as vl
from benchmarks.common.bench import Recorded
from benchmarks.common.provenance import provenance
from benchmarks.paper_table_1.report import (
    BRAINACTIV,
    LANDSCAPE,
    METHODS,
    NSD,
    PATTERN,
    SHIPPED,
    SIGN,
    THINGS_EEG,
    report,
)

SEED = 42
PICTURES = 16
"""Generated and judged at a time."""
IN_MEMORY = 1e9
"""Bytes of pictures up to which they are read at once."""

RECIPE = {"nsd": {"epochs": 150, "lr": 1e-4}, "things_eeg": {"epochs": 300, "lr": 1e-3}}  # Table S3


def build(method: str, kind: str, backend: vl.Backend, alpha: float, epochs: int | None) -> Any:
    """A method by its name in the table; its constructor's arguments are what the paper gives."""
    length: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    recipe: dict[str, Any] = RECIPE[kind] | length
    published: dict[str, Any] = {
        "closed_form_init": False,
        "modes": 1,
        "block_dim": None,
        "w_consistency": 0.0,
        "residual": False,
    }
    made: dict[str, Callable[[], Any]] = {
        LANDSCAPE: lambda: vl.LandscapeEdit(
            shuffles=0,
            alpha=alpha,
            interpolation="slerp",
            keep_norm=True,
            top_activating_power=0.0,
            **published,
            **recipe,
        ),
        SHIPPED: lambda: vl.LandscapeEdit(shuffles=0, alpha=alpha, **length),
        BRAINACTIV: lambda: vl.RidgeDirection("closed_form", alpha=alpha, strength=None),
        PATTERN: lambda: vl.RidgePattern(alpha=alpha, strength=None),
    }
    return made[method]()


class EncodedOnce:
    """A backend that encodes the training images once, for every fit begins with them."""

    def __init__(self, backend: vl.Backend, images: Tensor | vl.ImageFiles) -> None:
        self._backend, self._images = backend, images
        self._x = backend.encode(images)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode(self, images: Any) -> Tensor:
        return self._x if images is self._images else self._backend.encode(images)


def load(
    kind: str, folder: Path, subject: int, size: int, test: int | None
) -> tuple[vl.BrainDataset, vl.BrainDataset, str]:
    """Training and test part, and how they were parted."""
    if kind == "things_eeg":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "windows: ")  # the protocol's own windows; the report says it
            parts = [vl.load_things_eeg(folder, subject, part=part, size=size) for part in ("training", "test")]
        said = "the release's own parts; its windows reach to 0.7 s, beyond the next image's onset at 0.2 s"
    elif (folder / "shared1000.npy").is_file():
        parts = [vl.load_brainactiv(folder, subject, part=part, size=size) for part in ("train", "test")]
        said = "the images that all subjects saw are the test part"
    else:
        everything = vl.load_algonauts(folder, subject, size=size)
        count = min(1000, len(everything) // 10)
        parts = list(everything.split([len(everything) - count, count], seed=0))
        said = f"{count} of the Algonauts training images, drawn by seed 0, are the test part"
    training, testing = parts
    vl.refuse_shared_images(training, testing, "training and test part")
    if test is not None:
        testing = testing.take(slice(0, test))
    return training, testing, said


def held(images: Tensor | vl.ImageFiles) -> Tensor | vl.ImageFiles:
    """Pictures in memory if they are few."""
    count, channels, height, width = images.shape
    return images if 4 * count * channels * height * width > IN_MEMORY else images[:]


def network(name: str) -> nn.Module | str:
    """A network that ships, or timm's name of one."""
    return vl.zoo.load(name) if name in vl.zoo.available() else name


def fitted_encoder(
    training: vl.BrainDataset, backbone: str, readout: Any, out: Path, device: torch.device
) -> vl.InSilicoEncoder:
    """The judge, made once and kept."""
    read = vl.Backbone(network(backbone)).to(device)
    path = out / "encoder.safetensors"
    if path.is_file():
        return vl.InSilicoEncoder.load(path, read)
    encoder = vl.InSilicoEncoder(read, readout, force=True, name="in-silico encoder")
    encoder.fit(training, cache=out / "cache", checkpoint=out / "checkpoints", progress=True)
    encoder.save(path)
    return encoder


def frechet(feature: int | nn.Module, weights: Path | None = None) -> Any:
    """torchmetrics' FID in these features, of images in [0, 1]."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    given: dict[str, Any] = {} if weights is None else {"feature_extractor_weights_path": str(weights)}
    return FrechetInceptionDistance(feature=feature, normalize=True, **given)


def cell(
    method: Any,
    target: str,
    backend: Any,
    training: tuple[Any, Tensor],
    testing: Tensor | vl.ImageFiles,
    judge: Callable[[Tensor], Tensor],
    fid: Any | None,
) -> dict[str, Any]:
    """Fit for one target, edit every test image both ways and not at all, and judge the pictures."""
    images, responses = training
    method.fit(Recorded([target]), backend, images, responses[:, None])
    found: dict[str, list[Tensor]] = {"input": [], "control": [], "increase": [], "decrease": []}
    for start in range(0, len(testing), PICTURES):
        originals = testing[start : start + PICTURES]
        seeds = [SEED] * len(originals)
        found["input"].append(judge(originals))
        found["control"].append(judge(method.generate(originals, {}, seeds=seeds).images))
        for way in SIGN:
            made = method.generate(originals, {0: way}, seeds=seeds).images.clamp(0, 1)
            found[way].append(judge(made))
            if fid is not None:
                fid.update(originals, real=True)
                fid.update(made, real=False)
    answers = {name: torch.cat(parts).tolist() for name, parts in found.items()}
    return {"responses": answers, "fid": None if fid is None else float(fid.compute())}


def run(args: argparse.Namespace, backend: vl.Backend) -> str:
    """All cells that are not there yet, then the report."""
    kind, folder = ("nsd", args.nsd) if args.nsd else ("things_eeg", args.things_eeg)
    paper = NSD if kind == "nsd" else THINGS_EEG
    training, testing, parted = load(kind, folder, args.subject, backend.size, args.test)
    targets = args.targets or [name for name in paper if name in training.targets] or training.targets
    training, testing = training.select(targets), testing.select(targets)
    training = training.take(training.mean_responses().isfinite().all(1))
    out: Path = args.out
    alpha = backend.defaults.edit.alpha if args.alpha is None else args.alpha
    settings = {"kind": kind, "subject": args.subject, "backend": backend.name, "alpha": alpha, "epochs": args.epochs}
    settings |= {"backbone": args.backbone, "readout": args.readout, "test": len(testing), "train": len(training)}
    settings["simulated"] = (folder / vl.SIMULATED).is_file()
    refuse_other_settings(out, settings)
    encoder = fitted_encoder(training, args.backbone, args.readout, out, torch.device(args.device))
    said = provenance(seed=SEED, device=args.device)
    images, pictures = held(training.images), held(testing.images)
    once: EncodedOnce | None = None
    recorded = training.mean_responses()
    for column, target in enumerate(targets):

        @torch.no_grad()
        def judge(images: Tensor, column: int = column) -> Tensor:
            return encoder(images.to(args.device))[:, column].float().cpu()

        for method in args.methods or METHODS:
            path = out / f"{target}-{METHODS.index(method)}.json"
            if path.is_file():
                continue
            once = EncodedOnce(backend, images) if once is None else once
            fid = None if args.inception is None else frechet(2048, args.inception)
            made = build(method, kind, backend, alpha, args.epochs)
            found = cell(made, target, once, (images, recorded[:, column]), pictures, judge, fid)
            whole = {"provenance": said, "settings": settings, "target": target, "method": method, **found}
            vl.write_text(path, json.dumps(whole))
            print(f"{target}: {method}", flush=True)
    text = report(out, targets, paper, encoder, settings, training.units, parted, said)
    vl.write_text(out / "table_1.md", text)
    return text


def refuse_other_settings(out: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if ``out`` was begun otherwise."""
    path = out / "settings.json"
    if not path.is_file():
        vl.write_text(path, json.dumps(settings))
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{key}={before.get(key)!r}, now {value!r}" for key, value in settings.items() if before.get(key) != value
    ]
    if changed:
        raise ValueError(
            f"--out {out} was begun with {'; '.join(changed)}; expected the same settings. Take another folder."
        )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--nsd", type=Path, help="BrainACTIV's or the Algonauts 2023 layout")
    data.add_argument("--things-eeg", type=Path, help="the preprocessed release, with its pictures")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--subject", type=int, default=1)
    parser.add_argument("--targets", nargs="+", help="regions or channels; those of the paper by default")
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--backend", default="sd15", help="sd15 is the paper's")
    parser.add_argument("--backbone", default=vl.DINOV2, help="of the judge: timm's name, or a network that ships")
    parser.add_argument("--readout", choices=("transformer", "ridge"), default="transformer")
    parser.add_argument("--alpha", type=float, help="of every edit; the backend's by default")
    parser.add_argument("--epochs", type=int, help="of the landscapes; Table S3's by default")
    parser.add_argument("--test", type=int, help="only so many test images")
    parser.add_argument("--inception", type=Path, help="torch-fidelity's Inception-v3 weights, for FID@2k")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.inception is not None and not args.inception.is_file():
        raise FileNotFoundError(
            f"--inception {args.inception}: no such file; expected torch-fidelity's "
            "pt_inception-2015-12-05-6726825d.pth. Leave it out to go without FID."
        )
    print(run(args, vl.get_backend(args.backend, args.device)))


if __name__ == "__main__":
    main()
