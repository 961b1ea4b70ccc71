"""An environment for each tool, made once: what it asks for, and torch from the environment that runs this."""

import site
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import package as vl
from benchmarks.common.script import read

PEERS: dict[str, dict[str, Any]] = read(Path(__file__).with_name("tools.toml"))
"""Tools from the registry: ``script``, which runs jobs, ``requirements`` to install, what else was ``needed``."""


def interpreter(folder: Path, name: str) -> Path:
    """Python of a tool's environment, which is made first where it is not there or holds other versions.

    Raises:
        RuntimeError: It could not be made; the message has pip's last line.
    """
    place, requirements = folder / name, "\n".join(PEERS[name]["requirements"]) + "\n"
    python, stamp = place / "bin" / "python", place / "installed.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == requirements:
        return python
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    _call(name, [sys.executable, "-m", "venv", "--without-pip", str(place)])
    vl.write_text(place / "lib" / version / "site-packages" / "shared.pth", "\n".join(site.getsitepackages()) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-input"]
    _call(name, [*pip, *PEERS[name]["requirements"]])
    vl.write_text(stamp, requirements)
    return python


def _call(name: str, words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing was printed"]
        raise RuntimeError(
            f"the environment of {name!r} could not be made ({said[-1]}); expected a package registry to install "
            f"{', '.join(PEERS[name]['requirements'])} from. Install them by hand, or leave {name!r} out with --only."
        )
