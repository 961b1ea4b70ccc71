import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv2d, pad

from vislens_interp.brain.v4 import MEAN, CompactNetwork, CompactNetworks, v4_encoder
from vislens_interp.lens import FeatureLens
from vislens_interp.targets.target import LayerTarget
from vislens_interp.training.data import pixels, read_images

WIDTHS = {0: (8, 9, 8, 7, 6), 3: (6, 7, 8, 6, 4)}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("session") / "compact_models.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = {number: CompactNetwork(widths, 16) for number, widths in WIDTHS.items()}
    state = {
        f"neuron{n}.{key}": value for n, network in networks.items() for key, value in network.state_dict().items()
    }
    save_file(state, path)
    return path


def test_the_networks_are_what_the_description_says(file):
    network = CompactNetworks.load(file, [3]).networks[0]
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 255
    state = network.state_dict()

    def layer(x, name, kernel):
        x = conv2d(x, state[f"{name}_{kernel}.weight"], state[f"{name}_{kernel}.bias"])
        return (x / (1 + 1e-5) ** 0.5).relu()  # fresh batch norms

    x = images - torch.tensor(MEAN).view(1, 3, 1, 1)
    x = layer(pad(x, (2, 2, 2, 2)), "layer0", "conv")
    for number, (stride, around) in enumerate([(2, (1, 3, 1, 3)), (2, (1, 3, 1, 3)), (1, (2,) * 4), (1, (2,) * 4)], 1):
        depth = state[f"layer{number}_conv_depth.weight"]
        x = conv2d(pad(x, around), depth, stride=stride, groups=len(depth))
        x = layer(x, f"layer{number}", "conv_point")
    expected = x.permute(0, 2, 3, 1).reshape(2, -1) @ state["Beta.weight"].T + state["Beta.bias"]
    torch.testing.assert_close(network(images), expected)
    assert "layer1_conv_depth.bias" not in state


def test_one_network_a_neuron_by_its_label(file):
    networks = CompactNetworks.load(file)
    assert networks.labels == ["neuron0", "neuron3"]
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    alone = CompactNetworks.load(file, [3])
    torch.testing.assert_close(networks(images)[:, 1:], alone(images))
    networks.preprocess.size = 16
    target = LayerTarget(networks, None, "neuron3")
    torch.testing.assert_close(target(images), alone(images * 255))
    assert target.names == ["neuron3"]


def test_the_target_has_gradients(file):
    encoder = v4_encoder(file, [0])
    encoder.size = 16
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    read = encoder(images)
    read.sum().backward()
    assert images.grad.abs().max() > 0
    assert encoder.describe()["model"] == f"compact V4 networks of {file.parent.name}"
    lens = FeatureLens(encoder, backend="cifar10")
    assert lens.target.names == ["neuron0"]


def test_errors(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected compact_models.safetensors"):
        CompactNetworks.load(tmp_path / "none")
    with pytest.raises(KeyError, match=r"neurons=\[1\] are not in .*, which holds 0 to 3"):
        CompactNetworks.load(file, [1])
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="holds no key such as 'neuron0.layer0_conv.weight'"):
        CompactNetworks.load(other)
    save_file({"neuron0.layer0_bn.weight": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="other.safetensors': its networks cannot be restored .KeyError: 'layer1_bn"):
        CompactNetworks.load(other)
    other.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        CompactNetworks.load(other)


@pytest.mark.data
def test_published_networks_predict_the_recordings(data):
    """Each better than chance by far, within or near the range that a look at nine of them gave (0.65 to 0.79)."""
    folder = data / "macaque_v4" / "201025"
    neurons = [0, 30, 60]
    images = pixels(read_images(folder / "images.zip", 112)[0])[::12]
    recorded = np.load(folder / "responses.npy")[neurons, ::12]
    read = v4_encoder(folder / "compact_models.safetensors", neurons).responses(images).T.numpy()
    found = np.array([np.corrcoef(one, other)[0, 1] for one, other in zip(read, recorded, strict=True)])
    assert found.min() > 0.3
    assert 0.6 < np.median(found) < 0.85
