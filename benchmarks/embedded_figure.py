"""Figure 4, and figures small enough to be committed."""

import io
from pathlib import Path
from typing import Any

from embedded_bench import Bench
from embedded_methods import JOB_ANGLE, METHODS, OURS, set_angle
from embedded_networks import NETWORKS, load_units
from PIL import Image
from torch import Tensor

from vislens_interp.baselines.controls import Unedited
from vislens_interp.files import write_atomically
from vislens_interp.landscape.prior import ResponseScaler

FIGURE_BYTES = 400_000


def figure(bench: Bench, path: Path, pictures: int = 6) -> None:
    """Figure 4: of each layer its first test unit, the first test images: photograph, preferred, suppressed, top 10.

    Nothing is picked. Below each generated picture stands its Δr against α = 0.
    """
    backend = bench.backend()
    bench.embed(bench.reference)
    images = bench.test[:pictures]
    rows: list[tuple[str, Tensor, list[str]]] = []
    noise = list(range(pictures))
    for name in bench.present():
        for layer in NETWORKS[name].layers:
            reference = bench.responses(name, layer, bench.reference)
            column = bench.units(name, layer, reference, tune=False, count=1)[0]
            unit = load_units()[name][layer][column]
            target, responses = bench.target(name, layer, [unit]), reference[:, [column]]
            scaler = ResponseScaler.fit(responses)
            method = METHODS[OURS]().fit(target, backend, bench.reference, responses)
            set_angle(method, JOB_ANGLE)
            made = {"α = 0": Unedited().fit(target, backend, bench.reference).generate(images, {}, seeds=noise)}
            for way, label in (("increase", "preferred"), ("decrease", "suppressed")):
                made[label] = method.generate(images, {0: way}, seeds=noise)
            read = {key: scaler.standardise(target.responses(value))[:, 0] for key, value in made.items()}
            rows.append((f"{name}\n{layer}, unit {unit}\nphotograph", images, [""] * pictures))
            for label, shown in made.items():
                notes = [f"{value:+.1f}" for value in (read[label] - read["α = 0"]).tolist()]
                rows.append((label, shown, notes))
            best = responses[:, 0].argsort(descending=True)[:pictures]
            rows.append(("top natural", bench.reference[best], [""] * pictures))
            print(f"figure: {name} {layer}", flush=True)
    save_small(sheet(rows), path)


def sheet(rows: list[tuple[str, Tensor, list[str]]]) -> Any:
    """A figure of rows of pictures: what the row is, images (N, 3, H, W), and a note below each of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pictures = len(rows[0][1])
    page = Figure(figsize=(1.05 * pictures + 1.6, 1.2 * len(rows)), dpi=110)
    FigureCanvasAgg(page)
    axes = page.subplots(len(rows), pictures, squeeze=False)
    for index, (label, shown, notes) in enumerate(rows):
        for column in range(pictures):
            axis = axes[index][column]
            axis.imshow(shown[column].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(notes[column], fontsize=8, labelpad=1)
        axes[index][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    page.tight_layout(pad=0.4)
    return page


def save_small(page: Any, path: Path, limit: int = FIGURE_BYTES) -> None:
    """Write a figure as WebP, of less quality until it is small enough."""
    drawn = io.BytesIO()
    page.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    for quality in (90, 80, 70, 60, 45, 30):
        packed = io.BytesIO()
        picture.save(packed, "WEBP", quality=quality, method=6)
        if packed.tell() <= limit:
            write_atomically(path, lambda temporary, packed=packed: temporary.write_bytes(packed.getvalue()))
            return
    raise ValueError(f"limit={limit} bytes; expected {packed.tell()} at least for this figure. Show fewer pictures.")
