"""The benchmarks that there are: one entry each, with what it takes to run it whole and quickly."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import findings

HERE = Path(__file__).resolve().parent


class CannotRunError(Exception):
    """Why a benchmark is not run here."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Args:
        name: Of its folder below ``--out``.
        commands: Scripts of this folder with their arguments, one after the other, each going on where it was
            interrupted. ``{out}`` is the benchmark's own folder, ``{data}`` the folder of real files, ``{nsd}`` the
            Natural Scenes Dataset, ``{weights}`` and ``{pixel_vae}`` what was trained, ``{device}`` where to compute;
            without a value for one that it names, a benchmark is not run, and that is said.
        quick: The command that shows in a minute or two that it works and measures nothing; None where there is none.
        read: What its JSON says of its aims.
        stem: Of the files with its figures, ``STEM.json`` and ``STEM.md``; its name if left out.
        published: It writes these files to ``results/`` itself and not to its own folder.
    """

    name: str
    commands: tuple[str, ...]
    quick: str | None = None
    read: Callable[[dict[str, Any]], findings.Findings] = findings.stated
    stem: str = ""
    published: bool = False

    @property
    def file(self) -> str:
        return self.stem or self.name

    def prepare(self, *, quick: bool, values: dict[str, Path | str | None]) -> list[list[str]]:
        """The commands with everything filled in.

        Args:
            quick: Those of the quick run.
            values: What stands for ``{data}`` and the others; None where it is not there.

        Returns:
            Words of each command, the interpreter first.

        Raises:
            CannotRunError: There is no quick run, no such script, or no value for what a command names.
        """
        if quick and self.quick is None:
            raise CannotRunError("it has no quick run")
        ready = []
        for command in [self.quick] if quick and self.quick is not None else self.commands:
            script, *arguments = shlex.split(command)
            if not (HERE / script).is_file():
                raise CannotRunError(f"benchmarks/{script} is not there")
            for name, value in values.items():
                if value is None and any(f"{{{name}}}" in word for word in arguments):
                    raise CannotRunError(f"it needs --{name.replace('_', '-')}, which is not there")
            known = {name: str(value) for name, value in values.items()}
            ready.append([sys.executable, str(HERE / script), *(word.format_map(known) for word in arguments)])
        return ready


FILES, DEVICE = "--data {data} --out {out}", "--device {device}"
COVERAGE = "unit_coverage.py --out {out}"
TABLE3 = f"cifar10_landscape.py {FILES} --pixel-vae {{pixel_vae}}"
EMBEDDED = f"--weights {{weights}} {FILES} {DEVICE}"
PARTS = ("quality", "retrieval", "job", "cost", "report", "figure")
V4 = tuple(tuple(f"{name}.py {part} {FILES}" for part in ("fit", "report")) for name in ("v4_encoder", "v4_recorded"))
V4_PICTURES = tuple(
    f"v4_preferred_images.py {words}"
    for words in (
        f"pictures --weights {{weights}} {FILES} {DEVICE}",
        "report --out {out}",
        f"figure --weights {{weights}} {FILES} {DEVICE}",
    )
)
CROSS = (f"cross_subject.py fit {FILES}", "cross_subject.py report --out {out}")
PEERS = tuple(f"peers.py {part} {FILES}" for part in ("paint", "paint --setting default", "landscape", "report"))

SUITE = (
    Benchmark(
        "planted_units", (f"planted_units.py {FILES}",), f"planted_units.py {FILES} --quick", findings.planted_units
    ),
    Benchmark("table3", (f"{TABLE3} --tune", f"{TABLE3} --figure", TABLE3), None, findings.table3),
    Benchmark("embedded", tuple(f"embedded_backend.py {part} {EMBEDDED}" for part in PARTS)),
    Benchmark(
        "ann_units", (f"ann_units.py run {EMBEDDED} --cache {{out}}/../embedded", f"ann_units.py report {EMBEDDED}")
    ),
    Benchmark("embedded_tuning", (f"embedded_tuning.py {EMBEDDED}",), stem="tuning"),
    Benchmark("paper_table_1", (f"paper_table_1.py --nsd {{nsd}} --out {{out}} {DEVICE}",)),
    Benchmark("v4_encoder", V4[0], None, findings.v4_encoder, published=True),
    Benchmark("v4_recorded", V4[1], None, findings.v4_recorded, published=True),
    Benchmark("v4_preferred_images", V4_PICTURES, None, findings.v4_preferred_images, published=True),
    Benchmark("cross_subject", CROSS, None, findings.cross_subject, published=True),
    Benchmark("peers", PEERS),
    Benchmark("unit_coverage", (COVERAGE,), f"{COVERAGE} --only test_resnet test_vit", findings.unit_coverage),
    Benchmark("speed", (f"speed.py {FILES} {DEVICE}",), f"speed.py {FILES} --quick", findings.speed),
    Benchmark(
        "sd15_speed", (f"sd15_speed.py {FILES} {DEVICE}",), "sd15_speed.py --out {out} --quick", findings.sd15_speed
    ),
)
"""In the order of the page; in a new entry, the script's own arguments."""
