import pytest
import torch

from vislens_interp.files import load_state, save_state
from vislens_interp.training.loop import train
from vislens_interp.training.shards import restore, write_shards


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(300, 300)
    train(
        model, lambda step, generator: model(torch.ones(1, 300)).square().sum(), out=tmp_path, steps=3, lr=0.1, seed=0
    )
    return tmp_path / "checkpoint.safetensors"


def test_parts_are_the_checkpoint(checkpoint):
    content = checkpoint.read_bytes()
    parts = write_shards(checkpoint, 0.25)
    assert len(parts) == -(-len(content) // 2**18)
    assert parts[1].name.endswith(f"-02of{len(parts):02d}.part")
    assert all(part.stat().st_size <= 2**18 for part in parts)
    assert not restore(checkpoint)  # it is there
    checkpoint.unlink()
    assert restore(checkpoint)
    assert checkpoint.read_bytes() == content


def test_half_precision_is_half_the_size_and_goes_on(checkpoint):
    whole = load_state(checkpoint, "checkpoint")
    size = checkpoint.stat().st_size
    parts = write_shards(checkpoint, 0.25, half=True)
    assert sum(part.stat().st_size for part in parts) < 0.51 * size
    checkpoint.unlink()
    restore(checkpoint)
    half = load_state(checkpoint, "checkpoint")
    assert half["step"] == whole["step"] == 3
    torch.testing.assert_close(half["model"]["weight"].float(), whole["model"]["weight"], atol=1e-3, rtol=1e-3)
    moments, before = (state["optimizer"]["state"][0] for state in (half, whole))
    assert moments["exp_avg"].dtype == torch.bfloat16
    assert moments["step"] == before["step"]
    model = torch.nn.Linear(300, 300)
    _, progress = train(
        model,
        lambda step, generator: model(torch.ones(1, 300)).square().sum(),
        out=checkpoint.parent,
        steps=5,
        lr=0.1,
        seed=0,
    )
    assert progress.step == 5
    assert model.weight.dtype == torch.float32
    again = load_state(checkpoint, "checkpoint")
    assert again["optimizer"]["state"][0]["exp_avg"].dtype == torch.float32
    assert again["optimizer"]["state"][0]["step"] == 5


def test_older_parts_make_way(checkpoint):
    before = write_shards(checkpoint, 0.25)
    save_state(checkpoint, "checkpoint", {**load_state(checkpoint, "checkpoint"), "step": 9})
    after = write_shards(checkpoint, 0.5)
    assert set(checkpoint.parent.glob("*.part")) == set(after)
    assert not set(before) & set(after)


def test_nothing_to_restore(tmp_path):
    assert not restore(tmp_path / "checkpoint.safetensors")


def test_missing_damaged_and_mixed_parts(checkpoint):
    parts = write_shards(checkpoint, 0.25)
    checkpoint.unlink()
    last = parts[-1].read_bytes()
    parts[-1].unlink()
    with pytest.raises(ValueError, match=rf"lacks parts \[{len(parts)}\] of {len(parts)} .* Copy them there too"):
        restore(checkpoint)
    parts[-1].write_bytes(last[:-1] + b"?")
    with pytest.raises(ValueError, match="are damaged: their SHA-256 is another one. Copy them again"):
        restore(checkpoint)
    (checkpoint.parent / "0123456789ab-01of02.part").write_bytes(b"")
    with pytest.raises(ValueError, match="holds parts of 2 checkpoints .*; expected one. Delete the older parts"):
        restore(checkpoint)


def test_sizes_that_make_no_sense(checkpoint):
    with pytest.raises(ValueError, match="mib=0 must be above 0: the size of a part in MiB"):
        write_shards(checkpoint, 0)
    with pytest.raises(ValueError, match="parts; expected at most 99. Use more"):
        write_shards(checkpoint, 0.001)
