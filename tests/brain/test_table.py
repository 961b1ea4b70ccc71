import pytest
import torch
from PIL import Image

from vislens_interp.brain import BrainDataset
from vislens_interp.brain.table import read_table


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for index, name in enumerate("abc"):
        Image.new("RGB", (6, 6), (80 * index, 10, 200)).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path


def write(folder, text, name="table.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_repeated_paths_are_repetitions(folder):
    path = write(folder, "path,V1,V4\npictures/b.png,1,2\npictures/a.png,3,\npictures/b.png,5,nan\n")
    data = BrainDataset.from_table(path, size=4, units="spikes a bin", subject="PE")
    assert data.names == ["b.png", "a.png"]
    assert data.targets == ["V1", "V4"]
    assert data.responses[0, :, 0].tolist() == [1, 5]
    assert data.mean_responses()[:, 0].tolist() == [3, 3]
    assert data.counts.tolist() == [[2, 1], [1, 0]]
    assert (data.subject, data.units) == ("PE", "spikes a bin")


def test_tabs_columns_and_folder(folder):
    path = write(folder, "x\tfile\ty\n1\ta.png\t2\n3\tc.png\t4\n", "table.tsv")
    table = read_table(path, image_column="file", targets=["y"], folder=folder / "pictures")
    assert [file.name for file in table.paths] == ["a.png", "c.png"]
    assert torch.equal(table.responses, torch.tensor([[2.0], [4.0]]))
    data = BrainDataset.from_table(path, image_column="file", targets=["y"], folder=folder / "pictures")
    assert data.targets == ["y"]
    assert data.images.shape == (2, 3, 6, 6)


@pytest.mark.parametrize(
    ("text", "given", "error", "message"),
    [
        ("path,V1\n", {}, ValueError, "holds 0 rows below 2 columns; expected a header and at least one row"),
        ("path,V1\npictures/a.png,1,2\n", {}, ValueError, "row 2: 3 cells; expected 2, as in its header"),
        ("path,V1\npictures/a.png,many\n", {}, ValueError, "row 2, column 'V1': 'many' is no number"),
        ("path,FFA-1\npictures/a.png,1\n", {"targets": ["FFA1"]}, KeyError, "Closest: FFA-1"),
        ("path,V1\npictures/z.png,1\n", {}, FileNotFoundError, "names 1 pictures in column 'path' that are not there"),
        ("path,V1\npictures/a.png,1\n,2\n", {}, ValueError, "names no picture in row 3, column 'path'"),
        ("path;V1\npictures/a.png;1\n", {}, ValueError, "for semicolons pass it through pandas.read_csv"),
    ],
)
def test_errors(folder, text, given, error, message):
    with pytest.raises(error, match=message):
        read_table(write(folder, text), **given)


def test_a_data_frame_is_no_path():
    with pytest.raises(TypeError, match="path is a dict; expected the path of a CSV or TSV. Write a data frame to one"):
        BrainDataset.from_table({"image": ["a.png"], "V4": [1.0]})


def test_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected a CSV or TSV"):
        read_table(tmp_path / "none.csv")


def test_what_pandas_and_spreadsheets_write(folder):
    """An index column without a name, names with blanks around them, and paths as the index."""
    for text, given in (
        (",path,V1,V4\n0,pictures/a.png,1,2\n1,pictures/b.png,3,4\n", {}),
        ("Unnamed: 0,path,V1,V4\n0,pictures/a.png,1,2\n1,pictures/b.png,3,4\n", {"image_column": "path"}),
        ("path, V1 ,V4\npictures/a.png,1,2\npictures/b.png,3,4\n", {"targets": ["V1", "V4"]}),
        (",V1,V4\npictures/a.png,1,2\npictures/b.png,3,4\n", {}),
    ):
        table = read_table(write(folder, text), **given)
        assert table.targets == ["V1", "V4"]
        assert table.responses.tolist() == [[1, 2], [3, 4]]
        assert [path.name for path in table.paths] == ["a.png", "b.png"]


def test_a_table_in_another_encoding_or_with_a_name_twice(folder):
    (folder / "latin.csv").write_bytes("path,Réponse\npictures/a.png,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.csv' is not in UTF-8 .byte 0xe9 at place 6.*Save it in that encoding"):
        read_table(folder / "latin.csv")
    with pytest.raises(ValueError, match="has several columns called 'V1'; expected each name once"):
        read_table(write(folder, "path,V1,V1 \npictures/a.png,1,2\n"))
