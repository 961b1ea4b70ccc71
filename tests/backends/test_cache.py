"""Rows computed once: by content, across writers and kills. Processes are real ones."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vislens_interp.backends import cache as cache_module
from vislens_interp.backends.cache import KEY_BYTES, RowCache, Shards, weights_fingerprint

WRITER = """
import sys, time, torch
from vislens_interp.backends.cache import RowCache
folder, images, log, pause = sys.argv[1:]
def compute(batch):
    time.sleep(float(pause))
    with open(log, "a") as file:
        file.write(f"{len(batch)}\\n")
    return batch.flatten(1)[:, :5]
print("ready", flush=True)
sys.stdin.readline()
cache = RowCache(folder, "rows", "f" * 16, rows_per_file=4)
print(len(cache.rows(images, compute, batch_size=2)))
"""


class Counter:
    """Five pixels of each image, and how many images that took."""

    def __init__(self):
        self.images = 0

    def __call__(self, images):
        self.images += len(images)
        return images.flatten(1)[:, :5]


@pytest.fixture
def pictures(tmp_path):
    """A folder of 24 pictures, all different, and their first five pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (24, 6, 6, 3), dtype=np.uint8)
    for row, value in enumerate(values):
        Image.fromarray(value).save(folder / f"{row:02d}.png")
    expected = torch.from_numpy(values).permute(0, 3, 1, 2).flatten(1)[:, :5] / 255
    return folder, expected


def open_cache(tmp_path, fingerprint="f" * 16, **settings):
    return RowCache(tmp_path / "cache", "rows", fingerprint, **settings)


def test_each_image_once(tmp_path, pictures):
    folder, expected = pictures
    first, again = Counter(), Counter()
    rows = open_cache(tmp_path).rows(folder, first, batch_size=7)
    assert first.images == 24
    assert rows.names == [f"{row:02d}.png" for row in range(24)]
    assert rows.shape == (5,)
    torch.testing.assert_close(rows.tensor(), expected)
    rows = open_cache(tmp_path).rows(folder, again)
    assert again.images == 0
    torch.testing.assert_close(rows.tensor(), expected)


def test_by_content_and_not_by_name(tmp_path, pictures):
    folder, expected = pictures
    open_cache(tmp_path).rows(folder, Counter())
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / "00.png").rename(moved / "zz.png")
    (moved / "01.png").write_bytes((moved / "02.png").read_bytes())
    counter = Counter()
    rows = open_cache(tmp_path).rows(moved, counter)
    assert counter.images == 0
    torch.testing.assert_close(rows.tensor(), expected[[2, 2, *range(3, 24), 0]])
    Image.new("RGB", (6, 6), (255, 0, 0)).save(moved / "02.png")  # another picture under an old name
    rows = open_cache(tmp_path).rows(moved, counter)
    assert counter.images == 1
    assert rows[[1]].tolist() == [[1.0] * 5]


def test_files_that_are_known_are_not_read_again(tmp_path, pictures, monkeypatch):
    folder, _ = pictures
    open_cache(tmp_path).rows(folder, Counter())
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail(f"{path} was read"))
    open_cache(tmp_path).rows(folder, Counter())


def test_other_weights_have_other_rows(tmp_path, pictures):
    folder, expected = pictures
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    before = weights_fingerprint(model, size=224, layer="a")
    assert before == weights_fingerprint(model, layer="a", size=224)
    assert len({before, weights_fingerprint(model, size=128, layer="a"), weights_fingerprint(model)}) == 3
    open_cache(tmp_path, before).rows(folder, Counter())
    with torch.no_grad():
        model.weight[0, 0] += 1e-6
    after, counter = weights_fingerprint(model, size=224, layer="a"), Counter()
    rows = open_cache(tmp_path, after).rows(folder, lambda images: 1 - counter(images))
    assert counter.images == 24
    torch.testing.assert_close(rows.tensor(), 1 - expected)


def test_tensors_and_repeats(tmp_path):
    images = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    counter = Counter()
    rows = open_cache(tmp_path).rows(images[[0, 1, 1, 2, 0]], counter, batch_size=2)
    assert counter.images == 3
    torch.testing.assert_close(rows.tensor(), images[[0, 1, 1, 2, 0]].flatten(1)[:, :5])
    rows = open_cache(tmp_path).rows(images, counter)
    assert counter.images == 10
    assert rows.names[3] == "image_00003"
    torch.testing.assert_close(rows[torch.tensor([9, 0])], images[[9, 0]].flatten(1)[:, :5])
    torch.testing.assert_close(rows[rows[:][:, 0] > 0.5], rows.tensor()[rows.tensor()[:, 0] > 0.5])
    assert rows[5:5].shape == (0, 5)


def test_rows_of_any_shape_and_type(tmp_path):
    images = torch.rand(6, 3, 4, 4)
    rows = open_cache(tmp_path).rows(images, lambda part: part.half())
    assert rows.shape == (3, 4, 4)
    assert torch.equal(rows.tensor(), images.half())


def run(tmp_path, pictures, pause, log="log"):
    command = [sys.executable, "-c", WRITER, tmp_path / "cache", pictures, tmp_path / log, str(pause)]
    return subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def begin(writer):
    writer.stdin.write("go\n")
    writer.stdin.flush()


def counted(path):
    return sum(int(line) for line in path.read_text().split()) if path.exists() else 0


def test_two_writers_at_once(tmp_path, pictures):
    folder, expected = pictures
    writers = [run(tmp_path, folder, 0.02, f"log{number}") for number in range(2)]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    for writer in writers:  # none has begun, so that they do overlap
        begin(writer)
    assert [writer.communicate(timeout=120)[0] for writer in writers] == ["24\n"] * 2
    assert all(writer.returncode == 0 for writer in writers)
    assert 24 <= sum(counted(tmp_path / f"log{number}") for number in range(2)) <= 48
    counter = Counter()
    torch.testing.assert_close(open_cache(tmp_path).rows(folder, counter).tensor(), expected)
    assert counter.images == 0


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_and_resumed(tmp_path, pictures):
    folder, expected = pictures
    writer = run(tmp_path, folder, 0.3)
    begin(writer)
    shards, deadline = tmp_path / "cache" / ("rows-" + "f" * 16), time.monotonic() + 120
    while not list(shards.glob("*.safetensors")):
        assert time.monotonic() < deadline
        assert writer.poll() is None
        time.sleep(0.02)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    stored = len(Shards(shards))
    assert 4 <= stored < 24
    counter = Counter()
    torch.testing.assert_close(open_cache(tmp_path).rows(folder, counter).tensor(), expected)
    assert counter.images == 24 - stored


def test_interrupted_between_files(tmp_path, pictures):
    """What a kill can leave half-written is a temporary file, which nobody reads and a later day removes."""
    folder, expected = pictures
    cache = open_cache(tmp_path)
    torch.testing.assert_close(cache.rows(folder, Counter()).tensor(), expected)
    young, old = (cache.shards.folder / f".{name}.safetensors.tmp" for name in ("young", "old"))
    for path in (young, old):
        path.write_bytes(b"half of a row")
    os.utime(old, (0, 0))
    counter = Counter()
    torch.testing.assert_close(open_cache(tmp_path).rows(folder, counter).tensor(), expected)
    assert counter.images == 0
    assert young.exists()
    assert not old.exists()


def test_a_damaged_file_is_computed_again(tmp_path, pictures):
    folder, expected = pictures
    cache = open_cache(tmp_path, rows_per_file=8)
    cache.rows(folder, Counter(), batch_size=8)
    damaged = sorted(cache.shards.folder.glob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    counter = Counter()
    with pytest.warns(UserWarning, match=r"cannot be read .*; its rows will be computed again. Delete it"):
        rows = open_cache(tmp_path).rows(folder, counter)
    assert counter.images == 8
    torch.testing.assert_close(rows.tensor(), expected)


def test_unreadable_images(tmp_path, pictures):
    folder, expected = pictures
    (folder / "05.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="images in source cannot be read: 05.png"):
        open_cache(tmp_path).rows(folder, Counter())
    counter = Counter()
    with pytest.warns(UserWarning, match="1 files in source cannot be read: 05.png. Going on without"):
        rows = open_cache(tmp_path).rows(folder, counter, on_error="skip")
    assert "05.png" not in rows.names
    torch.testing.assert_close(rows.tensor(), torch.cat([expected[:5], expected[6:]]))


def test_a_million_keys_are_found(tmp_path):
    """The size of ImageNet's index, which is what has to be quick; the rows stay on the disk."""
    shards = Shards(tmp_path)
    count = 1_280_000
    keys = np.random.default_rng(0).bytes(KEY_BYTES * count)
    split = [keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES)]
    for start in range(0, count, count // 4):
        shards.write(split[start : start + count // 4], torch.arange(start, start + count // 4)[:, None])
    started = time.monotonic()
    fresh = Shards(tmp_path)
    assert len(fresh) == count
    wanted = [3, 1_279_999, 640_000]
    assert fresh.read(fresh.find([split[row] for row in wanted]))[:, 0].tolist() == wanted
    assert time.monotonic() - started < 30
    assert fresh.find([bytes(KEY_BYTES)]).tolist() == [[-1, -1]]


def test_what_it_refuses(tmp_path):
    images = torch.rand(4, 3, 4, 4)
    with pytest.raises(ValueError, match="name='a/b' cannot name a folder"):
        RowCache(tmp_path, "a/b", "f")
    with pytest.raises(ValueError, match="fingerprint='' cannot name a folder"):
        RowCache(tmp_path, "a", "")
    with pytest.raises(ValueError, match="on_error='maybe'; expected 'raise' or 'skip'"):
        open_cache(tmp_path).rows(images, Counter(), on_error="maybe")
    with pytest.raises(FileNotFoundError, match="nothing is there; expected a folder of images or a file"):
        open_cache(tmp_path).rows(tmp_path / "nowhere", Counter())
    with pytest.raises(FileNotFoundError, match="is no file; expected paths of image files"):
        open_cache(tmp_path).rows([tmp_path / "nothing.png"], Counter())
    with pytest.raises(ValueError, match="holds no images; expected files ending in"):
        open_cache(tmp_path).rows(tmp_path, Counter())
    with pytest.raises(ValueError, match=r"compute gave shape \(3, 5\) .* for 4 images; expected \(4, 5\)"):
        open_cache(tmp_path).rows(images, lambda part: part.flatten(1)[:3, :5])
    cache = open_cache(tmp_path)
    cache.rows(images, Counter())
    with pytest.raises(ValueError, match=r"compute gave shape \(2, 4\) .* expected \(2, 5\) .* another fingerprint"):
        cache.rows(torch.rand(2, 3, 4, 4), lambda part: part.flatten(1)[:, :4])
    with pytest.raises(TypeError, match=r"rows=2 is one position; expected a slice or several, such as \[2\]"):
        cache.rows(images, Counter())[2]


@pytest.mark.parametrize("change", ["nan", "swapped", "bit"])
def test_rows_that_were_changed_are_computed_again(tmp_path, pictures, change):
    folder, expected = pictures
    cache = open_cache(tmp_path, rows_per_file=8)
    cache.rows(folder, Counter(), batch_size=8)
    path = sorted(cache.shards.folder.glob("*.safetensors"))[0]
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    rows = tensors["values"]
    if change == "nan":
        rows[2] = torch.nan
    elif change == "swapped":
        rows[[2, 3]] = rows[[3, 2]]
    else:
        rows[2, 0] += 1e-6
    save_file(tensors, path)
    counter = Counter()
    with pytest.warns(UserWarning, match=f"{path.name} cannot be read .a row is not what was written.; its rows will"):
        rows = open_cache(tmp_path).rows(folder, counter)
    assert counter.images == (2 if change == "swapped" else 1)
    torch.testing.assert_close(rows.tensor(), expected)


def test_a_file_of_other_rows_is_left_out(tmp_path, pictures):
    folder, expected = pictures
    cache = open_cache(tmp_path)
    cache.rows(folder, Counter())
    for number, tensors in enumerate(
        (
            {"keys": torch.zeros(2, 3).byte(), "values": torch.zeros(2, 5), "checks": torch.zeros(2, 8).byte()},
            {"keys": torch.zeros(2, 16), "values": torch.zeros(2, 5), "checks": torch.zeros(2, 8).byte()},
            {"keys": torch.zeros(2, 16).byte(), "values": torch.zeros(2, 6), "checks": torch.zeros(2, 8).byte()},
            {"keys": torch.zeros(2, 16).byte(), "values": torch.tensor(1.0), "checks": torch.zeros(2, 8).byte()},
            {"keys": torch.zeros(2, 16).byte(), "values": torch.zeros(2, 5)},  # of 0.1.0, without hashes
        )
    ):
        save_file(tensors, cache.shards.folder / f"z{number}.safetensors")
    counter = Counter()
    with pytest.warns(UserWarning, match="cannot be read .*; its rows will be computed again") as said:
        rows = open_cache(tmp_path).rows(folder, counter)
    assert len(said) == 5
    assert counter.images == 0
    torch.testing.assert_close(rows.tensor(), expected)


def test_files_and_sorting_do_not_grow_with_every_batch(tmp_path, monkeypatch):
    """What took 111 s for 160,000 images: a file for every 64 images, and all keys sorted again for each."""
    images = torch.arange(20_000.0).div(20_000).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    sorted_keys = []
    merged = cache_module._merged

    def counted_merge(parts):
        sorted_keys.append(sum(len(keys) for keys, _ in parts))
        return merged(parts)

    monkeypatch.setattr(cache_module, "_merged", counted_merge)
    cache = open_cache(tmp_path, rows_per_file=200)
    assert len(cache.rows(images, lambda part: part.flatten(1), batch_size=50)) == 20_000
    assert len(list(cache.shards.folder.glob("*.safetensors"))) == 100
    assert sum(sorted_keys) < 20_000 * 12  # n log n; all keys for each file would be 50 n
    (tmp_path / "pictures").mkdir()
    paths = [tmp_path / "pictures" / f"{number}.ppm" for number in range(300)]
    for number, path in enumerate(paths):
        path.write_bytes(b"P6 1 1 255\n" + number.to_bytes(3, "little"))
    cache = open_cache(tmp_path, "e" * 16)
    assert len(cache.rows(paths, lambda part: part.flatten(1), batch_size=10)) == 300
    assert len(list(cache.contents.folder.glob("*.safetensors"))) == 1
