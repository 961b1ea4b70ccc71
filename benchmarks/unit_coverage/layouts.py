"""Where the units of each architecture's layers are, declared by a person who read the models' code.

Nothing here is computed: this is one of the two truths that ``unit_coverage`` compares a tool with.
"""

import importlib
import re
from dataclasses import dataclass, field
from typing import Any

from torch import nn

# A layout has a letter for each axis: N the images, C the units, anything else what is averaged. Where a pattern names
# several, the one of the output's rank holds. Five words in front of it, or alone:
#   folded  the images share an axis with windows, patches or heads, so that no axis is theirs alone;
#   heads   attention weights: (images, heads, queries, keys); a head may be read, there are no channels;
#   split   (images, heads, tokens, features of a head): channels are a head and a feature, on two axes;
#   open    a linear layer over tokens, the channels on another axis: both may be meant, either may be read, or neither;
#   none    there are no images in it: tables of relative positions.
MAPS = (("", "NC NCHW"),)
TOKENS = (
    (r"patch_embed.*\.proj|^(stem\.proj|conv_proj)$", "NCHW"),
    (r"attn_drop", "heads NHQK"),
    (r"rel_pos\.", "none"),
    (r"q_norm|k_norm", "split NHLC"),
    ("", "NC NLC NHWC"),  # patch_embed without a fixed size gives NHWC
)
SQUEEZED = ((r"attn_last\.(conv|gate)", "NCL NCHW"), *MAPS)  # ECA: a convolution along the channels has one channel
CONVNEXT = ((r"blocks\.\d+\.(norm|mlp)", "NHWC"), *MAPS)
SWIN = (
    (r"patch_embed\.proj|^features\.0\.0$|^permute$|^avgpool$", "NCHW"),
    (r"cpb_mlp|meta_mlp", "none"),
    (r"blocks\.\d+\.attn\.(softmax|attn_drop)", "folded NHQK"),
    (r"blocks\.\d+\.attn", "folded NLC"),
    (r"global_pool\.pool", "NC NCHW"),
    (r"^head", "NC NHWC"),
    ("", "NC NLC NHWC"),
)
SWIN_CR = ((r"^patch_embed(\.proj)?$|^stages(\.\d+)?$|^head|^stages\.\d+\.blocks$", "NC NCHW NLC"), *SWIN)
MAXVIT = (
    (r"rel_pos\.", "none"),
    (r"attn_(block|grid)\.attn\.attn_drop", "folded NHQK"),
    (r"attn_(block|grid)\.attn(\.|$)", "folded NHWC"),
    (r"attn_(block|grid)|(window|grid)_attention\..*(partition|attn_layer|mlp_layer|dropout)", "NHWC"),
    *MAPS,
)
MIXER = ((r"mlp_tokens|linear_tokens|gate\.proj", "open NCL NLC"), *TOKENS)
MAXVIT_TV = ((r"departition_op", "NCHW"), *MAXVIT)


@dataclass(frozen=True)
class Architecture:
    """One network of the benchmark.

    Args:
        family: As in the table.
        name: timm's name, ``torchvision:NAME``, or ``MODULE:CLASS`` to build a smaller one of a class.
        layouts: Patterns of layer names, searched in this order, and what they declare.
        settings: For the constructor: fewer blocks or channels, so that a thousand passes fit into minutes. Which kinds
            of layers there are does not change.
        size: Side of its images, in pixels.
    """

    family: str
    name: str
    layouts: tuple[tuple[str, str], ...]
    settings: dict[str, Any] = field(default_factory=dict)
    size: int = 64

    @property
    def key(self) -> str:
        """A file name."""
        made = "_".join(f"{name}{value}" for name, value in self.settings.items() if name in ("block", "conv_mlp"))
        return re.sub(r"\W+", "_", f"{self.name}_{made}").strip("_")

    def build(self) -> nn.Module:
        """The network, with random weights."""
        module, _, name = self.name.rpartition(":")
        if not module:
            import timm

            return timm.create_model(name, pretrained=False, **self.settings).eval()
        if module == "torchvision":
            from torchvision import models

            return models.get_model(name, weights=None, **self.settings).eval()
        classes = importlib.import_module(module)
        settings = {
            key: getattr(classes, value) if isinstance(value, str) else value for key, value in self.settings.items()
        }
        return getattr(classes, name)(**settings).eval()

    def declared(self, layer: str) -> str:
        """What a person says of a layer."""
        return next(layout for pattern, layout in self.layouts if re.search(pattern, layer))


ONE = (1, 1, 1, 1)
TV = "torchvision"


def _family(
    family: str, layouts: tuple[tuple[str, str], ...], *names: str | tuple[str, dict[str, Any]]
) -> list[Architecture]:
    rows = [(name, {}) if isinstance(name, str) else name for name in names]
    return [Architecture(family, name, layouts, settings) for name, settings in rows]


def _vit(depth: int = 2, **settings: Any) -> dict[str, Any]:
    return {"depth": depth, "img_size": 64, **settings}


ARCHITECTURES: list[Architecture] = [
    *_family(
        "ResNet",
        MAPS,
        "resnet18",
        ("resnet50", {"layers": ONE}),
        ("resnet26d", {"layers": ONE}),
        ("seresnet18", {"layers": ONE}),
        ("resnest14d", {}),
        ("res2net50_14w_8s", {"layers": ONE}),
        ("resnetv2_50", {"layers": ONE}),
        "test_resnet",
        "torchvision:resnet18",
        (
            "torchvision.models.resnet:ResNet",
            {"block": "Bottleneck", "layers": [1, 1, 1, 1], "groups": 32, "width_per_group": 4},
        ),
    ),
    # Selective kernels: the attention has an axis for the two paths.
    *_family("ResNet", ((r"\.attn$", "NPCHW"), *MAPS), ("skresnet18", {"layers": ONE})),
    *_family("RegNet", MAPS, "regnetx_002", "regnety_002", "torchvision:regnet_y_400mf"),
    *_family(
        "ConvNeXt",
        CONVNEXT,
        "test_convnext",
        ("convnext_tiny", {"depths": ONE, "dims": (48, 64, 96, 128)}),
        ("convnextv2_tiny", {"depths": ONE, "dims": (48, 64, 96, 128)}),
    ),
    *_family("ConvNeXt", MAPS, ("convnext_atto", {"depths": ONE}), ("convnextv2_atto", {"depths": ONE})),
    *_family("ConvNeXt", ((r"block\.[12345]$", "NHWC"), *MAPS), "torchvision:convnext_tiny"),
    *_family(
        "EfficientNet",
        MAPS,
        "efficientnet_b0",
        "tf_efficientnetv2_b0",
        "test_efficientnet",
        "test_efficientnet_gn",
        "test_efficientnet_ln",
        "test_efficientnet_evos",
    ),
    *_family(
        "MobileNet",
        MAPS,
        "mobilenetv1_100",
        "mobilenetv2_050",
        "mobilenetv3_small_050",
        "mobilenetv4_conv_small",
        "lcnet_050",
        "torchvision:mobilenet_v2",
        "torchvision:mobilenet_v3_small",
        "torchvision:mnasnet0_5",
    ),
    *_family("GhostNet", MAPS, "ghostnet_050"),
    *_family(
        "DenseNet",
        MAPS,
        ("densenet121", {"block_config": (2, 2, 2, 2)}),
        ("torchvision.models.densenet:DenseNet", {"block_config": (2, 2, 2, 2)}),
    ),
    *_family("VGG", MAPS, "torchvision:vgg11", "torchvision:alexnet"),
    *_family("Inception", MAPS, ("torchvision:googlenet", {"init_weights": False}), "inception_next_atto"),
    Architecture("Inception", "torchvision:inception_v3", MAPS, {"init_weights": False}, size=96),
    *_family("SqueezeNet", MAPS, "torchvision:squeezenet1_0", "torchvision:squeezenet1_1"),
    *_family("ShuffleNet", MAPS, "torchvision:shufflenet_v2_x0_5"),
    *_family(
        "ViT",
        TOKENS,
        ("vit_tiny_patch16_224", _vit(3)),
        ("vit_relpos_small_patch16_224", _vit()),
        ("vit_base_patch16_clip_224", _vit(embed_dim=192, num_heads=3)),
        "test_vit",
        "test_vit2",
        (
            "torchvision.models.vision_transformer:VisionTransformer",
            {"image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 3, "hidden_dim": 48, "mlp_dim": 96},
        ),
    ),
    *_family(
        "register tokens",
        TOKENS,
        ("vit_small_patch14_reg4_dinov2", _vit()),
        ("vit_little_patch16_reg4_gap_256", _vit()),
        ("vit_small_patch16_dinov3", {"depth": 2}),
    ),
    *_family("ViT", TOKENS, ("test_vit3", {"img_size": 64})),
    *_family(
        "DeiT",
        TOKENS,
        ("deit_tiny_patch16_224", _vit(3)),
        ("deit_tiny_distilled_patch16_224", _vit(3)),
        ("deit3_small_patch16_224", _vit()),
    ),
    *_family(
        "BEiT",
        TOKENS,
        ("beit_base_patch16_224", _vit(embed_dim=192, num_heads=3)),
        ("beitv2_base_patch16_224", _vit(embed_dim=192, num_heads=3)),
    ),
    *_family(
        "EVA", TOKENS, ("eva02_tiny_patch14_224", _vit(3)), ("eva_giant_patch14_224", _vit(embed_dim=192, num_heads=3))
    ),
    *_family(
        "Swin",
        SWIN,
        ("swin_tiny_patch4_window7_224", {"depths": (2, 2, 1, 1), "img_size": 64}),
        ("swin_s3_tiny_224", {"depths": (2, 2, 1, 1), "img_size": 64}),
        (
            "torchvision.models.swin_transformer:SwinTransformer",
            {"patch_size": [4, 4], "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2], "window_size": [7, 7]},
        ),
    ),
    *_family(
        "SwinV2",
        SWIN,
        ("swinv2_tiny_window8_256", {"depths": (2, 2, 1, 1), "img_size": 64}),
        (
            "torchvision.models.swin_transformer:SwinTransformer",
            {
                "patch_size": [4, 4],
                "embed_dim": 24,
                "depths": [2, 2],
                "num_heads": [2, 2],
                "window_size": [8, 8],
                "block": "SwinTransformerBlockV2",
                "downsample_layer": "PatchMergingV2",
            },
        ),
    ),
    *_family("SwinV2", SWIN_CR, ("swinv2_cr_tiny_ns_224", {"depths": (2, 2, 1, 1), "img_size": 64})),
    *_family(
        "MaxViT",
        MAXVIT,
        ("maxvit_rmlp_pico_rw_256", {"depths": ONE, "img_size": 64}),
        ("maxvit_tiny_tf_224", {"depths": (1, 1), "embed_dim": (32, 64), "stem_width": 32, "img_size": 64}),
        ("maxxvitv2_nano_rw_256", {"depths": (1, 1), "embed_dim": (32, 64), "stem_width": 32, "img_size": 64}),
        ("coatnet_nano_rw_224", {"depths": ONE, "img_size": 64}),
    ),
    *_family(
        "MaxViT",
        MAXVIT_TV,
        (
            "torchvision.models.maxvit:MaxVit",
            {
                "input_size": (64, 64),
                "stem_channels": 16,
                "partition_size": 2,
                "block_channels": [16, 32],
                "block_layers": [1, 1],
                "head_dim": 8,
                "stochastic_depth_prob": 0.1,
            },
        ),
    ),
    # Talking heads: a linear layer over the heads.
    *_family("CaiT", ((r"proj_[lw]$", "NQKC"), *TOKENS), ("cait_xxs24_224", _vit(3))),
    *_family(
        "XCiT",
        ((r"pos_embed\.token_projection", "none"), (r"^pos_embed|local_mp\.", "NCHW"), *TOKENS),
        ("xcit_nano_12_p16_224", {"depth": 3}),
    ),
    *_family(
        "VOLO",
        (
            (r"^patch_embed|^network\.\d+\.proj|attn\.pool$", "NCHW"),
            (r"attn\.unfold", "NCL"),
            (r"post_network.*attn_drop|attn_drop", "heads NHQK NHLQK"),
            ("", "NC NLC NHWC"),
        ),
        (
            "timm.models.volo:VOLO",
            {"layers": ONE, "embed_dims": (48, 96, 96, 96), "num_heads": (2, 4, 4, 4), "img_size": 64},
        ),
    ),
    *_family(
        "MViTv2",
        (
            (r"attn\.pool_[qkv]", "folded NCHW"),
            (r"attn\.norm_[qkv]", "split NHLC"),
            (r"patch_embed\.proj|shortcut_pool", "NCHW"),
            *TOKENS,
        ),
        "mvitv2_tiny",
    ),
    *_family(
        "Twins",
        ((r"attn\.sr$|pos_block\.\d+\.proj", "NCHW"), (r"attn\.qkv", "NYXHWC"), *TOKENS),
        ("twins_pcpvt_small", {"depths": ONE}),
        ("twins_svt_small", {"depths": (2, 2, 2, 2), "embed_dims": (32, 64, 64, 64)}),
    ),
    *_family("HRNet", MAPS, "hrnet_w18_small"),
    *_family("Mixer", MIXER, ("mixer_s32_224", {"img_size": 64}), ("resmlp_12_224", {"img_size": 64})),
    *_family("Mixer", MIXER, ("gmixer_24_224", {"img_size": 64})),
    *_family(
        "PVT", ((r"\.proj$(?<!attn\.proj)|attn\.sr$|mlp\.(relu|dwconv)|^stages(\.\d+)?$", "NCHW"), *TOKENS), "pvt_v2_b0"
    ),
    *_family(
        "CoaT",
        (
            (r"^patch_embed\d\.proj|^cpe\d\.proj|conv_list", "NCHW"),
            (r"^crpe\d$", "split NHLC"),
            (r"^aggregate$", "NCL"),
            *TOKENS,
        ),
        ("coat_tiny", {"serial_depths": ONE, "parallel_depth": 1, "img_size": 64}),
        ("coat_lite_tiny", {"serial_depths": ONE, "img_size": 64}),
    ),
    *_family(
        "NFNet",
        SQUEEZED,
        ("eca_nfnet_l0", {"depths": ONE, "channels": (256, 256, 256, 256)}),
        ("dm_nfnet_f0", {"depths": ONE, "channels": (256, 256, 256, 256)}),
        ("nf_regnet_b1", {"depths": ONE}),
        "test_nfnet",
    ),
    *_family("FastViT", MAPS, ("fastvit_t8", {"layers": ONE})),
    *_family("Hiera", TOKENS, ("hiera_tiny_224", {"stages": (1, 2, 1, 1), "img_size": 64})),
    *_family(
        "LeViT",
        ((r"^stem|^stages.*\.conv", "NCHW"), (r"^stages.*\.bn$", "folded NC"), *TOKENS),
        ("levit_128s", {"img_size": 64}),
    ),
    *_family("MetaFormer", MAPS, ("timm.models.metaformer:MetaFormer", {"depths": ONE, "dims": (16, 32, 64, 64)})),
    *_family(
        "EdgeNeXt",
        (
            (r"pos_embd\.token_projection", "none"),
            (r"attn_drop", "heads NHQK"),
            (r"blocks\.\d+\.(norm_xca|xca)", "NLC"),
            (r"drop_path$", "NLC NCHW"),
            *CONVNEXT,
        ),
        "edgenext_xx_small",
    ),
    *_family(
        "MobileViT",
        (
            (r"transformer.*(q_norm|k_norm|attn_drop)", "folded NHLC"),
            (r"transformer|^stages\.\d+\.\d+\.norm$", "folded NLC"),
            *MAPS,
        ),
        "mobilevit_xxs",
    ),
    *_family("MobileViT", MAPS, "mobilevitv2_050"),
    *_family("ConViT", ((r"pos_proj$", "NQKC"), *TOKENS), ("convit_tiny", _vit(3, local_up_to_layer=2))),
    *_family(
        "TNT",
        (
            (r"^pixel_embed\.proj", "folded NCHW"),
            (r"^pixel_embed\.unfold", "NCL"),
            (r"attn_in\.attn_drop", "folded NHQK"),
            (r"^pixel_embed|_in(\.|$)|blocks\.\d+(\.drop_path)?$", "folded NLC"),
            *TOKENS,
        ),
        ("tnt_s_patch16_224", _vit()),
    ),
    *_family(
        "PiT",
        ((r"^patch_embed|^pos_drop$|pool\.conv|\.pool$|^transformers(\.\d+)?$", "NCHW"), *TOKENS),
        ("pit_ti_224", {"depth": (1, 1, 1), "img_size": 64}),
    ),
    *_family(
        "NesT",
        ((r"transformer_encoder", "NBLC"), (r"pool\.norm|^norm$", "NHWC"), *MAPS),
        (
            "timm.models.nest:Nest",
            {"img_size": 64, "num_levels": 3, "embed_dims": (32, 64, 64), "num_heads": (2, 2, 2), "depths": (1, 1, 1)},
        ),
    ),
    *_family(
        "Visformer", ((r"attn_drop", "heads NHQK"), *MAPS), ("visformer_tiny", {"depth": (1, 1, 1), "img_size": 64})
    ),
    *_family(
        "Sequencer",
        ((r"stem\.proj|downsample\.down$", "NCHW"), (r"rnn_[vh]$", "folded NLC"), ("", "NC NHWC")),
        ("sequencer2d_s", {"layers": ONE, "embed_dims": (32, 32, 32, 32), "hidden_sizes": (8, 8, 8, 8)}),
    ),
    *_family(
        "DaViT",
        ((r"blocks\.\d+\.0\.attn", "folded NLC"), (r"blocks\.\d+\.\d+\.(norm|attn|mlp|drop_path)", "NLC"), *MAPS),
        ("davit_tiny", {"depths": ONE, "embed_dims": (32, 32, 64, 64), "num_heads": (2, 2, 2, 2)}),
    ),
    *_family("FocalNet", MAPS, ("timm.models.focalnet:FocalNet", {"depths": ONE, "embed_dim": 32})),
    *_family(
        "GC ViT",
        (
            (r"attn\.(rel_pos|attn_drop)", "folded NHQK"),
            (r"blocks\.\d+\.attn", "folded NLC"),
            (r"global_norm|^stages\.\d+\.(norm$|blocks)", "NHWC"),
            *MAPS,
        ),
        (
            "timm.models.gcvit:GlobalContextVit",
            {"img_size": 64, "depths": ONE, "embed_dim": 32, "num_heads": (2, 2, 2, 2)},
        ),
    ),
    *_family("EfficientViT", MAPS, "efficientvit_b0"),
    *_family("StarNet", MAPS, ("starnet_s1", {"depths": ONE})),
    *_family("SwiftFormer", ((r"attn\.", "NLC"), *MAPS), "swiftformer_xs"),
    *_family("MambaOut", ((r"conv\d?$|stem\.act", "NCHW"), ("", "NC NHWC")), "test_mambaout"),
    *_family("RepViT", MAPS, ("repvit_m0_9", {"depth": ONE})),
    *_family("ByobNet", MAPS, "test_byobnet"),
]
