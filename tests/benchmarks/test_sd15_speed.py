import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks.common.script import ROOT
from benchmarks.sd15_speed import generation as sd15_generation
from benchmarks.sd15_speed import run as sd15_speed
from benchmarks.sd15_speed.generation import (
    PUBLISHED,
    TINY,
    Grid,
    Variant,
    alone,
    counts,
    parts,
    paths,
    peak_memory,
)
from benchmarks.sd15_speed.generation import QUICK as QUICK_EFFORT
from benchmarks.sd15_speed.report import fit_lines, generation_lines, path_lines
from benchmarks.sd15_speed.run import QUICK, Measured, same_loss, simulated

CPU = torch.device("cpu")


def test_simulated_embeddings_are_what_they_say():
    x, responses = simulated(QUICK, units=2)
    assert x.shape == (400, 32)
    assert responses.shape == (400, 2)
    assert responses.std(0).tolist() == torch.ones(2).tolist() or (responses.std(0) - 1).abs().max() < 0.1
    variances = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    assert 10 < variances[0] / variances[-1] < 100  # falls off as 1/rank
    assert torch.equal(x, simulated(QUICK, units=2)[0])


def test_what_was_not_reached_is_said():
    found = same_loss("simulated", *simulated(QUICK), QUICK, torch.device("cpu"))
    assert found["adam"]["seconds_to_goal"] <= found["adam"]["seconds"]
    assert found["goal"] == found["adam"]["validation_loss"]
    assert found["alternating"]["validation_loss"] <= found["goal"]
    found["alternating"]["seconds_to_goal"] = None
    assert "| exact rounds | " in fit_lines([found])[5]
    assert "| not reached |" in fit_lines([found])[5]


# --- generation


def shapes(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def test_the_networks_have_the_published_shapes():
    import checkpoints
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    pairs = (
        (PUBLISHED, checkpoints.UNET, checkpoints.VAE, checkpoints.TEXT),
        (TINY, checkpoints.TINY_UNET, None, None),
    )
    with torch.device("meta"):
        for networks, *configurations in pairs:
            ours = sd15_generation._diffusion(networks)
            theirs = (
                UNet2DConditionModel.from_config,
                AutoencoderKL.from_config,
                lambda c: CLIPTextModel(CLIPTextConfig(**c)),
            )
            for network, build, configuration in zip(ours, theirs, configurations, strict=True):
                if configuration is not None:
                    assert shapes(network) == shapes(build(configuration))


def test_counts_of_the_published_networks():
    found = counts(PUBLISHED)
    assert found["weights"] / 1e6 == pytest.approx(859.52 + 83.65 + 123.06 + 632.08 + 22.32, abs=0.03)
    assert found["picture"] == 50 * found["step"] + found["decode"]
    # ViT-H/14 of 257 tokens, by hand: patches, 32 layers of 12 d² a token and attention, the projection.
    tokens, width = 257, 1280
    layer = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    assert found["embed"] == 2 * 256 * 3 * 14**2 * width + 32 * layer + 2 * width * 1024


def test_operations_of_each_path():
    rows = paths()
    assert [(row["backend"], row["pixels"], row["steps"]) for row in rows] == [
        ("sd15", 512, 50), ("sd15", 512, 8), ("sdxl", 1024, 50), ("sdxl", 1024, 8),
    ]  # fmt: skip
    assert rows[0]["decode"] * 4 < rows[2]["decode"] < rows[0]["decode"] * 5  # four times the pixels, and attention
    lines = path_lines(rows)
    share = (8 * rows[1]["step"] + rows[1]["decode"]) / (50 * rows[0]["step"] + rows[0]["decode"])
    (line,) = (line for line in lines if line.startswith("| sd15 | 512 | 8 |"))
    assert line.endswith(f"| {share:.2f} |")


def test_counts_are_those_of_the_layers():
    """Convolutions and linear layers by their outputs' sizes, attention by its tokens."""
    _, vae, _ = sd15_generation._diffusion(TINY)
    total = []

    def count(layer, _, out):
        taken = layer.in_features if isinstance(layer, torch.nn.Linear) else layer.weight[0].numel()
        total.append(2 * out.numel() * taken)

    for layer in vae.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        vae.decode(torch.randn(1, 4, 16, 16))
    assert counts(TINY)["decode"] == sum(total) + 4 * 256**2 * 16


def test_parts_are_timed_in_the_generator(monkeypatch):
    built, real = [], sd15_generation.build_generator
    monkeypatch.setattr(sd15_generation, "build_generator", lambda *a, **k: built.append(real(*a, **k)) or built[-1])
    found = parts(TINY, QUICK_EFFORT, CPU, torch.float32)
    assert found["pixels"] == 32
    assert [len(found[name]) for name in ("step", "decode", "rates")] == [2, 1, 2]
    assert all(value > 0 for name in ("step", "decode", "rates") for value in found[name])
    assert found["memory"] > 1e8
    (generator,) = built
    assert generator.guidance_scale > 1
    assert generator._text[0].shape == (1, 77, 16)  # a prompt of the usual length
    assert not generator.unet._forward_hooks
    assert not generator.unet._forward_pre_hooks


def test_memory_is_that_of_a_process_of_its_own():
    large = torch.ones(200_000_000)
    assert peak_memory(CPU) > 4 * len(large)
    assert alone(_memory_and_threads, threads=2) == (True, 2)


def _memory_and_threads():
    return peak_memory(CPU) < 800_000_000, torch.get_num_threads()


def test_whole_pictures_a_second():
    grid = Grid(TINY, QUICK_EFFORT, CPU, Variant("bfloat16", compile=False, channels_last=True))
    one, two = grid.cell(1), grid.cell(2)
    assert grid.generator.dtype == torch.bfloat16
    assert grid.generator.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert (len(one["seconds"]), len(two["seconds"])) == (2, 1)
    assert two["rate"] == pytest.approx(2 / two["seconds"][0])
    assert two["steps"] == grid.generator.num_inference_steps == 3
    giant = replace(TINY, unet=TINY.unet | {"sample_size": 2**23})
    cell = Grid(giant, QUICK_EFFORT, CPU, Variant("float32", compile=False, channels_last=False)).cell(1)
    assert cell["rate"] is None
    assert "memory ran out" in cell["error"]


@pytest.fixture
def measured():
    return {
        "counts": {
            "step": 1e12, "decode": 2e12, "embed": 1e11, "picture": 52e12, "weights": 1.5e9, "embedder_weights": 5e8,
        },
        "parts": {
            "device": "cpu", "dtype": "float32", "pixels": 512, "step": [10.0, 20.0, 30.0], "step_cpu": [9.0, 9.0, 9.0],
            "decode": [80.0], "decode_cpu": [40.0], "rates": [1e11, 3e11], "memory": 7e9, "threads": 1,
        },
        "embedding": {
            "dtype": "float32", "images": 4, "embed": [2.0, 2.0, 2.0], "embed_cpu": [1.0, 1.0, 1.0],
            "rates": [1e11, 1e11], "memory": 4e9,
        },
    }  # fmt: skip


def test_a_cpus_estimate_says_that_it_is_one(measured):
    text = "\n".join(generation_lines(measured, "a CPU", 2))
    assert "| 1 | 20 (10, 20, 30) | 9 | 50 | 100, 300 | 25% |" in text  # 1 TFLOP in 20 s of 200 GFLOP/s
    assert "An estimate for this CPU, extrapolated from 3 steps and one decoding" in text
    assert "18.0 minutes a picture, 25.0 days for 2,000 pictures" in text  # 50 * 20 + 80 s
    assert "Not measured, for no GPU was at hand" in text
    assert "3.00 GB in half precision" in text


def test_a_gpus_table_says_what_was_met(measured):
    cell = {"batch": 1, "rate": 2.0, "memory": 4e9, "first_call": 1.0, "steps": 50, "variant": "float16"}
    other = {"batch": 16, "rate": None, "memory": None, "variant": "float16, compiled"}
    measured |= {"grid": [cell, other], "grid_rate": {"float16": 4e14}}
    text = "\n".join(generation_lines(measured, "an H200", 2))
    assert "| float16 | 1 | 2.00 | 4.00 GB | 26% | 1.0 |" in text
    assert "| float16, compiled | 16 | does not fit |" in text
    assert "2,000 pictures, an estimate: 16.7 minutes" in text
    assert "at least 3 a second on an H200: NOT MET on this an H200" in text
    assert "at batch 1 in float16 under 6 GB: met, 5.00 GB with the embedder's weights" in text
    assert "Not measured" not in text
    measured["grid"] = [{**cell, "rate": 4.0, "memory": 7e9}]
    text = "\n".join(generation_lines(measured, "an H200", 2))
    assert "H200: met on this an H200" in text
    assert "under 6 GB: NOT MET, 8.00 GB with" in text
    measured["grid"] = [other]
    assert "Not measured: no batch fits on this a small GPU." in "\n".join(generation_lines(measured, "a small GPU", 2))


def test_variants_of_a_gpu():
    names = [str(variant) for variant in sd15_generation.variants(torch.device("cuda"))]
    assert names[:4] == ["float16", "float16, channels-last", "bfloat16", "bfloat16, channels-last"]
    assert names[4:] == [f"{name}, compiled" for name in names[:4]]


# --- the whole


def test_parts_are_measured_once(tmp_path):
    source = {"device": "one"}
    first = Measured(tmp_path / "a.json", {"device": "one"}, source)
    assert first.part("x", lambda: 1) == 1
    again = Measured(tmp_path / "a.json", {"device": "one"}, source)
    assert again.part("x", lambda: 2) == 1
    assert again.part("y", lambda: 3) == 3
    first.part("z", lambda: 4)  # by a process that has not seen y
    assert set(Measured(tmp_path / "a.json", {"device": "one"}, source).parts) == {"x", "y", "z"}
    with pytest.raises(ValueError, match="holds results of another machine or size .*'one'.*Choose another --out"):
        Measured(tmp_path / "a.json", {"device": "two"}, source)


@pytest.mark.end_to_end
def test_runs_and_goes_on(tmp_path, monkeypatch, capsys):
    command = ["-m", "benchmarks.sd15_speed.run", "--quick", "--out", str(tmp_path)]
    subprocess.run([sys.executable, *command, "--only", "generation"], check=True, capture_output=True, cwd=ROOT)
    before = json.loads((tmp_path / "sd15_speed.json").read_text())["parts"]
    assert {"counts", "embedding", "parts of a picture", "float32, channels-last, batch 2"} <= before.keys()
    monkeypatch.setattr(sys, "argv", [*command[1:], "--only", "fit"])
    sd15_speed.main()
    capsys.readouterr()
    after = json.loads((tmp_path / "sd15_speed.json").read_text())["parts"]
    assert before.items() <= after.items()
    assert after["fit, simulated"]["found"]["name"] == "simulated"
    said = (tmp_path / "sd15_speed.md").read_text()
    assert "measures nothing" in said
    assert "| one denoising step, float32 |" in said
    assert "--only generation" in said
    assert "--only fit" in said
    monkeypatch.setattr(sys, "argv", command[1:])
    sd15_speed.main()  # nothing is left to do
    assert (tmp_path / "sd15_speed.md").read_text() == said
