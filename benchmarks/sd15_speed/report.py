"""Tables of the full path's speed."""

from statistics import median
from typing import Any

from benchmarks.common.findings import Aim, Findings, Measure
from benchmarks.common.tables import fill_lines, table, table_text

PAPER_HOURS = 6.5
STEPS, FEW_STEPS, PICTURES = 50, 8, 2000
PAPER_RATE = 0.48  # pictures a second, RTX A5000 (the paper)
RATE_GOAL = 3.0  # pictures a second on an H200
MEMORY_GOAL = 6e9  # bytes at batch 1 in half precision


def fit_lines(fits: list[dict[str, Any]]) -> list[str]:
    head = ["embeddings", "recipe", "epochs or rounds", "s in all (CPU s)"]
    head.append("epochs (s) to the paper's recipe's best validation loss")
    rows = [[*head, "validation loss", "training loss", "held-out axis r"]]
    for one in fits:
        for recipe, words in (("adam", "Table S3: Adam"), ("alternating", "exact rounds")):
            row, reached = one[recipe], one[recipe]["seconds_to_goal"]
            cells = [f"{one['name']}, {one['images']:,} × {one['dim']:,}", words, row["epochs"]]
            cells.append(f"{row['seconds']:.1f} ({row['cpu_seconds']:.1f})")
            cells.append("not reached" if reached is None else f"{row['epochs_to_goal']} ({reached:.1f})")
            cells += [f"{row[name]:.2f}" for name in ("validation_loss", "training_loss")]
            rows.append([*cells, f"{row['axis_correlation']:.3f}"])
    return fill_lines(__file__, "fit", table=table_text(rows), hours=PAPER_HOURS)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def generation_lines(found: dict[str, Any], device: str, cpus: int) -> list[str]:
    """The tables as markdown; ``found`` holds counts, parts, embedding and, from a GPU, grid and grid_rate."""
    counted, timed, seen = found["counts"], found["parts"], found["embedding"]
    head = ["part", "TFLOP, counted", "s, median (each)", "CPU s", "GFLOP/s", "matrix rate, before and after", "share"]
    rows = [head]
    for words, name, source in (
        ("one denoising step", "step", timed),
        ("decoding by the VAE", "decode", timed),
        (f"embedding an image (of {seen['images']} at once)", "embed", seen),
    ):
        seconds, rates, cpu = median(source[name]), source["rates"], median(source[f"{name}_cpu"])
        speed = counted[name] / seconds
        each = ", ".join(f"{value:.3g}" for value in source[name])
        row = [f"{words}, {source['dtype']}", f"{counted[name] / 1e12:.3g}", f"{_number(seconds)} ({each})"]
        row += [_number(cpu), _number(speed / 1e9), ", ".join(_number(rate / 1e9) for rate in rates)]
        rows.append([*row, f"{speed / (sum(rates) / len(rates)):.0%}"])
    tera = counted["picture"] / 1e12
    lines = fill_lines(
        __file__,
        "generation",
        timed=timed,
        steps=STEPS,
        table=table_text(rows),
        tera=tera,
        where="tensors on the GPU" if timed["device"] == "cuda" else "resident memory of a process of its own",
        memory=timed["memory"] / 1e9,
        embedder_memory=seen["memory"] / 1e9,
        weights=2 * counted["weights"] / 1e9,
        cpus=cpus,
    )
    paper = f"The paper's GPU (RTX A5000): {PAPER_RATE} a second, {_duration(PICTURES / PAPER_RATE)}."
    if "grid" in found:
        said = _on_a_gpu(found["grid"], 2 * counted["embedder_weights"], device, paper)
        return [*lines, "", *_grid_lines(found, counted["picture"]), said]
    one = STEPS * median(timed["step"]) + median(timed["decode"])
    estimate = fill_lines(
        __file__,
        "estimate",
        count=len(timed["step"]),
        picture=_duration(one),
        pictures=PICTURES,
        pictures_take=_duration(PICTURES * one),
        reference=_duration(9000 * median(seen["embed"])),
        paper=paper,
        goal=RATE_GOAL,
        goal_tera=RATE_GOAL * tera,
        rate=PAPER_RATE,
        rate_tera=PAPER_RATE * tera,
        memory=MEMORY_GOAL / 1e9,
    )
    return [*lines, "", *estimate]


def path_lines(paths: list[dict[str, Any]]) -> list[str]:
    rows = [["`backend=`", "pixels", "steps", "TFLOP a step", "TFLOP of decoding", "TFLOP a picture", "of the first"]]
    whole = [row["steps"] * row["step"] + row["decode"] for row in paths]
    for row, total in zip(paths, whole, strict=True):
        cells = [row["backend"], f"{row['pixels']:,}", row["steps"]]
        cells += [f"{value / 1e12:.3g}" for value in (row["step"], row["decode"], total)]
        rows.append([*cells, f"{total / whole[0]:.2f}"])
    lines = ["## Operations of each path to a picture, counted on the published shapes; nothing was drawn", ""]
    return [*lines, *table(rows), "", 'A step has two rows, for guidance. 8 steps are those of `speedup="hyper-sd"`.']


def _on_a_gpu(grid: list[dict[str, Any]], beside: float, device: str, paper: str) -> str:
    """What was met; ``beside`` are the bytes of the embedder, which stays where pictures are made."""
    fitting = [cell for cell in grid if cell["rate"]]
    if not fitting:
        return f"**Not measured: no batch fits on this {device}.** {paper}"
    best = max(fitting, key=lambda cell: cell["rate"])
    plain = [cell["memory"] for cell in grid if cell["batch"] == 1 and cell["variant"] == "float16"]
    scaled = "" if best["steps"] == STEPS else f", scaled from {best['steps']} to {STEPS} steps"
    seconds = PICTURES / best["rate"] * STEPS / best["steps"]
    rate = "not measured" if scaled else "met" if best["rate"] >= RATE_GOAL else "NOT MET"
    memory = "not measured"
    if plain and plain[0] is not None:
        whole = plain[0] + beside
        memory = f"{'met' if whole < MEMORY_GOAL else 'NOT MET'}, {whole / 1e9:.2f} GB with the embedder's weights"
    return (
        f"**{PICTURES:,} pictures, an estimate: {_duration(seconds)}**, from {best['rate']:.2f} a second "
        f"({best['variant']}, batch {best['batch']}){scaled}. {paper} Goals: at least {RATE_GOAL:g} a second on an "
        f"H200: {rate} on this {device}; peak memory at batch 1 in float16 under {MEMORY_GOAL / 1e9:g} GB: {memory}."
    )


def _grid_lines(found: dict[str, Any], picture: float) -> list[str]:
    rows = [["variant", "batch", "pictures/s", "peak memory", "share", "first call at this batch, s"]]
    for cell in found["grid"]:
        row = [cell["variant"], cell["batch"]]
        if cell["rate"] is None:
            rows.append([*row, "does not fit", "", "", ""])
            continue
        memory = "not measured" if cell["memory"] is None else f"{cell['memory'] / 1e9:.2f} GB"
        share = cell["rate"] * picture / found["grid_rate"][cell["variant"].partition(",")[0]]
        row += [f"{cell['rate']:.2f}", memory, f"{share:.0%}" if cell["steps"] == STEPS else "-"]
        rows.append([*row, f"{cell['first_call']:.1f}"])
    return ["## Whole pictures a second, peak memory, share of the matrix rate", "", *table(rows)]


def findings(numbers: dict[str, Any]) -> Findings:
    """A landscape of the paper's size: our fit reaches the paper's best validation loss within a minute."""
    aims, measures = [], []
    for name in ("fit, simulated", "fit, photographs"):
        if name not in numbers["parts"]:
            aims.append(Aim(f"Part {name!r} has not been measured.", None))
            continue
        found = numbers["parts"][name]["found"]
        seconds = found["alternating"]["seconds_to_goal"]
        sample = f"{found['name']}, {found['images']:,} × {found['dim']:,}"
        took = "never" if seconds is None else f"in {seconds:.1f} s"
        text = f"{sample}: exact rounds reach the published recipe's best validation loss {took} (wanted: 60 s)."
        aims.append(Aim(text, seconds is not None and seconds <= 60))
        if seconds is not None:
            what = "exact rounds, to the published recipe's best validation loss"
            measures.append(Measure(what, seconds, "s", sample))
    return Findings(tuple(aims), tuple(measures))
