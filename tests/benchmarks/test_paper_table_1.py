"""The published protocol on simulated files in the published layouts, end to end, with small backends."""

import json

import pytest
import torch

from benchmarks.common.results_page import gather
from benchmarks.paper_table_1 import report as page
from benchmarks.paper_table_1 import run as table
from benchmarks.suite import SUITE
from vislens_interp.brain import simulate_algonauts, simulate_brainactiv, simulate_things_eeg
from vislens_interp.metrics.realism import frechet_distance


def clouds(count, seed=0):
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def nsd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nsd")
    simulate_brainactiv(folder, clouds(230), shared=10, snr=3.0)
    return folder


SMALL = ["--backbone", "cifar10_convnet", "--readout", "ridge"]


def test_nsd_from_end_to_end(nsd, tmp_path, capsys):
    command = ["--nsd", str(nsd), "--out", str(tmp_path), "--backend", "cifar10", *SMALL]
    command += ["--test", "3", "--epochs", "1", "--targets", "OFA", "--methods", table.LANDSCAPE]
    table.main(command)
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("| OFA")]
    assert len(rows) == 1
    assert "/ +1.052" in rows[0]
    assert "/ -0.660" in rows[0]
    assert "| not measured / 173.7 |" in rows[0]
    form = text[text.index("## Table 1a, in the paper's form") :].splitlines()
    assert form[2].split(" | ") == ["| ", "OFA |"]
    assert form[5] == "| in the paper | 1.052 |"
    assert "| in the paper | 173.7 |" in form
    assert "Table S1" not in text  # none of its regions was asked for
    assert text[text.index("# ") :].startswith("# Table 1, SIMULATED data in the layout of NSD")
    assert "220 training images, 3 test images (the images that all subjects saw are the test part)" in text
    assert (tmp_path / "paper_table_1.md").read_text(encoding="utf-8") in text
    results = gather(SUITE, {"paper_table_1": tmp_path}, tmp_path)["benchmarks"]
    assert [one["state"] for one in results if one["name"] == "paper_table_1"] == ["measured"]
    found = json.loads((tmp_path / "OFA-0.json").read_text(encoding="utf-8"))["responses"]
    assert {len(values) for values in found.values()} == {3}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("OFA-*.json")}
    table.main(command)  # nothing is done twice
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("OFA-*.json")} == before
    with pytest.raises(ValueError, match="was begun with alpha=1.0, now 0.5; expected the same settings"):
        table.main([*command, "--alpha", "0.5"])


def test_a_later_run_of_fewer_targets_is_judged_by_their_own_outputs(nsd, tmp_path):
    command = ["--nsd", str(nsd), "--out", str(tmp_path), "--backend", "cifar10", *SMALL]
    command += ["--test", "1", "--methods", table.PATTERN]
    table.main([*command, "--targets", "FFA-1", "OFA"])
    path = tmp_path / f"OFA-{table.METHODS.index(table.PATTERN)}.json"
    before = json.loads(path.read_text(encoding="utf-8"))["responses"]
    path.unlink()
    table.main([*command, "--targets", "OFA"])
    assert json.loads(path.read_text(encoding="utf-8"))["responses"] == before
    with pytest.raises(ValueError, match="holds an encoder of FFA-1, OFA; expected one of PPA too. Take another"):
        table.main([*command, "--targets", "PPA"])


def test_things_eeg_on_the_papers_pipeline(tmp_path, tiny_sd15):
    simulate_things_eeg(tmp_path / "data", clouds(210), test_images=clouds(2, seed=1), channels=["Oz", "Pz"], snr=2.0)
    args = table.parse(
        ["--things-eeg", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--epochs", "2", *SMALL]
    )
    text = table.run(args, tiny_sd15)
    rows = [line for line in text.splitlines() if line.startswith("| Oz")]
    assert len(rows) == len(table.METHODS)
    assert "/ +0.146" in rows[0]
    assert "/ –" in rows[1]
    assert "/ +0.138" in rows[2]
    assert "/ -0.298" in rows[2]
    assert "not measured / 159.9" in rows[2]
    assert "| Pz" not in text  # no channel of Table 1b
    assert "noise-normalised EEG" in text
    assert "beyond the next image's onset" in text


@pytest.fixture(scope="module")
def tiny_sd15(tmp_path_factory):
    from checkpoints import write_checkpoints

    from vislens_interp.backends.embedding import sd15

    tiny = write_checkpoints(tmp_path_factory.mktemp("checkpoints"))
    return sd15(model=tiny.model, adapter=tiny.adapter, clip=tiny.clip, num_inference_steps=2)


def test_algonauts_parts(tmp_path):
    simulate_algonauts(tmp_path, clouds(40))
    training, testing, said = table.load("nsd", tmp_path, 1, 32, None)
    assert (len(training), len(testing)) == (36, 4)
    assert "4 of the Algonauts training images, drawn by seed 0" in said


def test_fid_of_the_originals_twice_against_both_directions():
    class Means(torch.nn.Module):
        def forward(self, images):
            return images.double().mean((2, 3))

    images = clouds(30) * 0.5 + 0.25
    sets = {"same": (images, images), "moved": (images + 0.1, images - 0.1)}
    for name, made in sets.items():
        fid = table.frechet(Means())
        for pictures in made:
            fid.update(images, real=True)
            fid.update(pictures, real=False)
        features = [Means()(torch.cat(pair)) for pair in ((images, images), made)]
        assert float(fid.compute()) == pytest.approx(frechet_distance(*features), rel=1e-4, abs=1e-6)
        assert (float(fid.compute()) > 1e-3) == (name == "moved")


def test_no_weights_for_fid(tmp_path):
    with pytest.raises(FileNotFoundError, match="--inception .*none.pth: no such file; expected torch-fidelity's"):
        table.main(["--nsd", "x", "--out", str(tmp_path), "--inception", str(tmp_path / "none.pth")])


def test_table_s1_stands_in_parts_of_eight_as_printed(tmp_path):
    regions = list(page.TABLES["nsd"]["Table S1"])
    answers = {"input": [0.0, 1.0], "control": [0.0, 1.0], "increase": [1.0, 2.5], "decrease": [-1.0, 0.0]}
    for region in regions:
        for method in page.BESIDE:
            path = tmp_path / f"{region}-{page.METHODS.index(method)}.json"
            path.write_text(json.dumps({"responses": answers, "fid": 12.34}))
    lines = page.in_form(tmp_path, "Table S1", [*regions, "OFA"], page.TABLES["nsd"]["Table S1"])
    heads = [line for line in lines if line.startswith("|  |")]
    assert heads == [f"|  | {' | '.join(part)} |" for part in (regions[:8], regions[8:])]
    assert f"| Δr increase, {page.LANDSCAPE} | {' | '.join(['1.250'] * 8)} |" in lines
    assert f"| FID@2k, {page.BRAINACTIV} | {' | '.join(['12.3'] * 8)} |" in lines
    assert lines.count(next(line for line in lines if line.startswith("| in the paper | 0.257 |"))) == 1
