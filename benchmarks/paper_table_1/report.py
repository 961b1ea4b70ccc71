"""Table 1: every number of the paper beside ours, and what the paper does not give."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import signed

SIGN: dict[vl.Sense, int] = {"increase": 1, "decrease": -1}


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


LANDSCAPE, SHIPPED = "the paper's landscape", "the landscape with this backend's settings"


BRAINACTIV, PATTERN = "ridge direction (BrainACTIV)", "ridge pattern"


METHODS = (LANDSCAPE, SHIPPED, BRAINACTIV, PATTERN)


BESIDE = {LANDSCAPE: 0, BRAINACTIV: 1}
"""Which of the paper's two numbers stands beside a method's."""


def report(
    out: Path,
    targets: Sequence[str],
    paper: dict[str, Any],
    encoder: vl.InSilicoEncoder,
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
    found = vl.interval(values[None].double().numpy(), levels=("image",))
    return signed(found, 3)
