"""The runbook's Python, run as it stands on the tiny checkpoints in the hub's cache."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from checkpoints import write_hub_cache
from torch import nn

from vislens_interp.backends.base import _registry
from vislens_interp.backends.embedding import sd15
from vislens_interp.backends.weights import IP_ADAPTER, OPENCLIP, SD15
from vislens_interp.images import to_pil
from vislens_interp.preprocess import Preprocess

RUNBOOK = Path(__file__).parents[2] / "docs" / "sd15_runbook.md"


def test_the_code_of_the_runbook_runs(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    write_hub_cache(
        tmp_path / "hub", tiny, {one.repo_id: one.revision for one in (SD15, IP_ADAPTER, OPENCLIP)}
    )  # at the commits that `vislens download sd15` fetches
    # The name as it is, without fifty steps.
    monkeypatch.setitem(_registry, "sd15", partial(sd15, num_inference_steps=2))
    monkeypatch.chdir(tmp_path)
    for folder, count in (("photos", 3), ("reference", 200)):
        coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(count))
        (tmp_path / folder).mkdir()
        for row, picture in enumerate(to_pil(nn.functional.interpolate(coarse, size=32, mode="bilinear").clamp(0, 1))):
            picture.save(tmp_path / folder / f"{row}.png")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())
    model.__dict__["preprocess"] = Preprocess(16, [0.5], [0.5])  # carried, no layer of the Sequential
    known = {"model": model, "layer": "1", "unit": 2}
    blocks = re.findall(r"^```python\n(.*?)^```$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(RUNBOOK), "exec"), known)
    said = capsys.readouterr().out
    assert re.search(r"^1 shape \(3, \d+\), lengths ", said, re.MULTILINE)
    assert "\n3 strength 0 changes 0.0000\n" in said
    assert "\n4 another reference at strength 1 changes 0.0000\n" in said
    assert re.search(r"^5 nearest to its own photograph: \d of 3; cosine", said, re.MULTILINE)
    assert (tmp_path / "first_run" / "figure.png").is_file()


@pytest.mark.parametrize("words", ["2.13 GB", "0.04 GB", "3.94 GB", "6.1 GB", "8.3 GB"])
def test_its_sizes_are_those_of_the_files(words):
    from vislens_interp.backends.weights import sd15_repositories

    half, full = sd15_repositories("fp16"), sd15_repositories("fp32")
    sizes = [one.size / 1e9 for one in half] + [sum(one.size for one in every) / 1e9 for every in (half, full)]
    assert words in RUNBOOK.read_text(encoding="utf-8")
    assert min(abs(float(words.split()[0]) - size) for size in sizes) < 0.1
