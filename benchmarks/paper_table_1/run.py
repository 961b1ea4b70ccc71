"""The paper's Table 1 by its own protocol, on the published data, for those who have them; its numbers beside."""

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import SIGN, Recorded
from benchmarks.common.script import parser, provenance, publish, refuse_other_settings
from benchmarks.paper_table_1.report import BRAINACTIV, LANDSCAPE, METHODS, PATTERN, PUBLISHED, SHIPPED, report

SEED = 42
PICTURES = 16  # generated and judged at a time
IN_MEMORY = 1e9  # bytes of pictures up to which they are read at once

RECIPE = {"nsd": {"epochs": 150, "lr": 1e-4}, "things_eeg": {"epochs": 300, "lr": 1e-3}}  # Table S3


def build(method: str, kind: str, alpha: float, epochs: int | None) -> Any:
    """A method by its name in the table; its constructor's arguments are what the paper gives."""
    length: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    published: dict[str, Any] = RECIPE[kind] | length
    published |= {"closed_form_init": False, "modes": 1, "block_dim": None, "w_consistency": 0.0, "residual": False}
    published |= {"interpolation": "slerp", "keep_norm": True, "top_activating_power": 0.0}
    made: dict[str, Callable[[], Any]] = {
        LANDSCAPE: lambda: vl.LandscapeEdit(shuffles=0, alpha=alpha, **published),
        SHIPPED: lambda: vl.LandscapeEdit(shuffles=0, alpha=alpha, **length),
        BRAINACTIV: lambda: vl.RidgeDirection("closed_form", alpha=alpha, strength=None),
        PATTERN: lambda: vl.RidgePattern(alpha=alpha, strength=None),
    }
    return made[method]()


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


def fitted_encoder(
    training: vl.BrainDataset, backbone: str, readout: Literal["transformer", "ridge"], out: Path, device: torch.device
) -> vl.InSilicoEncoder:
    """The judge, made once and kept."""
    network = vl.zoo.load(backbone) if backbone in vl.zoo.available() else backbone  # ships, or timm's name of one
    read = vl.Backbone(network).to(device)
    path = out / "encoder.safetensors"
    if path.is_file():
        return vl.InSilicoEncoder.load(path, read)
    encoder = vl.InSilicoEncoder(read, readout, force=True, name="in-silico encoder")
    encoder.fit(training, cache=out / "cache", checkpoint=out / "checkpoints", progress=True)
    encoder.save(path)
    return encoder


def frechet(feature: int | nn.Module, weights: Path | None = None) -> FrechetInceptionDistance:
    """torchmetrics' FID in these features, of images in [0, 1]."""
    given: dict[str, Any] = {} if weights is None else {"feature_extractor_weights_path": str(weights)}
    return FrechetInceptionDistance(feature=feature, normalize=True, **given)


def cell(
    method: vl.Method,
    target: str,
    backend: vl.Backend,
    training: tuple[Tensor | vl.ImageFiles, Tensor],
    testing: Tensor | vl.ImageFiles,
    judge: Callable[[Tensor], Tensor],
    fid: FrechetInceptionDistance | None,
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
    """All cells that are not there yet, then ``paper_table_1.md`` and ``.json``, where ``run_all`` looks for them."""
    kind, folder = ("nsd", args.nsd) if args.nsd else ("things_eeg", args.things_eeg)
    training, testing, parted = load(kind, folder, args.subject, backend.size, args.test)
    targets = args.targets or [name for name in PUBLISHED[kind] if name in training.targets] or training.targets
    training, testing = training.select(targets), testing.select(targets)
    training = training.take(training.mean_responses().isfinite().all(1))
    out: Path = args.out
    alpha = backend.defaults.edit.alpha if args.alpha is None else args.alpha
    settings = {"kind": kind, "subject": args.subject, "backend": backend.name, "alpha": alpha, "epochs": args.epochs}
    settings |= {"backbone": args.backbone, "readout": args.readout, "test": len(testing), "train": len(training)}
    settings["simulated"] = (folder / vl.SIMULATED).is_file()
    refuse_other_settings(out, settings)
    encoder = fitted_encoder(training, args.backbone, args.readout, out, torch.device(args.device))
    if absent := [target for target in targets if target not in encoder.targets]:
        raise ValueError(
            f"--out {out} holds an encoder of {', '.join(encoder.targets)}; expected one of {', '.join(absent)} too. "
            "Take another folder."
        )
    said = provenance(seed=SEED, device=args.device)
    images, pictures = held(training.images), held(testing.images)
    recorded = training.mean_responses()
    for column, target in enumerate(targets):
        output = encoder.targets.index(target)  # an encoder of an earlier run may know more targets

        @torch.no_grad()
        def judge(images: Tensor, output: int = output) -> Tensor:
            return encoder(images.to(args.device))[:, output].float().cpu()

        for method in args.methods or METHODS:
            path = out / f"{target}-{METHODS.index(method)}.json"
            if path.is_file():
                continue
            fid = None if args.inception is None else frechet(2048, args.inception)
            made = build(method, kind, alpha, args.epochs)
            found = cell(made, target, backend, (images, recorded[:, column]), pictures, judge, fid)
            whole = {"provenance": said, "settings": settings, "target": target, "method": method, **found}
            vl.write_text(path, json.dumps(whole))
            print(f"{target}: {method}", flush=True)
    text = report(out, targets, encoder, settings, training.units, parted, said)
    publish(out / "paper_table_1", text, {"provenance": said, "settings": settings})
    return text


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    command = parser(__doc__, "--out", "--device")
    data = command.add_mutually_exclusive_group(required=True)
    data.add_argument("--nsd", type=Path, help="BrainACTIV's or the Algonauts 2023 layout")
    data.add_argument("--things-eeg", type=Path, help="the preprocessed release, with its pictures")
    command.add_argument("--subject", type=int, default=1)
    command.add_argument("--targets", nargs="+", help="regions or channels; those of the paper by default")
    command.add_argument("--methods", nargs="+", choices=METHODS)
    command.add_argument("--backend", default="sd15", help="sd15 is the paper's")
    command.add_argument("--backbone", default=vl.DINOV2, help="of the judge: timm's name, or a network that ships")
    command.add_argument("--readout", choices=("transformer", "ridge"), default="transformer")
    command.add_argument("--alpha", type=float, help="of every edit; the backend's by default")
    command.add_argument("--epochs", type=int, help="of the landscapes; Table S3's by default")
    command.add_argument("--test", type=int, help="only so many test images")
    command.add_argument("--inception", type=Path, help="torch-fidelity's Inception-v3 weights, for FID@2k")
    return command.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.inception is not None and not args.inception.is_file():
        raise FileNotFoundError(
            f"--inception {args.inception}: no such file; expected torch-fidelity's "
            "pt_inception-2015-12-05-6726825d.pth. Leave it out to go without FID."
        )
    run(args, vl.get_backend(args.backend, args.device))


if __name__ == "__main__":
    main()
