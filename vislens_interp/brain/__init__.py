"""Brain data and the models that predict it: a region, a channel or a neuron as a unit."""

from vislens_interp.brain.backbone import DINOV2, Backbone
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.encoder import InSilicoEncoder, split_images
from vislens_interp.brain.noise_ceiling import NoiseCeiling
from vislens_interp.brain.outside import OutsideEncoder
from vislens_interp.brain.recorded import RecordedResponses
from vislens_interp.brain.v4 import CompactNetworks, v4_encoder

__all__ = [
    "DINOV2",
    "Backbone",
    "BrainDataset",
    "CompactNetworks",
    "InSilicoEncoder",
    "NoiseCeiling",
    "OutsideEncoder",
    "RecordedResponses",
    "split_images",
    "v4_encoder",
]
