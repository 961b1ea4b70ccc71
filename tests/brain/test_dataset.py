import numpy as np
import pytest
import torch
from PIL import Image

from vislens_interp.brain import BrainDataset, refuse_shared_images
from vislens_interp.images import ImageFiles
from vislens_interp.pairing import paired_responses


def pictures(count=12, side=4, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def recorded(count=12, repetitions=3, targets=2, seed=0):
    return torch.randn(count, repetitions, targets, generator=torch.Generator().manual_seed(seed))


def dataset(count=12, **given):
    return BrainDataset.from_arrays(pictures(count), recorded(count), targets=["FFA-1", "PPA"], **given)


@pytest.fixture
def files(tmp_path):
    draw = np.random.default_rng(0)
    paths = []
    for index in range(6):
        path = tmp_path / f"picture{index}.png"
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def test_what_is_given_comes_back():
    data = dataset(subject="subj01", units="z-scored beta")
    assert len(data) == 12
    assert torch.equal(data.images, pictures())
    assert torch.equal(data.responses, recorded())
    assert data.targets == ["FFA-1", "PPA"]
    assert (data.subject, data.units, data.repetitions) == ("subj01", "z-scored beta", 3)
    assert repr(data).startswith(
        "BrainDataset(12 images, 2 targets of subj01, up to 3 repetitions, z-scored beta, noise ceiling R 0."
    )
    averaged = data.averaged()
    assert averaged.responses.shape == (12, 1, 2)
    assert "averaged" in repr(averaged)
    assert "?" not in repr(dataset())
    assert torch.equal(averaged.mean_responses(), data.mean_responses())


def test_mean_leaves_out_what_is_absent():
    responses = recorded()
    responses[0, 1, 0] = torch.nan
    responses[3, :, 1] = torch.nan
    data = BrainDataset.from_arrays(pictures(), responses, targets=["a", "b"])
    mean = data.mean_responses()
    assert mean[0, 0] == pytest.approx(((responses[0, 0, 0] + responses[0, 2, 0]) / 2).item())
    assert mean[3, 1].isnan()
    assert mean.isnan().sum() == 1
    assert data.counts[0].tolist() == [2, 3]
    assert data.counts[3].tolist() == [3, 0]


def test_the_summary_counts_repetitions_of_each_image_and_target():
    responses = recorded(12, 4)
    responses[0, 1, 0] = torch.nan
    data = BrainDataset.from_arrays(pictures(), responses, targets=["a", "b"])
    assert "repetitions: 3 to 4 an image and target" in data.summary().splitlines()
    assert "no response" not in data.summary()
    responses[3:5] = torch.nan
    data = BrainDataset.from_arrays(pictures(), responses, targets=["a", "b"])
    assert "repetitions: 0 to 4 an image and target" in data.summary().splitlines()
    assert "no response to 2 images, such as 'image_00003'" in data.summary().splitlines()
    assert len(data) == 12


def test_arrays_and_averaged_responses():
    data = BrainDataset.from_arrays(pictures().numpy(), np.arange(24.0).reshape(12, 2), targets=["a", "b"])
    assert data.responses.shape == (12, 1, 2)
    assert data.responses.dtype == torch.float32
    assert data.mean_responses()[5].tolist() == [10, 11]


def test_the_constructor_takes_arrays_of_responses():
    data = BrainDataset(pictures(), recorded().numpy(), ["a", "b"])
    assert torch.equal(data.responses, recorded())
    assert len(data.split([0.5, 0.5])) == 2
    with pytest.raises(ValueError, match=r"responses has shape \(12, 2\); expected \(N, R, K\)"):
        BrainDataset(pictures(), np.zeros((12, 2)), ["a", "b"])
    with pytest.raises(TypeError, match="responses is a list; expected a tensor or an array"):
        BrainDataset(pictures(), recorded().tolist(), ["a", "b"])
    with pytest.raises(TypeError, match="images is a ndarray; expected a tensor .* BrainDataset.from_arrays takes"):
        BrainDataset(pictures().numpy(), recorded(), ["a", "b"])
    with pytest.raises(ValueError, match="look like 0..255: divide by 255"):
        BrainDataset(pictures() * 255, recorded(), ["a", "b"])


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.astype(">f4"),
        lambda array: array[::-1].copy()[::-1],
        lambda array: array.astype(np.longdouble),
    ],
    ids=["big endian", "backwards", "long"],
)
def test_arrays_that_torch_does_not_take(change):
    data = BrainDataset.from_arrays(change(pictures().numpy()), change(recorded().numpy()), targets=["a", "b"])
    assert torch.equal(data.images.float(), pictures())
    assert torch.equal(data.responses, recorded())
    names = [f"{row}.png" for row in range(12)]
    assert torch.equal(paired_responses(change(recorded()[:, 0].numpy()), names), recorded()[:, 0])


def test_trials_are_gathered_by_image():
    shown = [2, 0, 2, 1, 2, 0]
    trials = np.array([[10.0], [1.0], [11.0], [5.0], [12.0], [2.0]])
    data = BrainDataset.from_trials(pictures(3), trials, shown, targets=["V4"])
    assert data.responses[0, :, 0].tolist()[:2] == [1, 2]
    assert data.responses[2, :, 0].tolist() == [10, 11, 12]
    assert data.counts[:, 0].tolist() == [2, 1, 3]
    assert data.responses[1, 1:].isnan().all()


def test_files_stay_on_the_disk(files):
    data = BrainDataset.from_arrays(files, recorded(6), targets=["a", "b"], size=4)
    assert isinstance(data.images, ImageFiles)
    assert data.images.shape == (6, 3, 4, 4)
    some = data.take([4, 1])
    assert some.names == ["picture4.png", "picture1.png"]
    assert torch.equal(some.images[:], data.images[[4, 1]])
    at_once = BrainDataset.from_arrays(files, recorded(6), targets=["a", "b"])
    assert isinstance(at_once.images, torch.Tensor)
    assert at_once.names == data.names
    folder = BrainDataset.from_trials(files[0].parent, recorded(6)[:, 0], range(6), targets=["a", "b"], size=4)
    assert folder.names == data.names


@pytest.fixture
def numbered(tmp_path):
    """A folder of 0.png to 11.png, whose text order is 0, 1, 10, 11, 2; each as grey as its number."""
    for number in range(12):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def numbers_of(data):
    return (data.images[:][:, 0, 0, 0] * 255).round().tolist()


DOUBT = "responses has no names, and the images are in the order of their names as text: '10.png' is number 2, where"


@pytest.mark.parametrize("size", [None, 4])
def test_rows_for_a_folder_in_another_order_than_counting_are_refused(numbered, size):
    rows = np.arange(12.0)[:, None]
    paths = [numbered / f"{number}.png" for number in range(12)]
    with pytest.raises(ValueError, match=DOUBT + ".*Pass to BrainDataset.from_arrays names="):
        BrainDataset.from_arrays(numbered, rows, targets=["row"], size=size)
    with pytest.raises(ValueError, match=DOUBT):
        BrainDataset.from_trials(numbered, rows, range(12), targets=["row"], size=size)
    with pytest.raises(ValueError, match=DOUBT):
        BrainDataset.from_arrays(numbered, rows, targets=["row"], size=size, names=[f"face {n}" for n in range(12)])
    with pytest.raises(ValueError, match=DOUBT):
        BrainDataset(ImageFiles(numbered, 4), torch.from_numpy(rows)[:, None].float(), ["row"])
    with pytest.raises(ValueError, match="unequal counts"):
        BrainDataset.from_arrays(numbered, rows[:5], targets=["row"], size=size)
    chosen = BrainDataset.from_arrays(paths, rows, targets=["row"], size=size)
    assert numbers_of(chosen) == chosen.mean_responses()[:, 0].tolist() == list(range(12))


@pytest.mark.parametrize("size", [None, 4])
def test_names_and_mappings_pair_the_rows_of_a_folder(numbered, size):
    rows = np.arange(12.0)[:, None]
    windows = [f"C:\\stimuli\\{number}.png" for number in range(12)]
    for names in ([f"{number}.png" for number in range(12)], range(12), windows):
        data = BrainDataset.from_arrays(numbered, rows, targets=["row"], size=size, names=names)
        assert numbers_of(data) == data.mean_responses()[:, 0].tolist()
        assert data.names == [str(name) for name in names]
        assert "pairing: files of images in the order of names=" in data.summary()
    trials = BrainDataset.from_trials(numbered, rows, range(12), targets=["row"], size=size, names=range(12))
    assert numbers_of(trials) == trials.mean_responses()[:, 0].tolist()
    named = BrainDataset.from_arrays(numbered, {f"{n}.png": [n] for n in range(12)}, targets=["row"], size=size)
    assert numbers_of(named) == named.mean_responses()[:, 0].tolist()
    assert named.names[2] == "10.png"
    assert "pairing: by the names of images, which responses gives" in named.summary()
    assert named.select("row").names == named.names
    with pytest.raises(ValueError, match="names= names 1 of 12 pictures that images do not hold, such as '12.png'"):
        BrainDataset.from_arrays(numbered, rows, targets=["row"], size=size, names=[f"{n}.png" for n in range(1, 13)])


def test_responses_of_a_table_are_found_by_its_index(numbered):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"row": range(12)}, index=[str(number) for number in range(12)])
    data = BrainDataset.from_arrays(numbered, table, targets=["row"])
    assert numbers_of(data) == data.mean_responses()[:, 0].tolist()
    with pytest.raises(ValueError, match=DOUBT):
        BrainDataset.from_arrays(numbered, table.reset_index(drop=True), targets=["row"])


def test_columns_of_a_table_are_found_by_the_names_of_targets():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"V4": [1.0, 2, 3], "area": [0.0] * 3, "V1": [4.0, 5, 6]}, index=["c", "a", "b"])

    def read(targets, frame=table):
        names = None if frame.index[0] == 0 else ["a", "b", "c"]
        return BrainDataset.from_arrays(pictures(3), frame, targets=targets, names=names).mean_responses().tolist()

    assert read(["V1", "V4"]) == [[5, 2], [6, 3], [4, 1]]
    assert read(["V1", "V4"], table.reset_index(drop=True)) == [[4, 1], [5, 2], [6, 3]]
    assert read(["x", "y", "z"])[0] == [2, 0, 5]  # other names for all
    assert read([1, 2], pandas.DataFrame(np.eye(3)[:, :2], index=["a", "b", "c"]))[0] == [1, 0]
    with pytest.raises(ValueError, match="responses has the columns V4, area, V1, and none of them is target 'v4'"):
        read(["V1", "v4"])


def test_what_a_masked_array_hides_is_absent():
    values = np.ma.masked_array([[1, 2], [3, 4], [5, 6]], mask=[[0, 0], [1, 0], [0, 0]])
    data = BrainDataset.from_arrays(pictures(3), values, targets=["a", "b"])
    assert data.counts.tolist() == [[1, 1], [0, 1], [1, 1]]


def test_a_summary_says_how_trials_were_paired(files, tmp_path):
    trials = BrainDataset.from_trials(files, recorded(6)[:, 0], range(6), targets=["a", "b"], size=4)
    assert "pairing: 6 trials, by the position in images that shown= gives each" in trials.summary()
    (tmp_path / "t.csv").write_text("file,V4\n" + "".join(f"{file.name},1\n" for file in files), encoding="utf-8")
    table = BrainDataset.from_table(tmp_path / "t.csv", size=4)
    assert "pairing: 6 rows, by the paths in column 'file' of t.csv" in table.take([1, 2]).summary()


@pytest.mark.filterwarnings("error")
def test_positions_may_come_from_a_column(files):
    pandas = pytest.importorskip("pandas")
    shown = pandas.Series(range(6), index=range(3, 9))
    data = BrainDataset.from_trials(files, recorded(6)[:, 0], shown, targets=["a", "b"], size=4)
    assert torch.equal(data.responses, recorded(6)[:, :1])


def test_files_that_are_not_there_are_refused_at_once(files):
    gone = [*files[:5], files[0].parent / "gone.png"]
    with pytest.raises(FileNotFoundError, match="images: 1 of 6 files are not there, such as .*gone.png"):
        BrainDataset.from_arrays(gone, recorded(6), targets=["a", "b"], size=4)


def test_take_and_select():
    data = dataset()
    assert torch.equal(data.take(slice(2, 5)).images, data.images[2:5])
    assert torch.equal(data.take(torch.arange(12) % 2 == 0).responses, data.responses[::2])
    assert data.take(np.array([-1])).names == ["image_00011"]
    assert data.select(["PPA", "FFA-1"]).targets == ["PPA", "FFA-1"]
    assert torch.equal(data.select("PPA").responses, data.responses[:, :, 1:])
    with pytest.raises(KeyError, match="target 'FFA1' is not in this data set. Closest: FFA-1."):
        data.select("FFA1")
    with pytest.raises(KeyError, match="Known: FFA-1, PPA"):
        data.select("zzz")
    with pytest.raises(ValueError, match="rows holds 12; expected rows of 12 images"):
        data.take([12])
    with pytest.raises(ValueError, match="rows is empty"):
        data.take([])
    with pytest.raises(ValueError, match=r"rows is a mask of shape \(3,\); expected \(12,\)"):
        data.take(torch.tensor([True, False, True]))


@pytest.mark.parametrize("rows", [3, 2.5, [0.5], "3", None, {1, 2}, ["image_00001"], [[0], [1]], torch.tensor(3)])
def test_what_is_no_rows_is_refused(rows):
    data = dataset()
    for refused in (data.take, data.split_rows):
        with pytest.raises(TypeError, match=r"rows=.*; expected positions \(whole numbers\), a slice, or a mask of 12"):
            refused(rows)


def test_what_is_no_names_is_refused():
    data = dataset()
    with pytest.raises(TypeError, match="targets=3 is a int; expected a sequence. Pass names of targets"):
        data.select(3)
    with pytest.raises(KeyError, match="target 3 is not in this data set. Known: FFA-1, PPA"):
        data.select([3])
    with pytest.raises(TypeError, match=r"targets=3 is a int; expected a sequence. Pass \[3\]"):
        BrainDataset(data.images, data.responses, 3)
    for make in (BrainDataset, BrainDataset.from_arrays):
        for names in (12, "abcdefghijkl"):
            with pytest.raises(TypeError, match=f"names={names!r} is a .*; expected a sequence"):
                make(data.images, data.responses, targets=data.targets, names=names)
    for shown in (["a"] * 12, [0.5] * 12):
        with pytest.raises(TypeError, match=r"shown=.*; expected positions in images \(12\), whole numbers"):
            BrainDataset.from_trials(data.images, data.responses[:, 0], shown, targets=data.targets)


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ([0.5, 0.25], [6, 3]),
        ([5, 3, 4], [5, 3, 4]),
        ([1 / 3] * 3, [4, 4, 4]),
        (np.array([0.5, 0.25], np.float32), [6, 3]),
        (torch.tensor([5, 3, 4]), [5, 3, 4]),
    ],
)
def test_splits_are_disjoint_and_repeatable(parts, sizes):
    data = dataset()
    split = data.split(parts, seed=3)
    assert [len(part) for part in split] == sizes
    names = [name for part in split for name in part.names]
    assert len(set(names)) == len(names)
    assert [part.names for part in data.split(parts, seed=3)] == [part.names for part in split]
    assert [part.names for part in data.split(parts, seed=4)] != [part.names for part in split]
    for part in split:
        assert torch.equal(part.responses, data.responses[[data.names.index(name) for name in part.names]])


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_a_picture_stay_together(seed):
    images = pictures(6).repeat(3, 1, 1, 1)
    data = BrainDataset.from_arrays(images, recorded(18), targets=["a", "b"])
    first, second = data.split([9, 9], seed=seed)
    assert len(first) + len(second) == 18
    assert not set(first.keys) & set(second.keys)


@pytest.mark.parametrize("parts", [[], [0.8, 0.3], [0, 12], [13], [-1.0, 0.5]])
def test_impossible_splits(parts):
    with pytest.raises(ValueError, match="parts=.* of 12 images; expected shares above 0"):
        dataset().split(parts)


def test_one_part_is_no_sequence():
    with pytest.raises(TypeError, match=r"parts=0.5 is a float; expected a sequence. Pass such as \[0.8, 0.2\]"):
        dataset().split(0.5)


def test_empty_part():
    with pytest.raises(ValueError, match=r"gives parts of \[12, 0\]; expected at least one image"):
        dataset().split([0.99, 0.01])


def test_an_image_in_two_parts_is_refused(files):
    data = dataset()
    with pytest.raises(ValueError, match="parts 0 and 2 share 1 images, such as 'image_00001'"):
        data.split_rows([0, 1], [2, 3], [1, 5])
    first, second = data.split_rows([0, 1], [2, 3])
    refuse_shared_images(first, second)
    # The same pixels under another name are the same image, and so is the same file.
    other = BrainDataset.from_arrays(data.images[1:2].clone(), recorded(1), targets=["a", "b"], names=["copy"])
    with pytest.raises(ValueError, match=r"fit and test share 1 images, such as 'image_00001' \('copy'\)"):
        refuse_shared_images(first, other, "fit and test")
    on_disk = BrainDataset.from_arrays(files, recorded(6), targets=["a", "b"], size=4)
    with pytest.raises(ValueError, match="share 2 images"):
        refuse_shared_images(on_disk, on_disk.take([3, 4]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"responses": recorded(11)}, "images and responses have unequal counts: 12 images, responses of shape"),
        ({"responses": recorded(12, 3, 5)}, "5 columns, for 2 targets; expected one column each"),
        ({"responses": recorded()[:, 0, 0]}, r"responses has shape \(12,\); expected \(N, K\)"),
        ({"responses": recorded() / 0}, "responses holds infinite values"),
        (
            {"responses": recorded() * torch.tensor([1, torch.nan])},
            "every value of target 'PPA' is NaN .*1 of 2 targets",
        ),
        ({"responses": recorded(2, 3, 12)}, r"shape \(2, 3, 12\); .* Turn its axes round: images come first"),
        ({"targets": ["a", "a"]}, "has a more than once; expected names, each once"),
        ({"targets": []}, "is empty; expected names"),
        ({"images": pictures() * 255}, "They look like 0..255"),
        ({"names": ["one"]}, "names holds 1 for 12 images"),
    ],
)
def test_wrong_values(change, message):
    given = {"images": pictures(), "responses": recorded(), "targets": ["FFA-1", "PPA"]} | change
    with pytest.raises(ValueError, match=message):
        BrainDataset.from_arrays(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [1, 2]}, "images is a list; expected"),
        ({"responses": [[1.0]]}, "responses is a list; expected a tensor or an array"),
        ({"responses": np.array([["a"] * 2] * 12)}, "responses has type <U1; expected numbers"),
        ({"targets": "PPA"}, "targets='PPA' is a str; expected a sequence. Pass .'PPA'."),
    ],
)
def test_wrong_kinds(change, message):
    given = {"images": pictures(), "responses": recorded(), "targets": ["FFA-1", "PPA"]} | change
    with pytest.raises(TypeError, match=message):
        BrainDataset.from_arrays(**given)


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ([0, 1, 2], r"responses has shape \(4, 2\) and shown \(3,\)"),
        ([0, 1, 2, 3], "shown names images outside 0 to 2"),
    ],
)
def test_wrong_trials(shown, message):
    with pytest.raises(ValueError, match=message):
        BrainDataset.from_trials(pictures(3), recorded(4)[:, 0], shown, targets=["a", "b"])


def test_a_part_without_a_response_says_so():
    responses = recorded()
    responses[:6, :, 0] = torch.nan
    data = BrainDataset.from_arrays(pictures(), responses, targets=["FFA-1", "PPA"])
    with pytest.raises(ValueError, match="every value of target 'FFA-1' is NaN in these 6 images"):
        data.take(range(6))
    assert len(data.select("PPA").take(range(6))) == 6
