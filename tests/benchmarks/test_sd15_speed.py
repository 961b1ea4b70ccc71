import json
import subprocess
import sys
from pathlib import Path

import torch
from sd15_speed import QUICK, lines_of, same_loss, simulated

SPEED = Path(__file__).parents[2] / "benchmarks" / "sd15_speed.py"


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
    assert "| exact rounds | " in lines_of({"fits": [found]})[5]
    assert "| not reached |" in lines_of({"fits": [found]})[5]


def test_runs(tmp_path):
    subprocess.run([sys.executable, SPEED, "--quick", "--out", tmp_path], check=True, capture_output=True)
    said = (tmp_path / "sd15_speed.md").read_text()
    assert "measures nothing" in said
    assert "fit_many: 4 units" in said
    assert json.loads((tmp_path / "sd15_speed.json").read_text())["fits"][0]["name"] == "simulated"
