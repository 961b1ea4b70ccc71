"""Names that are no text, no line or no tag, in every field that a name can reach; the pages in a real browser.

``python tests/faults/hostile.py --rounds 300 --record names.jsonl``: text and bytes of hypothesis, markup, control
characters and formulas, of each kind a share. The name comes back as it was, or is refused in one line; no page has a
tag, a handler or a request of it, and no cell begins as a formula does.
"""

import argparse
import csv
import itertools
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from browser import Browser, browser, missing
from harness import counted, earlier
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lens_writers import table
from PIL import Image

sys.path += [str(Path(__file__).parent.parent / neighbour) for neighbour in ("report", "results")]
from page_reader import Page, make_background, make_result
from test_hostile import OURS, hostile_result

from vislens_interp import Comparison, LensResult
from vislens_interp.backends.cache import RowCache
from vislens_interp.brain.stimuli import export_stimuli, load_stimuli
from vislens_interp.files import load_state, save_state
from vislens_interp.images import ImageFiles, load_images
from vislens_interp.report.contact_sheet import ContactRow, ContactSheet
from vislens_interp.streams import usable_streams
from vislens_interp.tables import Dialect

FORMULA = ("=", "+", "-", "@", "\t", "\r")
PAYLOADS = [
    "<script src=/hit></script>",
    "<script>fetch('/hit')</script>",
    "<img src=/hit onerror=alert(1)>",
    "<svg onload=alert(1)><image href=/hit />",
    "<meta http-equiv=refresh content='0;url=/hit'>",
    "<iframe src=/hit></iframe>",
    "<link rel=stylesheet href=/hit>",
    "<style>@import '/hit'</style>",
    "<base href=//127.0.0.1/hit>",
    "<form action=/hit><button autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<object data=/hit></object>",
    "<a href=javascript:alert(1) autofocus onfocus=alert(1)>x",
    "<math><mtext></mtext><mglyph><style><img src=/hit>",
    "{{ config }}{% include '/etc/passwd' %}",
    "&lt;script&gt;&#60;img src=/hit&#62;",
]
BREAKS = ["", "'>", '">', "</title>", "</style>", "</svg>", "-->", "]]>", "</textarea>", "' style='x:url(/hit)' '"]
CONTROL = [*map(chr, range(32)), "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\ufeff", "\u200b", "\ufffe"]
FORMULAS = [
    "=1+1",
    "+1",
    "-2+3",
    "@SUM(A1)",
    "=cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1",
    " =1",
    "＝1",
    '=HYPERLINK("/hit")',
]
TOGETHER = 25
"""Names that are tried in one result, one folder and one page."""
KINDS = ("text", "bytes", "markup", "control", "formula")


def drawn(strategy: st.SearchStrategy[str], count: int) -> list[str]:
    """Distinct examples of hypothesis, the same in every run."""
    found: dict[str, None] = {}

    @settings(max_examples=4 * count, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(strategy)
    def collect(example: str) -> None:
        found.setdefault(example)

    collect()
    return [one for one in found if one][:count]


def names_of(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Kind and name, ``count`` in all."""
    draw, share = random.Random(seed), -(-count // len(KINDS))
    control = [
        "".join(draw.choice([*CONTROL, "a", "/", "<"]) for _ in range(draw.randint(1, 20))) for _ in range(share)
    ]
    formulas = [draw.choice(FORMULAS) + draw.choice(["", "a", "\n=1", ",", '"', "\t"]) + str(n) for n in range(share)]
    parts = {
        "text": drawn(st.text(min_size=1, max_size=40), share),
        "bytes": drawn(st.binary(min_size=1, max_size=40).map(os.fsdecode), share),
        "markup": [draw.choice(BREAKS) + draw.choice(PAYLOADS) + str(number) for number in range(share)],
        "control": control,
        "formula": formulas,
    }
    yield from ((kind, name) for kind in KINDS for name in parts[kind])


def file_name(name: str) -> str | None:
    """The name as one of a picture, or None where no file can have it."""
    made = name.replace("/", "-").replace("\0", "0").lstrip(".") + ".png"
    try:
        return made if len(os.fsencode(made)) < 200 else None
    except UnicodeEncodeError:  # a lone half of a pair: no bytes on a disk read as that
        return None


def check_files(names: list[str], folder: Path) -> None:
    """Pictures of these names are read, cached, and called what they are called."""
    made = sorted({one for name in names if (one := file_name(name)) is not None})
    (folder / "pictures").mkdir()
    for number, name in enumerate(made):
        with open(folder / "pictures" / name, "wb") as file:
            Image.new("RGB", (4, 4), (number, 99, 199)).save(file, "PNG")
    if not made:
        return
    images, found = load_images(folder / "pictures")
    assert set(found) == set(ImageFiles(folder / "pictures", 4).names) == set(made)
    cached = RowCache(folder / "cache", "rows", "f").rows(folder / "pictures", lambda part: part.flatten(1))
    assert cached.names == found
    assert torch.equal(cached.tensor(), images.flatten(1))


def check_tables(names: list[str], folder: Path) -> None:
    """The names in a result, stimuli and a comparison, and in their tables."""
    name, background = "".join(names), make_background()
    background.names[: len(names)] = names
    made = make_result(count=len(names), names=names, unit=name, layer=name, model=name, background=background)
    made.save(folder / "result")
    found = LensResult.load(folder / "result")
    assert (found.names, found.background.names) == (made.names, background.names)
    assert (found.unit, found.layer, found.model) == (name, name, name)
    export_stimuli(made, folder / "stimuli", size=8)
    rows = load_stimuli(folder / "stimuli").rows
    assert ({row["source"] for row in rows}, {row["target"] for row in rows}) == (set(names), {name})
    (values,) = list(table(0).scores.values())[:1]
    scores = {(one, "increase", "response_change"): values for one in names}
    Comparison(names, [name], [0], ["a", "b", "c"], scores).to_csv(folder / "comparison.csv")
    for path, delimiter in (
        (folder / "result/manifest.csv", ","),
        (folder / "result/reference.csv", ","),
        (folder / "stimuli/stimuli.tsv", "\t"),
        (folder / "comparison.csv", ","),
    ):
        with path.open(newline="", encoding="utf-8") as file:
            cells = list(csv.reader(file, Dialect, delimiter=delimiter))
        assert len({len(row) for row in cells}) == 1, path.name
        text = [cell for row in cells[1:] for cell in row if not _is_number(cell)]
        assert not any(cell.lstrip(" ").startswith(FORMULA) for cell in text), path.name
    state = load_state(save_state(folder / "state", "names", {"names": names, name: name}), "names")
    assert state == {"names": names, name: name}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def pages_of(names: list[str]) -> list[str]:
    """Pages in which each name stands wherever a text can stand."""
    name = "".join(names)
    text = {"unit": name, "layer": name, "model": name, "names": [name, *names[:2], *names[:2]][:3]}
    whole = hostile_result(
        **text,
        settings={
            **dict.fromkeys(("method", "judge", "similarity_network", "reference_set", "backend"), name),
            "direction": {name: name},
            "settings": {"edit": {"goal": name}, name: [name, {name: name}]},
            "versions": {name: name},
        },
    )
    images = dict.fromkeys(("increase", "decrease"), whole.images["inputs"])
    inputs, changes = images["increase"], dict.fromkeys(images, torch.ones(3))
    read, top = dict.fromkeys(("inputs", "unedited"), torch.ones(3)), whole.background.galleries["top"]
    sheet = ContactSheet(
        title=name,
        rows=[ContactRow(name, whole.evidence, top, inputs, inputs, whole.names, read, images, changes)],
        left_out={name: name},
        settings={"reference_set": name, "backend": name, "target": {name: name}, "settings": {name: name}},
    )
    cell = f"<!doctype html><meta charset=utf-8><title>x</title>{whole._repr_html_()}{whole.evidence._repr_html_()}"
    return [whole.html(), sheet.html(), cell]


def check_pages(pages: list[str], chromium: Browser | None) -> None:
    for page in pages:
        if not page.startswith("<!doctype html><meta"):  # a cell is no page
            Page(page)
        if chromium is not None:
            seen = chromium.look(page)
            assert seen["tags"] <= OURS | {"i", "em", "small"}, seen["tags"] - OURS
            assert not any(seen[what] for what in ("handlers", "asked", "alert", "led")), seen


def attempt(names: list[str], chromium: Browser | None) -> dict[str, str]:
    """What happens to some names, everywhere."""
    with tempfile.TemporaryDirectory(prefix="hostile") as temporary, open(os.devnull, "w", encoding="ascii") as nowhere:
        folder = Path(temporary)
        try:
            check_files(names, folder)
            check_tables(names, folder)
            kept, sys.stdout = sys.stdout, nowhere
            try:
                with usable_streams():
                    print(make_result(count=len(names), names=names, unit=names[0]).summary())
            finally:
                sys.stdout = kept
            check_pages(pages_of(names), chromium)
        except (ValueError, OSError) as error:
            if "\n" in str(error):
                return {"failure": f"more than one line: {error}"}
            return {"outcome": "refused", "message": str(error)}
        except Exception as error:  # noqa: BLE001 (what is looked for)
            return {"failure": f"{type(error).__name__}: {error}"}
    return {"outcome": "came back, no tag"}


def try_group(names: list[str], chromium: Browser | None) -> list[dict[str, str]]:
    """What happens to each; together, which is quicker, and one by one where something does."""
    together = attempt(names, chromium)
    if "failure" not in together and together["outcome"] != "refused":
        return [together] * len(names)
    return [attempt([name], chromium) for name in names]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="a file of rounds; a second run goes on with it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rounds = earlier(args.record)
    reason = missing()
    print(reason or "pages are looked at in chromium", file=sys.stderr)
    with nullcontext() if reason else browser() as chromium:
        names = list(names_of(args.rounds, args.seed))
        for start in range(len(rounds), len(names), TOGETHER):
            group = names[start : start + TOGETHER]
            for number, (kind, name), one in zip(
                itertools.count(start), group, try_group([name for _, name in group], chromium), strict=False
            ):
                about = {"writer": kind, "seed": f"{args.seed} {number}", "name": ascii(name), "browser": not reason}
                rounds.append(about | one)
                if args.record is not None:
                    with args.record.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(rounds[-1]) + "\n")
    failures = [one for one in rounds if "failure" in one]
    for one in failures:
        print(f"seed {one['seed']!r}, {one['name']}: {one['failure']}", file=sys.stderr)
    print(json.dumps({"rounds": len(rounds), "counts": counted(rounds), "failures": len(failures)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
