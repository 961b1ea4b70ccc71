"""The report of a result: one HTML page, which needs neither other files nor a network."""

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from vislens_interp.images import to_pil
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.math import pearson
from vislens_interp.report import charts
from vislens_interp.report.charts import number
from vislens_interp.report.style import page_head

if TYPE_CHECKING:
    from vislens_interp.results.background import Background, TopImages
    from vislens_interp.results.result import LensResult

LABELS = {
    "reference": "reference",
    "unedited": "α = 0",
    "increase": "preferred",
    "decrease": "suppressed",
    "custom": "edited",
}
SMALL = 64
"""Pixels up to which a picture is shown with its pixels as they are."""
LARGEST = 256
"""Pixels to which larger pictures are reduced in a page; the files beside it keep theirs."""


def result_page(result: "LensResult", *, max_images: int = 8) -> str:
    """The report of one unit.

    Args:
        result: What to show; parts for which it holds nothing are left out, and the page says so.
        max_images: The first so many inputs are shown; plots and numbers are of all.

    Returns:
        HTML: no scripts, no fonts, no links to other files; pictures as data URIs, charts as inline SVG.

    Raises:
        ValueError: ``max_images`` is below 1.
    """
    if max_images < 1:
        raise ValueError(f"max_images={max_images} must be at least 1.")
    behind = result.background
    sections = [_outcome(result), _pictures(result, max_images), _evidence(result.evidence)]
    if behind is None:
        sections.append(
            _section("The reference set", "<p>Nothing about it was kept with this result: no plots of it here.</p>")
        )
    else:
        sections += [_plots(result, behind), _top(result, behind), _modes(result, behind)]
    sections.append(_settings(result))
    title = escape(result.title)
    return (
        f'{page_head(title)}<body>\n<header><p class="mark">vislens_interp report</p><h1>{title}</h1>'
        f'<p class="soft">{escape(result.recipe)}; fitted on {escape(reference_label(result.settings))}.</p>'
        f"{warning(result.evidence)}</header>\n<main>\n{''.join(sections)}</main>\n{footer()}</body>\n</html>\n"
    )


def reference_label(settings: Mapping[str, Any]) -> str:
    """What the reference set is, in words that never call made pictures natural."""
    kind = str(settings.get("reference_set", "a reference set that nobody named"))
    return f"a {kind} (pictures that a generator made, no photographs)" if kind.startswith("synthetic") else kind


def warning(evidence: Evidence | None) -> str:
    """A banner where the pictures should be doubted, else nothing."""
    if evidence is not None and not evidence.weak:
        return ""
    strong = "No evidence" if evidence is None else "Weak evidence"
    why = "none was gathered for this unit" if evidence is None else "; ".join(evidence.reasons)
    return f'<p class="warning"><strong>{strong}: doubt these pictures.</strong> {escape(sentence(why))}</p>'


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def footer() -> str:
    """What no picture of this kind shows."""
    return (
        "<footer><p>A picture with a high response is a hypothesis about the unit, made and measured in silico; it "
        "inherits the biases of the images and the generator behind it.</p></footer>\n"
    )


def picture(image: Tensor, alt: str) -> str:
    """An ``<img>`` of (3, H, W) with its pixels in it.

    PNG up to 64 px, where every pixel is seen; above, reduced to 256 px at most and WebP, so that a page stays small.
    """
    (shown,) = to_pil(image[None])
    small = max(shown.size) <= SMALL
    if max(shown.size) > LARGEST:
        shown.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        shown.save(buffer, "PNG", optimize=True)
    else:
        shown.save(buffer, "WEBP", quality=85, method=6)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    kind = "png" if small else "webp"
    return (
        f'<img{" class=pixels" if small else ""} width="{shown.width}" height="{shown.height}" '
        f'alt="{escape(alt, quote=True)}" src="data:image/{kind};base64,{data}">'
    )


def short_name(name: str, length: int = 28) -> str:
    """The end of a name, for what tells files apart mostly comes last."""
    name = name.rsplit("/", 1)[-1]
    return name if len(name) <= length else "…" + name[1 - length :]


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}</section>\n"


def _outcome(result: "LensResult") -> str:
    table = result.statistics()
    facts = []
    for key in result.directions:
        row = table[key]
        share = row["share_right_way"]
        right = "" if share is None else f" {round(share * len(result))} of {len(result)} the right way."
        right += _at_the_floor(result, key)
        facts.append(
            f'<div class="fact {key}">{sentence(LABELS[key])[:-1]}<b>{_spread(row["response_change"])} SD</b>'
            f"against α = 0.{right}{_similar(row)}</div>"
        )
    row = table["unedited"]
    facts.append(
        f'<div class="fact unedited">The pipeline alone, α = 0<b>{_spread(row["response_change_from_input"])} SD</b>'
        f"against the input.{_similar(row)}</div>"
    )
    judge = result.settings.get("judge") or f"{result.model} itself, the network that guided them"
    said = f"Mean ± SD over {_count(len(result), 'picture')}; 1 SD = {result.response_std:.4g} of raw response. "
    said += f"Responses are judged by {judge}."
    if result.similarity:
        network = result.settings.get("similarity_network") or "a network that nobody named"
        said += f" Similarity to the input: cosine in {network}."
    return _section(
        "What came out", f'<div class="facts">{"".join(facts)}</div><p class="small soft">{escape(said)}</p>'
    )


def _at_the_floor(result: "LensResult", key: str) -> str:
    """How many pictures could not go lower: a rectified unit is silent for many, edited or not."""
    if result.background is None or result.wanted_sign(key) != -1:
        return ""
    floor = result.background.responses.min().item() + 1e-3 * result.response_std
    silent = int((result.responses["unedited"] <= floor).sum())
    return f" {silent} had the reference set's lowest response before." if silent else ""


def _similar(row: Mapping[str, Any]) -> str:
    return f" Similarity {row['similarity']['mean']:.2f}." if "similarity" in row else ""


def _pictures(result: "LensResult", max_images: int) -> str:
    shown = min(max_images, len(result))
    sets = []
    for row in range(shown):
        name = result.names[row]
        shots = "".join(_shot(result, key, row) for key in result.images)
        sets.append(f'<article class="set"><h3>{escape(short_name(name))}</h3><div class="row">{shots}</div></article>')
    few = f" The first {shown} of {len(result)} are shown; all are in the folder images." if shown < len(result) else ""
    lead = (
        '<p class="small soft">Below each picture its response in SDs from the mean of the reference set, and Δr, the '
        "change against α = 0: the same pipeline and seed without the edit, whose own step from the input stands below "
        f"it. ✗: not the wanted way.{few}</p>"
    )
    return _section("Pictures", f'{lead}<div class="sets">{"".join(sets)}</div>')


def _shot(result: "LensResult", key: str, row: int) -> str:
    response = number(result.standardised[key][row].item())
    alt = f"{LABELS[key]}, {short_name(result.names[row])}: response {response} SD"
    below = ""
    if key == "unedited":
        change = number(result.response_change_from_input[key][row].item())
        alt += f", {change} from the input"
        below = f'<span class="soft">{change} from input</span>'
    elif key != "reference":
        value = result.response_change[key][row].item()
        sign = result.wanted_sign(key)
        wrong = sign is not None and not sign * value > 0
        alt += f", change {number(value)} SD{', not the wanted way' if wrong else ''}"
        below = f'<span class="change">Δr {number(value)}{" ✗" if wrong else ""}</span>'
    return (
        f'<figure class="shot {key}">{picture(result.images[key][row], alt)}<figcaption>'
        f'<span class="what">{LABELS[key]}</span>{response} SD{"<br>" if key == "unedited" else ""}{below}'
        "</figcaption></figure>"
    )


def _evidence(evidence: Evidence | None) -> str:
    if evidence is None:
        return _section("Evidence", "<p>None was gathered, so that nothing says if the landscape knows this unit.</p>")
    rows = [
        (
            "Held-out correlation",
            f"{evidence.correlation:.2f}",
            f"of the landscape's axis with the response, on {evidence.held_out} images that the fit never saw",
        ),
        (
            "p",
            f"{evidence.p_value:.3f}",
            f"by permutation, from {_count(evidence.shuffles, 'fit')} on shuffled responses",
        ),
        (
            "Strong images",
            f"{evidence.strong_images} of {evidence.images}",
            "reference images at least 1 SD from the mean",
        ),
        (
            "Kept variance",
            f"{evidence.reconstruction:.0%}",
            "of held-out images, after a latent and back: what is lost there cannot be shown",
        ),
    ]
    body = "".join(f'<tr><th scope="row">{a}</th><td class="n">{b}</td><td>{c}</td></tr>' for a, b, c in rows)
    verdict = "Weak: doubt these pictures." if evidence.weak else "Good: the landscape knows this unit."
    why = f" {escape(sentence('; '.join(evidence.reasons)))}" if evidence.weak else ""
    return _section("Evidence", f"<p><strong>{verdict}</strong>{why}</p><table><tbody>{body}</tbody></table>")


def _plots(result: "LensResult", behind: "Background") -> str:
    keys = list(result.images)
    standard = (behind.responses - result.response_mean) / result.response_std
    means = {key: result.standardised[key].nanmean().item() for key in keys}
    said = ", ".join(f"{LABELS[key]} {number(value)}" for key, value in means.items())
    kind = reference_label(result.settings)
    boxes = [
        _chart(
            "Responses",
            charts.histogram(
                standard,
                result.standardised,
                LABELS,
                title="Histogram of responses over the reference set",
                description=f"{len(standard)} images from {number(standard.min().item())} to "
                f"{number(standard.max().item())} SDs. Means of the shown pictures: {said}.",
            ),
            f"Bars: {len(standard):,} reference images, {kind}. Below: the pictures here; upright line: their mean.",
        )
    ]
    usable = behind.changes[:, behind.changes.isfinite().all(0)] if behind.alphas else behind.changes
    if len(behind.alphas) > 1 and usable.shape[1] > 0:
        spread = usable.std(1).tolist() if usable.shape[1] > 1 else [None] * len(usable)
        rows = list(zip(behind.alphas, usable.mean(1).tolist(), spread, strict=True))
        body = "".join(
            f'<tr><td class="n">{_alpha(alpha)}</td><td class="n">{number(mean)}</td>'
            f'<td class="n">{"–" if sd is None else f"{sd:.2f}"}</td></tr>'
            for alpha, mean, sd in rows
        )
        table = (
            '<details><summary>The numbers</summary><table><thead><tr><th scope="col" class="n">α</th><th scope="col" '
            f'class="n">mean change, SDs</th><th scope="col" class="n">SD over images</th></tr></thead><tbody>{body}'
            "</tbody></table></details>"
        )
        boxes.append(
            _chart(
                "Dose and response",
                charts.dose_response(
                    behind.alphas,
                    usable,
                    title="Change of the response against the weight of the edit",
                    description="; ".join(f"α {_alpha(alpha)}: mean {number(mean)} SD" for alpha, mean, _ in rows)
                    + ".",
                ),
                f"{_count(usable.shape[1], 'picture')}: thin lines, one each; thick line, mean; band, ± 1 SD over "
                f"pictures. All against α = 0.{table}",
            )
        )
    arrows = "Arrows: from the pictures' own latents (circles) to the edited ones. " if behind.moves else ""
    goal = result.settings.get("settings", {}).get("edit", {}).get("goal")
    crosses = ", where α = 1 leads" if result.settings.get("method") == "edit" and goal == "mean" else ""
    boxes.append(
        _chart(
            "The landscape",
            charts.landscape(
                behind.positions,
                standard,
                behind.means,
                behind.moves,
                title="The landscape from above: two latent axes, mean response as colour",
                description=f"{len(standard)} reference images; position on the unit's axis and response correlate, "
                f"r = {pearson(behind.positions[:, 0], standard).item():.2f}.",
            ),
            f"Each hexagon: the reference images there, coloured by their mean response. {arrows}Crosses: prior means"
            f"{crosses}.",
        )
    )
    return _section("The unit over its reference set", f'<div class="charts">{"".join(boxes)}</div>')


def _chart(title: str, svg: str, caption: str) -> str:
    return f'<figure class="chartbox"><h3>{title}</h3>{svg}<figcaption>{caption}</figcaption></figure>'


def _top(result: "LensResult", behind: "Background") -> str:
    if "top" not in behind.galleries:
        return _section("Top images", "<p>The reference images were not at hand when this result was made.</p>")
    top = behind.galleries["top"]
    lead = (
        f"<p>The {len(top.names)} of {len(behind.responses):,} reference images that drive the unit most: the reality "
        f"check beside every made picture. Reference: {escape(reference_label(result.settings))}.</p>"
    )
    return _section("Top images", lead + gallery(top, result.response_mean, result.response_std, "top image"))


def gallery(row: "TopImages", mean: float, std: float, what: str) -> str:
    """Reference images in a row, with their responses in SDs."""
    if not row.names:
        return "<p>There are none.</p>"
    shots = []
    values = ((row.responses - mean) / std).tolist()
    for index, (image, value, name) in enumerate(zip(row.images, values, row.names, strict=True)):
        alt = f"{what} {index + 1}, {short_name(name)}: response {number(value)} SD"
        shots.append(f'<figure class="shot">{picture(image, alt)}<figcaption>{number(value)} SD</figcaption></figure>')
    return f'<div class="gallery">{"".join(shots)}</div>'


def _modes(result: "LensResult", behind: "Background") -> str:
    count = max((len(means) for means in behind.means.values()), default=1)
    if count < 2:
        return ""
    lead = (
        f"<p>This landscape has {count} preferred and {count} suppressed means, for images that drive the unit alike "
        "may look unlike. An edit goes to the mean nearest to each picture. Shown are the strongly driven reference "
        "images nearest to each; the numbers are those of the crosses in the landscape.</p>"
    )
    parts = []
    for key, row in behind.galleries.items():
        direction, _, mode = key.rpartition("_")
        if direction:
            name = f"{LABELS[direction]} mean {mode}"
            shown = gallery(row, result.response_mean, result.response_std, name)
            parts.append(f'<div class="set"><h3>{sentence(name)[:-1]}</h3>{shown}</div>')
    return _section("Modes", f'{lead}<div class="sets">{"".join(parts)}</div>')


def _settings(result: "LensResult") -> str:
    scale = f"mean {result.response_mean:.7g}, SD {result.response_std:.7g}"
    return _section(
        "Settings",
        "<p>Everything that is needed to make it again; the same is in <code>result.json</code>. The unit's raw "
        f"responses over the reference set: {scale}.</p>{settings_table(result.settings)}",
    )


def settings_table(settings: Mapping[str, Any]) -> str:
    """Nested settings as a table that opens."""
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td><code>{escape(value)}</code></td></tr>'
        for name, value in _flat(dict(settings))
    )
    return f'<details><summary>All settings</summary><table class="settings"><tbody>{rows}</tbody></table></details>'


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and text."""
    if isinstance(value, dict) and value:
        return [row for key, item in value.items() for row in _flat(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list):
        return [(name, ", ".join(str(item) for item in value) or "none")]
    return [(name, "none" if value is None or value == {} else str(value))]


def _spread(spread: Mapping[str, float | None]) -> str:
    mean, sd = spread["mean"], spread["sd"]
    return number(mean or 0.0) + ("" if sd is None else f" ± {sd:.2f}")


def _alpha(alpha: float) -> str:
    return f"{alpha:g}".replace("-", "−")


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
