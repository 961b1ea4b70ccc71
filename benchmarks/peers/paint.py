"""Painting: jobs for the other tools, ours beside them, a cell each; what is there is not painted again."""

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.peers.environments import PEERS, interpreter
from benchmarks.peers.inside import job as peers_job
from benchmarks.peers.plan import BEST, INPUT, LANDSCAPE, SIZE, WAYS, Photographs, Unit, cell_name, respond

INSIDE = Path(__file__).parent / "inside"
"""Scripts that run in the environment of another tool."""
SPECTRUM = "spectrum_decorrelated.npy"
"""What Horama looks for in its working folder."""
NO_SHUFFLES = {"shuffles": 0}
"""Fits on permuted responses tell what a landscape is worth; a picture does not need them."""


@dataclass(frozen=True)
class Canvas:
    """All that an ascent in pixels asks of a backend: how large the picture is."""

    size: int = SIZE


def jobs_of(
    bench: Photographs, place: str, setting: str, passes: int, pairs: list[tuple[Unit, int]], ways: list[str]
) -> list[dict[str, Any]]:
    """Jobs of the ways that run in one place, in the form of ``job.py``, and as our own painting takes them.

    Args:
        bench: Whose photographs are started from.
        place: ``"lucent"``, ``"horama"`` or ``"ours"``.
        setting: ``"equal"`` or ``"default"``.
        passes: What ``"equal"`` may take.
        pairs: Units and seeds.
        ways: Keys of WAYS that are wanted.
    """
    found = []
    for unit, seed in pairs:
        for name in ways:
            way = WAYS[name]
            if way.place != place:
                continue
            named = f"equal{passes}" if setting == "equal" else setting
            reference = None
            if way.kind == "from a photograph":
                reference = str(cells(bench.out).absolute() / f"{cell_name(INPUT, 'own', unit, seed)}.png")
            found.append(
                {
                    "cell": cell_name(name, named, unit, seed),
                    "method": way.method,
                    "layer": unit.layer,
                    "unit": unit.unit,
                    "seed": seed,
                    "size": SIZE,
                    "reference": reference,
                    "settings": way.equal(passes) if setting == "equal" else way.default,
                }
            )
    return found


def cells(out: Path) -> Path:
    return out / "cells"


def missing(out: Path, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [job for job in jobs if not (cells(out) / f"{job['cell']}.json").is_file()]


def controls(bench: Photographs, pairs: list[tuple[Unit, int]]) -> None:
    """The photograph that is started from, and the tuning photographs that drive a unit most, one a seed."""
    for unit, seed in pairs:
        responses = bench.natural["tuning"][unit.layer][:, unit.unit]
        rows = {INPUT: bench.start(unit, seed), BEST: int(responses.argsort(descending=True)[seed])}
        for name, row in rows.items():
            job = own_job(name, unit, seed, {"row": row})
            if missing(bench.out, [job]):
                peers_job.write_cell(cells(bench.out), job, bench.tuning[row], {"forward": 0})


def own_job(name: str, unit: Unit, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    kept = {"method": name, "layer": unit.layer, "unit": unit.unit, "seed": seed, "size": SIZE, "settings": settings}
    return {"cell": cell_name(name, "own", unit, seed), **kept}


def run_peer(bench: Photographs, name: str, jobs: list[dict[str, Any]], environments: Path) -> None:
    """Have another tool paint in its own environment.

    Raises:
        RuntimeError: It failed; what it said is in the log below ``out``.
    """
    left = missing(bench.out, jobs)
    if not left:
        return
    python, folder = interpreter(environments, name).absolute(), bench.out.absolute() / name
    folder.mkdir(parents=True, exist_ok=True)
    if name == "horama" and not (folder / SPECTRUM).is_file():
        save_spectrum(folder / SPECTRUM)
    asked = {"network": str(bench.weights.absolute()), "cells": str(cells(bench.out).absolute()), "jobs": left}
    vl.write_text(folder / "jobs.json", json.dumps(asked))
    words = [str(python), "-W", "ignore", str(INSIDE / PEERS[name].script), str(folder / "jobs.json")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # its own packages alone
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        done = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environment, check=False)
    if done.returncode:
        said = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines() or ["nothing was printed"]
        raise RuntimeError(
            f"{name} ended with exit status {done.returncode} ({said[-1]}); expected {len(left)} pictures. See "
            f"{folder / 'log.txt'}."
        )


def save_spectrum(path: Path) -> None:
    """Our amplitudes of photographs where Horama keeps those that it would download."""
    amplitude = vl.natural_spectrum(SIZE).amplitude.numpy()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, amplitude)

    vl.write_atomically(path, write)


def run_ours(bench: Photographs, jobs: list[dict[str, Any]]) -> None:
    """Our own baselines, at the size of the photographs."""
    for job in missing(bench.out, jobs):
        target = vl.LayerTarget(bench.network, job["layer"], [job["unit"]])
        method: Any = vl.method_by_name(job["method"], **job["settings"])
        known = bench.natural["tuning"][job["layer"]][:, [job["unit"]]]
        method.fit(target, Canvas(), bench.tuning, known)
        reference = bench.tuning[:1] if job["reference"] is None else peers_job.read_picture(job["reference"])[None]
        began, cpu_began = time.perf_counter(), time.process_time()
        generated = method.generate(reference, {0: "increase"}, seeds=[job["seed"]])
        picture = generated.images[0]
        spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
        peers_job.write_cell(cells(bench.out), job, picture, {**spent, "forward": generated.cost.forward})
        print(f"{job['cell']}: {generated.cost.forward} passes, {spent['seconds']:.1f} s", flush=True)


def run_landscape(
    bench: Photographs, pairs: list[tuple[Unit, int]], backend_name: str, images: int | None, settings: dict[str, Any]
) -> None:
    """Our landscape method: a fit a unit, then an edit of each photograph; the backend's pictures are enlarged.

    Args:
        bench: Network and photographs.
        pairs: Units and seeds.
        backend_name: Of a registered backend.
        images: Of its reference images that are fitted; None is all.
        settings: Of the method, beside the backend's defaults.
    """
    wanted = [
        (unit, own_job(LANDSCAPE, unit, seed, {"backend": backend_name, "images": images, **settings}))
        for unit, seed in pairs
    ]
    left = [(unit, job) for unit, job in wanted if missing(bench.out, [job])]
    if not left:
        return
    backend: Any = vl.get_backend(backend_name)
    reference = backend.reference_images()
    rows = torch.randperm(len(reference), generator=torch.Generator().manual_seed(0))[:images]
    known: dict[str, Tensor] = {}
    for unit in dict.fromkeys(unit for unit, _ in left):
        if not known:
            began = time.process_time()
            known = respond(bench.network, reference[rows])
            reading = time.process_time() - began
        target = vl.CountedTarget(vl.LayerTarget(bench.network, unit.layer, [unit.unit]))
        began = time.process_time()
        method: Any = vl.LandscapeEdit(**NO_SHUFFLES, **settings)
        method.fit(target, backend, reference[rows], known[unit.layer][:, [unit.unit]])
        fitted = {"fit_cpu_seconds": time.process_time() - began + reading, "fit_forward": target.forward + len(rows)}
        for job in (job for other, job in left if other == unit):
            photograph = vl.resize(bench.tuning[bench.start(unit, job["seed"])][None], backend.size)
            began, cpu_began = time.perf_counter(), time.process_time()
            generated = method.generate(photograph, {0: "increase"}, seeds=[job["seed"]])
            picture = generated.images
            spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
            found = {**fitted, **spent, "forward": generated.cost.forward, "painted_at": picture.shape[-1]}
            peers_job.write_cell(cells(bench.out), job, vl.resize(picture, SIZE)[0], found)
            print(f"{job['cell']}: fit {fitted['fit_cpu_seconds']:.0f} CPU s, {spent['seconds']:.1f} s", flush=True)
