import pytest
import torch
from page_reader import make_background, make_landscape, make_result

from vislens_interp.results.background import Axes, Background
from vislens_interp.results.result import LensResult


def test_the_second_axis_is_the_widest_direction_outside_the_first():
    landscape = make_landscape()
    axes = Axes.of(landscape, 0)
    assert axes.first.tolist() == [0.25] * 4 + [0.0] * 4
    assert axes.second[5] > 0.99
    assert (axes.first @ axes.second).abs() < 1e-9
    placed = axes.place(landscape.latents)
    torch.testing.assert_close(placed[:, 0], landscape.axis(0, landscape.latents))
    assert placed[:, 1].mean() == pytest.approx(0, abs=1e-5)
    assert placed[:, 1].std() == pytest.approx(1, abs=1e-5)


def test_one_mean_lies_at_one_and_minus_one():
    background = make_background()
    assert background.means["increase"][:, 0].tolist() == [pytest.approx(1, abs=1e-6)]
    assert background.means["decrease"][:, 0].tolist() == [pytest.approx(-1, abs=1e-6)]
    assert background.moves["increase"][:, 0].tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert "increase_1" not in background.galleries


def test_several_means_are_apart_on_the_second_axis():
    background = make_background(modes=2)
    first, second = background.means["increase"]
    assert first[0] == pytest.approx(second[0].item(), abs=1e-5)
    assert (first[1] - second[1]).abs() > 1


def test_top_images_are_the_strongest_in_order():
    background = make_background()
    values, order = make_landscape().responses[:, 0].sort(descending=True)
    top = background.galleries["top"]
    assert top.responses.tolist() == values[:10].tolist()
    assert top.names == [f"synthetic-{row:04d}" for row in order[:10].tolist()]


def test_crops_of_a_photograph_are_shown_once_among_the_top():
    landscape = make_landscape()
    groups = torch.arange(300) // 3
    pictures = torch.rand(300, 3, 4, 4)
    background = Background.of(landscape, 0, {}, pictures=pictures, groups=groups)
    rows = [int(name.removeprefix("image_")) for name in background.galleries["top"].names]
    assert len({row // 3 for row in rows}) == len(rows) == 10
    assert rows[0] == landscape.responses[:, 0].argmax()


def test_images_of_modes_are_strong_and_nearest():
    landscape, background = make_landscape(modes=2), make_background(modes=2)
    standard = landscape.scaler.standardise(landscape.responses)[:, 0]
    for direction, sign in (("increase", 1), ("decrease", -1)):
        seen = set()
        for mode in (0, 1):
            row = background.galleries[f"{direction}_{mode + 1}"]
            rows = [int(name[-4:]) for name in row.names]
            assert 0 < len(rows) <= 5
            assert (sign * standard[rows] >= 1).all()
            assert (sign * row.responses).tolist() == sorted((sign * row.responses).tolist(), reverse=True)
            means = landscape.prior.goal(0, direction, torch.arange(2))
            assert torch.cdist(landscape.latents[rows, :4], means).argmin(1).tolist() == [mode] * len(rows)
            seen |= set(rows)
        assert len(seen) > 5


def test_without_pictures_there_are_no_galleries():
    background = make_background(pictures=False)
    assert background.galleries == {}
    assert background.names == []


def test_another_judge_orders_by_what_it_read():
    landscape = make_landscape()
    judged = -landscape.responses[:, 0]
    background = Background.of(landscape, 0, {}, responses=judged, pictures=torch.rand(300, 3, 4, 4))
    assert background.galleries["top"].responses[0] == judged.max()
    assert torch.equal(background.responses, judged)
    assert background.galleries["top"].names[0] == f"image_{judged.argmax():05d}"


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("pictures", [True, False])
def test_a_result_keeps_it(tmp_path, modes, pictures):
    before = make_background(modes, pictures=pictures)
    result = make_result(background=before)
    folder = result.save(tmp_path / "out")
    loaded = LensResult.load(folder)
    after = loaded.background
    assert torch.equal(after.responses, before.responses)
    assert torch.equal(after.positions, before.positions)
    assert after.names == before.names
    assert after.alphas == before.alphas == [-1.0, 0.0, 1.0]
    assert torch.equal(after.changes, before.changes)
    for name in ("means", "moves"):
        ours, theirs = getattr(before, name), getattr(after, name)
        assert list(ours) == list(theirs)
        assert all(torch.equal(theirs[key], value) for key, value in ours.items())
    assert list(after.galleries) == list(before.galleries)
    for key, row in before.galleries.items():
        assert (after.galleries[key].images - row.images).abs().max() <= 0.5 / 255 + 1e-6
        assert torch.equal(after.galleries[key].responses, row.responses)
        assert after.galleries[key].names == row.names
    # A report made from what was saved is the report that was saved.
    assert loaded.html() == (folder / "report.html").read_text(encoding="utf-8")
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    loaded.save(folder)
    assert on_disk == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_table_of_the_reference_set(tmp_path):
    folder = make_result().save(tmp_path / "out")
    lines = (folder / "reference.csv").read_text().splitlines()
    assert lines[0] == "name,response,response_sd,axis_1,axis_2"
    assert len(lines) == 301
    name, response, standard, *_ = lines[1].split(",")
    landscape = make_landscape()
    assert name == "synthetic-0000"
    assert float(response) == pytest.approx(landscape.responses[0, 0].item())
    assert float(standard) == pytest.approx(landscape.scaler.standardise(landscape.responses)[0, 0].item(), rel=1e-4)


def test_a_mode_without_images_is_kept(tmp_path):
    landscape = make_landscape(modes=2)
    landscape.responses = landscape.responses.clamp_min(0).clamp_max(0.1)  # nothing is a whole SD below the mean
    background = Background.of(landscape, 0, {}, pictures=torch.rand(300, 3, 4, 4))
    assert background.galleries["decrease_1"].names == []
    loaded = LensResult.load(make_result(background=background).save(tmp_path / "out"))
    assert loaded.background.galleries["decrease_1"].names == []
    assert "There are none." in loaded.html()
