"""Recipe: a supervised vision transformer at 64 pixels, a target to look into."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vislens_interp.precision import mixed_precision
from vislens_interp.preprocess import Preprocess
from vislens_interp.training.data import TEST, TUNING, read_splits, views
from vislens_interp.training.loop import Progress, add_test_figures, train
from vislens_interp.training.loop import save_half as save  # noqa: F401 (what the command writes)
from vislens_interp.training.probe import accuracy

ABOUT = "timm's vit_tiny_patch16_224 on 64-pixel images in patches of 8, trained on labels."


def build(classes: int) -> nn.Module:
    """The network, as ``timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8)`` makes it."""
    import timm

    return timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, num_classes=classes, drop_path_rate=0.1)


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    epochs: int = 200,
    batch_size: int = 256,
    lr: float = 1e-3,
    mixup: float = 0.4,
    minutes: float | None = None,
    steps: int | None = None,
) -> tuple[nn.Module, Progress]:
    """Train the classifier on crops, mixed in pairs.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads; at least two classes.
        out: Folder for the checkpoint.
        mixup: Both parameters of the Beta distribution that the share of an image in a mixture is drawn from.
        steps: The whole run's, instead of ``epochs``.

    Returns:
        The averaged network and the history: top-1 accuracy on held-out images.

    Raises:
        ValueError: There is one class only.

    Source of the mixtures: Zhang et al. 2018 (mixup).
    """
    torch.manual_seed(seed)
    splits = read_splits(data, 64)
    if len(splits.classes) < 2:
        raise ValueError(
            f"data={str(data)!r} has one class; expected at least two, one folder each. simclr_resnet50 "
            "learns without labels."
        )
    images, labels = splits.train.to(device), splits.train_labels.to(device)
    model = build(len(splits.classes)).to(device)
    standardise = standardisation(model).to(device)
    per_epoch = max(1, len(images) // batch_size)
    total = steps or epochs * per_epoch

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(images), (batch_size,), generator=generator).to(device)
        seen = views(images[rows], generator)
        # torch's Beta takes no generator; the loop seeds the global one at each step.
        share = torch.distributions.Beta(mixup, mixup).sample().item()
        mixed = share * seen + (1 - share) * seen.flip(0)
        with mixed_precision(images.device):
            logits = model(standardise(mixed))
        truths = labels[rows]
        one, other = (cross_entropy(logits.float(), truth, label_smoothing=0.1) for truth in (truths, truths.flip(0)))
        return share * one + (1 - share) * other

    def figures(average: nn.Module, held_out: slice) -> dict[str, float]:
        images, labels = splits.validation[held_out], splits.validation_labels[held_out]
        return {"top1": accuracy(average, standardise, images, labels)}

    average, progress = train(
        model,
        loss,
        out=out,
        steps=total,
        lr=lr,
        seed=seed,
        minutes=minutes,
        data=(splits.train, splits.train_labels),
        settings={"batch_size": batch_size, "mixup": mixup},
        weight_decay=0.05,
        warmup=min(1000, total // 10),
        evaluate=lambda average: figures(average, TUNING),
        evaluate_every=10 * per_epoch,
    )
    add_test_figures(progress, total, lambda: figures(average, TEST))
    progress.data = splits.describe()
    return average, progress


def standardisation(model: nn.Module) -> Preprocess:
    """What timm's configuration of the network wants done to pixels in [0, 1]."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(model)
    return Preprocess(None, config["mean"], config["std"])
