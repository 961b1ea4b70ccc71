import json
import os

import pytest
import torch
from safetensors.torch import save_file

from vislens_interp import files
from vislens_interp.files import fingerprint, load_state, save_state, write_atomically, write_text


def test_round_trip(tmp_path):
    weight = torch.randn(3, 4)
    state = {
        "weights": {"a.weight": weight, "view": weight[:, 1:], "tied": weight, "half": torch.ones(2).bfloat16()},
        "adam": {0: {"step": torch.tensor(3.0)}, 1: {"step": torch.tensor(4.0)}},
        "units": [17, "42", None, True, 0.5, [torch.zeros(0)]],
    }
    assert save_state(tmp_path / "new" / "state.safetensors", "landscape", state) == tmp_path / "new/state.safetensors"
    loaded = load_state(tmp_path / "new" / "state.safetensors", "landscape")
    for name, tensor in state["weights"].items():
        assert torch.equal(loaded["weights"][name], tensor)
        assert loaded["weights"][name].dtype == tensor.dtype
    assert list(loaded["adam"]) == [0, 1]
    assert loaded["adam"][1]["step"].item() == 4.0
    assert loaded["units"][:5] == [17, "42", None, True, 0.5]
    assert loaded["units"][5][0].shape == (0,)


def test_what_is_no_value_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"state\['fit.function'\] is a builtin_function_or_method; expected tensors"):
        save_state(tmp_path / "state", "landscape", {"fit": {"function": len}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated_file(tmp_path, keep):
    path = save_state(tmp_path / "state", "landscape", {"weight": torch.randn(50)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cannot be read as a safetensors file.*truncated"):
        load_state(path, "landscape")


def test_newer_version(tmp_path, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(files, "FORMAT_VERSION", files.FORMAT_VERSION + 1)
        path = save_state(tmp_path / "state", "landscape", {})
    with pytest.raises(ValueError, match="format version 2, newer than this library reads.*Upgrade"):
        load_state(path, "landscape")


def test_other_kind(tmp_path):
    path = save_state(tmp_path / "state", "checkpoint", {})
    with pytest.raises(ValueError, match="holds a checkpoint, expected a landscape"):
        load_state(path, "landscape")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_not_ours(tmp_path, metadata):
    save_file({"weight": torch.zeros(2)}, tmp_path / "state", metadata=metadata)
    with pytest.raises(ValueError, match="was not written by vislens_interp"):
        load_state(tmp_path / "state", "landscape")


def test_header_that_is_no_json(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "state", metadata={"vislens_interp": "{"})
    with pytest.raises(ValueError, match="cannot be read"):
        load_state(tmp_path / "state", "landscape")


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected a saved landscape"):
        load_state(tmp_path / "state", "landscape")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failing_write_leaves_the_old_file_whole(tmp_path, error):
    path = write_text(tmp_path / "result.json", json.dumps({"old": True}))

    def half_write(temporary):
        temporary.write_text('{"new": tr')
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, half_write)
    assert json.loads(path.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    path = write_text(tmp_path / "result.txt", "α")
    assert path.read_text(encoding="utf-8") == "α"
    assert os.stat(path).st_mode == os.stat(tmp_path / "plain").st_mode


def test_fingerprint_knows_names_shapes_types_and_values():
    weight = torch.arange(4.0)
    base = fingerprint({"a": weight, "b": torch.zeros(())})
    assert base == fingerprint({"b": torch.zeros(()), "a": weight.clone()})
    assert len(base) == 16
    others = [
        {"c": weight, "b": torch.zeros(())},
        {"a": weight.view(2, 2), "b": torch.zeros(())},
        {"a": weight.double(), "b": torch.zeros(())},
        {"a": weight + 1, "b": torch.zeros(())},
        {"a": weight},
    ]
    assert len({base, *map(fingerprint, others)}) == 6
    assert fingerprint({"a": torch.arange(6.0).view(2, 3).T}) == fingerprint(
        {"a": torch.arange(6.0).view(2, 3).T.contiguous()}
    )
