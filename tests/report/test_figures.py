import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from vislens_interp.landscape.evidence import Evidence
from vislens_interp.report.comparison import pictures_figure
from vislens_interp.report.figures import WARNING, dose_response_figure, result_figure
from vislens_interp.results.result import LensResult

GOOD = Evidence("16", 0.6, 0.001, 2, 0.8, 300, 1000, 100)
WEAK = Evidence("16", 0.05, 0.3, 2, 0.8, 12, 1000, 100, ["held-out correlation 0.05 is below 0.1"])


def make_result(count=3, directions=("increase", "decrease"), side=8, evidence=GOOD, names=None):
    generator = torch.Generator().manual_seed(count)
    keys = ["inputs", "unedited", *directions]
    return LensResult(
        unit="16",
        layer="conv3",
        model="ConvNet",
        images={key: torch.rand(count, 3, side, side, generator=generator) for key in keys},
        responses={key: torch.randn(count, generator=generator) for key in keys},
        response_mean=0.0,
        response_std=1.0,
        evidence=evidence,
        names=names or [f"{index}.png" for index in range(count)],
        settings={"method": "edit", "alpha": 0.5, "seeds": 42},
    )


def test_alpha_0_has_no_row_where_it_gives_the_inputs_back():
    result = make_result()
    kept = {"unedited": result.images["inputs"].clone()}
    same = dataclasses.replace(result, images=result.images | kept)
    assert len(pictures(result_figure(same))) == len(pictures(result_figure(result))) - 3 == 9
    said = " ".join(texts(result_figure(same)))
    assert "against the input, which α = 0 gives back" in said
    assert "from input" not in said
    ticks = [label.get_text().split("\n")[0] for label in result_figure(same).axes[-1].get_xticklabels()]
    assert ticks == ["suppressed", "input", "preferred"]
    kept["unedited"][2] *= 0.99
    other = dataclasses.replace(result, images=result.images | kept)
    assert len(pictures(result_figure(other))) == 12


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    return found + [text.get_text() for axes in figure.axes for text in axes.texts]


def pictures(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def boxes(figure):
    """Everything written, as pixel boxes."""
    renderer = figure.canvas.get_renderer()
    figure.canvas.draw()
    written = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    for axes in figure.axes:
        written += [axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title]
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            # Locators also make ticks beyond the limits, which are not drawn.
            places = axis.get_ticklocs()
            written += [
                label for label, place in zip(axis.get_ticklabels(), places, strict=True) if low <= place <= high
            ]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in written if text.get_text()]


def test_every_picture_with_its_numbers():
    result = make_result()
    figure = result_figure(result)
    shown = pictures(figure)
    assert len(shown) == 4 * 3
    for row, key in enumerate(result.images):
        for column in range(3):
            wanted = result.images[key][column].permute(1, 2, 0).numpy()
            assert np.array_equal(shown[3 * row + column], wanted)
    written = texts(figure)
    for key in result.images:
        for value in result.standardised[key]:
            assert f"{value:+.2f} SD".replace("-", "−") in written
    for key in result.directions:
        for value in result.response_change[key]:
            text = f"Δr {value:+.2f}".replace("-", "−")
            wrong = (value > 0) != (key == "increase")
            assert (text + " ✗" if wrong else text) in written
    assert "ConvNet, layer conv3, unit 16" in written
    assert any("good evidence (held-out r = 0.60" in text for text in written)


@pytest.mark.parametrize("count", [1, 2, 8, 30])
@pytest.mark.parametrize("evidence", [GOOD, WEAK])
def test_nothing_overlaps_or_leaves_the_page(count, evidence):
    figure = result_figure(
        make_result(count, evidence=evidence, names=[f"{'long' * 20}{index}" for index in range(count)])
    )
    width, height = figure.canvas.get_width_height()
    written = boxes(figure)
    for text, box in written:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for index, (text, box) in enumerate(written):
        for other, box_ in written[index + 1 :]:
            assert not box.overlaps(box_), (text, other)
    frames = [axes.get_window_extent() for axes in figure.axes if axes.images]
    for text, box in written:
        assert not any(box.overlaps(frame) for frame in frames), text


def test_fonts_are_readable():
    figure = result_figure(make_result(8))
    sizes = [text.get_fontsize() for text in figure.texts]
    sizes += [label.get_fontsize() for axes in figure.axes for label in axes.get_xticklabels()]
    assert min(sizes) >= 7.5


def banner(figure):
    return [axes for axes in figure.axes if to_hex(axes.get_facecolor()) == WARNING]


def test_weak_evidence_is_a_red_banner():
    (axes,) = banner(result_figure(make_result(evidence=WEAK)))
    assert "WEAK EVIDENCE, doubt these pictures: held-out correlation 0.05 is below 0.1" in " ".join(
        axes.texts[0].get_text().split()
    )
    (axes,) = banner(result_figure(make_result(evidence=None)))
    assert "NO EVIDENCE" in axes.texts[0].get_text()
    assert banner(result_figure(make_result(evidence=GOOD))) == []


def test_first_images_shown_and_all_plotted():
    figure = result_figure(make_result(20), max_images=5)
    assert len(pictures(figure)) == 4 * 5
    assert any("5 of 20 images shown" in text for text in texts(figure))
    (plot,) = [axes for axes in figure.axes if axes.get_ylabel()]
    assert sum(len(line.get_xdata()) == 20 for line in plot.lines) == 4
    with pytest.raises(ValueError, match="max_images=0 must be at least 1"):
        result_figure(make_result(), max_images=0)


def test_one_direction():
    assert len(pictures(result_figure(make_result(directions=("decrease",))))) == 3 * 3
    assert len(pictures(result_figure(make_result(directions=("custom",))))) == 3 * 3


def test_names_are_not_read_as_formulas():
    figure = result_figure(make_result(2, names=["a$\\frac$.png", "folder/b_$x$.png"]))
    figure.canvas.draw()
    assert "a$\\frac$.png" in texts(figure)
    assert "b_$x$.png" in texts(figure)


def test_small_images_keep_their_pixels():
    def interpolation(side):
        return {
            axes.images[0].get_interpolation() for axes in result_figure(make_result(1, side=side)).axes if axes.images
        }

    assert interpolation(32) == {"nearest"}
    assert interpolation(400) == {"antialiased"}


def test_pyplot_is_left_alone():
    code = (
        "import sys, torch; from vislens_interp.report.figures import dose_response_figure;"
        "assert 'matplotlib' not in sys.modules;"
        "dose_response_figure([0, 1], torch.zeros(2, 3)).canvas.draw(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sweep_draws_mean_and_band_in_order():
    changes = torch.tensor([[1.0, 3.0], [0.0, 0.0], [-1.0, -2.0]])
    figure = dose_response_figure([1, 0, -1], changes, title="conv3, unit 16")
    (axes,) = figure.axes
    (mean,) = [line for line in axes.lines if line.get_label() == "mean"]
    assert list(mean.get_xdata()) == [-1, 0, 1]
    assert list(mean.get_ydata()) == [-1.5, 0, 2]
    band = axes.collections[0].get_datalim(axes.transData)
    assert band.y1 == pytest.approx(2 + np.std([1, 3], ddof=1))
    assert len([line for line in axes.lines if line.get_linestyle() == "--"]) == 2
    width, height = figure.canvas.get_width_height()
    for text, box in boxes(figure):
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text


def test_sweep_of_one_image():
    assert len(dose_response_figure(torch.tensor([0.0, 1.0]), torch.zeros(2, 1)).axes[0].collections) == 0


@pytest.mark.parametrize("changes", [torch.zeros(3), torch.zeros(2, 4), torch.zeros(3, 0)])
def test_sweep_shapes(changes):
    with pytest.raises(ValueError, match=r"changes has shape .* for 3 alphas; expected \(3, N\)"):
        dose_response_figure([-1, 0, 1], changes)


def test_a_long_title_of_a_comparison_is_shown_whole():
    title = "EfficientNet, layer blocks.4.2.conv_dw, unit 17: what each method makes of the same pictures"
    picture = torch.rand(1, 3, 8, 8)
    pictures, changes = {"inputs": picture, ("edit", "increase"): picture}, {("edit", "increase"): [1.0]}
    figure = pictures_figure(pictures, ["edit"], ["increase"], changes, title=title)
    assert title in [" ".join(text.split()) for text in texts(figure)]


def test_a_figure_is_the_same_in_every_process(tmp_path):
    """The order of a set of strings differs between processes."""
    script = (
        "import sys; sys.path.append(sys.argv[1]); from page_reader import make_result;"
        "make_result().figure().savefig(sys.argv[2])"
    )
    made = set()
    for seed in ("1", "2", "5"):
        path = tmp_path / f"{seed}.png"
        command = [sys.executable, "-c", script, str(Path(__file__).parent), str(path)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        made.add(path.read_bytes())
    assert len(made) == 1


def test_names_that_no_font_can_show():
    names = ["cat\udcff.png", "a\0b\nc.png", "\u202egnp.exe"]
    figure = result_figure(make_result(3, names=names))
    figure.canvas.draw()
    assert {"cat\ufffd.png", "a\ufffdb\ufffdc.png", "\ufffdgnp.exe"} <= set(texts(figure))
