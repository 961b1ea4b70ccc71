"""Preferences on a cortical surface: flat and inflated, with region names, and weak evidence beside."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vislens_interp.brain.readers.surface import RegionNumbers, region_numbers
from vislens_interp.brain.readers.trials import refuse_without
from vislens_interp.frames import figure_class
from vislens_interp.validation import check_word, closest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec
    from matplotlib.tri import Triangulation

    from vislens_interp.brain.maps.preference import PreferenceMap

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
"""Okabe and Ito's, which colour-blind people tell apart."""
WEAK, NOTHING = "#9a9a9a", "#ffffff"
VIEWS = ("flat", "lateral", "medial", "ventral", "dorsal", "anterior", "posterior")
_INCHES = (2.6, 2.2)
LABELLED = 40
"""Regions up to which names are written on the flat map."""
SIDES, VERTICES = ("left", "right"), 10242
"""fsaverage5's hemispheres, and vertices of each."""


class _Row(NamedTuple):
    """One row of maps: (P,) values of places, and how they are coloured."""

    title: str
    values: np.ndarray
    cmap: "Colormap | str"
    norm: "Normalize"
    unit: str


def surface_figure(
    found: "PreferenceMap",
    *,
    regions: RegionNumbers | None = None,
    targets: Mapping[int, str] | None = None,
    views: Sequence[str] = ("flat",),
    axes: Sequence[str] | None = None,
) -> "Figure":
    """Maps on fsaverage5, which nilearn ships, so that nothing is downloaded.

    A row shows which axis each place prefers, the next ones its score along each axis, the last its evidence. Places
    with weak evidence are grey in all but the last.

    Args:
        found: Its places are the vertices of fsaverage5, the left hemisphere's 10,242 first, or regions.
        regions: (V,) region numbers, 0 outside, of ``"left"`` and ``"right"``: a mapping, or nilearn's SurfaceImage.
        targets: Names of the regions by their numbers, as :meth:`BrainDataset.from_surface` takes them.
        views: Of each hemisphere: ``"flat"`` (with the regions' names), or nilearn's views of the inflated surface.
        axes: Which axes get a row of their own; None is all, at most eight.

    Raises:
        ImportError: nilearn is not installed.
        KeyError, ValueError: A view or an axis is unknown, or places are neither vertices nor regions with a name.
    """
    refuse_without("nilearn", "brain", "PreferenceMap.surface")
    from matplotlib.cm import ScalarMappable

    for view in views:
        check_word("views", view, VIEWS)
    rows = _rows(found, axes)
    sides = _places_of_vertices(found, regions, targets)
    canvas = _Canvas()
    columns = 2 * len(views)
    figure = figure_class()(figsize=(_INCHES[0] * columns + 1.4, _INCHES[1] * len(rows) + 0.3), layout="constrained")
    grid = figure.add_gridspec(len(rows), columns + 1, width_ratios=[1.0] * columns + [0.45])
    for line, row in enumerate(rows):
        for place, (side, view) in enumerate((side, view) for view in views for side in SIDES):
            vertices = np.where(sides[side] < 0, np.nan, row.values[np.maximum(sides[side], 0)])
            axis = canvas.draw(figure, grid[line, place], side, view, vertices, row)
            axis.set_title(f"{row.title}, {side}" + ("" if view == "flat" else f", {view}"), fontsize=8)
            if view == "flat" and line == 0 and len(found.places) <= LABELLED:
                for number, name in enumerate(found.places):
                    if (where := canvas.middle(side, sides[side] == number)) is not None:
                        axis.annotate(name, where, fontsize=6, ha="center", va="center")
        legend = figure.add_subplot(grid[line, columns])
        legend.axis("off")
        if line == 0:
            _legend(legend, found)
        else:
            bar = figure.colorbar(ScalarMappable(row.norm, row.cmap), ax=legend, fraction=0.5, label=row.unit)
            bar.ax.tick_params(labelsize=7)
    return figure


def check_colours(found: "PreferenceMap") -> None:
    """Raise ValueError for more axes than there are colours."""
    if len(found.axes) > len(COLOURS):
        raise ValueError(
            f"this map has {len(found.axes)} axes; expected at most {len(COLOURS)}, of which colours are told apart. "
            "Make a map of fewer."
        )


def _rows(found: "PreferenceMap", axes: Sequence[str] | None) -> list[_Row]:
    """What is preferred, the scores along each axis, and the evidence."""
    from matplotlib.colors import ListedColormap, Normalize

    check_colours(found)
    chosen = found.known_axes(axes)
    colours = ListedColormap([NOTHING, WEAK, *COLOURS[: len(found.axes)]])
    preferred = np.where(found.preferred < 0, 0, found.preferred + 2)
    preferred = np.where(found.weak, 1, preferred).astype(float)
    rows = [_Row("preferred", preferred, colours, Normalize(-0.5, colours.N - 0.5), "")]
    limit = float(np.nanmax(np.abs(found.scores))) if np.isfinite(found.scores).any() else 1.0
    for name in chosen:
        values = np.where(found.weak, np.nan, found.scores[:, found.axes.index(name)])
        rows.append(_Row(name, values, "RdBu_r", Normalize(-limit, limit), found.unit))
    if found.evidence is not None:
        known = found.evidence[np.isfinite(found.evidence)]
        scale = Normalize(min(0.0, known.min()), max(known.max(), 1e-9)) if known.size else Normalize(0.0, 1.0)
        rows.append(_Row(found.evidence_unit, found.evidence, "viridis", scale, found.evidence_unit))
    return rows


class _Canvas:
    """fsaverage5's meshes, read once, and hemispheres drawn of them."""

    def __init__(self) -> None:
        from nilearn.datasets import load_fsaverage, load_fsaverage_data

        self.meshes = load_fsaverage("fsaverage5")
        self.sulci = load_fsaverage_data(mesh="fsaverage5", mesh_type="inflated", data_type="sulcal")
        self.flat = {side: self._flat(side) for side in SIDES}

    def _flat(self, side: str) -> "Triangulation":
        """Triangles in two dimensions; nilearn's flat mesh lies in a plane, and long faces only close its cuts."""
        from matplotlib.tri import Triangulation

        mesh = self.meshes["flat"].parts[side]
        points = mesh.coordinates
        wide = np.sort(np.argsort(np.ptp(points, axis=0))[1:])
        across, along = points[:, wide[0]], points[:, wide[1]]
        triangles = Triangulation(across, along, mesh.faces)
        corners = np.stack([across, along], 1)[mesh.faces]
        longest = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2).max(1)
        triangles.set_mask(longest > 8 * np.median(longest))
        return triangles

    def middle(self, side: str, inside: np.ndarray) -> tuple[float, float] | None:
        """Where a region's name stands on the flat map: its vertex nearest to the middle, which may lie outside."""
        points = np.stack([self.flat[side].x, self.flat[side].y], 1)[inside]
        if not len(points):
            return None
        x, y = points[np.linalg.norm(points - np.median(points, 0), axis=1).argmin()]
        return float(x), float(y)

    def draw(
        self, figure: "Figure", cell: "SubplotSpec", side: str, view: str, values: np.ndarray, row: _Row
    ) -> "Axes":
        """A hemisphere with the (V,) values of its vertices."""
        if view != "flat":
            from nilearn.plotting import plot_surf

            axis = figure.add_subplot(cell, projection="3d")
            plot_surf(
                self.meshes["inflated"].parts[side],
                values,
                bg_map=self.sulci.data.parts[side],
                hemi=side,
                view=view,
                cmap=row.cmap,
                vmin=row.norm.vmin,
                vmax=row.norm.vmax,
                colorbar=False,
                avg_method="median",
                axes=axis,
                figure=figure,
            )
            return axis
        axis = figure.add_subplot(cell)
        triangles = self.flat[side]
        sulcal = np.asarray(self.sulci.data.parts[side]).squeeze() > 0
        shades = np.where(sulcal[triangles.triangles].mean(1) > 0.5, 0.84, 0.92)
        axis.tripcolor(triangles, facecolors=shades, cmap="gray", vmin=0, vmax=1)
        # A face has the value that most of its corners have: names of axes have no mean.
        faces = np.median(values[triangles.triangles], 1)
        axis.tripcolor(triangles, facecolors=np.ma.masked_invalid(faces), cmap=row.cmap, norm=row.norm)
        axis.set_aspect("equal")
        axis.axis("off")
        return axis


def _legend(axis: "Axes", found: "PreferenceMap") -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=name) for colour, name in zip(COLOURS, found.axes, strict=False)]
    patches.append(Patch(facecolor=NOTHING, edgecolor="k", linewidth=0.4, label="nothing"))
    if found.evidence is not None:
        patches.append(Patch(color=WEAK, label=f"weak\n(< {found.threshold:g})"))
    axis.legend(handles=patches, loc="center left", fontsize=7, frameon=False)


def _places_of_vertices(
    found: "PreferenceMap", regions: RegionNumbers | None, targets: Mapping[int, str] | None
) -> dict[str, np.ndarray]:
    """The number of each vertex's place, (V,) for a hemisphere; -1 where there is none."""
    if regions is None:
        if len(found.places) != 2 * VERTICES:
            raise ValueError(
                f"this map has {len(found.places)} places; expected {2 * VERTICES}, the vertices of fsaverage5. For "
                "regions pass regions= and targets=; resample other surfaces to fsaverage5 first."
            )
        return {"left": np.arange(VERTICES), "right": np.arange(VERTICES) + VERTICES}
    numbers = region_numbers(regions)
    if numbers is None or any(side not in numbers for side in SIDES):
        raise ValueError(
            f"regions is a {type(regions).__name__}; expected region numbers of 'left' and 'right' of fsaverage5."
        )
    parts = {side: numbers[side] for side in SIDES}
    if targets is None or any(part.shape != (VERTICES,) for part in parts.values()):
        raise ValueError(
            f"regions has shapes { {side: part.shape for side, part in parts.items()} } and targets is {targets!r}; "
            f"expected ({VERTICES},) numbers a hemisphere (fsaverage5), and the region's name of each number."
        )
    names = [str(name) for name in targets.values()]
    if missing := [place for place in found.places if place not in names]:
        raise ValueError(
            f"targets gives no number to place {missing[0]!r} ({len(missing)} of {len(found.places)} have none); "
            f"expected one for each. {closest(missing[0], names, cutoff=0.4)}"
        )
    places = {
        number: found.places.index(name) for number, name in zip(targets, names, strict=True) if name in found.places
    }
    whole = {side: np.nan_to_num(part).astype(int).tolist() for side, part in parts.items()}
    return {side: np.array([places.get(number, -1) for number in part]) for side, part in whole.items()}
