"""Brain data and the models that predict it: a region, a channel or a neuron as a unit."""

from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.noise_ceiling import NoiseCeiling

__all__ = [
    "BrainDataset",
    "NoiseCeiling",
]
