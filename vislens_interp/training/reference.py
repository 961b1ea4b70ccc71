"""Recipe: the embedded backend's reference set, from a folder of photographs with a table of their terms."""

import shutil
from functools import partial
from pathlib import Path

from vislens_interp import zoo
from vislens_interp.backends.depth_embedder import COMPONENTS, DepthEmbedder
from vislens_interp.backends.embedded import CELLS, GRID, INPUT, NETWORK, REFERENCE, STATISTICS
from vislens_interp.backends.reference_photographs import ReferencePhotographs, write_reference
from vislens_interp.files import write_atomically
from vislens_interp.tables import read_given
from vislens_interp.training.loop import Progress

ABOUT = (
    "Crops of photographs at several scales, on which a lens is fitted where no images are given. licences.csv within "
    "the zip names source, author and terms of each photograph."
)
LIST = "licences.csv"


def run(data: Path, out: Path, *, device: str = "cpu", seed: int = 0, size: int = 224) -> tuple[Path, Progress]:
    """Pack the photographs that ``licences.csv`` in the folder names, embed their crops, and fit a grid.

    The grid is that of ``grid=3``; without more crops than it has components there is none.

    Args:
        data: Folder with the photographs and ``licences.csv``, whose columns ``file`` and ``licence`` are read.
        out: Folder that the zip is made in.
        size: Side in pixels at which the crops are embedded.

    Returns:
        The zip, and what it holds.

    Raises:
        FileNotFoundError: There is no such table, or a photograph is missing.
        ValueError: The table lacks a column or rows, or two photographs have one name.
    """
    table = Path(data) / LIST
    if not table.is_file():
        raise FileNotFoundError(
            f"data={str(data)!r} holds no {LIST}; expected a table with the columns file and licence. Say for each "
            "photograph on which terms it may be passed on."
        )
    head, lines = read_given(table, "data")
    if missing := {"file", "licence"} - set(head):
        raise ValueError(
            f"data={str(table)!r} has the columns {', '.join(head)}; expected file and licence among them. Add "
            f"{' and '.join(sorted(missing))}."
        )
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    own = out.parents[1] / STATISTICS
    statistics = own if own.is_file() else zoo.weights(STATISTICS)
    embedder = DepthEmbedder(zoo.load(NETWORK), size=INPUT).load_statistics(statistics).to(device)
    path = write_reference(
        out / "reference.zip",
        [Path(data) / row["file"] for row in rows],
        table.read_text(encoding="utf-8"),
        embedder,
        size=size,
        seed=seed,
    )
    made = ReferencePhotographs(path, size)
    if len(made) > COMPONENTS:
        gridded = DepthEmbedder(zoo.load(NETWORK), size=INPUT, grid=CELLS, components=COMPONENTS).to(device)
        gridded.standardise(made[:])
        gridded.mean, gridded.scale = embedder.mean, embedder.scale
        gridded.save_statistics(path.with_name(Path(GRID).name))
    licences = sorted({row["licence"] for row in rows})
    said = f"{len(rows)} photographs, {len(made)} crops; licences: {', '.join(licences)}"
    return path, Progress(1, 0.0, [{"step": 1, "photographs": len(rows), "crops": len(made)}], said)


def save(made: Path, path: Path) -> Path:
    """Put the zip, and the grid, where the embedded backend looks for them."""
    for name in (GRID, REFERENCE):
        file = made.with_name(Path(name).name)
        if file.is_file():
            write_atomically(path.parent / name, partial(shutil.copyfile, file))
    return path.parent / REFERENCE
