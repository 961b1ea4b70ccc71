"""Hooks and flags are on modules, which all threads share: every thread still reads what is right."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vislens_interp.preprocess import Preprocess
from vislens_interp.random_state import kept_random_state
from vislens_interp.targets import CallableTarget, LayerTarget
from vislens_interp.targets.undisturbed import undisturbed

PIXELS = Preprocess(16, [0], [1])
IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LAYERS = ["0", "1", "2", "4", "5"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Conv2d(8, 8, 3), nn.Tanh()
    )


def by_hand(model, layer, images):
    was = model.training
    model.eval()
    kept = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append(output.clone()))
    with torch.no_grad():
        model(images)
    hook.remove()
    model.train(was)
    return kept[0].mean((2, 3))


@settings(derandomize=True, deadline=None, max_examples=15)
@given(data=st.data())
def test_any_threads_read_what_one_thread_reads(data):
    """Random threads: readings with and without gradients of random layers, of models that share modules."""
    model = network()
    wrapped = nn.Sequential(nn.Identity(), model)  # other root, same modules
    model.train(data.draw(st.booleans(), "train"))
    statistics = model[1].running_mean.clone()
    jobs = data.draw(
        st.lists(
            st.tuples(st.sampled_from(LAYERS), st.integers(0, 7), st.booleans(), st.booleans()), min_size=2, max_size=5
        ),
        "threads",
    )
    expected = {layer: by_hand(model, layer, IMAGES) for layer, *_ in jobs}
    targets = [
        LayerTarget(wrapped if shared else model, f"1.{layer}" if shared else layer, unit, preprocess=PIXELS)
        for layer, unit, _, shared in jobs
    ]
    start = threading.Barrier(len(jobs))

    def work(job, target):
        start.wait()
        results = []
        for _ in range(8):
            if job[2]:
                images = IMAGES.clone().requires_grad_()
                target(images).sum().backward()
                results.append((target.responses(IMAGES)[:, 0], bool(images.grad.abs().sum() > 0)))
            else:
                results.append((target.responses(IMAGES)[:, 0], True))
        return results

    with ThreadPoolExecutor(len(jobs)) as pool:
        done = list(pool.map(work, jobs, targets))
    for (layer, unit, *_), results in zip(jobs, done, strict=True):
        for values, has_gradient in results:
            assert torch.allclose(values, expected[layer][:, unit], atol=1e-5)
            assert has_gradient
    assert torch.equal(model[1].running_mean, statistics)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in wrapped.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_pass_of_the_callers_own_beside_it():
    model = network().eval()
    target = LayerTarget(model, "1", 5, preprocess=PIXELS)
    expected, whole = by_hand(model, "1", IMAGES)[:, 5], model(IMAGES).detach()
    stop = threading.Event()
    outputs = []

    def own():
        while not stop.is_set():
            output = model(IMAGES)
            outputs.append((output.detach(), output.requires_grad))

    thread = threading.Thread(target=own)
    thread.start()
    try:
        for _ in range(40):
            assert torch.allclose(target.responses(IMAGES)[:, 0], expected, atol=1e-5)
            images = IMAGES.clone().requires_grad_()
            assert torch.allclose(target(images)[:, 0], expected, atol=1e-5)
    finally:
        stop.set()
        thread.join()
    assert len(outputs) > 0
    assert all(torch.allclose(output, whole, atol=1e-5) for output, _ in outputs)


def test_a_pass_that_begins_meanwhile_waits_for_the_callers_mode():
    model = network().train()
    seen = []
    model[3].register_forward_hook(lambda module, args, output: seen.append(module.training))
    with undisturbed(model):
        thread = threading.Thread(target=lambda: model(IMAGES))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert seen == []
    thread.join(10)
    assert seen == [True]


def test_random_numbers_of_other_threads_are_not_drawn_twice():
    model = network()
    target = LayerTarget(model, "1", 5, preprocess=PIXELS)
    state = torch.get_rng_state()
    handle = model[0].register_forward_hook(lambda *_: torch.rand(1) and None)  # as another thread would meanwhile
    target.responses(IMAGES)
    handle.remove()
    assert not torch.equal(torch.get_rng_state(), state)


def test_random_states_of_all_three():
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with kept_random_state(seed=3):
        first = torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002
    with kept_random_state(seed=3):
        assert first == (torch.rand(1).item(), random.random(), np.random.rand())  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002


@pytest.mark.parametrize("cache", [0, 3])
def test_threads_share_a_callable_target(cache):
    target = CallableTarget(lambda images: images.mean((1, 2, 3)), cache=cache, batch_size=2)
    with ThreadPoolExecutor(6) as pool:
        for values in pool.map(lambda _: target.responses(IMAGES)[:, 0], range(60)):
            assert torch.allclose(values, IMAGES.mean((1, 2, 3)))
