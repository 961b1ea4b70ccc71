"""An environment for each tool, made once: what it asks for, and torch from the environment that runs this."""

import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import package as vl


@dataclass(frozen=True)
class Peer:
    """A tool from the registry.

    Args:
        script: Runs jobs in its environment.
        requirements: What is installed there, at the versions that were run.
        needed: What it took to run it, a sentence each.
    """

    script: str
    requirements: tuple[str, ...]
    needed: tuple[str, ...]


PEERS = {
    "lucent": Peer(
        "run_lucent.py",
        ("torch-lucent==0.1.8", "kornia==0.4.1"),
        (
            (
                "Declares kornia 0.4.1 or older, of 2020, which pip takes and which runs with this torch. It calls "
                "`kornia.get_rotation_matrix2d` and `kornia.warp_affine`, which kornia has moved: 0.9.0 lacks both, "
                "so that with it the default transforms raise AttributeError."
            ),
            "Declares pytest, pytest-mock, coverage and coveralls as needed at run time: they are installed with it.",
            "`show_image=False`: the default opens a window.",
            "Its hooks on every layer are never removed, so that each picture gets a network of its own.",
            "Draws from numpy's global generator as well as torch's: both are seeded.",
            "Its channel objective runs the whole network, whatever the layer.",
        ),
    ),
    "horama": Peer(
        "run_horama.py",
        ("horama==0.3.0", "einops==0.8.2"),
        (
            "`import horama` fails after `pip install horama`: einops is used and not declared (nor is tqdm).",
            (
                "`maco` downloads its amplitude spectrum from a storage bucket into the working folder; that was not "
                "to be had here, so that it was given ours (`natural_spectrum.safetensors`, the same colour basis; it "
                "standardises the picture, so that the scale plays no part)."
            ),
            '`device="cpu"`: the default is CUDA, and fails without it.',
            (
                "Crops are larger than `box_size` says: sides are drawn from [b, 2b - a] for (a, b), 0.25 to 0.30 by "
                "default. At 224 px it is given (0.6, 0.8), which makes crops of 0.8 to 1.0 as ours: it is the whole "
                "picture that is judged."
            ),
            (
                "Paints the network's input, between -2.5 and 2.5; what is judged is that turned back into colours, "
                "cut off at 0 and 1 (its own `show` stretches the contrast instead), without its transparency."
            ),
            "Installs a top-level package called `tests`.",
        ),
    ),
}


def interpreter(folder: Path, name: str) -> Path:
    """Python of a tool's environment, which is made first where it is not there or holds other versions.

    Args:
        folder: Of all environments.
        name: A key of :data:`PEERS`.

    Raises:
        RuntimeError: It could not be made; the message has pip's last line.
    """
    place, requirements = folder / name, "\n".join(PEERS[name].requirements) + "\n"
    python, stamp = place / "bin" / "python", place / "installed.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == requirements:
        return python
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    _call(name, [sys.executable, "-m", "venv", "--without-pip", str(place)])
    vl.write_text(place / "lib" / version / "site-packages" / "shared.pth", "\n".join(site.getsitepackages()) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-input"]
    _call(name, [*pip, *PEERS[name].requirements])
    vl.write_text(stamp, requirements)
    return python


def _call(name: str, words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing was printed"]
        raise RuntimeError(
            f"the environment of {name!r} could not be made ({said[-1]}); expected a package registry to install "
            f"{', '.join(PEERS[name].requirements)} from. Install them by hand, or leave {name!r} out with --only."
        )
