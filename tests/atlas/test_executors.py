"""The same atlas by processes, Ray, Dask and submitit: byte for byte; workers that die or fail."""

import os
import signal
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import pytest
from PIL import Image
from small_layer import clouds
from small_workers import dies_at_first, fails_for_unit_2
from test_store import contents

from vislens_interp.atlas import Atlas, RayExecutor
from vislens_interp.atlas.run import run_shard

UNITS, SHARD = range(4), 2


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """An atlas of a model by name, and its folder made in this process."""
    pictures = tmp_path_factory.mktemp("pictures")
    for row, picture in enumerate((clouds(200, side=48, seed=5) * 255).byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(picture).save(pictures / f"{row:03d}.png")
    atlas = Atlas("zoo:cifar10_convnet", "conv1", str(pictures)).fit(inputs=1, top_images=3)
    place = tmp_path_factory.mktemp("named") / "atlas"
    atlas.save(place, units=UNITS, shard=SHARD)
    return atlas, contents(place)


class Flaky:
    """An executor in this process whose first worker dies, or every one."""

    def __init__(self, deaths):
        self.deaths, self.done = deaths, []

    def submit(self, work, *arguments):
        assert work is run_shard
        future = Future()
        if self.deaths:
            self.deaths -= 1
            future.set_exception(OSError("the node went away"))
        else:
            self.done.append(arguments)
            future.set_result(work(*arguments))
        return future


@pytest.mark.parametrize("deaths", [1, 99])
def test_a_worker_that_dies_is_replaced(named, deaths, tmp_path, capsys):
    atlas, expected = named
    executor = Flaky(deaths)
    atlas.save(tmp_path / "atlas", units=UNITS, shard=SHARD, executor=executor)
    assert contents(tmp_path / "atlas") == expected
    assert len(executor.done) == (2 if deaths == 1 else 0)
    assert "a worker failed at shard 0 (OSError: the node went away); it is tried again" in capsys.readouterr().err


def test_processes_make_the_same_bytes(named, tmp_path):
    atlas, expected = named
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        atlas.save(tmp_path / "atlas", units=UNITS, shard=SHARD, executor=executor)
    assert contents(tmp_path / "atlas") == expected


def test_workers_edit_at_the_size_that_was_asked_for(named, tmp_path):
    atlas, expected = named
    atlas.save(tmp_path / "here", units=UNITS, shard=SHARD, edit_size=128)
    executor = Flaky(0)
    atlas.save(tmp_path / "there", units=UNITS, shard=SHARD, edit_size=128, executor=executor)
    here, there = contents(tmp_path / "here"), contents(tmp_path / "there")
    assert here == there
    assert len(executor.done) == 2
    assert here["sheets/0.webp"] != expected["sheets/0.webp"]
    atlas.save(tmp_path / "here", units=UNITS, shard=SHARD)  # made again, not taken for what is there
    assert contents(tmp_path / "here") == expected


@pytest.mark.parametrize("edit_size", [64, 225])
def test_a_size_that_no_picture_has_is_refused(named, edit_size, tmp_path):
    atlas, _ = named
    with pytest.raises(ValueError, match=f"edit_size={edit_size}; expected 128 to 224 pixels"):
        atlas.save(tmp_path / "atlas", units=UNITS, edit_size=edit_size)
    with pytest.raises(ValueError, match=f"edit_size={edit_size} of an atlas without pictures"):
        atlas.validate(tmp_path / "atlas", pictures=False, edit_size=edit_size)
    assert not (tmp_path / "atlas").exists()


def test_a_pool_whose_worker_is_killed_does_not_lose_the_run(named, tmp_path, capsys):
    atlas, expected = named
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        future = executor.submit(time.sleep, 60)
        while not executor._processes:
            time.sleep(0.01)
        os.kill(next(iter(executor._processes)), signal.SIGKILL)
        assert future.exception() is not None
        atlas.save(tmp_path / "atlas", units=UNITS, shard=SHARD, executor=executor)
    assert contents(tmp_path / "atlas") == expected
    assert "the executor takes no more work" in capsys.readouterr().err


@contextmanager
def ray_cluster(folder):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'vislens_interp[cluster]'")
    options = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    ray.init(num_cpus=2, _system_config={"worker_niceness": 0}, **options)  # or a busy machine leaves them nothing
    try:
        yield RayExecutor(max_retries=0)
    finally:
        ray.shutdown()


@contextmanager
def dask_cluster(folder):
    distributed = pytest.importorskip(
        "distributed", reason="dask.distributed is not installed: pip install 'vislens_interp[cluster]'"
    )
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": str(folder)}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client.get_executor()


@contextmanager
def submitit_jobs(folder):
    submitit = pytest.importorskip(
        "submitit", reason="submitit is not installed: pip install 'vislens_interp[cluster]'"
    )
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster="local")
    executor.update_parameters(timeout_min=60)  # after five a job is ended, which a busy machine may need
    yield executor


ENGINES = {"ray": ray_cluster, "dask": dask_cluster, "submitit": submitit_jobs}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name == "dask" else pytest.mark.end_to_end) for name in ENGINES],
)
def engine(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # workers need small_workers.py
        yield from started(request.param, tmp_path_factory)


def started(name, tmp_path_factory):
    with ENGINES[name](tmp_path_factory.mktemp(name)) as executor:
        yield executor


class Elsewhere:
    """An executor whose workers see another folder of the same name."""

    def submit(self, work, *arguments):
        future = Future()
        future.set_result(arguments[1])
        return future


class Watched:
    """An executor, and what it was given."""

    def __init__(self, executor, work=None):
        self.executor, self.work, self.calls = executor, work, []

    def submit(self, work, *arguments):
        self.calls.append(arguments)
        return self.executor.submit(self.work or work, *arguments)


def test_an_engine_makes_the_same_bytes(named, engine, tmp_path, capsys):
    atlas, expected = named
    watched = Watched(engine)
    atlas.save(tmp_path / "atlas", units=UNITS, shard=SHARD, executor=watched)
    assert contents(tmp_path / "atlas") == expected
    assert len(watched.calls) == len(UNITS) // SHARD
    assert "warning" not in capsys.readouterr().err


def test_a_worker_of_an_engine_that_is_killed_is_replaced(named, engine, tmp_path, capsys):
    atlas, expected = named
    watched = Watched(engine, dies_at_first)
    atlas.save(tmp_path / "atlas", units=UNITS, shard=SHARD, executor=watched)
    found = contents(tmp_path / "atlas")
    found.pop(".died", None)
    assert found == expected
    retried_by_us = "a worker failed at shard 0" in capsys.readouterr().err
    assert len(watched.calls) == len(UNITS) // SHARD + retried_by_us


def test_a_unit_that_fails_on_a_worker_is_recorded(named, engine, tmp_path):
    atlas, _ = named
    store = atlas.save(tmp_path / "atlas", units=UNITS, shard=SHARD, executor=Watched(engine, fails_for_unit_2))
    errors = store.table(["error"])["error"].to_pylist()
    assert errors == [None, None, "ValueError: unit 2 cannot be painted", None]


def test_a_worker_that_sees_another_folder_does_not_lose_the_run(named, tmp_path, capsys):
    atlas, expected = named
    atlas.save(tmp_path / "atlas", units=UNITS, shard=SHARD, executor=Elsewhere())
    assert contents(tmp_path / "atlas") == expected
    assert "FileNotFoundError: nothing of it in" in capsys.readouterr().err


def test_ray_that_is_missing_or_not_started_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"needs ray, which is not installed; .* 'vislens_interp\[cluster\]'"):
        RayExecutor()
    monkeypatch.undo()
    pytest.importorskip("ray", reason="ray is not installed: pip install 'vislens_interp[cluster]'")
    with pytest.raises(RuntimeError, match=r"found no Ray cluster; .* Call ray.init\(\) before"):
        RayExecutor()
