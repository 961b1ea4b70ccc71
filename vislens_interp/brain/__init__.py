"""Brain data and the models that predict it: a region, a channel or a neuron as a unit."""

from vislens_interp.brain.dataset import BrainDataset, refuse_shared_images
from vislens_interp.brain.eeg import load_things_eeg
from vislens_interp.brain.fmri import load_algonauts, load_brainactiv
from vislens_interp.brain.noise_ceiling import NoiseCeiling
from vislens_interp.brain.planted import GaborBank, PlantedTruth, Tuning
from vislens_interp.brain.simulate import simulate_algonauts, simulate_brainactiv, simulate_things_eeg

__all__ = [
    "BrainDataset",
    "GaborBank",
    "NoiseCeiling",
    "PlantedTruth",
    "Tuning",
    "load_algonauts",
    "load_brainactiv",
    "load_things_eeg",
    "refuse_shared_images",
    "simulate_algonauts",
    "simulate_brainactiv",
    "simulate_things_eeg",
]
