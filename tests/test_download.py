"""`vislens download` and `vislens doctor`, through the real hub client and a small server of its protocol."""

import contextlib
import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vislens_interp.backends.weights import PublishedFile, PublishedRepository, missing_files, sd15_repositories
from vislens_interp.cli import main
from vislens_interp.doctor import report
from vislens_interp.download import check_file, download, gigabytes, plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENTS = {"config.json": b'{"kind": "tiny"}', "unet/weights.safetensors": bytes(range(256)) * 40_000}
REPOSITORY = PublishedRepository(
    "Tiny weights",
    "somebody/tiny",
    COMMIT,
    "CC0",
    "https://example.org/terms",
    (
        PublishedFile("config.json", len(CONTENTS["config.json"])),
        PublishedFile(
            "unet/weights.safetensors",
            len(CONTENTS["unet/weights.safetensors"]),
            hashlib.sha256(CONTENTS["unet/weights.safetensors"]).hexdigest(),
        ),
    ),
)


class Hub(ThreadingHTTPServer):
    """Serves CONTENTS as the hub does; breaks off the first `breaks` bodies half-way, or sends what it is told."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True
        self.breaks, self.sent, self.contents = 0, [], dict(CONTENTS)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        name = self.path.partition(f"/somebody/tiny/resolve/{COMMIT}/")[2]
        content = self.server.contents.get(name)
        if content is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        part = content[start:]
        if self.server.breaks and len(part) > 1000:
            self.server.breaks -= 1
            part = part[: len(part) // 2]
            self.close_connection = True
        self.server.sent.append((name, start, len(part)))
        self.wfile.write(part)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no other."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


@pytest.fixture
def hub(cache):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_and_again(hub, cache):
    assert missing_files(REPOSITORY) == list(REPOSITORY.files)
    said = []
    download([REPOSITORY], endpoint=hub.address, say=said.append)
    assert said[0] == "[1/2] somebody/tiny/config.json (0.00 MB)"
    assert said[-1] == "all 2 files are here"
    assert missing_files(REPOSITORY) == []
    assert [name for name, *_ in hub.sent] == list(CONTENTS)
    download([REPOSITORY], endpoint=hub.address, say=said.append)
    assert len(hub.sent) == 2


@pytest.fixture
def impatient(monkeypatch):
    """The client without its waits between tries, and with parts small enough to lose some."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)


@pytest.mark.parametrize("breaks", [1, 6], ids=["in one run", "in the next run"])
def test_an_interrupted_download_goes_on(hub, cache, impatient, breaks):
    hub.breaks = breaks
    with contextlib.suppress(OSError):  # after some tries the client gives up, and the command with it
        download([REPOSITORY], endpoint=hub.address, say=str)
    hub.breaks = 0
    download([REPOSITORY], endpoint=hub.address, say=str)
    assert missing_files(REPOSITORY) == []
    starts = [start for name, start, _ in hub.sent if name.startswith("unet")]
    assert len(starts) == breaks + 1
    assert starts == sorted(starts)
    assert starts[0] == 0 < starts[1]


def test_a_wrong_file_is_removed(hub, cache):
    changed = bytearray(CONTENTS["unet/weights.safetensors"])
    changed[5] ^= 1
    hub.contents["unet/weights.safetensors"] = bytes(changed)
    with pytest.raises(
        ValueError, match="unet/weights.safetensors has sha256 .*; expected sha256 .*, as published. It was"
    ):
        download([REPOSITORY], endpoint=hub.address, say=str)
    assert [file.path for file in missing_files(REPOSITORY)] == ["unet/weights.safetensors"]
    hub.contents = dict(CONTENTS)
    download([REPOSITORY], endpoint=hub.address, say=str)
    assert missing_files(REPOSITORY) == []
    path = cache / "short"
    path.write_bytes(b"12")
    with pytest.raises(ValueError, match="config.json has 2 bytes; expected 16 bytes"):
        check_file(path, REPOSITORY.files[0])
    assert not path.exists()
    path.write_bytes(b"12")
    rounded = replace(REPOSITORY.files[1], size=10_000_000, exact=False)  # of which the checksum alone is known
    with pytest.raises(ValueError, match="unet/weights.safetensors has sha256 .*; expected sha256"):
        check_file(path, rounded)
    path.write_bytes(CONTENTS["unet/weights.safetensors"])
    check_file(path, rounded)


def test_offline_is_one_line(cache, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["download", "sd15", "--yes"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("vislens: error: stable-diffusion-v1-5/stable-diffusion-v1-5/model_index.json could not be")
    assert "Run the same command again where there is a network" in error


def test_nobody_listens(cache, impatient):
    with pytest.raises(OSError, match="could not be downloaded .*; expected to reach the Hugging Face hub"):
        download([REPOSITORY], endpoint="http://127.0.0.1:9", say=str)


def test_a_file_that_the_hub_has_not(hub):
    other = replace(REPOSITORY, files=(PublishedFile("nothing.json", 3),))
    with pytest.raises(OSError, match="somebody/tiny/nothing.json could not be downloaded"):
        download([other], endpoint=hub.address, say=str)


def test_a_disk_that_is_too_small(cache):
    huge = replace(REPOSITORY, files=(PublishedFile("huge", 10**18),))
    with pytest.raises(
        OSError, match=r"has .* free; expected 1000000000.00 GB for what is missing. Make room, or set HF_HUB"
    ):
        download([huge], say=str)


def test_sizes_and_licences_come_first(cache, capsys):
    assert main(["download", "sd15"]) == 0
    said = capsys.readouterr().out
    for repository in sd15_repositories():
        assert repository.licence in said
        assert f"{repository.name}: {gigabytes(repository.size)}, {gigabytes(repository.size)} to download" in said
    assert f"to download: 6.12 GB, into {cache}" in said
    assert "if you agree with the licences: vislens download sd15 --yes" in said
    assert not cache.exists()
    assert main(["download", "sd15", "--precision", "fp32"]) == 0
    assert "to download: 8.26 GB" in capsys.readouterr().out
    assert main(["download", "sd15", "--speedup", "lcm"]) == 0
    said = capsys.readouterr().out
    assert "LCM-LoRA for Stable Diffusion 1.5 (optional): 0.13 GB, 0.13 GB to download" in said
    assert "to download: 6.26 GB" in said
    assert main(["download", "cifar10"]) == 2
    with pytest.raises(ValueError, match="precision='int8' is not published; expected one of"):
        sd15_repositories("int8")


def test_a_plan_knows_what_is_here(hub, cache):
    assert "Tiny weights: 10.24 MB, 10.24 MB to download".replace("10.24 MB", "0.01 GB") in plan([REPOSITORY])
    download([REPOSITORY], endpoint=hub.address, say=str)
    assert "Tiny weights: 0.01 GB, here" in plan([REPOSITORY])


def test_doctor(cache, capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in ("versions", "devices", "weights", "backends", "torch 2", "diffusers 0", "cpu: ", str(cache)):
        assert word in said
    assert "cifar10: ready" in said
    assert "sd15: lacks Stable Diffusion 1.5, IP-Adapter for Stable Diffusion 1.5" in said
    assert "run `vislens download sd15`" in said
    assert not cache.exists()


def test_doctor_sees_what_is_here(cache):
    """Files of the published sizes, which are sparse: nothing here holds gigabytes."""
    for repository in sd15_repositories():
        folder = cache / f"models--{repository.repo_id.replace('/', '--')}" / "snapshots" / repository.revision
        for file in repository.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.truncate(file.size)
    said = report()
    assert "sd15: ready" in said
    assert "Stable Diffusion 1.5 in fp16: here (2.13 GB" in said
    assert "Stable Diffusion 1.5 in fp32: MISSING 3 of 13 files" in said
    path.unlink()
    assert "sd15: lacks OpenCLIP ViT-H/14 (laion2b_s32b_b79k); run" in report()
