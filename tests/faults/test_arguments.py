"""Arguments that cannot work: one clear line before any work."""

import io
import json
import multiprocessing
import shutil
import socket
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from vislens_interp import CallableTarget, Config, FeatureLens
from vislens_interp.backends.embedders import OpenCLIPEmbedder
from vislens_interp.brain.encoder import InSilicoEncoder
from vislens_interp.brain.regions import _moments
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.math import pearson
from vislens_interp.methods import method_by_name
from vislens_interp.progress import tqdm
from vislens_interp.random_state import check_seed
from vislens_interp.targets.ranking import predictability

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Brightness:
    """A unit, and how often it was asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return images.mean((1, 2, 3))


@pytest.fixture
def asked():
    return Brightness()


@pytest.fixture
def lens(asked):
    made = FeatureLens(CallableTarget(asked), backend="cifar10")
    asked.calls = 0
    return made


@pytest.mark.parametrize("seed", [1.5, 2**63, 2**32, -1, True, "0", None, torch.tensor(1), float("nan")])
def test_seeds(seed, lens, asked):
    with pytest.raises(ValueError, match="seed=.*; expected a whole number from 0 to 4294967295, such as 0"):
        FeatureLens(CallableTarget(asked), backend="cifar10", seed=seed)
    with pytest.raises((ValueError, TypeError), match="seed"):
        Config.of(seed=seed)
    asked.calls = 0
    if seed != 2**32:  # noise seeds may be larger
        for call in (
            lambda: lens.visualize(IMAGES, seeds=seed),
            lambda: lens.visualize(IMAGES, seeds=[0, 1, 2, seed]),
            lambda: lens.sample(2, seed=seed),
        ):
            with pytest.raises((ValueError, TypeError), match="seed"):
                call()
    with pytest.raises(ValueError, match="seeds=.*; expected a whole number"):
        lens.compare(IMAGES, ["edit"], seeds=[seed])
    assert asked.calls == 0


def test_seeds_of_numpy_are_seeds(asked):
    assert FeatureLens(CallableTarget(asked), backend="cifar10", seed=np.int64(3)).seed == 3
    assert type(check_seed(np.uint8(3))) is int


@pytest.mark.parametrize("value", [torch.tensor(0.5), np.array([0.5]), "0.5", True])
def test_weights_that_are_no_numbers(value, lens, asked):
    for argument in ("alpha", "strength"):
        with pytest.raises(TypeError, match=rf"{argument}=.* is a {type(value).__name__}; expected a number"):
            lens.visualize(IMAGES, **{argument: value})
    with pytest.raises(TypeError, match=r"alphas=.*; expected a number"):
        lens.visualize(IMAGES, alphas=[0.5, value])
    with pytest.raises(ValueError, match=r"alpha=nan must lie in \[0, 1\]"):
        lens.visualize(IMAGES, alpha=float("nan"))
    assert asked.calls == 0


def test_images_with_a_history(lens):
    images = IMAGES.clone().requires_grad_()
    noise = method_by_name("noise").fit(lens.target, lens.backend, images)
    made = noise.generate(images, {0: "increase"}, seeds=[0, 1, 2, 3]).images
    assert not made.requires_grad
    with pytest.raises(ValueError, match="seeds=1.5; expected a whole number"):
        noise.generate(images, {0: "increase"}, seeds=[0, 1, 2, 1.5])


def test_a_checkpoint_that_cannot_be_written(lens, asked, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written: Not a directory"):
        lens.fit(torch.rand(200, 3, 32, 32), checkpoint=tmp_path / "file" / "fit.safetensors")
    assert asked.calls == 0


SCALES = [1.0, 1e-13, 1e-15, 1e13]


@pytest.mark.parametrize("scale", SCALES)
def test_responses_in_any_unit(scale):
    """Magnetometers speak in tesla: responses of 1e-13 are alive, and mean the same."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=draw, dtype=torch.float64)
    responses = x[:, :1] + 0.1 * torch.randn(300, 1, generator=draw, dtype=torch.float64)
    scaler = ResponseScaler.fit(scale * responses, ["0"])
    torch.testing.assert_close(scaler.standardise(scale * responses).std(0), torch.ones(1).double(), rtol=1e-4, atol=0)
    single = (scale * responses).float()
    assert pearson(single, single)[0].item() == pytest.approx(1, abs=1e-5)
    assert predictability(scale * responses, x)[0].item() == pytest.approx(predictability(responses, x)[0].item())
    data = scale * responses.numpy()[:, :, None]
    _, sd, _ = _moments(data, np.array([0]), np.zeros((300, 1), int), np.ones((300, 1), bool))
    assert sd[0, 0] == pytest.approx(data.std(), rel=1e-6)
    still = scale * torch.ones(300, 1, dtype=torch.float64)
    for constant in (still, 0 * still, still + 1e-9 * scale * x[:, :1]):
        with pytest.raises(ValueError, match="unit '0' never varies"):
            ResponseScaler.fit(constant, ["0"])


def test_an_encoder_of_responses_in_tesla():
    encoder = InSilicoEncoder.__new__(InSilicoEncoder)
    nn.Module.__init__(encoder)
    encoder.targets = ["MEG0111"]
    encoder._scale(1e-13 * torch.randn(20, 1, generator=torch.Generator().manual_seed(0)))
    assert 5e-14 < encoder.scale.item() < 2e-13


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("text_cfg", "hf_model_name", "xlm-roberta-base"),
        ("vision_cfg", "timm_model_pretrained", True),
        ("text_cfg", "hf_model_pretrained", True),
    ],
)
def test_no_hub_behind_local_files_only(part, key, value, tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("somebody went to the network"))
    towers = {"embed_dim": 4, "vision_cfg": {}, "text_cfg": {}}
    towers[part][key] = value
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": towers, "preprocess_cfg": {}}))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(
        ValueError, match=f"takes {part}.{key}={value!r} from a hub, and local_files_only=True; expected"
    ):
        OpenCLIPEmbedder.load(tmp_path)
    (tmp_path / "open_clip_config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cannot be loaded"):
        OpenCLIPEmbedder.load(tmp_path)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("stream", [None, "closed"])
def test_progress_without_a_stderr(stream, monkeypatch):
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    assert list(tqdm(range(3), desc="fit")) == [0, 1, 2]
    with tqdm(total=3) as bar:
        bar.update()
        bar.set_postfix(loss=1)
        bar.write("loss 1")


def test_progress_is_sparse_in_a_pipe():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, interval in ((io.StringIO(), 30.0), (Terminal(), 0.1)):
        with tqdm(total=1000, file=stream) as bar:
            assert bar.mininterval == interval
            for _ in range(1000):
                bar.update()
    text = stream.getvalue()
    assert "100%" in text


def _hold(lock_is_held):
    with tqdm.get_lock():
        lock_is_held.set()
        time.sleep(60)


def test_a_process_killed_while_it_draws_stops_no_bar_of_another():
    context = multiprocessing.get_context("fork")
    lock_is_held = context.Event()
    child = context.Process(target=_hold, args=(lock_is_held,))
    child.start()
    assert lock_is_held.wait(30)
    child.kill()
    child.join()
    drawing = threading.Thread(target=lambda: list(tqdm(range(3), file=io.StringIO())), daemon=True)
    drawing.start()
    drawing.join(10)
    assert not drawing.is_alive()


def test_a_process_forked_while_a_bar_is_drawn_can_draw():
    context = multiprocessing.get_context("fork")
    with tqdm.get_lock():
        child = context.Process(target=lambda: list(tqdm(range(3), file=io.StringIO())))
        child.start()
        child.join(10)
    assert child.exitcode == 0
    child.kill()
