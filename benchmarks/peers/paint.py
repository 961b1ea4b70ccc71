"""Painting: jobs for the other tools, ours beside them, a cell each; what is there is not painted again."""

import json
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.judges import channel_means
from benchmarks.common.script import save_array, shuffled
from benchmarks.peers.environments import PEERS, interpreter
from benchmarks.peers.inside import job as peers_job
from benchmarks.peers.plan import BEST, INPUT, LANDSCAPE, SIZE, WAYS, Photographs, Unit, cell_name

INSIDE = Path(__file__).parent / "inside"  # scripts that run in the environment of another tool
SPECTRUM = "spectrum_decorrelated.npy"
"""What Horama looks for in its working folder, and dreamlens in ``spectrums`` there."""


def jobs_of(
    bench: Photographs, place: str, setting: str, passes: int, pairs: list[tuple[Unit, int]], ways: list[str]
) -> list[dict[str, Any]]:
    """Jobs of the wanted ways that run in one place, in the form of ``job.py``, and as our own painting takes them.

    ``setting`` is ``"equal"``, which may take so many passes, or ``"default"``; ``pairs`` are units and seeds.
    """
    named, found = f"equal{passes}" if setting == "equal" else setting, []
    for unit, seed in pairs:
        photograph = str(cells(bench.out).absolute() / f"{cell_name(INPUT, 'own', unit, seed)}.png")
        for name, way in ((name, WAYS[name]) for name in ways if WAYS[name].place == place):
            settings = way.equal(passes) if setting == "equal" else way.default
            job = job_of(cell_name(name, named, unit, seed), way.method, unit, seed, settings)
            found.append(job | {"reference": photograph if way.kind == "from a photograph" else None})
    return found


def job_of(cell: str, method: str, unit: Unit, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    kept = {"method": method, "layer": unit.layer, "unit": unit.unit, "seed": seed, "size": SIZE, "settings": settings}
    return {"cell": cell, **kept}


def own_job(name: str, unit: Unit, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    return job_of(cell_name(name, "own", unit, seed), name, unit, seed, settings)


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
    wanted = {"horama": folder / SPECTRUM, "dreamlens": folder / "spectrums" / SPECTRUM}.get(name)
    if wanted is not None and not wanted.is_file():
        save_spectrum(wanted)
    asked = {"network": str(bench.weights.absolute()), "cells": str(cells(bench.out).absolute()), "jobs": left}
    vl.write_text(folder / "jobs.json", json.dumps(asked))
    words = [str(python), "-W", "ignore", str(INSIDE / PEERS[name]["script"]), str(folder / "jobs.json")]
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
    save_array(path, vl.natural_spectrum(SIZE).amplitude.numpy())


def timed(method: vl.Method, image: Tensor, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """A picture (3, S, S) that increases a unit's response, and what it cost."""
    began, cpu_began = time.perf_counter(), time.process_time()
    generated = method.generate(image, {0: "increase"}, seeds=[seed])
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
    return generated.images[0], {**spent, "forward": generated.cost.forward}


def run_ours(bench: Photographs, jobs: list[dict[str, Any]]) -> None:
    """Our own baselines, at the size of the photographs."""
    canvas: Any = SimpleNamespace(size=SIZE)  # all that an ascent in pixels asks of a backend
    for job in missing(bench.out, jobs):
        target = vl.LayerTarget(bench.network, job["layer"], [job["unit"]])
        method: Any = vl.method_by_name(job["method"], **job["settings"])
        method.fit(target, canvas, bench.tuning, bench.natural["tuning"][job["layer"]][:, [job["unit"]]])
        image = bench.tuning[:1] if job["reference"] is None else peers_job.read_picture(job["reference"])[None]
        picture, cost = timed(method, image, job["seed"])
        peers_job.write_cell(cells(bench.out), job, picture, cost)
        print(f"{job['cell']}: {cost['forward']} passes, {cost['seconds']:.1f} s", flush=True)


def run_landscape(
    bench: Photographs, pairs: list[tuple[Unit, int]], backend_name: str, images: int | None, settings: dict[str, Any]
) -> None:
    """Our landscape method: a fit a unit, then an edit of each photograph; the backend's pictures are enlarged.

    ``images`` are how many of its reference images are fitted; None is all.
    """
    said = {"backend": backend_name, "images": images, **settings}
    wanted = [(unit, own_job(LANDSCAPE, unit, seed, said)) for unit, seed in pairs]
    left = [(unit, job) for unit, job in wanted if missing(bench.out, [job])]
    if not left:
        return
    backend: Any = vl.get_backend(backend_name)
    reference = backend.reference_images()
    rows = shuffled(len(reference), 0)[:images]
    known: dict[str, Tensor] = {}
    for unit in dict.fromkeys(unit for unit, _ in left):
        if not known:
            began = time.process_time()
            known = channel_means(bench.network, bench.layers, reference[rows])
            reading = time.process_time() - began
        target = vl.CountedTarget(vl.LayerTarget(bench.network, unit.layer, [unit.unit]))
        began = time.process_time()
        method: Any = vl.LandscapeEdit(shuffles=0, **settings)  # a picture needs no fits that tell what it is worth
        method.fit(target, backend, reference[rows], known[unit.layer][:, [unit.unit]])
        fitted = {"fit_cpu_seconds": time.process_time() - began + reading, "fit_forward": target.forward + len(rows)}
        for job in (job for other, job in left if other == unit):
            photograph = vl.resize(bench.tuning[bench.start(unit, job["seed"])][None], backend.size)
            picture, cost = timed(method, photograph, job["seed"])
            found = {**fitted, **cost, "painted_at": picture.shape[-1]}
            peers_job.write_cell(cells(bench.out), job, vl.resize(picture[None], SIZE)[0], found)
            print(f"{job['cell']}: fit {fitted['fit_cpu_seconds']:.0f} CPU s, {cost['seconds']:.1f} s", flush=True)
