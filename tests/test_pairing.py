import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vislens_interp.pairing import paired_responses, pairing_text


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    names=st.lists(st.from_regex(r"\A([a-c]/)?[a-z0-9]{1,4}\.(png|jpg)\Z"), min_size=1, max_size=8, unique=True),
    units=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_responses_by_name_whatever_their_order(names, units, seed):
    values = torch.rand(len(names), units, generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    given_ = {names[row]: values[row].tolist() for row in order}
    assert torch.equal(paired_responses(given_, names), values)
    stems = {name.rsplit("/")[-1].split(".")[0]: values[row] for row, name in enumerate(names)}
    if len(stems) == len(names):
        assert torch.equal(paired_responses(stems, names), values)


class Table:
    """What pandas' Series and DataFrame offer."""

    def __init__(self, index, values):
        self.index, self.values = index, values

    def to_numpy(self):
        return np.asarray(self.values)


def test_tables_by_their_index():
    names = ["1.png", "10.png", "2.png"]
    assert paired_responses(Table(["2", "1", "10"], [3.0, 1.0, 2.0]), names)[:, 0].tolist() == [1, 2, 3]
    assert paired_responses(Table(range(3), [[3.0], [1.0], [2.0]]).to_numpy(), names)[:, 0].tolist() == [3, 1, 2]
    with pytest.warns(UserWarning, match="'10.png' is number 1, where counting would have '2.png'"):
        paired_responses([1.0, 2.0, 3.0], names, sorted_by_name=True)
    assert paired_responses([1.0, 2.0], ["1.png", "2.png"], sorted_by_name=True).shape == (2, 1)


def test_tables_and_arrays_of_several_units():
    pandas = pytest.importorskip("pandas")
    names, values = ["1.png", "2.png"], [[1.0, 2.0], [3.0, 4.0]]
    rows = [np.array(row) for row in values]
    numbered, named = pandas.DataFrame(values), pandas.DataFrame(values, index=["1", "2"])
    for given_ in (numbered, named, named.to_numpy(), rows, dict(zip(names, rows, strict=True))):
        assert paired_responses(given_, names).tolist() == values


def test_a_power_in_a_name_is_no_number():
    assert paired_responses([1.0], ["²1.png"], sorted_by_name=True).tolist() == [[1]]


def test_a_table_with_repeats_of_an_image_is_refused():
    with pytest.raises(ValueError, match="1 images more than once, such as 'a'; expected one row an image"):
        paired_responses(Table(["a", "b", "a"], [1.0, 2.0, 3.0]), ["a.png", "b.png"])


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="of the 2 images 'b.png' has none .1 have none.*such as 'a.png'"):
        paired_responses({"a.png": 1.0}, ["a.png", "b.png"])
    with pytest.raises(ValueError, match="names without folders or suffixes are not unique"):
        paired_responses({"a": 1.0, "b": 2.0}, ["x/a.png", "y/a.png"])
    assert paired_responses([1.0, 2.0, 3.0], ["a.png", "b.png"]).shape == (3, 1)  # a fit refuses them
    with pytest.raises(TypeError, match="holds no numbers"):
        paired_responses(["x", "y"], ["a.png", "b.png"])
    with pytest.warns(UserWarning, match="1 names that belong to no image, such as 'c'"):
        paired_responses({"a": 1.0, "c": 2.0}, ["a.png"])
    assert pairing_text(torch.tensor([[1.0], [2.0]]), ["a", "b"]) == "first 'a' with 1, last 'b' with 2"
