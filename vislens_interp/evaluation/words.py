"""Words for directions of embeddings: the classes, or the words of a CLIP, that rise and fall along them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vislens_interp import zoo
from vislens_interp.backends.base import Backend
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.files import fingerprint, load_state, rebuilding, save_state
from vislens_interp.landscape.prior import SIGN, Sense
from vislens_interp.methods.landscape import LandscapeMethod
from vislens_interp.reference import ReferenceSet
from vislens_interp.results.words import Word, Words
from vislens_interp.schema import check_finite, check_schema

KIND = "word read-out"
NAMES = ("source", "embedder", "teacher")
SHIPPED = "embedded/words.safetensors"
"""Below ``zoo/weights``: the ImageNet classes, for the embedded backend."""
SURE = 0.95
"""Share of the shuffled landscapes whose strongest word a word has to beat. Against two alone, a third of the units
that are noise would get words."""
COUNT = 5
"""Words of a direction, at most, each way."""
RIDGE = 0.01
"""Added to the covariance of embeddings, in mean variances of a dimension, before it is inverted."""

_readouts: "WeakKeyDictionary[nn.Module, WordReadout | None]" = WeakKeyDictionary()


class WordReadout:
    """A linear read-out from a backend's embeddings to words.

    Args:
        words: The vocabulary, V words.
        weights: (D, V): the product of an embedding with a column rises with how much a picture shows the word.
        source: What it was made from, for reports.
        embedder: Fingerprint of the embedder's state, whose embeddings it reads.
        teacher: Fingerprint of the network whose head it was learned from. A target with these weights gets no words,
            which would come from its own head.

    Raises:
        ValueError: There is not one column a word.

    >>> readout = WordReadout(["warm", "cold"], torch.tensor([[1.0, -1.0], [0.0, 0.5]]), "an example")
    >>> readout.scores(torch.tensor([[1.0, 0.0]]), torch.randn(50, 2)).shape
    torch.Size([1, 2])
    """

    def __init__(
        self, words: Sequence[str], weights: Tensor, source: str, *, embedder: str = "", teacher: str = ""
    ) -> None:
        self.words, self.weights, self.source = list(words), weights.float(), source
        self.embedder, self.teacher = embedder, teacher
        if weights.ndim != 2 or weights.shape[1] != len(self.words):
            raise ValueError(
                f"weights has shape {tuple(weights.shape)} for {len(self.words)} words; expected (D, {len(self.words)})"
                ", a column a word."
            )
        self._of: Tensor | None = None
        self._whitened = self._inverse = weights

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote."""
        state, where = load_state(path, KIND), repr(str(path))
        check_schema(state, {"words": [str], "weights": Tensor, **dict.fromkeys(NAMES, str)}, where)
        check_finite(state["weights"], where, "weights")
        with rebuilding(path, "words or weights"):
            return cls(state["words"], state["weights"], **{key: state[key] for key in NAMES})

    def save(self, path: str | Path) -> Path:
        """Write words and weights, in half precision, to one file."""
        names = {key: getattr(self, key) for key in NAMES}
        return save_state(path, KIND, {**names, "words": self.words, "weights": self.weights.half()})

    @classmethod
    def of_clip(
        cls,
        model: nn.Module,
        tokenizer: Callable[[list[str]], Tensor],
        vocabulary: Sequence[str],
        *,
        template: str = "a photo of a {}",
    ) -> Self:
        """Words by the text tower of a CLIP, for a backend whose embedding is that of its vision tower.

        Args:
            model: What ``open_clip.create_model_and_transforms`` gives first, with both towers.
            tokenizer: What ``open_clip.get_tokenizer`` gives.
            vocabulary: Any words.
            template: What is written around each word.

        Raises:
            ValueError: The vocabulary holds fewer than two words.
        """
        if len(vocabulary) < 2:
            raise ValueError(f"vocabulary holds {len(vocabulary)} word(s); expected at least 2, to compare.")
        encode: Any = model
        device = next(model.parameters()).device
        with torch.no_grad():
            texts = tokenizer([template.format(word) for word in vocabulary]).split(256)
            embedded = torch.cat([encode.encode_text(part.to(device), normalize=True).float() for part in texts]).cpu()
        # What all texts have in common says nothing of a picture.
        weights = (embedded - embedded.mean(0)).T
        return cls(vocabulary, weights, f"CLIP's text tower, {len(vocabulary)} words")

    def scores(self, directions: Tensor, x: Tensor) -> Tensor:
        """How strongly each word goes with each direction, (K, V), from -1 to 1.

        A direction d of embeddings with covariance Σ is where the best linear read-out of something, Σ⁻¹d, points: its
        pattern (Haufe et al. 2014). The score is the correlation, over x, of that read-out with the word's.

        Args:
            directions: (K, D), of any length: which way embeddings move.
            x: (N, D) embeddings of reference images.

        Raises:
            ValueError: The dimensions are not those of the read-out.
        """
        dim = len(self.weights)
        if directions.ndim != 2 or directions.shape[1] != dim or x.shape[1:] != (dim,):
            raise ValueError(
                f"directions has shape {tuple(directions.shape)} and x {tuple(x.shape)}; expected (K, {dim}) and (N, "
                f"{dim}), embeddings of the backend that the words are read from."
            )
        self._prepare(x)
        d = directions.double().cpu()
        length = ((d @ self._inverse) * d).sum(1, keepdim=True).clamp_min(1e-24).sqrt()
        return (d @ self._whitened / length).clamp(-1, 1).float()

    def _prepare(self, x: Tensor) -> None:
        """The words' read-outs with an SD of 1 over x, and the inverse covariance of x."""
        if self._of is x:
            return
        centred = (x - x.mean(0)).double().cpu()
        covariance = centred.T @ centred / len(centred)
        covariance.diagonal().add_(RIDGE * covariance.diagonal().mean().clamp_min(1e-24))
        weights = self.weights.double()
        self._whitened = weights / ((covariance @ weights) * weights).sum(0).clamp_min(1e-24).sqrt()
        self._inverse = torch.linalg.inv(covariance)
        self._of = x


def readout_of(backend: Backend) -> WordReadout | None:
    """The read-out that travels with the package, if it reads this backend's embeddings; None if it does not."""
    embedder = getattr(backend, "embedder", None)
    if not isinstance(embedder, DepthEmbedder):
        return None
    if embedder not in _readouts:
        shipped = WordReadout.load(zoo.weights(SHIPPED))
        _readouts[embedder] = shipped if shipped.embedder == fingerprint(embedder.state_dict()) else None
    return _readouts[embedder]


def edit_words(
    method: LandscapeMethod, directions: Mapping[int, Sense], *, readout: WordReadout | None = None
) -> Words | None:
    """What rises and falls along an edit in a fitted landscape, beside the same in the shuffled landscapes.

    A word counts if its score is larger than that of any word, rising or falling, in 95 % of the shuffled landscapes.

    Args:
        method: Fitted on a backend of embeddings.
        directions: Unit to sense, as the edit has them.
        readout: None takes the one that travels with the package.

    Returns:
        The words; None where nothing reads words from this backend's embeddings.
    """
    backend, landscape = method.backend, method.landscape_
    readout = readout or readout_of(backend)
    if readout is None or len(backend.shape) != 1 or not directions:
        return None
    if readout.teacher and readout.teacher == method.target.describe().get("fingerprint"):
        return Words(source=readout.source, reason="the words were learned from this network's own head")
    if not len(method.shuffled_axes):
        return Words(source=readout.source, reason="no shuffled landscape was fitted, with which they are compared")
    own = ReferenceSet.of_backend(backend)
    x = landscape.decode(landscape.latents.to(backend.device)) if own is None else own.embeddings(backend)
    units, signs = list(directions), torch.tensor([SIGN[sense] for sense in directions.values()])
    axes = torch.cat([landscape.axes()[None], method.shuffled_axes])[:, units]
    score, *chance = readout.scores((signs[:, None] * axes).sum(1), x)
    floor = torch.stack(chance).abs().amax(1).quantile(SURE).item()

    def strongest(sign: int) -> list[Word]:
        values, places = (sign * score).topk(min(COUNT, len(score)))
        return [
            Word(readout.words[place], rank, sign * value, value - floor)
            for rank, (place, value) in enumerate(zip(places.tolist(), values.tolist(), strict=True), 1)
            if value > floor
        ]

    rising, falling = strongest(1), strongest(-1)
    reason = "" if rising or falling else "none is stronger than in shuffled landscapes"
    return Words(rising, falling, readout.source, reason)
