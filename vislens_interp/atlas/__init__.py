"""The atlas of a layer: every unit fitted, shown and searchable; see docs/atlas.md."""

from vislens_interp.atlas.atlas import Atlas
from vislens_interp.atlas.cluster import RayExecutor
from vislens_interp.atlas.sparse import SparseFeatures
from vislens_interp.atlas.sparse_training import train_sparse_features
from vislens_interp.atlas.store import AtlasStore, open_atlas

__all__ = ["Atlas", "AtlasStore", "RayExecutor", "SparseFeatures", "open_atlas", "train_sparse_features"]
