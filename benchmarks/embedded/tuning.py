"""Settings of the embedded backend by measurement: tuning units and tuning images only.

    python -m benchmarks.embedded.tuning --data $VISLENS_DATA --weights runs/weights64 --out runs/tuning

Four questions, one after the other, each answered around the defaults as they stand (``backends/embedded.py``):

- `landscape`: size of the VAE, its noise, λ, ε, σ limits, w_kld, epochs, axis_scale_sd, modes, decoding or residual,
  lerp or slerp, at one edit angle, judged by the natural images that an edited embedding comes to lie among: the
  embedder alone.
- `sampling`: DDIM steps and guidance: does a picture's embedding find the one that was asked for?
- `edits`: α and strength, judged by the target on generated pictures.
- `optimize`: Adam's learning rate, w_kld, the sampling steps that it looks through, and the refinement after it.

Every cell is written to `tuning.json` when it is done and skipped when the command is run again; `tuning.md` has all.
About fifteen minutes of one core with the default numbers. The units are those that `network_units.json` draws for
tuning; even-positioned files of val.zip are edited, training images are fitted on.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmarks.common.bench import Bench, EmbedderOnly, Recorded, nearest
from benchmarks.common.edit_methods import SIGN, fit_with_fewer_modes, set_angle
from benchmarks.common.networks import NETWORKS, load_units
from benchmarks.common.provenance import provenance, provenance_line
from vislens_interp.backends.embedded import LATENT_DIM, NOISE
from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.files import write_text
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.math import angle_between
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.methods.optimization import LandscapeOptimization
from vislens_interp.targets.target import Target
from vislens_interp.training.probe import retrieval

ANGLE = 40.0
EDITED = 100
"""Images edited for each unit of a landscape, or as many as there are."""
START = {"latent_dim": LATENT_DIM, "noise": NOISE}
LANDSCAPE: list[dict[str, Any]] = [
    {},
    *({"latent_dim": dim} for dim in (128, 256)),
    *({"noise": noise} for noise in (0.02, 0.5)),
    {"goal": "local_mean", "residual": "fade"},
    *(
        {"goal": "mean", **changed}
        for changed in (
            {},
            *({"lam": lam} for lam in (0.3, 3.0)),
            *({"eps": eps} for eps in (0.01, 1.0)),
            *({"sigma_min": low, "sigma_max": high} for low, high in ((0.03, 1.0), (0.3, 1.0), (0.1, 3.0))),
            *({"w_kld": weight} for weight in (0.02, 2.0)),
            *({"epochs": epochs} for epochs in (1, 30)),
            *({"axis_scale_sd": scale} for scale in (2.0, 8.0)),
            *({"modes": modes} for modes in (2, 4)),
            {"block_dim": 4},
            {"closed_form_init": False, "block_dim": None},
            {"residual": True},
            {"interpolation": "slerp"},
        )
    ),
]
SAMPLING = [{"steps": steps, "guidance": guidance} for steps in (6, 12, 25) for guidance in (1.0, 1.5, 2.0, 3.0)]
EDITS = [
    *({"alpha": alpha, "strength": 1.0} for alpha in (0.5, 0.75, 1.0)),
    *({"alpha": 1.0, "strength": strength} for strength in (0.6, 0.8)),
]
OPTIMIZE: list[dict[str, Any]] = [
    {},
    *({"lr": lr} for lr in (0.03, 0.3)),
    *({"w_kld": weight} for weight in (0.0, 1e-2)),
    {"render_steps": 4},
    {"strength": 0.3},
    {"strength": 1.0},
]
"""What differs from the defaults; the first is the defaults themselves."""


class Started(EmbedderOnly):
    """The embedder alone, whose fits start from a VAE of this size and noise."""

    def __init__(self, bench: Bench, latent_dim: int, noise: float) -> None:
        super().__init__(bench.embedder, bench.embed(bench.reference))
        self.latent_dim, self.noise = latent_dim, noise

    def vae(self) -> EmbeddingVAE:
        x = self._reference
        return EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), self.latent_dim, self.noise)


def tuning_units(bench: Bench, count: int) -> Iterator[tuple[str, str, int, Tensor]]:
    """Network, layer, column and reference responses (N, 1) of the first tuning units that answer to anything."""
    for name in bench.present():
        for layer in NETWORKS[name].layers:
            reference = bench.responses(name, layer, bench.reference)
            for column in bench.units(name, layer, reference, tune=True, count=count):
                yield name, layer, column, reference[:, [column]]


def landscape_cell(bench: Bench, changed: dict[str, Any], units: int, images: int) -> dict[str, Any]:
    """Change of the natural neighbours' responses in SDs, and how near they are, at one angle and as far as it goes."""
    start = {key: changed.get(key, value) for key, value in START.items()}
    settings = {key: value for key, value in changed.items() if key not in START}
    backend, gallery = Started(bench, **start), bench.embed(bench.tuning)
    own = torch.arange(min(images, len(gallery)))
    x = gallery[own]
    _, before = nearest(x, gallery, own)
    rows: dict[str, list[float]] = {"change": [], "natural": [], "change_at_alpha_1": [], "angle_at_alpha_1": []}
    began = time.monotonic()
    for name, layer, column, responses in tuning_units(bench, units):
        scaler = ResponseScaler.fit(responses)
        known = scaler.standardise(bench.responses(name, layer, bench.tuning)[:, [column]])[:, 0]
        method = LandscapeEdit(shuffles=0, **settings)
        fit_with_fewer_modes(method, Recorded([str(column)]), backend, bench.reference, responses)
        for way, sign in SIGN.items():
            far = method.embeddings(x, {0: way}, alpha=1.0)
            rows["angle_at_alpha_1"].append(angle_between(far, x).mean().item())
            rows["change_at_alpha_1"].append(_moved(far, gallery, own, known, before, sign)[0])
            set_angle(method, ANGLE)
            change, natural = _moved(method.embeddings(x, {0: way}), gallery, own, known, before, sign)
            rows["change"].append(change)
            rows["natural"].append(natural)
            method.override(angle=None)
    said = {key: sum(values) / len(values) for key, values in rows.items()}
    return said | {"cases": len(rows["change"]), "seconds": time.monotonic() - began}


def _moved(x: Tensor, gallery: Tensor, own: Tensor, known: Tensor, before: Tensor, sign: int) -> tuple[float, float]:
    cosine, found = nearest(x, gallery, own)
    return sign * (known[found].mean(1) - known[before].mean(1)).mean().item(), cosine.mean().item()


def sampling_cell(backend: EmbeddingBackend, x: Tensor, changed: dict[str, Any]) -> dict[str, Any]:
    """Pictures of embeddings (N, D): centred cosine of wanted and obtained, its random-pair level, retrieval, time."""
    generator = backend.generator
    before = generator.steps, generator.guidance
    began = time.monotonic()
    try:
        generator.steps, generator.guidance = changed["steps"], changed["guidance"]
        made = backend.decode(x, init_image=None, strength=1.0, seeds=list(range(len(x))))
    finally:
        generator.steps, generator.guidance = before
    seconds = (time.monotonic() - began) / len(x)
    with torch.no_grad():
        obtained = backend.embedder(made)
    return {
        "cosine": cosine_similarity(obtained, x).mean().item(),
        "random_cosine": cosine_similarity(obtained, x.roll(1, 0)).mean().item(),
        "retrieval": retrieval(obtained, x),
        "pictures": len(x),
        "seconds_a_picture": seconds,
    }


def pictures_cell(
    backend: EmbeddingBackend,
    cases: list[tuple[Target, Tensor]],
    reference: Tensor,
    images: Tensor,
    technique: Any,
    changed: dict[str, Any],
) -> dict[str, Any]:
    """Signed Δr against α = 0 of generated pictures, in SDs, and the centred cosine to them, over units and directions.

    Args:
        backend: The backend whole.
        cases: Targets of one unit each, with its responses (N, 1) to ``reference``.
        reference: What is fitted on.
        images: What is moved.
        technique: ``"edit"`` or ``"optimize"``.
        changed: Settings; ``alpha``, ``strength`` and ``render_steps`` among them.
    """
    given = {key: changed.get(key) for key in ("alpha", "strength")}
    own: dict[str, Any] = {key: value for key, value in changed.items() if key not in (*given, "render_steps")}
    given = {key: value for key, value in given.items() if value is not None}
    refined = {key: value for key, value in given.items() if key == "strength"}
    change, similarity, seconds = [], [], 0.0
    steps, backend.render_steps = backend.render_steps, changed.get("render_steps", backend.render_steps)
    seeds = list(range(len(images)))
    try:
        for target, responses in cases:
            if technique == "optimize":
                method = LandscapeOptimization(shuffles=0, optimize=own)
            else:
                method = LandscapeEdit(shuffles=0, **own)
            method.fit(target, backend, reference, responses)
            scaler = ResponseScaler.fit(responses)
            zero = method.generate(images, {}, seeds=seeds, **refined).images
            with torch.no_grad():
                seen = backend.embedder(zero)
            for way, sign in SIGN.items():
                began = time.monotonic()
                made = method.generate(images, {0: way}, seeds=seeds, **given).images
                seconds += time.monotonic() - began
                moved = scaler.standardise(target.responses(made)) - scaler.standardise(target.responses(zero))
                change.append(sign * moved.mean().item())
                with torch.no_grad():
                    similarity.append(cosine_similarity(backend.embedder(made), seen).mean().item())
    finally:
        backend.render_steps = steps
    count = len(change)
    return {
        "increase": sum(change[0::2]) / len(change[0::2]),
        "decrease": sum(change[1::2]) / len(change[1::2]),
        "similarity": sum(similarity) / count,
        "pictures": count * len(images),
        "seconds_a_picture": seconds / (count * len(images)),
    }


def cells(bench: Bench, units: int, images: int) -> Iterator[tuple[str, dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Question, settings, and what answers it."""
    bench.embed(bench.reference)
    for changed in LANDSCAPE:
        yield "landscape", changed, lambda changed=changed: landscape_cell(bench, changed, units, EDITED)
    if not (bench.weights / "generator64").is_dir():
        print("no generator64 in --weights: the landscape alone is tuned", flush=True)
        return
    backend = bench.backend()
    x = bench.embed(bench.tuning)[: 4 * images]
    for changed in SAMPLING:
        yield "sampling", changed, lambda changed=changed: sampling_cell(backend, x, changed)
    cases = [
        (bench.target(name, layer, [load_units()[name][layer][column]]), responses)
        for name, layer, column, responses in tuning_units(bench, 1)
    ][1::2]  # every second layer: pictures are what takes the time
    pictures = bench.tuning[:images]
    for question, grid in (("edits", EDITS), ("optimize", OPTIMIZE)):
        technique = "optimize" if question == "optimize" else "edit"
        few = cases[:2] if question == "optimize" else cases
        for changed in grid:
            yield (
                question,
                changed,
                lambda changed=changed, few=few, technique=technique: pictures_cell(
                    backend, few, bench.reference, pictures, technique, changed
                ),
            )


def label(changed: dict[str, Any]) -> str:
    """Settings in words."""
    return ", ".join(f"{key} {value}" for key, value in changed.items()) or "defaults"


def table(found: dict[str, dict[str, Any]]) -> str:
    """All cells, a table a question."""
    lines = ["# Settings of the embedded backend, on tuning units and tuning images", ""]
    for question, rows in found.items():
        names = list(next(iter(rows.values())))
        lines += [f"## {question}", "", f"| setting | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        lines += [
            f"| {setting} | {' | '.join(f'{row[name]:.3g}' for name in names)} |" for setting, row in rows.items()
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="the recipes' --out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--units", type=int, default=1, help="landscape: tuning units of each layer")
    parser.add_argument("--images", type=int, default=8, help="pictures of a unit and direction")
    parser.add_argument("--only", nargs="+", choices=("landscape", "sampling", "edits", "optimize"), help="questions")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = args.out / "tuning.json"
    said = provenance(seed=0, device=args.device)
    state: dict[str, Any] = {"provenance": said, "units": args.units, "images": args.images, "found": {}}
    if path.is_file():
        state = json.loads(path.read_text(encoding="utf-8"))
        if (state["units"], state["images"]) != (args.units, args.images):
            raise SystemExit(
                f"{path} was begun with --units {state['units']} --images {state['images']}; pass those, or another "
                "--out."
            )
    bench = Bench(args.data, args.weights, args.out, args.device)
    for question, changed, measure in cells(bench, args.units, args.images):
        if args.only and question not in args.only:
            continue
        rows = state["found"].setdefault(question, {})
        if label(changed) not in rows:
            rows[label(changed)] = measure()
            print(question, label(changed), {k: round(v, 3) for k, v in rows[label(changed)].items()}, flush=True)
            write_text(path, json.dumps(state, indent=1))
    text = table(state["found"]) + provenance_line(state["provenance"]) + "\n"
    write_text(args.out / "tuning.md", text)
    print(text)


if __name__ == "__main__":
    main()
