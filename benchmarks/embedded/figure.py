"""Figure 4 of the embedded backend: photographs, preferred and suppressed pictures, nothing picked."""

from pathlib import Path

from torch import Tensor

from benchmarks.common.bench import Bench
from benchmarks.common.edit_methods import JOB_ANGLE, METHODS, OURS, set_angle
from benchmarks.common.figures import save_small, sheet
from benchmarks.common.networks import NETWORKS, load_units
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.methods.controls import Unedited


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
            made = {"α = 0": Unedited().fit(target, backend, bench.reference).generate(images, {}, seeds=noise).images}
            for way, label in (("increase", "preferred"), ("decrease", "suppressed")):
                made[label] = method.generate(images, {0: way}, seeds=noise).images
            read = {key: scaler.standardise(target.responses(value))[:, 0] for key, value in made.items()}
            rows.append((f"{name}\n{layer}, unit {unit}\nphotograph", images, [""] * pictures))
            for label, shown in made.items():
                notes = [f"{value:+.1f}" for value in (read[label] - read["α = 0"]).tolist()]
                rows.append((label, shown, notes))
            best = responses[:, 0].argsort(descending=True)[:pictures]
            rows.append(("top natural", bench.reference[best], [""] * pictures))
            print(f"figure: {name} {layer}", flush=True)
    save_small(sheet(rows), path)
