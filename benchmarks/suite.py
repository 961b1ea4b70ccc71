"""The benchmarks that there are: one entry each, with what it takes to run it whole and quickly."""

import shlex
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common.findings import Findings, stated


class CannotRunError(Exception):
    """Why a benchmark is not run here."""


@dataclass(frozen=True)
class Benchmark:
    name: str  # of its folder in `benchmarks`, and of its folder below `--out`
    # Modules of its folder with their arguments, one after the other, each going on where it was interrupted. `{out}`
    # is the benchmark's own folder, `{data}`, `{weights}` and the others are what `run_all` was given; without a value
    # for one that it names, a benchmark is not run, and that is said.
    commands: tuple[str, ...]
    # The command that shows in a minute or two that it works and measures nothing; None where there is none.
    quick: str | None = None
    reads: bool = False  # its `report.findings` reads the aims from its JSON, which does not state them itself
    published: bool = False  # it writes these files to `results/` itself and not to its own folder

    @property
    def module(self) -> str:
        return f"benchmarks.{self.name}"

    def lines(self) -> list[str]:
        """The commands as somebody types them in the root of the repository."""
        return [f"python -m {self.module}.{command}" for command in self.commands]

    def findings(self, numbers: dict[str, Any]) -> Findings:
        """What its JSON says of its aims."""
        return import_module(f"{self.module}.report").findings(numbers) if self.reads else stated(numbers)

    def prepare(self, *, quick: bool, values: dict[str, Path | str | None]) -> list[list[str]]:
        """Words of the commands, the interpreter first, with everything filled in; CannotRunError if that cannot be."""
        if quick and self.quick is None:
            raise CannotRunError("it has no quick run")
        ready = []
        for command in [self.quick] if quick and self.quick is not None else self.commands:
            module, *arguments = shlex.split(command)
            if find_spec(self.module) is None:
                raise CannotRunError(f"{self.module} is not there")
            for name, value in values.items():
                if value is None and any(f"{{{name}}}" in word for word in arguments):
                    raise CannotRunError(f"it needs --{name.replace('_', '-')}, which is not there")
            known = {name: str(value) for name, value in values.items()}
            filled = [word.format_map(known) for word in arguments]
            ready.append([sys.executable, "-m", f"{self.module}.{module}", *filled])
        return ready


FILES, DEVICE = "--data {data} --out {out}", "--device {device}"
EMBEDDED = f"--weights {{weights}} {FILES} {DEVICE}"
TABLE3 = f"run {FILES} --pixel-vae {{pixel_vae}}"
COVERAGE = "run --out {out}"
FIT_REPORT = (f"run fit {FILES}", f"run report {FILES}")

# In the order of the page; in a new entry, the module's own arguments.
SUITE = (
    Benchmark("pictures", (f"run {FILES}", "figure --out {out}", f"reader {FILES}", "gallery --data {data}")),
    Benchmark("planted_units", (f"run {FILES}",), f"run {FILES} --quick", reads=True),
    Benchmark("table3", (f"{TABLE3} --tune", f"{TABLE3} --figure", TABLE3), reads=True),
    Benchmark("words", (f"run {FILES}",)),
    Benchmark("audit", (f"run {FILES}",)),
    Benchmark("atlas", ("run --out {out}",), "run --out {out} --quick"),
    Benchmark("ann_units", (f"run run {EMBEDDED}", f"run report {EMBEDDED}")),
    Benchmark("paper_table_1", (f"run --nsd {{nsd}} --out {{out}} {DEVICE}",)),
    Benchmark("v4_encoder", FIT_REPORT, reads=True, published=True),
    Benchmark("v4_recorded", FIT_REPORT, reads=True, published=True),
    Benchmark(
        "v4_preferred_images",
        (f"run pictures {FILES} {DEVICE}", "run report --out {out}", f"run figure {FILES} {DEVICE}"),
        reads=True,
        published=True,
    ),
    Benchmark("closed_loop", (f"run run {FILES}", f"run speed {FILES}", "run report --out {out}"), published=True),
    Benchmark("cross_subject", (f"run fit {FILES}", "run report --out {out}"), reads=True, published=True),
    Benchmark(
        "peers", tuple(f"run {part} {FILES}" for part in ("paint", "paint --setting default", "landscape", "report"))
    ),
    Benchmark("unit_coverage", (COVERAGE,), f"{COVERAGE} --only test_resnet test_vit", reads=True),
    Benchmark("speed", (f"run {FILES} {DEVICE}",), f"run {FILES} --quick", reads=True),
    Benchmark("sd15_speed", (f"run {FILES} {DEVICE}",), "run --out {out} --quick", reads=True),
)
