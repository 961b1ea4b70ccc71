"""What judges results: change of the response, similarity to the input, realism, and how sure any of them is."""

from vislens_interp.metrics.angle import edit_angle
from vislens_interp.metrics.bootstrap import Interval, interval, intervals, paired_difference
from vislens_interp.metrics.inception import fid
from vislens_interp.metrics.pairwise import diversity
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
from vislens_interp.metrics.spectrum import amplitude_profile, spectrum_distance

__all__ = [
    "Interval",
    "Predictivity",
    "amplitude_profile",
    "cosine_similarity",
    "diversity",
    "edit_angle",
    "fid",
    "frechet_distance",
    "interpolate_at",
    "interval",
    "intervals",
    "kernel_distance",
    "monotonicity",
    "normalised_similarity",
    "paired_difference",
    "percentile_among",
    "predictivity",
    "share_right_way",
    "signed_change",
    "spectrum_distance",
]
