"""Where weights lie: hub ids, folders and files, and what to say when something is missing."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vislens_interp.backends.weights import HYPER_SDXL, IP_ADAPTER, OPENCLIP, SD15, SDXL, SDXL_VAE, SPEEDUPS
from vislens_interp.memory import too_little_memory

Needs = Sequence[tuple[str, ...]]
"""Files that have to be there, each by its possible names; the first one is downloaded and named in messages."""

PINNED = {
    repository.repo_id: repository.revision
    for repository in (SD15, SDXL, SDXL_VAE, IP_ADAPTER, OPENCLIP, HYPER_SDXL, *SPEEDUPS.values())
}
"""The commits that ``vislens download`` fetches."""


def _weights(stem: str, old: str | None = None) -> tuple[str, ...]:
    old = old or stem
    return f"{stem}.fp16.safetensors", f"{stem}.safetensors", f"{old}.fp16.bin", f"{old}.bin"


IMAGE_CONFIGS: Needs = (("unet/config.json",), ("vae/config.json",), ("scheduler/scheduler_config.json",))


def _text_configs(end: str = "") -> Needs:
    return (
        (f"text_encoder{end}/config.json",),
        (f"tokenizer{end}/tokenizer_config.json",),
        (f"tokenizer{end}/vocab.json", f"tokenizer{end}/tokenizer.json"),
        (f"tokenizer{end}/merges.txt", f"tokenizer{end}/tokenizer.json"),
    )


TEXT_CONFIGS = _text_configs()
UNET: Needs = (("unet/config.json",), ("scheduler/scheduler_config.json",), _weights("unet/diffusion_pytorch_model"))
IMAGE_PARTS: Needs = (*IMAGE_CONFIGS, *UNET[2:], _weights("vae/diffusion_pytorch_model"))
TEXT_PARTS: Needs = (*TEXT_CONFIGS, _weights("text_encoder/model", "text_encoder/pytorch_model"))
TEXT_PARTS_2: Needs = (*_text_configs("_2"), _weights("text_encoder_2/model", "text_encoder_2/pytorch_model"))
VAE_ALONE: Needs = (("config.json",), _weights("diffusion_pytorch_model"))
ADAPTER: Needs = (("models/ip-adapter_sd15.safetensors", "models/ip-adapter_sd15.bin"),)
ADAPTER_SDXL: Needs = (("sdxl_models/ip-adapter_sdxl_vit-h.safetensors", "sdxl_models/ip-adapter_sdxl_vit-h.bin"),)
CLIP: Needs = (("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),)


def parts_of(*, text: bool, xl: bool = False, vae: bool = True) -> Needs:
    """Files of a folder of Stable Diffusion, with or without what reads text and its own VAE."""
    texts = () if not text else (*TEXT_PARTS, *TEXT_PARTS_2) if xl else TEXT_PARTS
    return (*(IMAGE_PARTS if vae else UNET), *texts)


def find(
    source: str | Path, needs: Needs, *, argument: str, revision: str | None = None, local_files_only: bool = True
) -> Path:
    """The folder that holds these files.

    Args:
        source: A folder, or a repository on the hub ("owner/name").
        argument: Name of the argument in messages.
        revision: Branch, tag or commit on the hub; None is the pinned commit of a published repository, or ``main``.
        local_files_only: Never go to the hub.

    Returns:
        A folder of the user's, or one in the hub's cache.

    Raises:
        FileNotFoundError: Files are missing, or the hub cannot be reached; the message names them all.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        missing = [names for names in needs if not any((folder / name).is_file() for name in names)]
        if missing:
            raise FileNotFoundError(
                f"{argument}={str(source)!r} lacks {_listed(missing)}; expected a folder with the layout of the "
                "published weights. Complete it, or leave the argument out and run `vislens download sd15`."
            )
        return folder
    source = str(source)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is None:
        raise FileNotFoundError(
            f"{argument}={source!r}: nothing is there; expected a folder, or an id on the Hugging Face hub "
            "(owner/name). Mend the path, or leave the argument out and run `vislens download sd15`."
        )
    if not local_files_only:
        _download(source, needs, argument, revision or PINNED.get(source))
    # Without a revision, what somebody downloaded by the branch's name will do as well.
    candidates = [revision] if revision else [PINNED.get(source, "main"), "main"]
    looked = [_in_cache(source, needs, candidate) for candidate in candidates]
    found, missing = min(looked, key=lambda result: len(result[1]))
    if missing or found is None:
        from huggingface_hub import constants

        at = f" at revision {revision!r}" if revision else ""
        raise FileNotFoundError(
            f"{argument}={source!r}{at} lacks {_listed(missing)} in the hub's cache ({constants.HF_HUB_CACHE}); "
            f"expected the published weights on this machine. Run `vislens download sd15`, or pass {argument}= a "
            "folder that holds them."
        )
    return found


def _in_cache(source: str, needs: Needs, revision: str) -> tuple[Path | None, Needs]:
    """The snapshot's folder if any of the files is in it, and the files that are not."""
    from huggingface_hub import try_to_load_from_cache

    folder: Path | None = None
    missing = []
    for names in needs:
        for name in names:
            path = try_to_load_from_cache(source, name, revision=revision)
            if isinstance(path, str):
                folder = Path(path).parents[name.count("/")]
                break
        else:
            missing.append(names)
    return folder, missing


def _download(source: str, needs: Needs, argument: str, revision: str | None) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(source, revision=revision, allow_patterns=[names[0] for names in needs])
    except OSError as error:  # the hub's own errors, and those of the network below it
        raise FileNotFoundError(
            f"{argument}={source!r} could not be fetched from the Hugging Face hub ({first_line(error)}); expected a "
            "connection, or the files on this machine. Try again (a download goes on from where it stopped), run "
            f"`vislens download sd15` where there is a network, or pass {argument}= a folder."
        ) from error


def _listed(missing: Needs) -> str:
    return ", ".join(names[0] for names in missing)


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that libraries add."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def reading(argument: str, source: str | Path, takes: str) -> Iterator[None]:
    """Say what cannot be read, and of what size it is if memory is short; every reader has its own kinds of errors."""
    try:
        yield
    except Exception as error:
        if too_little_memory(error):
            raise MemoryError(
                f"{argument}={str(source)!r} does not fit into memory ({first_line(error)}); {takes} while it loads. "
                "Close other programs, or use a machine with more."
            ) from error
        raise damaged(argument, source, error) from error


def damaged(argument: str, source: str | Path, error: BaseException) -> ValueError:
    """What to raise for a file that is there and cannot be used."""
    return ValueError(
        f"{argument}={str(source)!r} cannot be loaded ({first_line(error)}); it is truncated, damaged or made for "
        "something else. Delete it and run `vislens download sd15`, or pass another file."
    )
