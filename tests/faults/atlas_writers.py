"""What is written of atlases and of the embedded backend, as ``writers`` has it."""

import re
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent / "atlas")]
from lens_writers import contents
from small_layer import SmallEmbedder, clouds, kinds, small_backend, small_layer

from vislens_interp import Preprocess
from vislens_interp.atlas import Atlas, SparseFeatures, open_atlas
from vislens_interp.atlas.compare import write_comparisons
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.pyramid_decoder import PyramidDecoder
from vislens_interp.files import recover

LAYERS = ["fine", "coarse"]


@cache
def parts():
    """Network, backend and images of an atlas."""
    return small_layer(), small_backend(), clouds(200)


def atlas(folder):
    """An atlas of three units, one of them dead, in two shards."""
    network, backend, images = parts()
    made = Atlas(network, "layer", images, backend=backend, words=kinds)
    return made.fit(folder, inputs=2, top_images=4, shuffles=1, draws=19).save(folder, units=[0, 1, 9], shard=2)


@cache
def whole_atlas():
    folder = Path(tempfile.mkdtemp(prefix="atlas")) / "atlas"
    atlas(folder)
    return contents(folder)


def write_atlas(folder, version):
    atlas(folder / "atlas")


def atlas_version(folder):
    """None until its index is there, which comes last."""
    place = folder / "atlas"
    if not (place / "index.html").exists():
        return None
    assert open_atlas(place).query("cloud")
    assert contents(place) == whole_atlas()
    return 0


def small(folder):
    """An atlas of two units, without pictures."""
    network, backend, images = parts()
    made = Atlas(network, "layer", images, backend=backend).fit(folder, inputs=0, top_images=2, shuffles=1, draws=19)
    return made.save(folder, units=[0, 1], shard=2)


def write_comparison(folder, version):
    one, other = (small(folder / name) for name in ("one", "other"))
    write_comparisons(one, other)


def comparison_version(folder):
    """None until both indices link their page, which is there then."""
    links = 0
    for name in ("one", "other"):
        index = folder / name / "index.html"
        for page in re.findall(r'href="(compare/[^"]+\.html)"', index.read_text() if index.exists() else ""):
            assert (folder / name / page).is_file()
            links += 1
        if index.exists():
            found = open_atlas(folder / name).comparisons()
            assert all(one["pairs"] == [[0, 0, 1.0], [1, 1, 1.0]] for one in found.values())
    return 0 if links == 2 else None


@cache
def embedder(version):
    return fresh().standardise(clouds(60, seed=version))


def fresh():
    return DepthEmbedder(SmallEmbedder(), LAYERS, preprocess=Preprocess(64, [0.5], [0.25]), size=64)


@cache
def decoder(version):
    return PyramidDecoder(embedder(version), LAYERS).fit(clouds(60, seed=version))


def write_embedder(folder, version):
    embedder(version).save_statistics(folder / "statistics.safetensors")


def embedder_version(folder):
    path = folder / "statistics.safetensors"
    if not path.exists():
        return None
    found = fresh().load_statistics(path)
    (same,) = [version for version in (0, 1) if torch.equal(found.mean, embedder(version).mean)]
    return same


def write_decoder(folder, version):
    decoder(version).save(folder / "decoder.safetensors")


def decoder_version(folder):
    path = folder / "decoder.safetensors"
    if not path.exists():
        return None
    found = PyramidDecoder.load(path, embedder(0)).weights
    same = [
        version
        for version in (0, 1)
        if all(
            torch.equal(one, other.half().float()) for one, other in zip(found, decoder(version).weights, strict=True)
        )
    ]
    assert len(same) == 1
    return same[0]


@cache
def dictionary(version):
    generator = torch.Generator().manual_seed(version)
    encoder, decoder = torch.randn(6, 40, generator=generator), torch.randn(40, 6, generator=generator)
    return SparseFeatures(encoder, torch.zeros(40), kind="topk", k=3, centre=encoder[:, 0], decoder=decoder)


def write_dictionary(folder, version):
    dictionary(version).save(folder / "dictionary")


def dictionary_version(folder):
    recover(folder / "dictionary")
    if not (folder / "dictionary").exists():
        return None
    found = SparseFeatures.load(folder / "dictionary").describe()
    (same,) = [version for version in (0, 1) if found == dictionary(version).describe()]
    return same


ATLAS_WRITERS = {
    "dictionary": (write_dictionary, dictionary_version, False),
    "atlas": (write_atlas, atlas_version, True),
    "comparison": (write_comparison, comparison_version, True),
    "embedder": (write_embedder, embedder_version, False),
    "decoder": (write_decoder, decoder_version, False),
}
