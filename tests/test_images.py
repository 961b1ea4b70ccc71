import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from vislens_interp.images import ImageFiles, check_images, check_shape, load_images, ordinary, resize, to_pil
from vislens_interp.reference import ReferenceSet


def picture(height=12, width=16, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels_of(image):
    return v2.functional.pil_to_tensor(image) / 255


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    (root / "b").mkdir(parents=True)
    for index, name in enumerate(["c.png", "a.PNG", "b/d.bmp"]):
        picture(seed=index).save(root / name)
    return root


def test_what_is_left_out_of_a_folder_is_said(folder):
    (folder / "notes.txt").write_text("no picture")
    (folder / "._c.png").write_bytes(b"what a Mac leaves")
    (folder / "Thumbs.db").write_bytes(b"what Windows leaves")
    for hidden in (".Trash-1000/files", "@eaDir", ".ipynb_checkpoints"):
        (folder / hidden).mkdir(parents=True)
        picture().save(folder / hidden / "old.jpg")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.warns(UserWarning, match="3 images are read; left out are ") as said:
        names = load_images(folder)[1]
    assert names == ["a.PNG", "b/d.bmp", "c.png"]
    (message,) = (str(one.message) for one in said)
    for words in ("1 .txt", "1 hidden", "1 broken links", "1 in hidden folders such as @eaDir"):
        assert words in message
    assert "Thumbs" not in message


def test_links_to_folders_are_followed_as_torchvision_does(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    picture(seed=7).save(elsewhere / "e.png")
    (folder / "link").symlink_to(elsewhere)
    theirs = {path.replace("\\", "/") for path, _ in ImageFolder(folder).samples}
    names = load_images(folder)[1]
    assert names == ["a.PNG", "b/d.bmp", "c.png", "link/e.png"]
    assert theirs == {str(folder / name) for name in names if "/" in name}
    (elsewhere / "loop").symlink_to(folder)
    with pytest.warns(UserWarning, match="1 links to a folder that holds them"):
        assert load_images(folder)[1] == names


FOLDERS = ["b", "a b", ".hidden", "@eaDir", "c.d", "__MACOSX"]
FILES = ["1.png", "10.JPG", "2.jpeg", ".x.png", "note.txt", "z.webp"]


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    tree=st.sets(
        st.tuples(st.lists(st.sampled_from(FOLDERS), max_size=3), st.sampled_from(FILES)).map(
            lambda parts: "/".join([*parts[0], parts[1]])
        ),
        max_size=8,
    )
)
@pytest.mark.filterwarnings("ignore:source=")
def test_any_folder_tree(tree):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / ".above"  # what the folder itself lies in does not matter
        for file in tree:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            if file.endswith(".txt"):
                (root / file).write_text("no picture")
            else:
                picture().save(root / file)
        root.mkdir(exist_ok=True)
        skipped = ("@eaDir", "__MACOSX")
        expected = [
            file
            for file in tree
            if not file.endswith(".txt")
            and not any(part.startswith(".") or part in skipped for part in file.split("/"))
        ]
        if not expected:
            with pytest.raises(ValueError, match="a folder without images"):
                load_images(root)
            return
        assert load_images(root)[1] == sorted(expected, key=lambda file: file.split("/"))


def test_grey_pictures_of_16_bits_are_scaled(tmp_path):
    deep = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        images, _ = load_images(tmp_path / f"deep.{suffix}")
        assert torch.allclose(images[0, 0], torch.from_numpy(deep / 65535).float(), atol=0.5 / 255 + 1e-6)
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="mode 'F' has no known range"):
        load_images(tmp_path / "float.tif")


@pytest.mark.parametrize("suffix", ["gif", "tiff"])
def test_the_first_of_several_frames_is_used_and_said(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in (0, 255)]
    frames[0].save(tmp_path / f"many.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="1 of 1 images in source have several frames or pages .many.*the first one"):
        images, _ = load_images(tmp_path / f"many.{suffix}")
    assert images.max() == 0


def test_data_sets_and_loaders_are_taken_as_they_are(folder):
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)
    data = TensorDataset(images, labels)
    dictionaries = [{"label": 1, "image": one} for one in to_pil(images)]

    class HuggingFace:  # what datasets.Dataset offers
        def __len__(self):
            return 5

        def __getitem__(self, row):
            return dictionaries[row]

    for source in (
        data,
        DataLoader(data, batch_size=2),
        [images, labels],
        (images, labels),
        list(images),
        {"pixel_values": images, "labels": labels},
        HuggingFace(),
    ):
        found, names = load_images(source)  # pyright: ignore[reportArgumentType]
        assert torch.allclose(found, images, atol=0.5 / 255 + 1e-6)
        assert names[-1] == "image_00004"
    assert torch.equal(load_images(Subset(data, [3, 1]))[0], images[[3, 1]])
    (folder / "x").mkdir()
    picture(seed=3).save(folder / "x" / "q.png")
    of_files = ImageFolder(folder)
    assert torch.equal(load_images(of_files)[0], load_images([path for path, _ in of_files.samples])[0])
    with pytest.raises(TypeError, match="source holds dictionaries with 'text'; expected an image called 'image'"):
        load_images([{"text": "a"}])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"source\[1\] has shape .3, 4, 4. and source\[0\] .3, 8, 8."):
        load_images([torch.zeros(3, 8, 8), torch.zeros(3, 4, 4)])  # pyright: ignore[reportArgumentType]


def test_folder_is_read_recursively_in_sorted_order(folder):
    images, names = load_images(folder)
    assert names == ["a.PNG", "b/d.bmp", "c.png"]
    assert images.shape == (3, 3, 12, 16)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert torch.equal(images[2], pixels_of(picture(seed=0)))


def test_sources_agree(folder):
    expected = load_images(folder)[0]
    paths = [folder / "a.PNG", str(folder / "b" / "d.bmp"), folder / "c.png"]
    images, names = load_images(paths)
    assert torch.equal(images, expected)
    assert names == ["a.PNG", "b/d.bmp", "c.png"]
    opened = [Image.open(path) for path in paths]
    images, names = load_images(opened)
    assert torch.equal(images, expected)
    assert names == ["image_00000", "image_00001", "image_00002"]
    one, names = load_images(folder / "c.png")
    assert torch.equal(one, expected[2:])
    assert names == ["c.png"]
    assert torch.equal(load_images(picture(seed=0))[0], expected[2:])
    mixed, names = load_images([picture(seed=1), folder / "c.png"])
    assert torch.equal(mixed, expected[[0, 2]])
    assert names == ["image_00000", "c.png"]
    tensor, names = load_images(expected)
    assert torch.equal(tensor, expected)
    assert names[2] == "image_00002"


def test_files_go_through_the_published_transform():
    published = v2.Compose([v2.Resize(9, v2.InterpolationMode.BICUBIC), v2.CenterCrop(9)])
    for size in [(20, 31), (31, 20), (9, 14), (5, 8)]:
        image = picture(*size)
        expected = pixels_of(published(image))
        assert torch.equal(load_images(image, size=9)[0][0], expected)
        # Pillow works in 8 bits: on this picture they are up to 4/255 apart
        assert (load_images(load_images(image)[0], size=9)[0][0] - expected).abs().max() <= 4 / 255


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_modes_become_rgb(mode):
    image = picture().convert(mode)
    assert torch.equal(load_images(image)[0][0], pixels_of(image.convert("RGB")))


def test_opaque_alpha_is_dropped_and_transparency_refused():
    image = picture()
    assert torch.equal(load_images(image.convert("RGBA"))[0], load_images(image)[0])
    image.putalpha(200)
    with pytest.raises(ValueError, match="transparent pixels; flatten it"):
        load_images(image)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(12, 16).save(tmp_path / "phone.png", exif=exif)
    assert load_images(tmp_path)[0].shape == (1, 3, 16, 12)


def test_different_sizes_need_size(folder):
    picture(12, 13).save(folder / "z.png")
    with pytest.raises(ValueError, match=r"a.PNG is 12 x 16 and z.png is 12 x 13.*Pass size="):
        load_images(folder)
    assert load_images(folder, size=8)[0].shape == (4, 3, 8, 8)


def test_unreadable_files_are_named_and_skipped_only_if_asked(folder):
    (folder / "broken.jpg").write_bytes(b"no jpeg")
    whole = (folder / "c.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"2 of 5 images.*broken.jpg.*cut.png.*on_error='skip'"):
        load_images(folder)
    with pytest.warns(UserWarning, match=r"broken.jpg.*cut.png.*Going on with the other 3"):
        images, names = load_images(folder, on_error="skip")
    assert names == ["a.PNG", "b/d.bmp", "c.png"]
    assert len(images) == 3
    with pytest.raises(ValueError, match="1 of 1 images.*None is left"):
        load_images(folder / "broken.jpg", on_error="skip")


def test_nothing_to_read(tmp_path):
    with pytest.raises(ValueError, match="a folder without images"):
        load_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing is there; expected an image file or a folder"):
        load_images(tmp_path / "absent")
    with pytest.raises(ValueError, match="an empty sequence"):
        load_images([])


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"source is a ndarray.*torch.from_numpy"):
        load_images(np.zeros((1, 3, 4, 4)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"source\[1\] is a Tensor.*to_pil"):
        load_images([picture(), torch.zeros(3, 4, 4)])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="on_error='ignore' is unknown; expected 'raise' or 'skip'"):
        load_images(picture(), on_error="ignore")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="size=0; expected the side"):
        load_images(picture(), size=0)


NAN = torch.full((2, 3, 4, 4), 0.5)
NAN[1, 0, 0, 0] = torch.nan


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 4, 4), r"\(3, 4, 4\).*pass images\[None\]"),
        (torch.zeros(4, 4), "expected four axes"),
        (torch.zeros(2, 1, 4, 4), "1 channels.*Grey images: repeat"),
        (torch.zeros(2, 4, 4, 4), "4 channels.*RGBA images"),
        (torch.zeros(2, 8, 9, 3), r"channels are last: pass images.permute\(0, 3, 1, 2\)"),
        (torch.zeros(2, 5, 9, 9), "5 channels.*Choose the three"),
        (torch.zeros(0, 3, 4, 4), "is empty"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "torch.uint8.*images / 255"),
        (NAN, "NaN or infinite values in 1 of 2 images"),
        (torch.full((1, 3, 4, 4), torch.inf), "NaN or infinite values in 1 of 1"),
        (torch.full((1, 3, 4, 4), -1.0), "from -1 to -1.*look normalised"),
        (torch.full((1, 3, 4, 4), 200.0), r"0..255: divide by 255"),
        (torch.full((1, 3, 4, 4), 1.01), r"images.clamp\(0, 1\)"),
    ],
)
def test_tensors_that_break_the_convention(images, message):
    with pytest.raises(ValueError, match=message):
        check_images(images)
    with pytest.raises(ValueError, match=message):
        load_images(images)


def test_check_passes_what_is_right():
    images = torch.rand(2, 3, 4, 4) + 5e-5
    assert check_images(images) is images
    with pytest.raises(TypeError, match="pictures is a list.*load_images reads"):
        check_shape([images], "pictures")  # pyright: ignore[reportArgumentType]


def test_resize_is_differentiable_bounded_and_identity_when_it_fits():
    images = torch.rand(2, 3, 20, 30, requires_grad=True)
    small = resize(images, 8)
    assert small.shape == (2, 3, 8, 8)
    small.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    checker = torch.zeros(1, 3, 8, 8)
    checker[..., ::2, ::2] = 1
    large = resize(checker, 29)
    assert large.min() >= 0
    assert large.max() <= 1
    assert resize(checker, 8) is checker
    assert torch.equal(resize(images, 20), images[..., 5:25])
    flat = resize(torch.full((1, 3, 17, 23), 0.3), 9)
    assert torch.allclose(flat, torch.tensor(0.3))


def test_to_pil_round_trip():
    images = torch.rand(3, 3, 5, 7)
    back = load_images(to_pil(images))[0]
    assert (back - images).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(load_images(to_pil(back))[0], back)
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        to_pil(images * 255)


# Files that stay where they are


def test_image_files_are_read_where_they_are_asked_for(tmp_path):
    pictures = torch.rand(5, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    for row, picture in enumerate(to_pil(pictures)):
        picture.save(tmp_path / f"{row}.png")
    loaded, names = load_images(tmp_path, size=16)
    files = ImageFiles(tmp_path, 16)
    assert (len(files), files.shape, files.names) == (5, (5, 3, 16, 16), names)
    assert [len(part) for part in files.split(2)] == [2, 2, 1]
    assert torch.equal(torch.cat(list(files.split(2))), loaded)
    assert torch.equal(files[1:3], loaded[1:3])
    assert torch.equal(files[torch.tensor([4, 0])], loaded[[4, 0]])
    assert torch.equal(files[np.int64(-1)], loaded[-1])
    mask = torch.tensor([True, False, False, True, True])
    assert torch.equal(files[mask], loaded[mask])
    assert torch.equal(files[mask.tolist()], loaded[mask])
    with pytest.raises(IndexError):
        files[mask[:4]]
    assert torch.equal(ImageFiles([tmp_path / "3.png"], 16)[[0]], loaded[3:4])
    assert files[[]].shape == files[torch.zeros(0, dtype=torch.int64)].shape == (0, 3, 16, 16)
    for size in (None, 16):
        again, same_names = load_images(files, size=size)
        assert torch.equal(again, loaded)
        assert same_names == names
    assert torch.equal(load_images(files, size=8)[0], resize(loaded, 8))
    some = files.at([3, 1])
    assert isinstance(some, ImageFiles)
    assert (some.names, some.shape) == ([files.names[3], files.names[1]], (2, 3, 16, 16))
    assert torch.equal(some[:], loaded[[3, 1]])
    assert len(files) == len(loaded)


def test_image_files_that_cannot_be_read(tmp_path):
    for name, picture in zip("ab", to_pil(torch.rand(2, 3, 8, 8)), strict=True):
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    files = ImageFiles(tmp_path, 8)
    assert files[[0, 1]].shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="1 of 3 images in source cannot be read: bad.png"):
        files[:]
    with pytest.warns(
        UserWarning, match="1 of 3 images in source cannot be read: bad.png .* Going on with the other 2"
    ):
        assert ImageFiles(tmp_path, 8, on_error="skip").names == ["a.png", "b.png"]
    with pytest.raises(ValueError, match="1 of 1 images in source cannot be read: bad.png .*None is left"):
        ImageFiles(tmp_path / "bad.png", 8, on_error="skip")


def test_image_files_are_files(tmp_path):
    for source in (torch.rand(2, 3, 8, 8), to_pil(torch.rand(2, 3, 8, 8))):
        with pytest.raises(TypeError, match="of pictures in memory; expected a folder or paths of files. load_images"):
            ImageFiles(source, 8)
    with pytest.raises(FileNotFoundError, match="nothing is there"):
        ImageFiles(tmp_path / "none", 8)
    with pytest.raises(ValueError, match="on_error='ignore' is unknown; expected 'raise' or 'skip'"):
        ImageFiles(tmp_path, 8, on_error="ignore")


def own_outputs(folder):
    """Folders as a result, a comparison and exported stimuli leave them."""
    for name, record, text in (
        ("result", "result.json", '{\n "kind": "vislens_interp result",\n "format_version": 2}'),
        ("compared", "comparison.json", '{\n "kind": "vislens_interp comparison"}'),
        ("stimuli", "stimuli.tsv", "number\tfile\tblock\tkind\ttarget\n"),
    ):
        (folder / name / "images").mkdir(parents=True)
        picture().save(folder / name / "figure.png")
        picture().save(folder / name / "images" / "0.png")
        (folder / name / record).write_text(text)
        yield folder / name


def test_what_the_library_made_is_not_read_again(folder, tmp_path):
    made = list(own_outputs(folder / "deeper"))
    with pytest.warns(UserWarning, match="left out are 3 folders with our own results such as "):
        names = load_images(folder)[1]
    assert names == ["a.PNG", "b/d.bmp", "c.png"]
    with pytest.warns(UserWarning, match="3 folders with our own results"):
        assert ImageFiles(folder, 8).names == names
    for own in made:  # asked for by name
        assert len(load_images(own / "images")[1]) == 1
        with pytest.warns(UserWarning, match="left out are 1 .(json|tsv)"):
            assert "figure.png" in load_images(own)[1]
    with pytest.raises(ValueError, match="is a folder without images; .* Left out are 3 folders with our own results"):
        load_images(folder / "deeper")
    (folder / "other").mkdir()
    picture().save(folder / "other" / "0.png")
    (folder / "other" / "result.json").write_text('{"kind": "something else"}')
    with pytest.warns(UserWarning, match="left out are 3 folders"):
        assert "other/0.png" in load_images(folder)[1]


def test_images_with_a_history_are_taken_without_it():
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    assert not load_images(images)[0].requires_grad
    assert not ReferenceSet(images).images.requires_grad
    plain = torch.rand(2, 3, 8, 8)
    assert ordinary(plain) is plain
