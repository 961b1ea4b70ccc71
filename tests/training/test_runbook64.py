"""What docs/training64.md says: its commands, its figures, its code."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from vislens_interp.training import autoencoder64, generator64, vit_tiny64
from vislens_interp.training.__main__ import main
from vislens_interp.training.simclr_resnet50 import Pupil
from vislens_interp.zoo.embedder import Embedder64

RUNBOOK = (Path(__file__).parents[2] / "docs" / "training64.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^ *python -m vislens_interp\.training (.*)$", RUNBOOK, re.MULTILINE)))


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_commands_are_understood(command, tmp_path, monkeypatch, capsys):
    """Each gets past its arguments and stops at the first file that is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for word, path in (("/tmp/data", tmp_path / "data"), ("/tmp/runs64", tmp_path / "runs")):
        command = command.replace(word, str(path))
    assert main(shlex.split(command)) == 1
    assert re.search("no such (file|zip or folder)", capsys.readouterr().err)


def test_parameters_and_operations():
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.zeros(1, 3, 64, 64)
    embedder, autoencoder, unet, vit, simclr = (
        Embedder64().eval(),
        autoencoder64.build(),
        generator64.build(),
        vit_tiny64.build(200),
        Pupil().eval(),
    )
    latents = torch.zeros(1, 12, 16, 16)
    condition = {"image_embeds": [torch.zeros(1, 1, 512)]}
    text = torch.zeros(1, 1, 256)
    said = {
        "embedder64": (embedder, r"0\.15, two views", 0.147, lambda: embedder(images)),
        "autoencoder64": (autoencoder, r"0\.06", 0.060, lambda: autoencoder.decode(latents)),
        "generator64": (
            unet,
            r"0\.23",
            0.23,
            lambda: unet(latents, torch.ones(1), encoder_hidden_states=text, added_cond_kwargs=condition),
        ),
        "vit_tiny64": (vit, r"0\.73", 0.73, lambda: vit(images)),
        "simclr_resnet50": (
            simclr.backbone,
            r"0\.68, two views",
            0.68,
            lambda: simclr.project(simclr.backbone(images)),
        ),
    }
    for name, (network, written, operations, forward) in said.items():
        millions = sum(weight.numel() for weight in network.parameters()) / 1e6
        assert re.search(rf"\| `{name}` \|.*\| {millions:.1f} M", RUNBOOK)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            forward()
        assert counter.get_total_flops() / 1e9 == pytest.approx(operations, rel=0.02)
        assert re.search(rf"\| `{name}` \| {written}", RUNBOOK)
