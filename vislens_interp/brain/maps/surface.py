"""Preferences on a cortical surface: flat and inflated, with region names, and weak evidence beside."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vislens_interp.brain.maps.preference import PreferenceMap
from vislens_interp.brain.readers.trials import refuse_without
from vislens_interp.frames import figure_class
from vislens_interp.validation import check_word, closest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
"""Okabe and Ito's, which colour-blind people tell apart."""
WEAK, NOTHING = "#9a9a9a", "#ffffff"
VIEWS = ("flat", "lateral", "medial", "ventral", "dorsal", "anterior", "posterior")
_INCHES = (2.6, 2.2)
LABELLED = 40
"""Regions up to which names are written on the flat map."""


def surface_figure(
    found: PreferenceMap,
    *,
    regions: Any = None,
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
    from matplotlib.colors import ListedColormap, Normalize

    for view in views:
        check_word("views", view, VIEWS)
    chosen = _axes(found, axes)
    sides = _places_of_vertices(found, regions, targets)
    canvas = _Canvas()
    rows = 1 + len(chosen) + (found.evidence is not None)
    columns = 2 * len(views)
    figure = figure_class()(figsize=(_INCHES[0] * columns + 1.4, _INCHES[1] * rows + 0.3), layout="constrained")
    grid = figure.add_gridspec(rows, columns + 1, width_ratios=[1.0] * columns + [0.45])
    names = _centres(found, regions, targets, canvas) if "flat" in views else {}

    colours = ListedColormap([NOTHING, WEAK, *COLOURS[: len(found.axes)]])
    preferred = np.where(found.weak, 1, found.preferred + 2)
    preferred[(found.preferred < 0) & ~found.weak] = 0
    limit = float(np.nanmax(np.abs(found.scores))) if np.isfinite(found.scores).any() else 1.0
    maps: list[tuple[str, np.ndarray, Any, Any]] = [
        ("preferred", preferred.astype(float), colours, Normalize(-0.5, colours.N - 0.5))
    ]
    maps += [
        (
            name,
            np.where(found.weak, np.nan, found.scores[:, found.axes.index(name)]),
            "RdBu_r",
            Normalize(-limit, limit),
        )
        for name in chosen
    ]
    if found.evidence is not None:
        top = float(np.nanmax(found.evidence)) if np.isfinite(found.evidence).any() else 1.0
        maps.append(
            (
                found.evidence_unit,
                found.evidence,
                "viridis",
                Normalize(min(0.0, float(np.nanmin(found.evidence))), max(top, 1e-9)),
            )
        )
    for line, (title, values, cmap, norm) in enumerate(maps):
        for place, (side, view) in enumerate((side, view) for view in views for side in ("left", "right")):
            vertices = np.where(sides[side] < 0, np.nan, values[np.maximum(sides[side], 0)])
            axis = canvas.draw(figure, grid[line, place], side, view, vertices, cmap, norm)
            axis.set_title(f"{title}, {side}" + ("" if view == "flat" else f", {view}"), fontsize=8)
            if view == "flat" and line == 0:
                for name, where in names.get(side, {}).items():
                    axis.annotate(name, where, fontsize=6, ha="center", va="center")
        legend = figure.add_subplot(grid[line, columns])
        legend.axis("off")
        if line == 0:
            _legend(legend, found)
        else:
            last = found.evidence is not None and line == len(maps) - 1
            _colour_bar(figure, legend, cmap, norm, found.evidence_unit if last else found.unit)
    return figure


class _Canvas:
    """fsaverage5's meshes, read once, and hemispheres drawn of them."""

    def __init__(self) -> None:
        from nilearn.datasets import load_fsaverage, load_fsaverage_data

        self.meshes = load_fsaverage("fsaverage5")
        self.sulci = load_fsaverage_data(mesh="fsaverage5", mesh_type="inflated", data_type="sulcal")
        self.flat = {side: self._flat(side) for side in ("left", "right")}

    def _flat(self, side: str) -> Any:
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

    def draw(self, figure: Any, cell: Any, side: str, view: str, values: np.ndarray, cmap: Any, norm: Any) -> Any:
        if view != "flat":
            from nilearn.plotting import plot_surf

            axis = figure.add_subplot(cell, projection="3d")
            plot_surf(
                self.meshes["inflated"].parts[side],
                values,
                bg_map=self.sulci.data.parts[side],
                hemi=side,
                view=view,
                cmap=cmap,
                vmin=norm.vmin,
                vmax=norm.vmax,
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
        axis.tripcolor(triangles, facecolors=np.ma.masked_invalid(faces), cmap=cmap, norm=norm)
        axis.set_aspect("equal")
        axis.axis("off")
        return axis


def _legend(axis: Any, found: PreferenceMap) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=name) for colour, name in zip(COLOURS, found.axes, strict=False)]
    patches.append(Patch(facecolor=NOTHING, edgecolor="k", linewidth=0.4, label="nothing"))
    if found.evidence is not None:
        patches.append(Patch(color=WEAK, label=f"weak\n(< {found.threshold:g})"))
    axis.legend(handles=patches, loc="center left", fontsize=7, frameon=False)


def _colour_bar(figure: Any, axis: Any, cmap: Any, norm: Any, label: str) -> None:
    from matplotlib.cm import ScalarMappable

    figure.colorbar(ScalarMappable(norm, cmap), ax=axis, fraction=0.5, label=label).ax.tick_params(labelsize=7)


def _axes(found: PreferenceMap, axes: Sequence[str] | None) -> list[str]:
    chosen = list(found.axes[: len(COLOURS)] if axes is None else axes)
    for name in chosen:
        if name not in found.axes:
            raise KeyError(f"axis {name!r} is not in this map. {closest(name, found.axes, cutoff=0.4)}")
    if len(found.axes) > len(COLOURS):
        raise ValueError(
            f"this map has {len(found.axes)} axes; expected at most {len(COLOURS)}, of which colours are told apart. "
            "Make a map of fewer."
        )
    return chosen


def _parts(regions: Any) -> dict[str, np.ndarray]:
    parts = regions if isinstance(regions, Mapping) else getattr(getattr(regions, "data", None), "parts", None)
    if parts is None or any(side not in parts for side in ("left", "right")):
        raise ValueError(
            f"regions is a {type(regions).__name__}; expected region numbers of 'left' and 'right' of fsaverage5."
        )
    return {side: np.asarray(parts[side]).squeeze() for side in ("left", "right")}


def _places_of_vertices(found: PreferenceMap, regions: Any, targets: Any) -> dict[str, np.ndarray]:
    """The number of each vertex's place, (V,) for a hemisphere; -1 where there is none."""
    size = 10242
    if regions is None:
        if len(found.places) != 2 * size:
            raise ValueError(
                f"this map has {len(found.places)} places; expected {2 * size}, the vertices of fsaverage5. For "
                "regions pass regions= and targets=; resample other surfaces to fsaverage5 first."
            )
        return {"left": np.arange(size), "right": np.arange(size) + size}
    parts = _parts(regions)
    if targets is None or any(part.shape != (size,) for part in parts.values()):
        raise ValueError(
            f"regions has shapes { {side: part.shape for side, part in parts.items()} } and targets is {targets!r}; "
            f"expected ({size},) numbers a hemisphere (fsaverage5), and the region's name of each number."
        )
    place = {name: row for row, name in enumerate(found.places)}
    if missing := [name for name in place if name not in set(map(str, targets.values()))]:
        raise ValueError(
            f"targets gives no number to place {missing[0]!r} ({len(missing)} of {len(place)} have none); expected "
            f"one for each. {closest(missing[0], [str(name) for name in targets.values()], cutoff=0.4)}"
        )
    top = max(*(int(np.nanmax(part)) for part in parts.values()), *targets, 0)
    look_up = np.full(top + 1, -1)
    for number, name in targets.items():
        look_up[number] = place.get(str(name), -1)
    return {side: look_up[np.nan_to_num(part).astype(int)] for side, part in parts.items()}


def _centres(found: PreferenceMap, regions: Any, targets: Any, canvas: _Canvas) -> dict[str, dict[str, Any]]:
    """Where a region's name stands on the flat map of each hemisphere."""
    if regions is None or targets is None or len(found.places) > LABELLED:
        return {}
    names: dict[str, dict[str, Any]] = {"left": {}, "right": {}}
    for side, part in _parts(regions).items():
        points = np.stack([canvas.flat[side].x, canvas.flat[side].y], 1)
        for number, name in targets.items():
            inside = points[part == number]
            if str(name) in found.places and len(inside):  # the vertex nearest to the middle, which may lie outside
                names[side][str(name)] = inside[np.linalg.norm(inside - np.median(inside, 0), axis=1).argmin()]
    return names
