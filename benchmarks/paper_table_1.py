"""The paper's Table 1 by its own protocol, on the published data, for those who have them; its numbers beside.

    python benchmarks/paper_table_1.py --nsd DIR --out runs/nsd --device cuda --inception WEIGHTS
    python benchmarks/paper_table_1.py --things-eeg DIR --out runs/eeg --device cuda --inception WEIGHTS

--nsd takes BrainACTIV's layout (`shared1000.npy` beside `subj01`: its 1,000 shared images are the test set, as in the
paper) or the Algonauts 2023 layout (1,000 training images are drawn for the test); --things-eeg the preprocessed
release (16,540 training and 200 test images, one value an image and channel: the mean over all of the paper's windows).

Protocol: landscape and ridge direction are fitted on the recorded responses to the training images, for every target by
itself; an in-silico encoder (Sec. 4.2: DINOv2, transformer read-out) is fitted on the same images and predicts what the
generated pictures would evoke. Δr is that prediction less the encoder's for the input, in the recording's units. Beside
it stands what the paper does not give: the change against α = 0, the same picture through the same pipeline unedited.
FID@2k: the originals twice against the increasing and the decreasing pictures; pool-3 of Inception-v3, whose weights
(torch-fidelity's pt_inception-2015-12-05-6726825d.pth) --inception names; without them there is none.

Every target and method is a file in --out, which is skipped when the command is run again. The paper's α is not known;
the backend's is used. Simulated files and the small networks that ship show that all of it runs:

    --backend cifar10 --backbone cifar10_convnet --readout ridge --test 8
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from embedded_bench import Recorded
from provenance import provenance, provenance_line

from vislens_interp import zoo
from vislens_interp.backends.base import Backend, get_backend
from vislens_interp.brain import (
    DINOV2,
    Backbone,
    BrainDataset,
    InSilicoEncoder,
    load_algonauts,
    load_brainactiv,
    load_things_eeg,
    refuse_shared_images,
)
from vislens_interp.brain.simulate import SIMULATED
from vislens_interp.files import write_text
from vislens_interp.images import ImageFiles
from vislens_interp.landscape.prior import Sense
from vislens_interp.methods.directions import RidgeDirection, RidgePattern
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.metrics.bootstrap import interval

SIGN: dict[Sense, int] = {"increase": 1, "decrease": -1}
SEED = 42
PICTURES = 16
"""Generated and judged at a time."""
IN_MEMORY = 1e9
"""Bytes of pictures up to which they are read at once."""

# (ours, BrainACTIV) of Δr increase, Δr decrease and FID@2k: Tables 1a, S1 and 1b.
NSD: dict[str, tuple[tuple[float, float], ...]] = {
    "TE2p": ((0.242, 0.207), (-0.136, 0.149), (172.7, 225.8)),
    "IP0": ((0.498, 0.463), (-0.699, 0.186), (173.3, 213.2)),
    "IP1": ((0.153, 0.044), (-0.073, 0.092), (178.0, 200.1)),
    "OFA": ((1.052, 1.155), (-0.660, 0.213), (173.7, 216.2)),
    "FFA-1": ((0.891, 0.976), (-0.580, -0.484), (153.7, 256.4)),  # Table 1's FFA; App. D names FFA-1
    "EBA": ((0.963, 1.160), (-0.810, -0.669), (137.3, 188.6)),
    "OPA": ((0.699, 0.699), (-0.824, -0.172), (166.0, 225.4)),
    "VWFA-1": ((1.108, 1.019), (-0.391, 0.350), (169.1, 229.7)),
    "PPA": ((0.952, 0.926), (-0.809, -0.579), (153.7, 234.8)),
    "RSC": ((0.923, 0.954), (-0.913, -0.804), (172.9, 216.7)),
    "OWFA": ((0.718, 1.088), (-0.780, 0.347), (163.9, 207.2)),
}
THINGS_EEG: dict[str, tuple[tuple[float, float], ...]] = {
    "O1": ((0.079, -0.003), (-0.066, 0.001), (120.2, 157.3)),
    "Oz": ((0.146, 0.138), (-0.134, -0.298), (99.5, 159.9)),
    "O2": ((0.085, 0.005), (-0.132, -0.202), (108.6, 171.8)),
    "PO7": ((0.171, 0.153), (-0.137, -0.123), (109.1, 164.3)),
    "PO3": ((0.116, -0.019), (-0.085, -0.072), (123.4, 133.8)),
    "POz": ((0.111, 0.085), (-0.212, -0.261), (107.1, 140.5)),
    "PO4": ((0.060, 0.083), (-0.031, -0.050), (106.2, 164.2)),
    "PO8": ((0.072, 0.058), (-0.079, -0.027), (117.2, 178.7)),
}
RECIPE = {"nsd": {"epochs": 150, "lr": 1e-4}, "things_eeg": {"epochs": 300, "lr": 1e-3}}  # Table S3

LANDSCAPE, SHIPPED = "the paper's landscape", "the landscape with this backend's settings"
BRAINACTIV, PATTERN = "ridge direction (BrainACTIV)", "ridge pattern"
METHODS = (LANDSCAPE, SHIPPED, BRAINACTIV, PATTERN)
BESIDE = {LANDSCAPE: 0, BRAINACTIV: 1}
"""Which of the paper's two numbers stands beside a method's."""


def build(method: str, kind: str, backend: Backend, alpha: float, epochs: int | None) -> Any:
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
        LANDSCAPE: lambda: LandscapeEdit(
            shuffles=0,
            alpha=alpha,
            interpolation="slerp",
            keep_norm=True,
            top_activating_power=0.0,
            **published,
            **recipe,
        ),
        SHIPPED: lambda: LandscapeEdit(shuffles=0, alpha=alpha, **length),
        BRAINACTIV: lambda: RidgeDirection("closed_form", alpha=alpha, strength=None),
        PATTERN: lambda: RidgePattern(alpha=alpha, strength=None),
    }
    return made[method]()


class EncodedOnce:
    """A backend that encodes the training images once, for every fit begins with them."""

    def __init__(self, backend: Backend, images: Tensor | ImageFiles) -> None:
        self._backend, self._images = backend, images
        self._x = backend.encode(images)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode(self, images: Any) -> Tensor:
        return self._x if images is self._images else self._backend.encode(images)


def load(kind: str, folder: Path, subject: int, size: int, test: int | None) -> tuple[BrainDataset, BrainDataset, str]:
    """Training and test part, and how they were parted."""
    if kind == "things_eeg":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "windows: ")  # the protocol's own windows; the report says it
            parts = [load_things_eeg(folder, subject, part=part, size=size) for part in ("training", "test")]
        said = "the release's own parts; its windows reach to 0.7 s, beyond the next image's onset at 0.2 s"
    elif (folder / "shared1000.npy").is_file():
        parts = [load_brainactiv(folder, subject, part=part, size=size) for part in ("train", "test")]
        said = "the images that all subjects saw are the test part"
    else:
        everything = load_algonauts(folder, subject, size=size)
        count = min(1000, len(everything) // 10)
        parts = list(everything.split([len(everything) - count, count], seed=0))
        said = f"{count} of the Algonauts training images, drawn by seed 0, are the test part"
    training, testing = parts
    refuse_shared_images(training, testing, "training and test part")
    if test is not None:
        testing = testing.take(slice(0, test))
    return training, testing, said


def held(images: Tensor | ImageFiles) -> Tensor | ImageFiles:
    """Pictures in memory if they are few."""
    count, channels, height, width = images.shape
    return images if 4 * count * channels * height * width > IN_MEMORY else images[:]


def network(name: str) -> nn.Module | str:
    """A network that ships, or timm's name of one."""
    return zoo.load(name) if name in zoo.available() else name


def fitted_encoder(
    training: BrainDataset, backbone: str, readout: Any, out: Path, device: torch.device
) -> InSilicoEncoder:
    """The judge, made once and kept."""
    read = Backbone(network(backbone)).to(device)
    path = out / "encoder.safetensors"
    if path.is_file():
        return InSilicoEncoder.load(path, read)
    encoder = InSilicoEncoder(read, readout, force=True, name="in-silico encoder")
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
    testing: Tensor | ImageFiles,
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


def run(args: argparse.Namespace, backend: Backend) -> str:
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
    settings["simulated"] = (folder / SIMULATED).is_file()
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
            write_text(path, json.dumps(whole))
            print(f"{target}: {method}", flush=True)
    text = report(out, targets, paper, encoder, settings, training.units, parted, said)
    write_text(out / "table_1.md", text)
    return text


def refuse_other_settings(out: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if ``out`` was begun otherwise."""
    path = out / "settings.json"
    if not path.is_file():
        write_text(path, json.dumps(settings))
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{key}={before.get(key)!r}, now {value!r}" for key, value in settings.items() if before.get(key) != value
    ]
    if changed:
        raise ValueError(
            f"--out {out} was begun with {'; '.join(changed)}; expected the same settings. Take another folder."
        )


def report(
    out: Path,
    targets: Sequence[str],
    paper: dict[str, Any],
    encoder: InSilicoEncoder,
    settings: dict[str, Any],
    units: str,
    parted: str,
    said: dict[str, Any],
) -> str:
    """The table: every number of the paper's beside ours, and what the paper does not give."""
    measured = {item.target: item for item in encoder.predictivity_}
    where = {"nsd": "NSD", "things_eeg": "THINGS-EEG2"}[settings["kind"]]
    if settings["simulated"]:
        where = f"SIMULATED data in the layout of {where} (says nothing of the paper's numbers)"
    lines = [
        f"# Table 1, {where}, subject {settings['subject']}",
        "",
        (
            f"{settings['train']} training images, {settings['test']} test images ({parted}); backend "
            f"`{settings['backend']}`, α = {settings['alpha']:g}; judge: {settings['readout']} read-out of "
            f"`{settings['backbone']}`, which learnt from the same recordings as the landscape, as in the paper. Δr in "
            f"{units}, mean over test images with a 95 % interval (bootstrap over images); the paper's number after "
            "the stroke."
        ),
        "",
        (
            "| target | judge's held-out R | method | Δr increase / paper | against α = 0 | right way | Δr decrease / "
            "paper | against α = 0 | right way | FID@2k / paper |"
        ),
        "|---" * 10 + "|",
    ]
    for target in targets:
        item = measured[target]
        trust = f"{item.r:.2f}" + ("" if item.doubt is None else " (NOT ABOVE CHANCE)")
        for number, method in enumerate(METHODS):
            path = out / f"{target}-{number}.json"
            if not path.is_file():
                continue
            kept = json.loads(path.read_text(encoding="utf-8"))
            answers = {name: torch.tensor(values) for name, values in kept["responses"].items()}
            cells = [target, trust, method]
            beside = ["–"] * 3
            if target in paper and method in BESIDE:
                up, down, distance = (pair[BESIDE[method]] for pair in paper[target])
                beside = [f"{up:+.3f}", f"{down:+.3f}", f"{distance:.1f}"]
            for number_of, (way, sign) in enumerate(SIGN.items()):
                change, honest = answers[way] - answers["input"], answers[way] - answers["control"]
                cells += [f"{_interval(change)} / {beside[number_of]}", _interval(honest)]
                cells.append(f"{(sign * honest > 0).double().mean():.0%}")
            fid = "not measured" if kept["fid"] is None else f"{kept['fid']:.1f}"
            cells.append(f"{fid} / {beside[2]}")
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", provenance_line(said), ""]
    return "\n".join(lines)


def _interval(values: Tensor) -> str:
    found = interval(values[None].double().numpy(), levels=("image",))
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


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
    parser.add_argument("--backbone", default=DINOV2, help="of the judge: timm's name, or a network that ships")
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
    print(run(args, get_backend(args.backend, args.device)))


if __name__ == "__main__":
    main()
