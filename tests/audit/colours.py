"""A small network of colours, whose honest pictures are known, and painters that tell the truth or do not."""

import torch
from torch import nn

from vislens_interp import Preprocess
from vislens_interp.methods.base import Method

RED, CYAN = (0.9, 0.1, 0.1), (0.1, 0.9, 0.9)
QUICK = {"epochs": 1, "shuffles": 1}


class Colours(nn.Module):
    """Channels of its layer ``unit``: red, green, blue and yellow, each against the other colours."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.unit = nn.Conv2d(6, 4, 1)
        with torch.no_grad():
            self.stem.weight.zero_()
            self.stem.weight[range(6), [0, 1, 2, 0, 1, 2], 1, 1] = torch.tensor([1.0, 1, 1, -1, -1, -1])
            self.stem.bias.zero_()
            wanted = torch.tensor([[1.0, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1], [0.5, 0.5, -1]])
            self.unit.weight.copy_(torch.cat([wanted, -wanted], 1)[:, :, None, None] / 2)
            self.unit.bias.zero_()
        self.preprocess = Preprocess(32, [0], [1])

    def forward(self, x):
        return self.unit(self.stem(x))


class Painter(Method):
    """Paints one colour for one sense and another for the other, whatever the network is."""

    def __init__(self, preferred=RED, suppressed=CYAN):
        self.colours = {"increase": preferred, "decrease": suppressed}

    def _generate(self, images, directions, seeds, alpha, strength):
        colour = torch.tensor(self.colours[directions[0]])[None, :, None, None]
        noise = torch.stack([torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])
        return (colour + 0.05 * noise).clamp(0, 1), None


def smooth(count, seed):
    """Pictures at 32 px, unlike one another in colour."""
    generator = torch.Generator().manual_seed(seed)
    colour, places = torch.randn(count, 3, 1, 1, generator=generator), torch.randn(count, 3, 4, 4, generator=generator)
    return nn.functional.interpolate(0.5 + 0.1 * colour + 0.2 * places, size=32, mode="bilinear").clamp(0, 1)
