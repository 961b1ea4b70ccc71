"""Images to embeddings: CLIP ViT-H/14 through open_clip."""

import json
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from vislens_interp.backends.sources import CLIP, damaged, find, reading
from vislens_interp.backends.weights import OPENCLIP
from vislens_interp.images import ImageSource, check_shape, load_images
from vislens_interp.preprocess import Preprocess
from vislens_interp.validation import check_counts


@runtime_checkable
class Embedder(Protocol):
    """Carries images (N, 3, H, W) in [0, 1] to embeddings (N, dim).

    Attributes:
        dim: Dimensions of an embedding.
        size: Side in pixels of what the network sees.
        device: Where it computes.
    """

    dim: int
    size: int

    @property
    def device(self) -> torch.device: ...

    def __call__(self, images: Tensor) -> Tensor:
        """Images to un-normalised embeddings, float32 on ``device``; gradients flow to the images."""
        ...


class OpenCLIPEmbedder(nn.Module):
    """The vision tower of a CLIP, with its projection and without normalisation.

    Args:
        visual: open_clip's vision tower, images (N, 3, size, size) to (N, dim).
        preprocess: What the tower wants done to pixels.
        device: Where it computes.
        dtype: Precision of its weights; embeddings are float32 in any case.
        batch_size: Images at a time.

    Source: Algorithm 2, line 1 (ViT-H/14 of LAION, 1,024 dimensions). The adapter was trained on the projected output
    without normalisation, and so is the landscape.

    Deviation: tensors are resized by torch's antialiased bicubic filter, which differs from Pillow's by a few of 255
    levels, at sharp edges by more; :meth:`embed_files` reads files as open_clip does.
    """

    def __init__(
        self,
        visual: nn.Module,
        preprocess: Preprocess,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        check_counts(batch_size=batch_size)
        if preprocess.size is None:
            raise ValueError("preprocess has no size; expected the side in pixels that the network takes.")
        self.device, self.dtype, self.batch_size = torch.device(device), dtype, batch_size
        self.size: int = preprocess.size
        self.visual = visual.to(self.device, dtype).eval().requires_grad_(False)
        self.preprocess = preprocess.to(self.device)
        with torch.no_grad():
            self.dim = int(
                self.visual(torch.zeros(1, 3, self.size, self.size, device=self.device, dtype=dtype)).shape[1]
            )

    @classmethod
    def load(
        cls,
        source: str | Path = OPENCLIP.repo_id,
        *,
        architecture: str = "ViT-H-14",
        revision: str | None = None,
        local_files_only: bool = True,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> Self:
        """Read a checkpoint of open_clip.

        Args:
            source: An id on the hub, a folder, or a file with the weights of the whole CLIP
                (``open_clip_model.safetensors``, ``open_clip_pytorch_model.bin``).
            architecture: open_clip's name of the network where the source has no ``open_clip_config.json``.
            revision: Branch, tag or commit on the hub.
            local_files_only: Never go to the hub.
            device, dtype, batch_size: For the constructor.

        Raises:
            FileNotFoundError: Files are missing; the message names them.
            ValueError: A file is damaged or holds another network.
            MemoryError: The weights do not fit.
        """
        import open_clip

        if open_clip.get_model_config(architecture) is None:
            raise ValueError(
                f"architecture={architecture!r} is unknown to open_clip; expected a name such as 'ViT-H-14'. "
                "open_clip.list_models() shows all."
            )
        path = Path(source).expanduser()
        name, pretrained = architecture, str(path)
        if not path.is_file():
            path = find(source, CLIP, argument="clip", revision=revision, local_files_only=local_files_only)
            if (path / "open_clip_config.json").is_file():
                _check_offline(path / "open_clip_config.json", source, local_files_only)
                name, pretrained = f"local-dir:{path}", None
            else:
                pretrained = next(str(path / name) for name in CLIP[0] if (path / name).is_file())
        with reading("clip", source, "ViT-H/14 takes 8 GB"), torch.random.fork_rng(devices=[]):
            # The random weights are those that the file replaces.
            model = open_clip.create_model(name, pretrained=pretrained, require_pretrained=True)
        visual: Any = model.visual  # the text tower, a third of the weights, is let go
        settings = visual.preprocess_cfg
        if settings["interpolation"] != "bicubic" or settings["resize_mode"] != "shortest":
            raise ValueError(
                f"clip={str(source)!r} resizes by interpolation={settings['interpolation']!r}, resize_mode="
                f"{settings['resize_mode']!r}; expected 'bicubic' and 'shortest', as ViT-H-14. Pass that checkpoint."
            )
        size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
        preprocess = Preprocess(size, settings["mean"], settings["std"])
        return cls(visual, preprocess, device=device, dtype=dtype, batch_size=batch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to embeddings (N, dim), float32; gradients flow to the images.

        An embedding depends on its image alone, up to rounding.
        """
        check_shape(images)
        return torch.cat([self._embed(part) for part in images.split(self.batch_size)])

    def _embed(self, images: Tensor) -> Tensor:
        return self.visual(self.preprocess(images.to(self.device)).to(self.dtype)).float()

    def embed_files(
        self, source: ImageSource, *, on_error: Literal["raise", "skip"] = "raise"
    ) -> tuple[Tensor, list[str]]:
        """Embeddings (N, dim) of files or PIL images, resized as open_clip's published transform does; and N names."""
        images, names = load_images(source, size=self.size, on_error=on_error)
        with torch.no_grad():
            return self(images), names


def _check_offline(config: Path, source: str | Path, local_files_only: bool) -> None:
    """Refuse a configuration that names further networks of a hub, which open_clip would fetch from there."""
    try:
        towers = json.loads(config.read_text(encoding="utf-8"))["model_cfg"]
        wanted = [
            f"{part}.{key}={towers[part][key]!r}"
            for part, key in (
                ("text_cfg", "hf_model_name"),
                ("vision_cfg", "hf_model_name"),
                ("text_cfg", "hf_model_pretrained"),
                ("vision_cfg", "timm_model_pretrained"),
            )
            if towers.get(part, {}).get(key)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged("clip", source, error) from error
    if wanted and local_files_only:
        raise ValueError(
            f"clip={str(source)!r} takes {', '.join(wanted)} from a hub, and local_files_only=True; expected a"
            " checkpoint that is whole in itself, such as ViT-H-14. Pass that one, or local_files_only=False."
        )
