"""The paper's CIFAR-10 classifier (Vis-Lens, App. B.2.3)."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
    )


class ConvNet(nn.Module):
    """Three convolution blocks and two linear layers for 32 x 32 images.

    Layers are named as in the paper: ``conv1``, ``conv2``, ``conv3`` are whole blocks (convolution, BatchNorm, ReLU,
    max-pooling; 32, 64 and 128 channels), ``fc1`` has 256 units after its ReLU, ``fc2`` gives the logits.

    ``preprocess`` is attached by ``zoo.load``.

    Args:
        n_channels: Channels of the input; 3 for colour, and for the paper's grey images repeated three times.
        num_classes: Number of logits.

    Source: Vis-Lens, App. B.2.3. The paper places the dropout before the ReLU, as here.
    """

    def __init__(self, n_channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        self.preprocess: Callable[[Tensor], Tensor] | None = None
        self.conv1 = _block(n_channels, 32)
        self.conv2 = _block(32, 64)
        self.conv3 = _block(64, 128)
        self.flatten = nn.Flatten()
        linear = nn.Linear(128 * 4 * 4, 256)
        self.fc1 = nn.Sequential(OrderedDict(linear=linear, dropout=nn.Dropout(0.5), relu=nn.ReLU()))
        self.fc2 = nn.Linear(256, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.flatten(self.maps(images))))

    def maps(self, images: Tensor) -> Tensor:
        """What ``conv3`` makes of preprocessed images (N, C, 32, 32): (N, 128, 4, 4)."""
        return self.conv3(self.conv2(self.conv1(images)))

    def semantics(self, maps: Tensor) -> Tensor:
        """What ``fc1`` makes of ``conv3``'s maps (N, 128, 4, 4) before its dropout and ReLU: (N, 256)."""
        return self.fc1[0](self.flatten(maps))
