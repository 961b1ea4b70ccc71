import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from captum._utils.common import _verify_select_neuron

from vislens_interp.targets.selectors import (
    Direction,
    Head,
    MeanOf,
    by_label,
    check_pool,
    labels_of,
    pool_unit,
    token_of,
    unit_list,
    unit_name,
    unit_names,
)

MAPS = torch.randn(3, 5, 4, 6)


def test_pools_of_a_map():
    assert torch.allclose(pool_unit(MAPS, 2, layout="NCHW"), MAPS[:, 2].mean((1, 2)))
    assert torch.equal(pool_unit(MAPS, 2, pool="max", layout="NCHW"), MAPS[:, 2].amax((1, 2)))
    assert torch.equal(pool_unit(MAPS, 2, pool="center", layout="NCHW"), MAPS[:, 2, 2, 3])


@pytest.mark.parametrize("pool", ["mean", "max", "center"])
def test_lists_and_layouts_agree(pool):
    one_by_one = torch.stack([pool_unit(MAPS, unit, pool=pool, layout="NCHW") for unit in (4, 0)], 1)
    assert torch.allclose(pool_unit(MAPS, [4, 0], pool=pool, layout="NCHW"), one_by_one)
    last = MAPS.movedim(1, -1)
    assert torch.allclose(pool_unit(last, [4, 0], pool=pool, layout="NHWC"), one_by_one)
    assert torch.allclose(pool_unit(last, 4, pool=pool, layout="NHWC"), one_by_one[:, 0])
    mixed = pool_unit(MAPS, [4, (4, 2, 3), MeanOf([4, 0])], pool=pool, layout="NCHW")
    assert torch.allclose(mixed, torch.stack([one_by_one[:, 0], MAPS[:, 4, 2, 3], one_by_one.mean(1)], 1))


def test_tokens_and_features():
    tokens = torch.randn(3, 7, 5)
    assert torch.allclose(pool_unit(tokens, 1, layout="NLC"), tokens[..., 1].mean(1))
    assert torch.equal(pool_unit(tokens, [1, 4], pool="max", layout="NLC"), tokens[..., [1, 4]].amax(1))
    features = torch.randn(3, 5)
    for pool in ("mean", "max", "center"):
        assert torch.equal(pool_unit(features, 1, pool=pool, layout="NC"), features[:, 1])
        assert torch.equal(pool_unit(features, [1, 4], pool=pool, layout="NC"), features[:, [1, 4]])


@pytest.mark.parametrize(
    "unit",
    [
        (1, 2, 3),
        (slice(None), 2, 3),
        (1, slice(0, 3), slice(None, None, 2)),
        (slice(1, 3),),
        lambda out: out[:, 0, 0, 0],
    ],
)
def test_tuples_and_functions_mean_what_captum_means(unit):
    assert torch.allclose(pool_unit(MAPS, unit, layout="NCHW"), _verify_select_neuron((MAPS,), unit))


def test_gradient_of_each_pool():
    for pool in ("mean", "max", "center"):
        maps = MAPS.clone().requires_grad_()
        pool_unit(maps, 2, pool=pool, layout="NCHW").sum().backward()
        assert maps.grad is not None
        assert torch.allclose(maps.grad.sum((1, 2, 3)), torch.ones(3))
        assert not maps.grad[:, [0, 1, 3, 4]].any()


@pytest.mark.parametrize("unit", [5, -1, [0, 5], MeanOf([0, 5])])
def test_out_of_range_names_the_range(unit):
    with pytest.raises(ValueError, match=r"unit=(5|-1) is out of range; expected 0..4 .*\(3, 5, 4, 6\).*'NCHW'"):
        pool_unit(MAPS, unit, layout="NCHW")


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ((1, 2), "has 2 indices; expected 3"),
        ((1,), "For channel 1, pooled, pass the int 1"),
        ((1, 2, 3, 4), "has 4 indices; expected 3"),
        ((1, 4, 3), r"index 1 is 4; expected 0..3"),
        ((1, -1, 3), r"index 1 is -1; expected 0..3"),
        ((slice(9, None), 0, 0), r"slice 0 is empty; expected part of 0..4"),
        (lambda output: output, r"<lambda> returned shape \(3, 5, 4, 6\); expected \(3,\)"),
    ],
)
def test_selectors_that_do_not_fit(unit, message):
    with pytest.raises(ValueError, match=message):
        pool_unit(MAPS, unit, layout="NCHW")


def test_selectors_of_wrong_types():
    with pytest.raises(TypeError, match="index 1 is a float"):
        pool_unit(MAPS, (1, 2.0, 3), layout="NCHW")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="returned a float; expected a tensor"):
        pool_unit(MAPS, lambda output: 1.0, layout="NCHW")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="unit is a str"):
        pool_unit(MAPS, "17", layout="NCHW")  # pyright: ignore[reportArgumentType]


def test_pool_names():
    with pytest.raises(ValueError, match="pool='sum'; expected one of 'mean', 'max', 'center'"):
        check_pool("sum")
    for wrong in ("token:", "token:x", "token:-1", "tokens:1"):
        with pytest.raises(ValueError, match="or 'token:k', such as 'token:0'"):
            check_pool(wrong)
    for pool in ("cls", "patch_mean", "token:0"):
        with pytest.raises(ValueError, match=f"pool='{pool}' on an output of layout 'NCHW', which has no tokens"):
            check_pool(pool, "NCHW")
    with pytest.raises(ValueError, match=r"pool='center' on tokens.*unit=\(token, feature\)"):
        check_pool("center", "NLC")


def test_unit_list_and_names():
    assert unit_list(3) == [3]
    assert [type(one) for one in unit_list([np.int64(3)])] == [int]  # pyright: ignore[reportArgumentType]
    assert [unit_name(one) for one in unit_list([3, (3,), MeanOf([3, 4])])] == ["3", "(3)", "mean(3, 4)"]
    for several in (range(3), np.arange(3), torch.arange(3)):
        assert unit_list(several) == [0, 1, 2]  # pyright: ignore[reportArgumentType]
    assert unit_list(torch.tensor(3)) == [3]  # pyright: ignore[reportArgumentType]
    for wrong in (np.ones(2), torch.ones(2), torch.tensor([True])):
        with pytest.raises(TypeError, match="expected an int .a channel., a tuple"):
            unit_list(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="unit is a str .'17'.; expected an int .* Pass unit=17."):
        unit_list("17")
    with pytest.raises(ValueError, match=r"unit=\[\]; expected at least one"):
        unit_list([])
    with pytest.raises(ValueError, match="unit names 3 more than once"):
        unit_names([3, 4, 3], [3, 4, 3], None)
    with pytest.raises(ValueError, match="unit names 1 more than once"):  # the label of one is the number of the other
        unit_names([0, 1], ["1", 1], ["1", "0"])
    for wrong in (None, True, 1.0, "3", [[3]]):
        with pytest.raises(TypeError, match="expected an int .a channel., a tuple"):
            unit_list(wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("units", [[], [1, 1], [1.5], [True]])
def test_mean_of_refuses(units):
    with pytest.raises(ValueError, match=r"in MeanOf; expected at least one whole number, each once"):
        MeanOf(units)


def test_mean_of_is_a_value():
    assert MeanOf([1, 2]) == MeanOf((1, 2))
    assert len({MeanOf([1, 2]), MeanOf([1, 2])}) == 1


def test_pools_of_tokens():
    tokens = torch.randn(3, 7, 5)
    for unit, expected in ((1, tokens[..., 1]), ([1, 4], tokens[..., [1, 4]].transpose(1, 2))):
        assert torch.equal(pool_unit(tokens, unit, pool="token:2", layout="NLC"), expected[..., 2])
        got = pool_unit(tokens, unit, pool="patch_mean", layout="NLC", prefix=2)
        assert torch.allclose(got, expected[..., 2:].mean(-1))
    assert (token_of("token:12"), token_of("cls"), token_of("token:")) == (12, None, None)
    with pytest.raises(ValueError, match=r"pool='token:7' is out of range; expected 'token:0'..'token:6'"):
        pool_unit(tokens, 1, pool="token:7", layout="NLC")
    with pytest.raises(ValueError, match="pool='patch_mean', but the number of prefix tokens is not known"):
        pool_unit(tokens, 1, pool="patch_mean", layout="NLC")
    with pytest.raises(ValueError, match="pool='cls', but which token"):
        pool_unit(tokens, 1, pool="cls", layout="NLC")


@pytest.mark.parametrize("pool", ["mean", "max", "center"])
def test_direction_is_a_dot_product_over_channels(pool):
    vector = [0.5, 0.0, -2.0, 0.0, 1.0]
    mapped = (MAPS * torch.tensor(vector)[:, None, None]).sum(1, keepdim=True)
    expected = pool_unit(mapped, 0, pool=pool, layout="NCHW")
    assert torch.allclose(pool_unit(MAPS, Direction(vector), pool=pool, layout="NCHW"), expected, atol=1e-6)
    last = MAPS.movedim(1, -1)
    assert torch.allclose(pool_unit(last, Direction(vector), pool=pool, layout="NHWC"), expected, atol=1e-6)
    one_hot = [Direction(np.eye(5)[3], name="three"), 3]
    both = pool_unit(MAPS, one_hot, pool=pool, layout="NCHW")
    assert torch.allclose(both[:, 0], both[:, 1])


def test_direction_refuses():
    for wrong in ([], [0.0, 0.0], [1.0, float("nan")], [[1.0]]):
        with pytest.raises(ValueError, match="in Direction; expected one finite weight a channel, not all 0"):
            Direction(wrong)
    with pytest.raises(ValueError, match=r"unit=Direction.'d', 2 channels.*expected 5 weights, one a channel"):
        pool_unit(MAPS, Direction([1, 2], "d"), layout="NCHW")
    assert Direction([1, 2]) == Direction(torch.tensor([1.0, 2.0])) != Direction([2, 1])
    assert len({Direction([1, 2]), Direction([1, 2])}) == 1
    assert unit_name(Direction([1, 2])) != unit_name(Direction([2, 1]))


def test_head_is_the_length_of_its_output():
    tokens = torch.randn(3, 7, 6)
    expected = tokens[..., 2:4].norm(dim=-1)
    assert torch.allclose(pool_unit(tokens, Head(1, heads=3), layout="NLC"), expected.mean(1))
    assert torch.allclose(pool_unit(tokens, Head(1, 3), pool="token:0", layout="NLC"), expected[:, 0])
    for head in (Head(1), Head(1, heads=4)):
        with pytest.raises(ValueError, match=r"unit=Head.*expected heads that divide its 6 channels"):
            pool_unit(tokens, head, layout="NLC")
    with pytest.raises(ValueError, match="index=-1 in Head"):
        Head(-1)
    with pytest.raises(ValueError, match="heads=0 in Head"):
        Head(0, heads=0)
    with pytest.raises(ValueError, match=r"index=3 in Head is out of range; expected 0..2"):
        Head(3, heads=3)


def test_labels():
    from torchvision.models import ResNet18_Weights

    names = labels_of(ResNet18_Weights.DEFAULT)
    assert names is not None
    assert len(names) == 1000
    assert by_label("goldfish", names) == 1
    assert by_label(["tench", 5, "goldfish"], names) == [0, 5, 1]
    assert labels_of({"0": "cat", "1": "dog"}) == labels_of({0: "cat", 1: "dog"}) == ["cat", "dog"]
    with pytest.raises(KeyError, match="unit='gold fish' is none of the 1000 labels.*Closest: 'goldfish'"):
        by_label("gold fish", names)
    with pytest.raises(KeyError, match=r"unit='crane' is the label of units \[0, 2\]"):
        by_label("crane", ["crane", "heron", "crane"])
    for wrong in ("cat", 3, [1, 2]):
        with pytest.raises(TypeError, match="expected one name a channel"):
            labels_of(wrong)
    with pytest.raises(TypeError, match="unit is a str .'cat'.*pass labels="):
        unit_list("cat")


def test_neurons_that_the_pages_name_are_read():
    docs = Path(__file__).parents[2] / "docs"
    pages = [path.read_text(encoding="utf-8") for path in docs.glob("*.md")]
    named = [ast.literal_eval(text) for page in pages for text in re.findall(r"unit=(\([^)]*\d\))", page)]
    assert {len(unit) for unit in named} == {2, 3}
    for unit in named:
        output = torch.randn(2, *(index + 1 if isinstance(index, int) else 2 for index in unit))
        assert pool_unit(output, unit, layout="NC").shape == (2,)
