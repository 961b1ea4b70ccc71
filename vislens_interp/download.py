"""``vislens download``: published weights into the Hugging Face hub's cache, after saying what they are."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from vislens_interp.backends.weights import PublishedFile, PublishedRepository, missing_files
from vislens_interp.progress import tqdm

Say = Callable[[str], None]


def plan(repositories: Sequence[PublishedRepository]) -> str:
    """What would be downloaded, under which terms, how much of it is there, and where to."""
    from huggingface_hub import constants

    lines = []
    for repository in repositories:
        left = sum(file.size for file in missing_files(repository))
        state = "here" if left == 0 else f"{gigabytes(left)} to download"
        lines += [
            f"{repository.name}: {gigabytes(repository.size)}, {state}",
            f"  from    https://huggingface.co/{repository.repo_id} at {repository.revision[:10]}",
            f"  licence {repository.licence}: {repository.terms}",
        ]
    total = sum(file.size for repository in repositories for file in missing_files(repository))
    return "\n".join([*lines, f"to download: {gigabytes(total)}, into {constants.HF_HUB_CACHE}"])


def gigabytes(size: int) -> str:
    """Bytes as people read them, in powers of ten as disks and hubs count."""
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def download(repositories: Sequence[PublishedRepository], *, endpoint: str | None = None, say: Say = print) -> None:
    """Fetch what is missing; an interrupted download goes on where it stopped.

    Args:
        repositories: What to fetch.
        endpoint: Another address of the hub; None is ``HF_ENDPOINT`` or huggingface.co.
        say: Takes one line for each file.

    Raises:
        OSError: The hub is out of reach, refuses, or the disk is too small; the message says what to do.
        ValueError: A file arrived with another size or checksum than was published; it is removed.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HTTPError

    left = [(repository, file) for repository in repositories for file in missing_files(repository)]
    _check_disk(Path(constants.HF_HUB_CACHE), sum(file.size for _, file in left))
    for number, (repository, file) in enumerate(left, 1):
        say(f"[{number}/{len(left)}] {repository.repo_id}/{file.path} ({gigabytes(file.size)})")
        try:
            path = hf_hub_download(
                repository.repo_id, file.path, revision=repository.revision, endpoint=endpoint or constants.ENDPOINT
            )
        except (OSError, HTTPError) as error:
            reason = str(error).strip().splitlines()
            raise OSError(
                f"{repository.repo_id}/{file.path} could not be downloaded ({reason[0] if reason else 'no reason'}); "
                "expected to reach the Hugging Face hub. Run the same command again where there is a network: it goes "
                "on from where it stopped. A mirror: HF_ENDPOINT=https://..."
            ) from error
        check_file(Path(path), file)
    say(f"all {sum(len(repository.files) for repository in repositories)} files are here")


def check_file(path: Path, file: PublishedFile) -> None:
    """Compare a file with what was published; a wrong one is removed, so that the next download fetches it anew.

    Raises:
        ValueError: Its size or its checksum is another.
    """
    size = path.stat().st_size
    right_size = size == file.size or not file.exact
    digest = ""
    if right_size and file.sha256:
        hasher = hashlib.sha256()
        with path.open("rb") as stream, tqdm(total=size, desc="checksum", unit="B", unit_scale=True) as bar:
            while part := stream.read(1 << 22):
                hasher.update(part)
                bar.update(len(part))
        digest = hasher.hexdigest()
    if not right_size or digest != file.sha256:  # a small file has no checksum, and none is computed
        path.resolve().unlink()  # the cache's entry is a link to the contents
        path.unlink(missing_ok=True)
        came = f"sha256 {digest}" if right_size else f"{size} bytes"
        wanted = f"sha256 {file.sha256}" if right_size else f"{file.size} bytes"
        raise ValueError(
            f"{file.path} has {came}; expected {wanted}, as published. It was removed: run the same command again, and "
            "if that does not help, another network."
        )


def _check_disk(cache: Path, needed: int) -> None:
    folder = next(place for place in (cache, *cache.absolute().parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{cache} has {gigabytes(free)} free; expected {gigabytes(needed)} for what is missing. Make room, or set "
            "HF_HUB_CACHE to a folder on a larger disk."
        )
