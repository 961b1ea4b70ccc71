"""Pictures written as they are made: the same numbers, resumed after an interruption, halved where memory runs out."""

import filecmp
import json

import pytest
import torch
from small_networks import pictures

from vislens_interp import LensResult, files
from vislens_interp.evaluation import stream
from vislens_interp.images import ImageFiles, load_images, to_pil
from vislens_interp.memory import in_batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven inputs in files."""
    folder = tmp_path_factory.mktemp("inputs")
    for row, picture in enumerate(to_pil(pictures(7, seed=5))):
        picture.save(folder / f"{row} a.png")
    return folder


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(stream, "AT_ONCE", 3)


def run(lens, folder, out, **more):
    return lens.visualize(folder, alphas=[0.5], strength=0, out=out, **more)


def alike(one, other):
    """Whether two folders hold the same files with the same bytes."""
    found = filecmp.dircmp(one, other)
    nested = [alike(one / name, other / name) for name in found.common_dirs]
    same = filecmp.cmpfiles(one, other, found.common_files, shallow=False)
    return not (found.left_only or found.right_only or same[1] or same[2]) and all(nested)


def test_numbers_and_pictures_are_those_of_memory(fitted, folder, tmp_path):
    streamed = run(fitted, folder, tmp_path / "out")
    whole = fitted.visualize(folder, alphas=[0.5], strength=0)
    assert streamed.names == whole.names
    assert streamed.settings == whole.settings
    assert streamed.background.alphas == whole.background.alphas
    torch.testing.assert_close(streamed.background.changes, whole.background.changes, atol=1e-4, rtol=1e-4)
    for key, images in whole.images.items():
        files = streamed.images[key]
        assert isinstance(files, ImageFiles)
        assert all(path.parent == tmp_path / "out" / "images" / key for path in files.paths)
        assert (files[:] - images).abs().max() <= 1 / 509
        assert torch.equal(files[4], files[:][4])
        torch.testing.assert_close(streamed.responses[key], whole.responses[key], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(streamed.similarity[key], whole.similarity[key], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(streamed.background.moves.get(key), whole.background.moves.get(key))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    loaded = LensResult.load(tmp_path / "out")
    assert loaded.summary() == streamed.summary()
    assert streamed.save(tmp_path / "copy") == tmp_path / "copy"
    assert alike(tmp_path / "out", tmp_path / "copy")


def test_weights_that_are_whole_numbers(fitted, folder, tmp_path):
    for number, given in enumerate(
        ({"alphas": [1]}, {"alpha": 1.0, "alphas": [1]}, {"alpha": 1, "alphas": [0.5, 1.0]})
    ):
        streamed = fitted.visualize(folder, "increase", strength=0, out=tmp_path / str(number), **given)
        whole = fitted.visualize(folder, "increase", strength=0, **given)
        assert streamed.background.alphas == whole.background.alphas
        assert whole.background.alphas[-1] == 1


def test_an_interrupted_one_goes_on(fitted, network, folder, tmp_path):
    run(fitted, folder, tmp_path / "whole")
    seen = []

    def interrupt(*_):
        seen.append(1)
        if len(seen) == 9:
            raise KeyboardInterrupt

    hook = network.register_forward_pre_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(fitted, folder, tmp_path / "out")
        work = tmp_path / "out.unfinished"
        done = [path for path in work.iterdir() if path.is_dir()]
        assert not (tmp_path / "out").exists()
        assert 0 < len(done) < 3
        assert load_images(done[0] / "images" / "increase")[0].shape == (3, 3, 32, 32)
        with pytest.raises(ValueError, match=r"holds unfinished work of another run \(other settings\); .*same arg"):
            run(fitted, folder, tmp_path / "out", seeds=7)
        before, seen[:] = done[0].stat().st_mtime_ns, []
        hook.remove()
        run(fitted, folder, tmp_path / "out")
    finally:
        hook.remove()
    assert not work.exists()
    assert before
    assert alike(tmp_path / "whole", tmp_path / "out")


def test_a_folder_that_is_somebody_elses(fitted, folder, tmp_path):
    (tmp_path / "out.unfinished").mkdir()
    (tmp_path / "out.unfinished" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"out.unfinished' is where unfinished work goes, and holds something else"):
        run(fitted, folder, tmp_path / "out")


def test_a_kill_before_anything_is_said_stops_nobody(fitted, folder, tmp_path):
    (tmp_path / "out.unfinished" / f".run.json.{files._HOST}-{2**22 + 1}-0123abcd.tmp").mkdir(parents=True)
    run(fitted, folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "change",
    [
        lambda said: [],
        lambda said: {key: value for key, value in said.items() if key != "batch_size"},
        lambda said: said | {"batch_size": "many"},
        lambda said: said | {"inputs": None},
        lambda said: {},
    ],
)
def test_unfinished_work_that_was_changed_is_refused_by_name(fitted, folder, tmp_path, monkeypatch, change):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "save_result", stop)  # when all parts are there
    with pytest.raises(KeyboardInterrupt):
        run(fitted, folder, tmp_path / "out")
    path = tmp_path / "out.unfinished" / "run.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=r"out\.unfinished"):
        run(fitted, folder, tmp_path / "out")


def test_damaged_inputs_are_found_before_the_first_picture(fitted, folder, tmp_path):
    bad = tmp_path / "zz.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"zz.png"):
        run(fitted, [*sorted(folder.iterdir()), bad], tmp_path / "out")
    assert not (tmp_path / "out.unfinished").exists()


def test_less_memory_than_a_part_needs(fitted, network, folder, tmp_path):
    expected = run(fitted, folder, tmp_path / "whole")

    def full(_, inputs):
        if len(inputs[0]) > 1:
            raise MemoryError

    hook = network.register_forward_pre_hook(full)
    try:
        with pytest.warns(UserWarning, match="memory ran out with 3 inputs at once; going on with 1"):
            made = run(fitted, folder, tmp_path / "out")
    finally:
        hook.remove()
    torch.testing.assert_close(made.responses["increase"], expected.responses["increase"], atol=1e-5, rtol=1e-4)


def test_in_batches_gives_up_at_one_and_at_other_errors():
    def never(rows):
        raise MemoryError("full")

    with pytest.warns(UserWarning, match="with 2 pictures at once; going on with 1"), pytest.raises(MemoryError):
        in_batches(never, 2, 8)
    with pytest.raises(RuntimeError, match="shape"):
        in_batches(lambda rows: (_ for _ in ()).throw(RuntimeError("shape")), 4, 8)


def test_pictures_of_ascents_keep_their_importance(fitted, tmp_path):
    made = fitted.visualize(pictures(4, seed=6), "increase", method="maco", out=tmp_path / "out")
    assert isinstance(made.importance["increase"], ImageFiles)
    assert made.transparent().shape == (4, 4, 32, 32)
    loaded = LensResult.load(tmp_path / "out")
    assert torch.equal(loaded.transparent(), made.transparent())
