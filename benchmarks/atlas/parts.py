"""What is measured of an atlas, a function a part; each returns JSON values."""

import hashlib
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import package as vl

MODEL, LAYER = "zoo:efficientnet_lite2", "blocks.3.1.conv_pw"
SMALL = ("zoo:cifar10_convnet", "conv1")
DRAWS, NOISE_SD = 1000, 1.0
WORDS = ("a", "37", "tench", "no such word", "s 1")


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    atlas_units: int = 512  # of `lenses`: units with pictures
    lens_units: int = 3  # units of the loop
    inputs: int = 6  # pictures each way
    units: tuple[int, ...] = (1000, 3000, 10000)  # of `growth`, as the next two
    references: tuple[int, ...] = (600, 1200, 2400)  # the last of each is the largest, and stays while another varies
    dimensions: tuple[int, ...] = (196, 392, 784)
    many: int = 10000  # units of the site that is opened
    workers_units: int = 32  # of `workers` and `engines`, in shards of 4
    kills: int = 10


QUICK = Effort(2, 1, 1, (100, 300), (300, 600), (20, 40), 60, 8, 2)


def cpu_seconds(work: Callable[[], object]) -> float:
    """The process's own seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_gib() -> float:
    """Most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def bytes_of(folder: Path) -> dict[str, int]:
    """Bytes of a folder: the site with its pictures, and all."""
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    site = sum(size for path, size in sizes.items() if path.suffix in (".html", ".webp", ".js", ".css", ".json"))
    return {"site_bytes": site, "all_bytes": sum(sizes.values())}


def lenses(effort: Effort, seed: int) -> dict[str, Any]:
    """Seconds of the atlas and of a loop over lenses, on the same layer, reference images and inputs."""
    found: dict[str, Any] = {"model": MODEL, "layer": LAYER, "inputs": effort.inputs}
    reference = vl.ReferenceSet.of_backend(backend := vl.get_backend(vl.DEFAULT_BACKEND))
    assert reference is not None
    reference.embeddings(backend)  # which the package brings: for both
    wall = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        atlas = vl.Atlas(MODEL, LAYER, seed=seed)
        found["layer_units"] = len(atlas.target.names)
        units = range(min(effort.atlas_units, found["layer_units"]))
        found["atlas_units"] = len(units)
        found["atlas_fit"] = cpu_seconds(lambda: atlas.fit(inputs=effort.inputs))
        found["atlas_pictures"] = cpu_seconds(lambda: atlas.save(folder, units=units))
        found["wall"] = time.perf_counter() - wall
        found |= bytes_of(Path(folder))
    found["peak_gib"] = peak_gib()
    fit = atlas.fit_
    assert fit is not None
    found["references"] = len(fit.responses)
    model = vl.load_model(MODEL)
    found |= {"lens_fit": [], "lens_pictures": [], "differences_of_r": []}
    for unit in fit.population.alive[: effort.lens_units].tolist():
        lens = vl.FeatureLens(model, LAYER, unit, seed=seed)
        found["lens_fit"].append(cpu_seconds(lambda lens=lens: lens.fit(reference)))
        inputs = fit.pictures([unit])[0]
        found["lens_pictures"].append(cpu_seconds(lambda lens=lens, inputs=inputs: lens.visualize(inputs)))
        known = fit.readouts.correlation[fit.column_of[unit]].item()
        found["differences_of_r"].append(abs(lens.evidence_[str(unit)].correlation - known))
    return found


def planted(units: int, references: int, dimensions: int, seed: int) -> dict[str, Any]:
    """Seconds of the fit of so many units, half of which follow the embedding, and which pass."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(references, dimensions, generator=generator)
    noise = torch.randn(references, units, generator=generator)
    real = torch.arange(units) % 2 == 0
    weights = torch.randn(dimensions, units, generator=generator) / dimensions**0.5
    responses = (embeddings @ weights) * real + NOISE_SD * noise
    rows = torch.arange(references)
    held = rows % 10 == 0
    found: dict[str, Any] = {"units": units, "references": references, "dimensions": dimensions}

    start = time.process_time()
    readouts = vl.fit_readouts(embeddings, responses, rows, rows[~held], rows[held], draws=DRAWS, seed=seed)
    found["fit"] = time.process_time() - start
    found["population"] = cpu_seconds(lambda: vl.describe_population(responses))
    found["map"] = cpu_seconds(lambda: vl.layer_map(responses))
    passes = readouts.q_value <= 0.05
    found["real_that_pass"] = passes[real].double().mean().item()
    found["false_among_passing"] = (passes & ~real).sum().item() / max(1, int(passes.sum()))
    found["peak_gib"] = peak_gib()
    return found


def growth(effort: Effort, seed: int) -> dict[str, Any]:
    """The fit at several numbers of units, references and dimensions; what does not vary is the middle or largest."""
    few, most, wide = effort.units[0], effort.references[-1], effort.dimensions[-1]
    return {
        "references": [planted(few, count, wide, seed) for count in effort.references],
        "dimensions": [planted(few, most, count, seed) for count in effort.dimensions],
        "units": [planted(count, most, wide, seed) for count in effort.units],  # last: peak memory only grows
    }


def many(effort: Effort, seed: int) -> dict[str, Any]:
    """The site of many units with random numbers and classes as words, without pictures, and how fast it answers."""
    readout = vl.readout_of(vl.get_backend(vl.DEFAULT_BACKEND))
    assert readout is not None
    draw, numbers = random.Random(seed), ("correlation", "q_value", "sparsity", "selectivity", "map_x", "map_y")
    rows = [
        {
            "unit": unit,
            "name": str(unit),
            "state": "alive",
            "passes": draw.random() < 0.5,
            "reasons": [],
            "neighbours": draw.sample(range(effort.many), 8),
            "likeness": [0.5] * 8,
            "top_images": [f"{draw.randrange(500):04d}.jpg" for _ in range(8)],
            "top_responses": [2.0] * 8,
            "words": draw.sample(readout.words, 5),
            **{name: draw.random() for name in numbers},
        }
        for unit in range(effort.many)
    ]
    about = {"target": {"model": "simulated", "layer": "simulated"}, "units": len(rows), "version": "simulated"}
    about |= {"backend": {"name": "none"}, "reference": {"images": 500, "kind": "none"}}
    about |= {"settings": {"inputs": 0, "top_images": 8}}
    found: dict[str, Any] = {"units": len(rows)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "atlas"
        for file in ("units.parquet", "shards/all.parquet"):
            vl.write_table(folder / file, rows, {})
        vl.write_text(folder / "fit.safetensors", "")  # which the site does not read
        shards = [{"name": "all", "units": list(range(len(rows)))}]
        vl.write_manifest(folder, {"fit": {"key": vl.short_hash(about), **about}, "shards": shards, "origin": None})
        found["site"] = cpu_seconds(lambda: vl.write_site(vl.open_atlas(folder)))
        found |= bytes_of(folder) | {"peak_gib": peak_gib()}
        found |= browsed(folder)
    return found


def browsed(folder: Path) -> dict[str, Any]:
    """Milliseconds to the first cards of an index and of searches in it, by the page's own clock."""
    if find_spec("selenium") is None or not Path("/usr/bin/chromium").is_file():
        return {"browser": None}
    import threading

    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    server, address = vl.site_server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        driver.set_page_load_timeout(300)
        first = []
        for _ in range(3):
            driver.get("about:blank")
            driver.get(address)
            while "read)" in (said := driver.find_element("id", "count").text) or " of " not in said:
                time.sleep(0.05)
            first.append(float(driver.execute_script("return document.body.dataset.firstMs")))
        script = (
            "const s = document.getElementById('search'); s.value = arguments[0];"
            "const t = performance.now(); s.dispatchEvent(new Event('input'));"
            "return [Number(document.body.dataset.searchMs), performance.now() - t]"
        )
        spent = {word: driver.execute_script(script, word) for word in WORDS}
    finally:
        driver.quit()
        server.shutdown()
        server.server_close()
    return {"browser": "chromium", "first_page_ms": first, "search_ms": spent}


def warm(folder: str) -> float:
    """Make a worker read its model and fit."""
    vl.atlas_run._maker(folder, vl.read_manifest(Path(folder))["fit"]["key"])
    time.sleep(1)  # so that every worker gets one
    return 0.0


def workers(effort: Effort, seed: int) -> dict[str, Any]:
    """Seconds by the clock of the same shards by one warm process and by two, each twice in turn."""
    found: dict[str, Any] = {"model": MODEL, "units": effort.workers_units, "seconds": {"1": [], "2": []}}
    with tempfile.TemporaryDirectory() as place:
        atlas = vl.Atlas(MODEL, "blocks.4", seed=seed).fit(inputs=1)
        atlas.save(place, units=range(effort.workers_units), shard=4, site=False)
        before = digest(Path(place))
        with ProcessPoolExecutor(1, get_context("spawn")) as one, ProcessPoolExecutor(2, get_context("spawn")) as two:
            for pool, count in ((one, 1), (two, 2)):
                list(pool.map(warm, [place] * count))
            for _ in range(2):
                for name, pool in (("1", one), ("2", two)):
                    shards = len(made := list((Path(place) / "shards").glob("*.parquet")))
                    for path in made:
                        path.unlink()
                    start = time.perf_counter()
                    list(pool.map(vl.run_shard, [place] * shards, range(shards), [1] * shards))
                    found["seconds"][name].append(time.perf_counter() - start)
        found["identical"] = digest(Path(place)) == before
    return found


def whole(effort: Effort, seed: int) -> dict[str, Any]:
    """Seconds by the clock of an atlas from its first reading to its site, by two processes."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        atlas = vl.Atlas(MODEL, LAYER, seed=seed).fit(inputs=effort.inputs)
        atlas.save(place, units=range(effort.atlas_units), executor=pool)
    return {"units": effort.atlas_units, "inputs": effort.inputs, "seconds": time.perf_counter() - start}


def digest(folder: Path) -> dict[str, str]:
    """Hash of every file of a folder, whole names only."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@contextmanager
def ray_cluster(folder: Path) -> Iterator[Any]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config={"worker_niceness": 0})
    try:
        yield vl.RayExecutor()
    finally:
        ray.shutdown()


@contextmanager
def dask_cluster(folder: Path) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    options = {"dashboard_address": None, "local_directory": str(folder)}
    with LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster, Client(cluster) as client:
        yield client.get_executor()


@contextmanager
def submitit_jobs(folder: Path) -> Iterator[Any]:
    import submitit

    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster="local")
    executor.update_parameters(timeout_min=60)
    yield executor


ENGINES = {"ray": ray_cluster, "distributed": dask_cluster, "submitit": submitit_jobs}


def engines(effort: Effort, seed: int) -> dict[str, Any]:
    """Whether an atlas by each engine's local cluster is that of one process, byte for byte."""
    found: dict[str, Any] = {"model": SMALL[0], "units": effort.workers_units, "engines": {}}
    atlas = vl.Atlas(*SMALL, seed=seed).fit(inputs=1)
    with tempfile.TemporaryDirectory() as place:
        options = {"units": range(effort.workers_units), "shard": 4}
        atlas.save(Path(place) / "one", **options)
        expected = digest(Path(place) / "one")
        for name, cluster in ENGINES.items():
            if find_spec(name) is None:
                found["engines"][name] = None
                continue
            with cluster(Path(place)) as executor:
                atlas.save(Path(place) / name, **options, executor=executor)
            seen = digest(Path(place) / name)
            found["engines"][name] = {"files": len(seen), "identical": seen == expected}
    return found


def kills(effort: Effort, seed: int) -> dict[str, Any]:
    """An atlas whose process is killed at random moments, and what it ends in."""
    atlas = vl.Atlas(*SMALL, seed=seed)
    draw = random.Random(seed)
    found: dict[str, Any] = {"model": SMALL[0], "kills": 0, "moments": []}

    def write(folder: Path) -> None:
        made = vl.Atlas(*SMALL, seed=seed)
        made.target = atlas.target
        made.fit(folder, inputs=1).save(folder, shard=4)

    def child(folder: Path) -> int:
        if (number := os.fork()) == 0:
            try:
                write(folder)
            finally:
                os._exit(0)
        return number

    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place) / "whole", Path(place) / "killed"
        start = time.perf_counter()
        os.waitpid(child(whole), 0)
        length = time.perf_counter() - start
        while found["kills"] < effort.kills:
            number = child(killed)
            moment = length * draw.uniform(0.05, 0.4)
            time.sleep(moment)
            ended, _ = os.waitpid(number, os.WNOHANG)
            if not ended:
                os.kill(number, signal.SIGKILL)
                os.waitpid(number, 0)
                found["kills"] += 1
                found["moments"].append(round(moment, 2))
            elif not (killed / "index.html").is_file():
                raise RuntimeError("a run that was not killed ended without its index")
            else:  # it was done before: begin again
                shutil.rmtree(killed)
        os.waitpid(child(killed), 0)
        found |= {"files": len(digest(whole)), "identical": digest(whole) == digest(killed)}
    return found


PARTS = {part.__name__: part for part in (lenses, growth, many, workers, whole, engines, kills)}
