"""IP-Adapter: reading its files, and refusing those that take anything but one global embedding."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vislens_interp.backends.sources import ADAPTER, Needs, damaged, find

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

AdapterState = Mapping[str, Mapping[str, Tensor]]
"""``"image_proj"`` and ``"ip_adapter"``, each names to tensors: the layout of the published ``.bin``."""

TOKENS = 4
"""Tokens that one embedding becomes; diffusers takes this number for granted."""

_USE = "Use models/ip-adapter_sd15.safetensors of h94/IP-Adapter (or ip-adapter_sd15_light)."
_USE_XL = "Use sdxl_models/ip-adapter_sdxl_vit-h.safetensors of h94/IP-Adapter."
_BIG = r"vit[-_]?g|big[-_]?g"
_OTHER_KINDS = {
    r"plus|full[-_]?face": "takes CLIP's patch tokens, not the one embedding of an image",
    r"faceid": "takes embeddings of a face recognition network",
    _BIG: "takes the 1,280-d embedding of ViT-bigG/14",
}


def read_adapter(
    source: str | Path,
    *,
    name: str | None = None,
    revision: str | None = None,
    local_files_only: bool = True,
    needs: Needs = ADAPTER,
) -> AdapterState:
    """Read an adapter's file.

    Args:
        source: A file (``.safetensors`` or ``.bin``), a folder of the published layout, or an id on the hub.
        name: File below the folder or in the repository; None is ``models/ip-adapter_sd15.safetensors`` (or ``.bin``).
        revision: Branch, tag or commit on the hub.
        local_files_only: Never go to the hub.
        needs: The file to look for without a name.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: By its name it is of a kind that takes something else, or it is damaged.
    """
    path = Path(source).expanduser()
    use = _USE if needs is ADAPTER else _USE_XL
    for candidate in (name, path.name):
        _refuse_by_name(candidate, use)
    if not path.is_file():
        needs = needs if name is None else ((name,),)
        folder = find(source, needs, argument="adapter", revision=revision, local_files_only=local_files_only)
        path = next(folder / option for option in needs[0] if (folder / option).is_file())
    try:
        is_bin = path.suffix != ".safetensors"
        state = torch.load(path, map_location="cpu", weights_only=True) if is_bin else _read_safetensors(path)
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise damaged("adapter", path, error) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(state.get(part), Mapping) and state[part] for part in ("image_proj", "ip_adapter")
    ):
        raise ValueError(
            f"adapter={str(path)!r} lacks 'image_proj' or 'ip_adapter'; expected an IP-Adapter checkpoint. {use}"
        )
    return state


def _refuse_by_name(name: str | None, use: str) -> None:
    stem = "" if name is None else Path(name).name.lower()
    if not stem.startswith("ip-adapter"):
        return
    others = {r"sdxl": "is made for Stable Diffusion XL"}
    if use is _USE_XL:
        others = {r"sd15": "is made for Stable Diffusion 1.5", r"sdxl(?!_vit-h)": _OTHER_KINDS[_BIG]}
    for pattern, why in {**_OTHER_KINDS, **others}.items():
        if re.search(pattern, stem):
            raise ValueError(f"adapter={name!r} {why}; expected one that takes ViT-H/14's global embedding. {use}")


def _read_safetensors(path: Path) -> dict[str, dict[str, Tensor]]:
    state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (safe_open is no dict)
            part, _, name = key.partition(".")
            if part in state:
                state[part][name] = file.get_tensor(key)
    return state


def check_adapter(state: AdapterState, unet: "UNet2DConditionModel", *, embedding_dim: int | None) -> int:
    """Refuse an adapter that does not fit; the shapes alone are read, so that weights may lie on any device.

    Args:
        embedding_dim: Dimensions of the embeddings that it will be given; None takes any.

    Returns:
        Dimensions of the embedding that it takes.

    Raises:
        ValueError: It takes patch tokens, another embedding, or belongs to another UNet.
    """
    projection, layers = state["image_proj"], state["ip_adapter"]
    use = _USE_XL if unet.config["addition_embed_type"] == "text_time" else _USE
    if "latents" in projection or "proj.weight" not in projection:
        raise ValueError(
            f"adapter projects through {sorted(projection)[0]!r} and takes patch tokens or a face's embedding (a plus, "
            f"full-face or FaceID adapter); expected 'proj.weight' over one global embedding. {use}"
        )
    cross = unet.config["cross_attention_dim"]
    rows, dim = projection["proj.weight"].shape
    width = projection["norm.weight"].shape[0]
    if width != cross:
        raise ValueError(
            f"adapter makes tokens of {width} values, but the UNet attends to {cross}: it was made for another Stable "
            f"Diffusion. {use}"
        )
    if rows != TOKENS * cross:
        raise ValueError(
            f"adapter makes {rows / cross:g} tokens ('image_proj.proj.weight' has {rows} rows); expected {TOKENS}. "
            f"{use}"
        )
    if embedding_dim is not None and dim != embedding_dim:
        which = " (ViT-bigG/14)" if dim == 1280 else ""
        raise ValueError(
            f"adapter takes {dim}-d embeddings{which}, but the embedder makes {embedding_dim}; expected one trained on "
            f"the same embedder. {use}"
        )
    expected = _layers_of(unet)
    given = {name: tuple(weight.shape) for name, weight in layers.items() if "_ip." in name}
    if given != expected:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise ValueError(
            f"adapter does not fit the UNet in {len(wrong)} of {len(expected)} attention weights (first: {wrong[0]!r} "
            f"has shape {given.get(wrong[0])}, expected {expected.get(wrong[0])}); it was made for another one. {use}"
        )
    return int(dim)


def _layers_of(unet: "UNet2DConditionModel") -> dict[str, tuple[int, int]]:
    """Names and shapes of the keys and values that an adapter adds, by position in the UNet's list of attentions."""
    shapes: dict[str, tuple[int, int]] = {}
    cross = unet.config["cross_attention_dim"]
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            hidden = unet.get_parameter(name.removesuffix("processor") + "to_q.weight").shape[0]
            for letter in "kv":
                shapes[f"{index}.to_{letter}_ip.weight"] = (hidden, cross)
    return shapes


def check_loaded(unet: "UNet2DConditionModel") -> None:
    """Raise where a UNet would pass over embeddings without a word, because no adapter is in it.

    Raises:
        ValueError: The UNet has no image projection.
    """
    projection = getattr(unet, "encoder_hid_proj", None)
    layers = getattr(projection, "image_projection_layers", [])
    kind = getattr(unet.config, "encoder_hid_dim_type", None)  # diffusers sets the attribute and not the entry
    if kind != "ip_image_proj" or len(layers) != 1:
        raise ValueError(
            f"the UNet has {len(layers)} image projections, so that it would ignore embeddings; expected the one of an "
            "IP-Adapter. Build the generator anew, and do not unload its adapter."
        )
