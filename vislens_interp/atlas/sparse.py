"""Sparse features as units: the latents of a dictionary over a layer, from a sparse autoencoder's files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, Unpack, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vislens_interp.files import fingerprint, write_folder
from vislens_interp.targets.layout import channel_axis
from vislens_interp.targets.reading import Reading
from vislens_interp.targets.target import WIDEST, LayerTarget, Target
from vislens_interp.targets.whole_layer import all_units
from vislens_interp.validation import check_word

Kind = Literal["standard", "topk", "jumprelu"]
WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"


class SparseFeatures:
    """The encoder of a sparse autoencoder: a layer's vectors to many latents, few of which are not 0.

    Args:
        encoder: (D, M) weights.
        bias: (M,).
        kind: What comes after them: ``"standard"`` is a ReLU, ``"topk"`` keeps the k largest, ``"jumprelu"`` those
            above a threshold each.
        centre: (D,) taken from the vectors first; None takes nothing.
        k: Of ``"topk"``.
        threshold: (M,), of ``"jumprelu"``.
        decoder: (M, D), what a latent of 1 adds to a vector; None where only units are read.
        about: JSON values that are saved with it.

    Raises:
        ValueError: Shapes do not go together, or ``k`` or ``threshold`` is missing.

    >>> features = SparseFeatures(torch.eye(3), torch.zeros(3), kind="topk", k=1)
    >>> features.encode(torch.tensor([[1.0, 5.0, -2.0]])).tolist()
    [[0.0, 5.0, 0.0]]
    """

    def __init__(
        self,
        encoder: Tensor,
        bias: Tensor,
        *,
        kind: Kind = "standard",
        centre: Tensor | None = None,
        k: int | None = None,
        threshold: Tensor | None = None,
        decoder: Tensor | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        check_word("kind", kind, get_args(Kind))
        if encoder.ndim != 2 or bias.shape != encoder.shape[1:]:
            raise ValueError(
                f"encoder has shape {tuple(encoder.shape)} and bias {tuple(bias.shape)}; expected (D, M) and (M,)."
            )
        if centre is not None and centre.shape != encoder.shape[:1]:
            raise ValueError(f"centre has shape {tuple(centre.shape)}; expected ({len(encoder)},), as the encoder's D.")
        if (kind == "topk") != (k is not None) or (k is not None and not 1 <= k <= len(bias)):
            raise ValueError(f"kind={kind!r} and k={k}; expected k from 1 to {len(bias)} with 'topk' alone.")
        if (kind == "jumprelu") != (threshold is not None) or (threshold is not None and threshold.shape != bias.shape):
            raise ValueError(
                f"kind={kind!r}: threshold of shape ({len(bias)},) goes with 'jumprelu', and with it alone."
            )
        self.kind: Kind = kind
        self.k = k
        self.encoder, self.bias = encoder.float(), bias.float()
        self.centre = None if centre is None else centre.float()
        self.threshold = None if threshold is None else threshold.float()
        self.decoder = None if decoder is None else decoder.float()
        self.about: dict[str, Any] = dict(about or {})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A dictionary in SAELens' layout: ``cfg.json`` and ``sae_weights.safetensors``.

        Raises:
            FileNotFoundError: One of them is missing.
            ValueError: They are damaged, or of an architecture or a normalisation that is not computed here.
        """
        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"folder={str(folder)!r} lacks {name}; expected what SAELens' save_model wrote."
                )
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            weights = load_file(folder / WEIGHTS)
            kind = config.get("architecture", "standard")
            changes = {name: config.get(name) or "none" for name in ("normalize_activations", "reshape_activations")}
            known = kind in get_args(Kind) and set(changes.values()) == {"none"}
            encoder, bias = (weights["W_enc"], weights["b_enc"]) if known else (torch.empty(0), torch.empty(0))
            rescaled = config.get("rescale_acts_by_decoder_norm", False)
            centre = weights["b_dec"] if config.get("apply_b_dec_to_input", True) else None
            k = int(config["k"]) if kind == "topk" else None
            threshold = weights["threshold"] if kind == "jumprelu" else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
            raise ValueError(
                f"folder={str(folder)!r} is damaged or in another layout ({type(error).__name__}: {error}); expected"
                " what SAELens' save_model wrote."
            ) from error
        if not known:
            said = ", ".join(f"{name}={value!r}" for name, value in changes.items())
            raise ValueError(
                f"folder={str(folder)!r} holds a dictionary of architecture {kind!r} with {said}; expected"
                f" {', '.join(get_args(Kind))} with 'none'. Pass weights to SparseFeatures."
            )
        decoder = (
            weights.get("W_dec") if centre is not None or not weights.get("b_dec", bias.new_zeros(1)).any() else None
        )
        if rescaled:
            length = weights["W_dec"].float().norm(dim=1)
            encoder, bias = encoder * length, bias * length
            decoder = None if decoder is None else decoder / length[:, None]
        about = config.get("metadata") if isinstance(config.get("metadata"), dict) else None
        return cls(encoder, bias, kind=kind, centre=centre, k=k, threshold=threshold, decoder=decoder, about=about)

    def save(self, folder: str | Path) -> Path:
        """Write ``cfg.json`` and ``sae_weights.safetensors`` in SAELens' layout, for :meth:`load`.

        Raises:
            ValueError: It has no decoder, which that layout holds; or the folder holds other files.
        """
        folder = Path(folder)
        if folder.is_dir() and (others := {path.name for path in folder.iterdir()} - {WEIGHTS, CONFIG}):
            raise ValueError(
                f"folder={str(folder)!r} holds other files ({', '.join(sorted(others)[:3])}); expected an empty or a "
                "new folder, or a dictionary's. Name another."
            )
        if self.decoder is None:
            raise ValueError("this dictionary has no decoder, which SAELens' files hold; expected one. Pass decoder=.")
        size = len(self.encoder)
        weights = {"W_enc": self.encoder, "b_enc": self.bias, "W_dec": self.decoder}
        weights["b_dec"] = torch.zeros(size) if self.centre is None else self.centre
        weights |= {} if self.threshold is None else {"threshold": self.threshold}
        config = {"architecture": self.kind, "d_in": size, "d_sae": len(self), "k": self.k, "dtype": "float32"}
        config |= {"apply_b_dec_to_input": self.centre is not None, "normalize_activations": "none"}
        config["metadata"] = self.about

        def fill(temporary: Path) -> None:
            save_file({name: part.contiguous() for name, part in weights.items()}, temporary / WEIGHTS)
            (temporary / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")

        return write_folder(folder, fill)

    def __len__(self) -> int:
        return len(self.bias)

    def encode(self, vectors: Tensor) -> Tensor:
        """Vectors (..., D) to latents (..., M); gradients flow."""
        centred = vectors if self.centre is None else vectors - self.centre.to(vectors)
        before = centred @ self.encoder.to(vectors) + self.bias.to(vectors)
        if self.kind == "jumprelu":
            assert self.threshold is not None
            return before.relu() * (before > self.threshold.to(before))
        if self.kind == "topk":
            assert self.k is not None
            return largest(before, self.k)
        return before.relu()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (..., M) to vectors (..., D).

        Raises:
            ValueError: It has no decoder.
        """
        if self.decoder is None:
            raise ValueError("this dictionary has no decoder; expected one. Pass decoder=.")
        vectors = latents @ self.decoder.to(latents)
        return vectors if self.centre is None else vectors + self.centre.to(latents)

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        parts = {"encoder": self.encoder, "bias": self.bias, "centre": self.centre, "threshold": self.threshold}
        given = {name: part for name, part in parts.items() if part is not None}
        return {"kind": self.kind, "k": self.k, "latents": len(self), "fingerprint": fingerprint(given)}

    def target(self, model: nn.Module, layer: str | nn.Module | None, **reading: Unpack[Reading]) -> "SparseTarget":
        """Every latent over a layer as a unit, for :class:`Atlas` or a lens.

        Args:
            model, layer: Whose vectors are encoded, one a position of the map or a token.
            reading: For :class:`~vislens_interp.targets.LayerTarget`; but ``pool`` is the mean (``"mean"``) or the
                largest (``"max"``) of a latent over positions.
        """
        return SparseTarget(self, model, layer, **reading)


def largest(values: Tensor, k: int) -> Tensor:
    """The k largest of (..., M) where they are above 0, and 0 for all others."""
    best = values.topk(k, dim=-1)
    return torch.zeros_like(values).scatter(-1, best.indices, best.values.relu())


class SparseTarget(Target):
    """The latents of a dictionary over a layer, pooled over positions: see :meth:`SparseFeatures.target`.

    Raises:
        ValueError: The layer has other dimensions than the dictionary, or a pool is unknown.
    """

    differentiable = True

    def __init__(
        self,
        features: SparseFeatures,
        model: nn.Module,
        layer: str | nn.Module | None,
        **reading: Unpack[Reading],
    ) -> None:
        pool = reading.pop("pool", "mean")
        if pool not in ("mean", "max"):
            raise ValueError(f"pool={pool!r}; expected 'mean' or 'max' over the positions of a dictionary's latents.")
        self.layer = LayerTarget(model, layer, 0, **reading)
        channels, dimensions = self.layer.n_units, len(features.encoder)
        if channels != dimensions:
            raise ValueError(
                f"layer {self.layer.layer!r} has {channels} channels and the dictionary takes {dimensions}; expected"
                " the same. Name the layer that it was trained on."
            )
        self.dictionary, self.pool = features, pool
        self.names = [str(latent) for latent in range(len(features))]
        self.batch_size = self.layer.batch_size

    @property
    def device(self) -> torch.device:
        return self.layer.device

    def __call__(self, images: Tensor) -> Tensor:
        vectors = self.features(images)
        latents = self.dictionary.encode(vectors.movedim(channel_axis(self.layer.layout or "NC"), -1))
        if latents.ndim == 2:
            return latents
        flat = latents.flatten(1, -2)
        return flat.mean(1) if self.pool == "mean" else flat.amax(1)

    def features(self, images: Tensor) -> Tensor:
        return self.layer.features(images)

    def whole_layer(self) -> tuple[Callable[[], Target], list[int], str] | None:
        of_layer = self.layer.whole_layer()
        if of_layer is None or len(self.names) > WIDEST:
            return None
        key = json.dumps([of_layer[2], self.pool, self.dictionary.describe()], sort_keys=True)
        return lambda: self, list(range(len(self.names))), key

    def describe(self) -> dict[str, Any]:
        return {
            **self.layer.describe(),
            "units": list(self.names),
            "pool": self.pool,
            "dictionary": self.dictionary.describe(),
        }


def units_of(
    model: nn.Module,
    layer: str | nn.Module | None,
    sae: SparseFeatures | str | Path | None = None,
    **reading: Unpack[Reading],
) -> Target:
    """Every unit of a layer, or every latent of a dictionary over it; see :class:`Atlas` for the arguments."""
    if sae is None:
        return all_units(model, layer, **reading)
    features = sae if isinstance(sae, SparseFeatures) else SparseFeatures.load(sae)
    return features.target(model, layer, **reading)
