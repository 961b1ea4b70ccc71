import itertools
import re

import numpy as np
import pytest
import torch
from page_reader import GOOD, WEAK, Page, loads_nothing, make_background, make_result, picture_of

from vislens_interp.images import to_pil
from vislens_interp.report import charts
from vislens_interp.report.page import number
from vislens_interp.results.words import Word, Words


def test_the_page_is_whole_and_loads_nothing():
    for modes in (1, 2):
        page = Page(make_result(modes=modes).html())
        loads_nothing(page)
        assert ("html", {"lang": "en"}) in page.tags
        assert "width=device-width" in page.html
        assert "prefers-color-scheme:dark" in page.html


def test_every_picture_with_its_numbers_in_words():
    result = make_result()
    images = {values["alt"]: values["src"] for values in Page(result.html()).of("img")}
    words = {"inputs": "input", "unedited": "α = 0", "increase": "preferred", "decrease": "suppressed"}
    for key, word in words.items():
        for row in range(3):
            (alt,) = [alt for alt in images if alt.startswith(f"{word}, cat {row}.jpg: response ")]
            assert f"response {number(result.standardised[key][row].item())} SD" in alt
            if key in result.directions:
                change = result.response_change[key][row].item()
                assert f"change {number(change)} SD" in alt
                assert ("not the wanted way" in alt) == ((change > 0) != (key == "increase"))
            shown, kind = picture_of(images[alt])
            assert kind == "PNG"
            assert np.array_equal(shown, np.asarray(to_pil(result.images[key])[row]))


def test_no_picture_is_without_words():
    page = Page(make_result(modes=2).html())
    assert len(page.of("img")) > 30
    assert all(values["alt"].strip() for values in page.of("img"))
    assert all(values["role"] == "img" and len(values["aria-label"]) > 40 for values in page.of("svg"))
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count("h1") == 1
    levels = [int(tag[1]) for tag in headings]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_weak_evidence_is_said_first_and_plainly():
    page = Page(make_result(evidence=WEAK).html())
    assert "Weak evidence: doubt these pictures. Held-out correlation 0.05 is below 0.1." in page.text
    assert page.text.index("doubt these pictures") < page.text.index("What came out")
    assert "No evidence: doubt these pictures." in Page(make_result(evidence=None).html()).text
    good = Page(make_result(evidence=GOOD).html())
    assert "doubt" not in good.text
    assert "Good: the landscape predicts what the unit answers to images that the fit never saw." in good.text
    assert "Held-out correlation 0.60" in good.text
    assert "300 of 1000" in good.text


def test_a_synthetic_reference_is_never_called_natural():
    text = Page(make_result(modes=2).html()).text
    assert "a synthetic reference (pictures that a generator made, no photographs)" in text
    assert "natural" not in text.lower()
    given = Page(make_result(settings={"reference_set": "given images"}).html()).text
    assert "synthetic reference" not in given
    assert "given images" in given


def test_names_are_text_and_nothing_else():
    names = ["<script>alert(1)</script>.png", '"><img src=x onerror=y>.png', "a & b.png"]
    result = make_result(names=names, unit="<b>", settings={"note": "</details><script>"})
    page = Page(result.html())
    loads_nothing(page)
    assert "a & b.png" in page.text
    assert "unit <b>" in page.text
    assert "</details><script>" in page.text


def test_large_pictures_are_reduced_and_the_page_stays_small():
    smooth = torch.nn.functional.interpolate(torch.rand(8, 3, 6, 6), size=512, mode="bicubic").clamp(0, 1)
    result = make_result(8)
    result.images = dict.fromkeys(result.images, smooth)
    html = result.html()
    loads_nothing(Page(html))
    sources = [values["src"] for values in Page(html).of("img")]
    shown, kind = picture_of(sources[-1])  # after the top images, which are small
    assert kind == "WEBP"
    assert shown.shape == (256, 256, 3)
    assert len(html) < 600_000


def test_the_first_images_are_shown_and_the_page_says_so():
    result = make_result(20)
    assert "The first 8 of 20 are shown" in Page(result.html()).text
    page = Page(result.html(max_images=2))
    assert len([values for values in page.of("img") if values["alt"].startswith("preferred, ")]) == 2
    with pytest.raises(ValueError, match="max_images=0 must be at least 1"):
        result.html(max_images=0)


def test_what_is_not_there_is_said():
    page = Page(make_result(background=None).html())
    assert "Nothing about it was kept with this result" in page.text
    assert page.of("svg") == []
    assert "were not at hand" in Page(make_result(background=make_background(pictures=False)).html()).text
    assert "Modes" not in Page(make_result().html()).text


def test_modes_are_shown_with_their_images():
    page = Page(make_result(modes=2).html())
    for name in ("Preferred mean 1", "Preferred mean 2", "Suppressed mean 1", "Suppressed mean 2"):
        assert name in page.text
    assert "An edit goes to the mean nearest to each picture." in page.text
    asked = Page(make_result(modes=2, settings={"method": "edit", "mode": 1}).html()).text
    assert "These edits went to mean 2, which was asked for." in asked
    assert "nearest to each picture" not in asked


@pytest.mark.parametrize("directions", [("increase",), ("decrease",), ("custom",)])
def test_one_direction_and_one_image(directions):
    page = Page(make_result(1, directions).html())
    loads_nothing(page)
    assert "nan" not in page.text
    assert "over 1 picture;" in page.text


def test_a_response_that_is_no_number_is_drawn_around():
    result = make_result()
    result.responses["increase"][1] = torch.nan
    result.background.changes[2, 1] = torch.nan
    html = result.html()
    assert not re.search(r'(cx|cy|x1|y1|x2|y2|d|points)="[^"]*nan', html)
    assert "2 pictures: thin lines" in Page(html).text


def test_dose_and_response_in_numbers():
    page = Page(make_result().html())
    assert "−1 −2.00 0.00 0 +0.00 0.00 1 +2.00 1.00" in page.text
    (chart,) = [values["aria-label"] for values in page.of("svg") if "weight of the edit" in values["aria-label"]]
    assert "α −1: mean −2.00 SD; α 0: mean +0.00 SD; α 1: mean +2.00 SD." in chart


def test_every_setting_is_there():
    settings = {"alpha": 0.5, "settings": {"fit": {"epochs": 7}}, "doses": [0.25, 0.5], "mode": None}
    text = Page(make_result(settings=settings).html()).text
    for said in ("alpha 0.5", "settings.fit.epochs 7", "doses 0.25, 0.5", "mode none", "versions.torch"):
        assert said in text


@pytest.mark.parametrize(
    ("method", "goal", "leads"),
    [("edit", "mean", True), ("edit", "uphill", False), ("edit", "near", False), ("optimize", "mean", False)],
)
def test_only_an_edit_to_the_mean_ends_at_the_crosses(method, goal, leads):
    page = Page(make_result(settings={"method": method, "settings": {"edit": {"goal": goal}}}).html())
    assert "Crosses: prior means" in page.text
    assert ("where α = 1 leads" in page.text) == leads


def test_pictures_at_the_floor_are_counted():
    result = make_result(3)
    floor = result.background.responses.min()
    result.responses["unedited"] = torch.tensor([floor, floor, floor + 1])
    assert "2 had the reference set's lowest response before." in Page(result.html()).text


# Charts, with answers that are known


def numbers(svg, tag, kind, *names):
    found = re.findall(rf'<{tag} class="{kind}"[^>]*>', svg)
    return [tuple(float(re.search(rf' {name}="([^"]*)"', one).group(1)) for name in names) for one in found]


def test_histogram_bars_are_counts():
    reference = torch.tensor([0.0] * 30 + [1.0] * 10 + [0.5] * 20 + [0.25] * 4)
    svg = charts.histogram(
        reference, {"increase": torch.tensor([2.0, 3.0])}, {"increase": "preferred"}, title="t", description="d"
    )
    heights = [height for (height,) in numbers(svg, "rect", "bar", "height")]
    assert [height / heights[0] for height in heights] == pytest.approx([1, 4 / 30, 20 / 30, 10 / 30], abs=0.01)
    dots = numbers(svg, "circle", "increase dot", "cx")
    bars = numbers(svg, "rect", "bar", "x", "width")
    assert dots[0] < dots[1]
    assert dots[0][0] > bars[-1][0] + bars[-1][1]
    (mean,) = numbers(svg, "line", "increase mean", "x1")
    assert mean[0] == pytest.approx((dots[0][0] + dots[1][0]) / 2, abs=0.1)


def test_dose_chart_goes_through_the_means():
    changes = torch.tensor([[-1.0, -3.0], [0.0, 0.0], [1.0, 3.0]])
    svg = charts.dose_response([-1.0, 0.0, 1.0], changes, title="t", description="d")
    points = numbers(svg, "circle", "averages", "cx", "cy")
    (zero, _) = numbers(svg, "line", "zero", "y1")
    assert points[1][1] == pytest.approx(zero[0], abs=0.1)
    assert points[0][1] - zero[0] == pytest.approx(zero[0] - points[2][1], abs=0.2)
    assert points[0][0] < points[1][0] < points[2][0]
    one = charts.dose_response([0.0, 1.0], torch.zeros(2, 1), title="t", description="d")
    assert 'class="band"' not in one


def test_landscape_colours_follow_the_response():
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(500, 2, generator=generator) * 2 - 1
    svg = charts.landscape(
        positions,
        3 * positions[:, 0],
        {"increase": torch.tensor([[1.0, 0.0]]), "decrease": torch.tensor([[-1.0, 0.0]])},
        {"unedited": torch.tensor([[0.0, 0.5]]), "increase": torch.tensor([[1.0, 0.5]])},
        title="t",
        description="d",
    )
    centres = []
    for step in range(charts.STEPS):
        (path,) = re.findall(rf'<path class="h{step}" d="([^"]*)"', svg)
        across = [float(x) for x in re.findall(r"M([\d.]+) ", path)]
        centres.append(sum(across) / len(across))
    assert centres == sorted(centres)
    ((x0, y0, x1, y1),) = numbers(svg, "line", "increase arrow", "x1", "y1", "x2", "y2")
    assert y0 == y1
    assert x1 > x0
    crosses = re.findall(r'<path class="cross" d="M([\d.]+) ', svg)
    assert float(crosses[0]) + 7 == pytest.approx(x1, abs=0.2)
    assert float(crosses[1]) < x0


def test_far_outliers_do_not_press_the_rest_together():
    positions = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
    responses = positions[:, 0]
    means = {"increase": torch.tensor([[1.0, 0.5]])}
    positions[0, 1] = 1e4
    svg = charts.landscape(positions, responses, means, {}, title="t", description="d")
    assert len(re.findall("M", "".join(re.findall(r'<path class="h\d" d="([^"]*)"', svg)))) > 100


def test_equal_values_make_a_chart():
    same = torch.ones(50)
    svg = charts.histogram(same, {"unedited": torch.ones(2)}, {"unedited": "α = 0"}, title="t", description="d")
    assert svg.count('class="bar"') == 1
    assert "nan" not in charts.dose_response([0.0, 1.0], torch.zeros(2, 3), title="t", description="d")
    svg = charts.landscape(torch.zeros(50, 2), same, {}, {}, title="t", description="d")
    assert "nan" not in svg


def test_words_stand_in_the_report_and_are_text():
    words = {
        "increase": Words([Word("<b>fox", 1, 0.5, 0.25)], [], "a read-out"),
        "decrease": Words(source="a read-out", reason="none is stronger"),
    }
    page = Page(make_result(words=words).html())
    loads_nothing(page)
    assert "In words" in page.text
    assert "<b>fox +0.50 (+0.25)" in page.text
    assert "No words: none is stronger." in page.text
    assert "by a read-out" in page.text
    assert "In words" not in Page(make_result().html()).text


def test_alpha_0_is_not_shown_where_it_gives_the_inputs_back():
    result = make_result()
    result = make_result(images=result.images | {"unedited": result.images["inputs"].clone()})
    page = Page(result.html())
    assert not [values for values in page.of("img") if values["alt"].startswith("α = 0, cat")]
    assert "the edit, which gives the inputs back." in page.text
    assert "The pipeline alone, α = 0" in page.text
    assert "whose own step from the input stands below it" in Page(make_result().html()).text
