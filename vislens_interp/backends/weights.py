"""The published files behind ``backend="sd15"`` and ``"sdxl"``: where, which commit, sizes, checksums, terms."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Precision = Literal["fp16", "fp32"]


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published repository.

    Args:
        path: Its path in the repository.
        size: Bytes.
        sha256: Of its contents, where it is a large file; "" for small ones, whose commit says enough.
        exact: False where only a rounded size is known: the checksum alone then says whether a file is right.
    """

    path: str
    size: int
    sha256: str = ""
    exact: bool = True


@dataclass(frozen=True)
class PublishedRepository:
    """What is needed of one repository on the Hugging Face hub.

    Args:
        name: What it is, for people.
        repo_id: Where it is.
        revision: The commit that every figure here belongs to.
        licence: Its terms, by the name on its model card.
        terms: Where they can be read.
        files: What is downloaded, and nothing else of it.
    """

    name: str
    repo_id: str
    revision: str
    licence: str
    terms: str
    files: tuple[PublishedFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)


SD15 = PublishedRepository(
    "Stable Diffusion 1.5",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "CreativeML OpenRAIL-M (uses are restricted)",
    "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    (
        PublishedFile("model_index.json", 541),
        PublishedFile("feature_extractor/preprocessor_config.json", 342),
        PublishedFile("scheduler/scheduler_config.json", 308),
        PublishedFile("text_encoder/config.json", 617),
        PublishedFile("tokenizer/merges.txt", 524_619),
        PublishedFile("tokenizer/special_tokens_map.json", 472),
        PublishedFile("tokenizer/tokenizer_config.json", 806),
        PublishedFile("tokenizer/vocab.json", 1_059_962),
        PublishedFile("unet/config.json", 743),
        PublishedFile("vae/config.json", 547),
    ),
)
"""Without its three networks, which come in two precisions; see :func:`sd15_repositories`. The mirror of the removed
``runwayml/stable-diffusion-v1-5``, at the same commit. The safety checker (off, as in the paper) is left out."""

_NETWORKS: dict[Precision, tuple[PublishedFile, ...]] = {
    "fp16": (
        PublishedFile(
            "text_encoder/model.fp16.safetensors",
            246_144_864,
            "77795e2023adcf39bc29a884661950380bd093cf0750a966d473d1718dc9ef4e",
        ),
        PublishedFile(
            "unet/diffusion_pytorch_model.fp16.safetensors",
            1_719_125_304,
            "c83908253f9a64d08c25fc90874c9c8aef9a329ce1ca5fb909d73b0c83d1ea21",
        ),
        PublishedFile(
            "vae/diffusion_pytorch_model.fp16.safetensors",
            167_335_342,
            "4fbcf0ebe55a0984f5a5e00d8c4521d52359af7229bb4d81890039d2aa16dd7c",
        ),
    ),
    "fp32": (
        PublishedFile(
            "text_encoder/model.safetensors",
            492_265_874,
            "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334",
        ),
        PublishedFile(
            "unet/diffusion_pytorch_model.safetensors",
            3_438_167_540,
            "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1",
        ),
        PublishedFile(
            "vae/diffusion_pytorch_model.safetensors",
            334_643_276,
            "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c",
        ),
    ),
}

IP_ADAPTER = PublishedRepository(
    "IP-Adapter for Stable Diffusion 1.5 (global ViT-H/14 embedding)",
    "h94/IP-Adapter",
    "018e402774aeeddd60609b4ecdb7e298259dc729",
    "Apache-2.0",
    "https://huggingface.co/h94/IP-Adapter",
    (
        PublishedFile(
            "models/ip-adapter_sd15.safetensors",
            44_642_768,
            "289b45f16d043d0bf542e45831f971dcdaabe18b656f11e86d9dfba7e9ee3369",
        ),
    ),
)

OPENCLIP = PublishedRepository(
    "OpenCLIP ViT-H/14 (laion2b_s32b_b79k)",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "1c2b8495b28150b8a4922ee1c8edee224c284c0c",
    "MIT",
    "https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    (
        PublishedFile(
            "open_clip_model.safetensors",
            3_944_517_836,
            "0084e75319a50ad85ef45377bad5bc38f2f58824459eb690048d51c9f8863be5",
        ),
    ),
)

HYPER_SD = PublishedRepository(
    "Hyper-SD, 8 steps with guidance, for Stable Diffusion 1.5 (optional)",
    "ByteDance/Hyper-SD",
    "52d483a2ab8d38ce89e1d8b8f45771905f3af3f4",
    "OpenRAIL++ by the model card of April 2024, when the file came; later cards name no licence",
    "https://huggingface.co/ByteDance/Hyper-SD",
    (
        PublishedFile(
            "Hyper-SD15-8steps-CFG-lora.safetensors",
            269_000_000,
            "f6123d5b950d5250ab6c33600e27f4dcf71b3099ebf888685e01e9e8117ce482",
            exact=False,
        ),
    ),
)

LCM_LORA = PublishedRepository(
    "LCM-LoRA for Stable Diffusion 1.5 (optional)",
    "latent-consistency/lcm-lora-sdv1-5",
    "cf2fced511dbe7e26c8d1d397e728fbab875db4b",
    "OpenRAIL++ (uses are restricted)",
    "https://huggingface.co/latent-consistency/lcm-lora-sdv1-5",
    (
        PublishedFile(
            "pytorch_lora_weights.safetensors",
            134_621_556,
            "8f90d840e075ff588a58e22c6586e2ae9a6f7922996ee6649a7f01072333afe4",
        ),
    ),
)

SPEEDUPS = {"hyper-sd": HYPER_SD, "lcm": LCM_LORA}
"""By the word for ``speedup=``."""


SDXL = PublishedRepository(
    "Stable Diffusion XL base 1.0 in fp16",
    "stabilityai/stable-diffusion-xl-base-1.0",
    "462165984030d82259a11f4367a4eed129e94a7b",
    "CreativeML OpenRAIL++-M (uses are restricted)",
    "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
    (
        PublishedFile("model_index.json", 609),
        PublishedFile("scheduler/scheduler_config.json", 479),
        PublishedFile("text_encoder/config.json", 565),
        PublishedFile(
            "text_encoder/model.fp16.safetensors",
            246_144_152,
            "660c6f5b1abae9dc498ac2d21e1347d2abdb0cf6c0c0c8576cd796491d9a6cdd",
        ),
        PublishedFile("text_encoder_2/config.json", 575),
        PublishedFile(
            "text_encoder_2/model.fp16.safetensors",
            1_389_382_176,
            "ec310df2af79c318e24d20511b601a591ca8cd4f1fce1d8dff822a356bcdb1f4",
        ),
        PublishedFile("tokenizer/merges.txt", 524_619),
        PublishedFile("tokenizer/special_tokens_map.json", 472),
        PublishedFile("tokenizer/tokenizer_config.json", 737),
        PublishedFile("tokenizer/vocab.json", 1_059_962),
        PublishedFile("tokenizer_2/merges.txt", 524_619),
        PublishedFile("tokenizer_2/special_tokens_map.json", 460),
        PublishedFile("tokenizer_2/tokenizer_config.json", 725),
        PublishedFile("tokenizer_2/vocab.json", 1_059_962),
        PublishedFile("unet/config.json", 1680),
        PublishedFile(
            "unet/diffusion_pytorch_model.fp16.safetensors",
            5_135_149_760,
            "83e012a805b84c7ca28e5646747c90a243c65c8ba4f070e2d7ddc9d74661e139",
        ),
    ),
)
"""Without its VAE, which leaves float16's range: :data:`SDXL_VAE` takes its place."""

SDXL_VAE = PublishedRepository(
    "Stable Diffusion XL's VAE, mended for float16",
    "madebyollin/sdxl-vae-fp16-fix",
    "207b116dae70ace3637169f1ddd2434b91b3a8cd",
    "MIT",
    "https://huggingface.co/madebyollin/sdxl-vae-fp16-fix",
    (
        PublishedFile("config.json", 631),
        PublishedFile(
            "diffusion_pytorch_model.safetensors",
            334_643_238,
            "1b909373b28f2137098b0fd9dbc6f97f8410854f31f84ddc9fa04b077b0ace2c",
            exact=False,  # two records of it differ by 30 bytes
        ),
    ),
)

IP_ADAPTER_SDXL = replace(
    IP_ADAPTER,
    name="IP-Adapter for Stable Diffusion XL (global ViT-H/14 embedding)",
    files=(
        PublishedFile(
            "sdxl_models/ip-adapter_sdxl_vit-h.safetensors",
            698_391_064,
            "ebf05d918348aec7abb02a5e9ecef77e0aaea6914a5c4ea13f50d45eb1681831",
        ),
    ),
)

HYPER_SDXL = replace(
    HYPER_SD,
    name="Hyper-SD, 8 steps with guidance, for Stable Diffusion XL (optional)",
    files=(
        PublishedFile(
            "Hyper-SDXL-8steps-CFG-lora.safetensors",
            787_359_648,
            "55b51334c85061afff5eff7c550b61963c8b8607a5868bbe4f26db49374719b1",
            exact=False,  # records of its size differ
        ),
    ),
)


def sd15_repositories(precision: Precision = "fp16", speedup: str | None = None) -> list[PublishedRepository]:
    """Everything that ``backend="sd15"`` reads, for one precision of Stable Diffusion's networks.

    Args:
        precision: ``"fp16"`` (2.1 GB of networks; loads as float32 too) or ``"fp32"`` (4.3 GB).
        speedup: ``"hyper-sd"`` or ``"lcm"`` adds the file of that speed-up.

    Raises:
        ValueError: There is no such precision.

    >>> f"{sum(repository.size for repository in sd15_repositories()) / 1e9:.2f} GB"
    '6.12 GB'
    """
    if precision not in _NETWORKS:
        raise ValueError(f"precision={precision!r} is not published; expected one of {sorted(_NETWORKS)}.")
    networks = replace(SD15, files=(*SD15.files, *_NETWORKS[precision]))
    return [networks, IP_ADAPTER, OPENCLIP, *([] if speedup is None else [SPEEDUPS[speedup]])]


def sdxl_repositories(precision: Precision = "fp16", speedup: str | None = None) -> list[PublishedRepository]:
    """Everything that ``backend="sdxl"`` reads; the embedder is that of ``"sd15"``.

    Args:
        precision: ``"fp16"``, which loads as float32 too.
        speedup: ``"hyper-sd"`` adds the file of that speed-up.

    Raises:
        ValueError: There is no such precision or speed-up.

    >>> f"{sum(repository.size for repository in sdxl_repositories()) / 1e9:.2f} GB"
    '11.75 GB'
    """
    if precision != "fp16":
        raise ValueError(
            f"precision={precision!r} of sdxl is not fetched; expected 'fp16', which loads as float32 too."
        )
    if speedup not in (None, "hyper-sd"):
        raise ValueError(f"speedup={speedup!r} of sdxl is unknown; expected 'hyper-sd' or None. Leave it out.")
    return [SDXL, SDXL_VAE, IP_ADAPTER_SDXL, OPENCLIP, *([] if speedup is None else [HYPER_SDXL])]


REPOSITORIES = {"sd15": sd15_repositories, "sdxl": sdxl_repositories}
"""By backend: what it reads, for a precision and a speed-up."""


def missing_files(repository: PublishedRepository) -> list[PublishedFile]:
    """What of a repository is not in the hub's cache at its commit, or is there with another size."""
    from huggingface_hub import try_to_load_from_cache

    missing = []
    for file in repository.files:
        found = try_to_load_from_cache(repository.repo_id, file.path, revision=repository.revision)
        if not isinstance(found, str) or (file.exact and Path(found).stat().st_size != file.size):
            missing.append(file)
    return missing
