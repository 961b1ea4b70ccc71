"""Streams 2,000 tiny inputs: peak memory against that of 20, and ten kills with SIGKILL; prints JSON.

``python tests/faults/streaming.py [memory] [kills] [--backend cifar10|sd15|sdxl] [--inputs 2000]``. Linux.
"""

import argparse
import filecmp
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "lens"))
from small_networks import QUICK, pictures, small_network

from vislens_interp import FeatureLens
from vislens_interp.images import to_pil

INPUTS, FEW, KILLS = 2000, 20, 10


def tiny_backend(name: str, folder: Path) -> Any:
    """The shipped small backend, or Stable Diffusion on a tiny checkpoint, one step."""
    if name == "cifar10":
        return name
    from checkpoints import write_checkpoints, write_checkpoints_xl

    from vislens_interp.backends.embedding import sd15, sdxl

    tiny = write_checkpoints(folder)
    few: dict[str, Any] = {"num_inference_steps": 1, "batch_size": 64, "prompt": None}
    if name == "sd15":
        return sd15(model=tiny.model, adapter=tiny.adapter, clip=tiny.clip, **few)
    tiny = write_checkpoints_xl(folder)
    return sdxl(model=tiny.model, vae=tiny.vae, adapter=tiny.adapter, clip=tiny.clip, **few)


def write_inputs(folder: Path, count: int) -> list[Path]:
    """So many pictures of 32 pixels in files."""
    folder.mkdir()
    for start in range(0, count, 200):
        for row, picture in enumerate(to_pil(pictures(min(200, count - start), seed=start + 1)), start):
            picture.save(folder / f"{row:05d}.png")
    return sorted(folder.iterdir())


def peak() -> float:
    """MiB that this process held at most since it was last asked to forget it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024, 1)


def beside(work: Callable[[], Any], said: Path) -> int:
    """Start a process that does some work and writes what it gives; its number."""
    if number := os.fork():
        return number
    code = 1
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the process that it comes from
        said.write_text("its error is on stderr")
        said.write_text(json.dumps(work()))
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def streamed(lens: FeatureLens, inputs: list[Path], out: Path) -> dict[str, float]:
    start = time.perf_counter()
    lens.visualize(inputs, "increase", strength=0 if lens.backend.name == "cifar10" else 1, out=out)
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mib": peak()}


def finished(number: int, said: Path) -> Any:
    _, status = os.waitpid(number, 0)
    assert status == 0, said.read_text()
    return json.loads(said.read_text())


def memory(lens: FeatureLens, inputs: list[Path], folder: Path) -> dict[str, Any]:
    """Peak memory of few and of all inputs, each in a process of its own."""
    found = {}
    for count in (FEW, len(inputs)):
        said = folder / "said.json"
        found[str(count)] = finished(
            beside(lambda count=count: streamed(lens, inputs[:count], folder / f"of_{count}"), said), said
        )
    few, many = (found[str(count)]["peak_mib"] for count in (FEW, len(inputs)))
    return {**found, "many_over_few": round(many / few, 3)}


def parts(out: Path) -> int:
    work = out.with_name(f"{out.name}.unfinished")
    return sum(path.name[0] != "." for path in work.iterdir() if path.is_dir()) if work.exists() else 0


def kills(lens: FeatureLens, inputs: list[Path], folder: Path) -> dict[str, Any]:
    """One run that is left alone, and one that is killed ten times and goes on: which files differ."""
    whole, out, said = folder / f"of_{len(inputs)}", folder / "killed", folder / "said.json"
    if not whole.exists():
        finished(beside(lambda: streamed(lens, inputs, whole), said), said)
    draw, at = random.Random(0), []
    for number in range(KILLS):
        process = beside(lambda: streamed(lens, inputs, out), said)
        wanted = parts(out) + draw.choice((0, 1, 2, 3))
        while parts(out) < wanted:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.3)  # anywhere in the next part
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert status == signal.SIGKILL, f"it had ended before kill {number + 1}: {said.read_text()}"
        at.append(parts(out))
    finished(beside(lambda: streamed(lens, inputs, out), said), said)
    files = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file())
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    _, differ, missing = filecmp.cmpfiles(whole, out, files, shallow=False)
    left = [path.name for path in folder.iterdir() if "unfinished" in path.name or path.name.startswith(".killed")]
    return {
        "kills": KILLS,
        "parts_at_each": at,
        "files": len(files),
        "differ": differ + missing + [name for name in made if name not in files],
        "left_over": left,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", default=["memory", "kills"], help="memory, kills; both if none is named")
    parser.add_argument("--backend", default="cifar10", choices=["cifar10", "sd15", "sdxl"])
    parser.add_argument("--inputs", type=int, default=INPUTS)
    args = parser.parse_args()
    print(json.dumps(run(args.works, args.backend, args.inputs)))


def run(works: list[str], backend: str, count: int = INPUTS) -> dict[str, Any]:
    """Some works on one backend, with one lens that is fitted once."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lens = FeatureLens(small_network(), "conv", 2, backend=tiny_backend(backend, folder / "checkpoints"))
        lens.fit(pictures(220), **QUICK)
        inputs = write_inputs(folder / "inputs", count)
        found: dict[str, Any] = {"backend": backend, "inputs": count}
        for name in works:
            found[name] = {"memory": memory, "kills": kills}[name](lens, inputs, folder)
            print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)  # a kill may come before the end
        return found


if __name__ == "__main__":
    main()
