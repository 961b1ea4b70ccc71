"""What judges results: change of the response, similarity to the input, realism, and how sure any of them is."""

from vislens_interp.metrics.bootstrap import Interval, interval, paired_difference
from vislens_interp.metrics.realism import frechet_distance
from vislens_interp.metrics.response import interpolate_at, share_right_way, signed_change
from vislens_interp.metrics.similarity import cosine_similarity, normalised_similarity

__all__ = [
    "Interval",
    "cosine_similarity",
    "frechet_distance",
    "interpolate_at",
    "interval",
    "normalised_similarity",
    "paired_difference",
    "share_right_way",
    "signed_change",
]
