"""Networks by name, and devices by name: what the command line takes."""

import difflib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vislens_interp import zoo
from vislens_interp.preprocess import Preprocess, preprocess_size


def check_device(name: str) -> torch.device:
    """A device that is there; another one never takes its place.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    Raises:
        ValueError: There is no such device on this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device={name!r} is unknown; expected cpu, cuda, cuda:N or mps.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(
                f"device={name!r} is not available: PyTorch {torch.__version__} sees {count} CUDA GPUs here. Pass"
                " --device cpu, or install a driver and a build of PyTorch for it."
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name!r} is not available on this machine. Pass --device cpu.")
    return device


def device_beside(model: torch.device | None, device: str | torch.device) -> torch.device:
    """A device for what belongs to a lens: it has to be the model's, which a lens does not move; None has no say.

    Raises:
        TypeError: ``device`` is no device.
        ValueError: There is no such device, or the model is on another.
    """
    if not isinstance(device, (str, torch.device)):
        raise TypeError(
            f"device is a {type(device).__name__} ({device!r}); expected 'cpu', 'cuda', 'cuda:N' or 'mps'. A lens"
            " keeps the types of its networks."
        )
    wanted = torch.empty(0, device=check_device(str(device))).device  # "cuda" is "cuda:0", mostly
    if model not in (None, wanted):
        raise ValueError(
            f"device={str(device)!r}, but the model is on {str(model)!r}; it is yours, and a lens does not move it."
            f" Call model.to({str(device)!r}) first, then lens.to({str(device)!r})."
        )
    return wanted


def load_model(spec: str, weights: str | None = None, seed: int = 0) -> nn.Module:
    """A model by name, in evaluation mode, with what prepares its images.

    Args:
        spec: ``"zoo:NAME"``, ``"timm:NAME"`` or ``"torchvision:NAME"``. Nothing is downloaded.
        weights: Safetensors file with the state dict; None leaves timm's and torchvision's models random, which is
            said in a warning.
        seed: Of random weights.

    Raises:
        ValueError: The name is unknown, or the weights do not fit.
        KeyError: The zoo has no such network.
        FileNotFoundError: There is no such weights file.
    """
    source, _, name = spec.partition(":")
    if source not in ("zoo", "timm", "torchvision") or not name:
        raise ValueError(
            f"model={spec!r} is unknown; expected zoo:NAME, timm:NAME or torchvision:NAME, such as"
            f" zoo:{zoo.available()[0]}."
        )
    if source == "zoo":
        if weights is not None:
            raise ValueError(f"weights={weights!r} does not go with model={spec!r}, which is trained. Leave it out.")
        return zoo.load(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _timm(name, spec) if source == "timm" else _torchvision(name, spec, published=weights is not None)
    if weights is None:
        warnings.warn(
            f"{spec} has RANDOM WEIGHTS: what its units prefer means nothing. Pass --weights FILE.safetensors for"
            " trained ones.",
            stacklevel=2,
        )
    else:
        _load_weights(model, weights, spec)
    return model.eval()


def _timm(name: str, spec: str) -> nn.Module:
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise ValueError(_no_model(spec, name, timm.list_models()))
    return timm.create_model(name, pretrained=False)


def _torchvision(name: str, spec: str, *, published: bool) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)  # the classifiers; detectors would download a backbone
    if name not in known:
        raise ValueError(_no_model(spec, name, known))
    weights: Any = models.get_model_weights(name)["DEFAULT"]
    transform: Any = weights.transforms()
    # What torchvision's builders set when they are given published weights; a test compares all of them.
    settings: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        settings = {"init_weights": False, "transform_input": published}
    elif name.startswith("vit_"):
        settings = {"image_size": preprocess_size(transform)}
    model: nn.Module = models.get_model(name, weights=None, **settings)
    model.preprocess = Preprocess(preprocess_size(transform), transform.mean, transform.std)
    return model


def _no_model(spec: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    source = spec.partition(":")[0]
    closest = ", ".join(f"{source}:{other}" for other in near)
    everything = (
        "timm.list_models()" if source == "timm" else "torchvision.models.list_models(module=torchvision.models)"
    )
    remedy = f"Closest: {closest}." if near else f"{everything} shows all."
    return f"model={spec!r} is not in {source}; expected one of its image classifiers. {remedy}"


def _load_weights(model: nn.Module, weights: str, spec: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(weights).is_file():
        raise FileNotFoundError(f"weights={weights!r}: no such file; expected a safetensors file.")
    try:
        state = load_file(weights)
    except SafetensorError as error:
        raise ValueError(
            f"weights={weights!r} cannot be read as a safetensors file ({error}); it is truncated or another format."
            " Save the state dict with safetensors.torch.save_file."
        ) from error
    own = model.state_dict()
    # Counters of BatchNorm are not always saved, and evaluation does not read them.
    missing = sorted(key for key in own.keys() - state.keys() if not key.endswith("num_batches_tracked"))
    problems = [f"it lacks {len(missing)} tensors (first: {missing[0]!r})"] if missing else []
    if unexpected := sorted(state.keys() - own.keys()):
        problems.append(f"it holds {len(unexpected)} that the model has not (first: {unexpected[0]!r})")
    for key in sorted(own.keys() & state.keys()):
        if own[key].shape != state[key].shape:
            problems.append(f"{key!r} has shape {tuple(state[key].shape)}, expected {tuple(own[key].shape)}")
            break
    if problems:
        raise ValueError(
            f"weights={weights!r} does not fit {spec}: {'; '.join(problems)}. Pass the weights of this model."
        )
    model.load_state_dict(state, strict=False)
