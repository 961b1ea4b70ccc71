"""Brain data and the models that predict it: a region, a channel or a neuron as a unit."""

from vislens_interp.brain.backbone import DINOV2, Backbone
from vislens_interp.brain.dataset import BrainDataset, refuse_shared_images
from vislens_interp.brain.eeg import load_things_eeg
from vislens_interp.brain.encoder import InSilicoEncoder, split_images
from vislens_interp.brain.experiment.blocks import Display, read_block
from vislens_interp.brain.experiment.experiment import Experiment
from vislens_interp.brain.experiment.status import StopRule
from vislens_interp.brain.fmri import load_algonauts, load_brainactiv
from vislens_interp.brain.maps.preference import PreferenceMap, preference_map
from vislens_interp.brain.noise_ceiling import NoiseCeiling
from vislens_interp.brain.outside import OutsideEncoder
from vislens_interp.brain.planted import GaborBank, PlantedTruth, Tuning
from vislens_interp.brain.recorded import RecordedResponses
from vislens_interp.brain.simulate import simulate_algonauts, simulate_brainactiv, simulate_things_eeg
from vislens_interp.brain.stimuli import export_stimuli, load_stimuli
from vislens_interp.brain.v4 import CompactNetworks, v4_encoder

__all__ = [
    "DINOV2",
    "Backbone",
    "BrainDataset",
    "CompactNetworks",
    "Display",
    "Experiment",
    "GaborBank",
    "InSilicoEncoder",
    "NoiseCeiling",
    "OutsideEncoder",
    "PlantedTruth",
    "PreferenceMap",
    "RecordedResponses",
    "StopRule",
    "Tuning",
    "export_stimuli",
    "load_algonauts",
    "load_brainactiv",
    "load_stimuli",
    "load_things_eeg",
    "preference_map",
    "read_block",
    "refuse_shared_images",
    "simulate_algonauts",
    "simulate_brainactiv",
    "simulate_things_eeg",
    "split_images",
    "v4_encoder",
]
