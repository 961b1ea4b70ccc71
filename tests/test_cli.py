import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from vislens_interp import zoo
from vislens_interp.cli import main
from vislens_interp.cli.arguments import parse_unit
from vislens_interp.models import _torchvision, check_device, load_model
from vislens_interp.results.result import LensResult

TIMM = "timm:test_resnet"
random_weights = pytest.mark.filterwarnings("ignore:.*RANDOM WEIGHTS")


def error_of(capsys):
    """The one line on stderr, and nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("vislens: error: ")
    return err.removeprefix("vislens: error: ").strip()


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["visualize", "--help"], ["units", "--help"]])
def test_help(arguments, capsys):
    assert main(arguments) == 0
    assert "usage: vislens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [("HOME", "/", "30000"), ("GOMP_SPINCOUNT", "7", "7"), ("OMP_WAIT_POLICY", "ACTIVE", "")],
)
def test_threads_wait_in_a_loop_for_a_short_time_only_unless_the_user_says_otherwise(
    name, value, wanted, monkeypatch, capsys
):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv(name, value)
    main(["--version"])
    assert os.environ.get("GOMP_SPINCOUNT", "") == wanted


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vislens_interp ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["draw"],
        ["demo"],
        ["units"],
        ["demo", "--out", "x", "--unit", "many"],
        ["demo", "--out", "x", "--seed", "1.5"],
        ["demo", "--out", "x", "--seed", "-1"],
        ["units", "--model", "m", "--seed", str(2**63)],
        ["compare", "--model", "zoo:cifar10_convnet", "--unit", "1", "--out", "x"],
        ["visualize", "--model", "m", "--unit", "1", "--images", "i", "--out", "x", "--direction", "up"],
    ],
)
def test_wrong_usage(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: vislens" in capsys.readouterr().err


def test_help_needs_nothing_heavy():
    code = """if True:
        import sys
        from vislens_interp.cli import main
        main(["--help"])
        heavy = {"torch", "numpy", "PIL", "diffusers", "timm", "torchvision", "matplotlib", "captum"}
        sys.exit(sorted(heavy & set(sys.modules)) or 0)
    """
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "vislens_interp", "units", "--model", "zoo:nothing"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"vislens: error: name='nothing' is not in the zoo; expected one of {zoo.available()}.\n"


def test_a_key_error_is_not_quoted(capsys):
    assert main(["units", "--model", "zoo:nothing"]) == 1
    assert error_of(capsys).startswith("name='nothing' is not in the zoo")


def test_debug_shows_the_traceback(capsys):
    assert main(["units", "--model", "zoo:nothing", "--debug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("vislens: error: name='nothing'")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet18", "model='resnet18' is unknown; expected zoo:NAME, timm:NAME or torchvision:NAME, such as zoo:"),
        ("timm:", "model='timm:' is unknown"),
        ("timm:resnet81", "model='timm:resnet81' is not in timm; .* Closest: timm:resnet"),
        ("torchvision:resnet81", "model='torchvision:resnet81' is not in torchvision; .* Closest: torchvision:resnet"),
        ("torchvision:fasterrcnn_resnet50_fpn", "expected one of its image classifiers"),
        ("timm:12345", "timm.list_models\\(\\) shows all"),
        ("torchvision:12345", "torchvision.models.list_models\\(module=torchvision.models\\) shows all"),
    ],
)
def test_unknown_models(model, message):
    with pytest.raises(ValueError, match=message):
        load_model(model)


@pytest.mark.filterwarnings("default:.*RANDOM WEIGHTS")
def test_units_of_a_random_model(capsys):
    assert main(["units", "--model", TIMM]) == 0
    out, err = capsys.readouterr()
    assert f"vislens: warning: {TIMM} has RANDOM WEIGHTS" in err
    assert out.splitlines()[0].split() == ["layer", "kind", "shape", "units"]
    assert out.splitlines()[1].split() == ["(output)", "ResNet", "1000", "1000"]
    assert [line.split() for line in out.splitlines() if line.startswith("layer1.0.conv1 ")]


def test_random_weights_are_warned_of():
    with pytest.warns(UserWarning, match="timm:test_resnet has RANDOM WEIGHTS.*Pass --weights"):
        load_model(TIMM)


@random_weights
def test_random_weights_follow_the_seed_and_leave_the_state():
    state = torch.get_rng_state()
    first, again, other = (load_model(TIMM, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@random_weights
def hyperparameters(model):
    """What a model computes with beside its weights: the kind and the plain attributes of every module."""
    return {
        name: (type(module).__name__, {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str))})
        for name, module in model.named_modules()
        if "aux" not in name.lower()  # heads of training
    }


def test_torchvision_models_are_built_as_their_published_weights_want(monkeypatch):
    from torchvision.models import WeightsEnum
    from torchvision.models.regnet import BlockParams

    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda self, *args, **kwargs: None)
    widths = BlockParams.from_init_params  # of regnets: read from tensors, which have no values on the meta device

    def on_the_cpu(**settings):
        with torch.device("cpu"):
            return widths(**settings)

    monkeypatch.setattr(BlockParams, "from_init_params", on_the_cpu)
    names = torchvision.models.list_models(module=torchvision.models)
    assert len(names) > 70
    for name in names:
        with torch.device("meta"):
            theirs = torchvision.models.get_model(name, weights="DEFAULT").eval()
            ours = _torchvision(name, name, published=True).eval()
        known, built = hyperparameters(theirs), hyperparameters(ours)
        for values in (known[""][1], built[""][1]):
            values.pop("aux_logits", None)
        assert {key: built[key] for key in known} == known, name


def test_torchvision_models_know_their_preprocessing():
    with pytest.warns(UserWarning, match="RANDOM WEIGHTS"):
        model = load_model("torchvision:squeezenet1_1")
    assert not model.training
    published = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    images = torch.rand(1, 3, 224, 224)
    expected = torchvision.transforms.functional.normalize(images, published.mean, published.std)
    assert torch.allclose(model.preprocess(images), expected)
    assert set(model.state_dict()) == set(torchvision.models.squeezenet1_1(weights=None).state_dict())


def test_weights(tmp_path, capsys):
    trained = timm.create_model("test_resnet", pretrained=False)
    path = tmp_path / "weights.safetensors"
    save_file(trained.state_dict(), path)
    loaded = load_model(TIMM, str(path))  # no warning: the suite turns warnings into errors
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in trained.state_dict().items())
    assert main(["units", "--model", TIMM, "--weights", str(path)]) == 0
    assert capsys.readouterr().err == ""


def test_weights_that_do_not_fit(tmp_path):
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file({("x" + key if key == "fc.bias" else key): value for key, value in state.items()}, path)
    with pytest.raises(
        ValueError, match="lacks 1 tensors .first: 'fc.bias'.; it holds 1 that the model has not .*'xfc.bi"
    ):
        load_model(TIMM, str(path))
    save_file(state | {"fc.bias": torch.zeros(7)}, path)
    with pytest.raises(
        ValueError, match=r"'fc.bias' has shape \(7,\), expected \(1000,\). Pass the weights of this model"
    ):
        load_model(TIMM, str(path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read as a safetensors file.*truncated or another format"):
        load_model(TIMM, str(path))
    with pytest.raises(FileNotFoundError, match="no such file; expected a safetensors file"):
        load_model(TIMM, str(tmp_path / "absent"))
    with pytest.raises(
        ValueError, match="does not go with model='zoo:cifar10_convnet', which is trained. Leave it out"
    ):
        load_model("zoo:cifar10_convnet", str(path))


def test_devices():
    assert check_device("cpu") == torch.device("cpu")
    for name in ("gpu", "meta", "cpu:x"):
        with pytest.raises(ValueError, match=f"device='{name}' is unknown; expected cpu, cuda, cuda:N or mps"):
            check_device(name)
    with pytest.raises(
        ValueError, match="device='cuda:99' is not available: PyTorch .* sees . CUDA GPUs.*--device cpu"
    ):
        check_device("cuda:99")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an MPS device")
def test_no_mps():
    with pytest.raises(ValueError, match="device='mps' is not available on this machine. Pass --device cpu"):
        check_device("mps")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("command", ["demo", "units --model zoo:cifar10_convnet"])
def test_no_silent_fallback_from_cuda(command, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")] if command == "demo" else []
    assert main([*command.split(), *out, "--device", "cuda"]) == 1
    assert error_of(capsys).startswith("device='cuda' is not available")


@pytest.mark.parametrize("command", ["demo", "visualize --model zoo:cifar10_convnet --unit 1 --images x"])
def test_a_folder_that_is_taken_is_refused_first(command, tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert main([*command.split(), "--out", str(tmp_path)]) == 1
    assert "holds 'notes.txt', not written by an earlier result" in error_of(capsys)


def test_an_interrupt(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "device", interrupted)
    assert main(["units", "--model", TIMM]) == 130
    assert capsys.readouterr().err == "vislens: interrupted\n"


def test_a_closed_pipe_is_no_error():
    weights = zoo.WEIGHTS / "cifar10_convnet.safetensors"
    model = "zoo:cifar10_convnet" if weights.is_file() else TIMM
    command = f"{shlex.quote(sys.executable)} -W ignore -m vislens_interp units --model {model} | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Error" not in done.stderr
    assert "error" not in done.stderr


shipped = pytest.mark.skipif(
    not (zoo.WEIGHTS / "checksums.json").is_file(), reason="the weights of the zoo are not in this checkout"
)


def write_images(folder, count, seed=0):
    folder.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).resize((40, 36), Image.Resampling.BICUBIC).save(folder / f"{index:03d}.png")
    return folder


def paths_of(out):
    return {line.split(": ", 1)[0]: line.split(": ", 1)[1] for line in out.splitlines()[-2:]}


@shipped
@pytest.mark.slow
def test_demo(tmp_path, capsys):
    assert main(["demo", "--backend", "cifar10", "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("ConvNet, layer conv3, unit 16")
    assert paths_of(out) == {"figure": f"{tmp_path}/out/figure.png", "result": f"{tmp_path}/out/result.json"}
    assert "%" in err  # a progress bar
    result = LensResult.load(tmp_path / "out")
    assert len(result) == 8
    assert result.directions == ["increase", "decrease"]
    assert result.evidence is not None
    assert result.settings["command_line"]["weights"] == "shipped"


@shipped
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:1 of 4 images")
def test_visualize(tmp_path, capsys):
    images = write_images(tmp_path / "images", 3)
    (images / "bad.png").write_bytes(b"no picture")
    reference = write_images(tmp_path / "reference", 250, seed=1)
    command = ["visualize", "--model", "zoo:cifar10_convnet", "--layer", "conv3", "--unit", "16"]
    command += ["--images", str(images), "--reference", str(reference), "--direction", "increase"]
    command += ["--alpha", "0.5", "--strength", "0", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("vislens: error: ")
    assert "bad.png" in error
    assert not (tmp_path / "out").exists()
    assert main([*command, "--skip-bad", "--alpha", "2"]) == 1
    assert "alpha=2.0 must lie in [0, 1]" in (said := capsys.readouterr().err)
    assert "epoch" not in error + said  # both before the fit
    assert main([*command, "--skip-bad"]) == 0
    result = LensResult.load(tmp_path / "out")
    assert result.names == ["000.png", "001.png", "002.png"]
    assert result.directions == ["increase"]
    assert (result.settings["alpha"], result.settings["strength"]) == (0.5, 0)
    assert capsys.readouterr().out.rstrip().endswith("result.json")


@shipped
@pytest.mark.slow
def test_visualize_without_images_shows_prototypes_of_the_reference_set(tmp_path):
    reference = write_images(tmp_path / "reference", 250, seed=1)
    command = ["visualize", "--model", "zoo:cifar10_convnet", "--layer", "conv3", "--unit", "16", "--strength", "0"]
    command += ["--backend", "cifar10", "--reference", str(reference), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    result = LensResult.load(tmp_path / "out")
    assert len(set(result.names)) == 8
    assert set(result.names) <= {path.name for path in reference.iterdir()}
    read = result.responses["inputs"]
    assert read[:4].min() > read[4:].max()


@pytest.mark.parametrize(("text", "unit"), [("16", 16), ("-1", -1), ("17,3,3", (17, 3, 3)), ("frog", "frog")])
def test_units_from_a_shell(text, unit):
    assert parse_unit(text) == unit


@shipped
@pytest.mark.slow
def test_compare_leaves_a_folder_of_other_files_alone(tmp_path, capsys):
    """It would mark the folder as ours, and a later run would pass over the photographs in it."""
    (tmp_path / "photo.png").write_bytes(b"")
    words = ["compare", "--model", "zoo:cifar10_convnet", "--layer", "conv3", "--unit", "16", "--backend", "cifar10"]
    assert main([*words, "--images", str(tmp_path), "--out", str(tmp_path), "--quiet"]) == 1
    assert "holds 'photo.png' and no earlier comparison; expected a new or empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_compare(tmp_path, capsys):
    images = write_images(tmp_path / "images", 3)
    command = ["compare", "--model", "zoo:cifar10_convnet", "--layer", "conv3", "--unit", "16", "--backend", "cifar10"]
    command += ["--images", str(images), "--reference", str(write_images(tmp_path / "reference", 250, seed=1))]
    command += ["--methods", "ridge_pattern", "unedited", "--noise-seeds", "0", "--strength", "0"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "| ridge_pattern | increase |" in out
    for name in ("scores.csv", "scores.md", "scores.png", "pictures.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0


@shipped
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "--angle", "500"], "angle=500.0 must lie in [0, 180]"),
        (["audit"], "images holds 2 different photographs; expected at least 28"),
    ],
)
def test_arguments_are_refused_before_the_reference_set_is_read(words, message, tmp_path, capsys):
    write_images(tmp_path / "images", 2)
    lens = ["--model", "zoo:cifar10_convnet", "--layer", "conv3", "--unit", "16", "--backend", "cifar10"]
    folders = [part for name in ("images", "reference", "out") for part in (f"--{name}", str(tmp_path / name))]
    assert main([*words, *lens, *folders]) == 1
    assert message in error_of(capsys)
