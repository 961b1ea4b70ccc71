"""What judges results: change of the response, similarity to the input, realism, and how sure any of them is."""

from vislens_interp.landscape.edit import angle_between
from vislens_interp.metrics.bootstrap import Interval, interval, paired_difference, resampled_means
from vislens_interp.metrics.diversity import diversity
from vislens_interp.metrics.fid import fid
from vislens_interp.metrics.predictivity import Predictivity, predictivity
from vislens_interp.metrics.realism import frechet_distance, kernel_distance
from vislens_interp.metrics.response import (
    interpolate_at,
    monotonicity,
    percentile_among,
    share_right_way,
    signed_change,
)
from vislens_interp.metrics.similarity import cosine_similarity, normalised_similarity
from vislens_interp.metrics.spectrum import amplitude_spectrum, spectrum_distance
from vislens_interp.metrics.transfer import SecondNetwork, transfer

__all__ = [
    "Interval",
    "Predictivity",
    "SecondNetwork",
    "amplitude_spectrum",
    "angle_between",
    "cosine_similarity",
    "diversity",
    "fid",
    "frechet_distance",
    "interpolate_at",
    "interval",
    "kernel_distance",
    "monotonicity",
    "normalised_similarity",
    "paired_difference",
    "percentile_among",
    "predictivity",
    "resampled_means",
    "share_right_way",
    "signed_change",
    "spectrum_distance",
    "transfer",
]
