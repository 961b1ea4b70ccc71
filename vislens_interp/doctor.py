"""``vislens doctor``: what this machine has, and what each backend lacks on it."""

import os
import platform
from importlib import metadata

from vislens_interp import zoo
from vislens_interp.backends.embedded import FILES
from vislens_interp.backends.weights import (
    HYPER_SDXL,
    SPEEDUPS,
    PublishedRepository,
    missing_files,
    sd15_repositories,
    sdxl_repositories,
)
from vislens_interp.download import gigabytes

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "captum",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "huggingface_hub",
    "safetensors",
    "numpy",
    "pillow",
)
GPU_MEMORY = 8_000_000_000
"""Bytes that should do for batches of four 512-pixel images in half precision: calculated, not measured."""


def report() -> str:
    """Versions, devices, weights and backends, as text."""
    sections = {"versions": _versions(), "devices": _devices(), "weights": _weights(), "backends": _backends()}
    return "\n".join(line for title, lines in sections.items() for line in (title, *(f"  {line}" for line in lines)))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> list[str]:
    own = _version("vislens_interp") or "not installed, run from its folder"
    lines = [f"vislens_interp {own}", f"python {platform.python_version()} on {platform.platform()}"]
    missing = "MISSING; installing vislens_interp brings it"
    return lines + [f"{package} {_version(package) or missing}" for package in PACKAGES]


def _devices() -> list[str]:
    import torch

    lines = [f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads, {_memory()}"]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        one = torch.cuda.get_device_properties(index)
        enough = "" if one.total_memory >= GPU_MEMORY else f"; sd15 wants {gigabytes(GPU_MEMORY)}"
        lines.append(f"cuda:{index}: {one.name}, {gigabytes(one.total_memory)}, sm_{one.major}{one.minor}{enough}")
    if torch.backends.mps.is_available():
        lines.append("mps: Apple GPU")
    if len(lines) == 1:
        why = "this build of PyTorch has no CUDA" if torch.version.cuda is None else "PyTorch sees no GPU"
        lines.append(f"no GPU: {why}; sd15 works on the CPU, at many minutes an image")
    return lines


def _memory() -> str:
    try:
        return f"{gigabytes(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} of memory"
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        return "memory not known"


def _weights() -> list[str]:
    from huggingface_hub import constants

    lines = [f"looked for in {constants.HF_HUB_CACHE} (HF_HUB_CACHE)"]
    half, adapter, clip = sd15_repositories("fp16")
    full = sd15_repositories("fp32")[0]
    optional = [("", repository) for repository in (*SPEEDUPS.values(), *sdxl_repositories()[:3], HYPER_SDXL)]
    for words, repository in ((" in fp16", half), (" in fp32", full), ("", adapter), ("", clip), *optional):
        missing = missing_files(repository)
        state = "here" if not missing else f"MISSING {len(missing)} of {len(repository.files)} files"
        lines.append(f"{repository.name}{words}: {state} ({gigabytes(repository.size)}, {repository.licence})")
    return lines


def _backends() -> list[str]:
    lines = [f"embedded: {_embedded()}", "cifar10: ready, its weights ship with the package"]
    for name, ways in {
        "sd15": [sd15_repositories("fp16"), sd15_repositories("fp32")],
        "sdxl": [sdxl_repositories()],
    }.items():
        lacking = min((_lacking(repositories) for repositories in ways), key=len)
        state = "ready" if not lacking else f"lacks {', '.join(lacking)}; run `vislens download {name}`"
        lines.append(f"{name}: {state}")
    return lines


def _embedded() -> str:
    missing = [name for name in FILES if not (zoo.WEIGHTS / name).is_file()]
    if missing:
        return f"lacks {', '.join(missing)}; reinstall vislens_interp"
    return "ready, its weights ship with the package"


def _lacking(repositories: list[PublishedRepository]) -> list[str]:
    return [repository.name for repository in repositories if missing_files(repository)]
