"""What the tests of pages share: a strict reader of HTML, and a landscape whose answers are known."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import torch
from PIL import Image

from vislens_interp.landscape.evidence import Evidence
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.results.background import Background
from vislens_interp.results.result import LensResult

GOOD = Evidence("16", 0.6, 0.001, 2, 0.8, 300, 1000, 100)
WEAK = Evidence("16", 0.05, 0.3, 2, 0.8, 12, 1000, 100, ["held-out correlation 0.05 is below 0.1"])
VOID = {"meta", "img", "br", "rect", "line", "circle", "path", "polygon", "polyline"}


class Page(HTMLParser):
    """Reads a page and fails on tags that do not close, and on whatever would load something."""

    def __init__(self, html):
        super().__init__()
        self.html, self.stack, self.tags, self.words = html, [], [], []
        self.feed(html)
        assert self.stack == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert len(values) == len(attrs), f"an attribute of {tag} is given twice"
        self.tags.append((tag, values))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" not in self.stack:
            self.words.append(data)

    def of(self, tag):
        return [values for name, values in self.tags if name == tag]


def loads_nothing(page):
    """Scripts, links, fonts, frames, addresses: none of these may be in a page."""
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "audio", "video"} == set()
    assert all(values["src"].startswith("data:image/") for values in page.of("img"))
    assert not any("href" in values or "onclick" in values for _, values in page.tags)
    assert re.search(r"url\(|@import|@font-face|https?:", re.sub(r"data:image/[^\"]+", "", page.html)) is None
    policies = [values["content"] for values in page.of("meta") if "http-equiv" in values]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def picture_of(source):
    """What a data URI shows, (H, W, 3) uint8, and its format."""
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB")), image.format


def make_landscape(modes=1, count=300, seed=0):
    """Eight latent dimensions: the unit's block is the first four, the widest other one is the sixth."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, 8, generator=generator) * torch.tensor([0.3, 0.3, 0.3, 0.3, 1.0, 5.0, 1.0, 1.0])
    responses = latents[:, :4].mean(1, keepdim=True) + 0.05 * torch.randn(count, 1, generator=generator)
    torch.manual_seed(0)
    return Landscape(
        vae=EmbeddingVAE(8, latent_dim=8),
        prior=ActivationPrior(8, [(0, 4)], modes),
        scaler=ResponseScaler.fit(responses),
        names=["16"],
        latents=latents,
        responses=responses,
        held_out=torch.arange(30),
    )


def make_background(modes=1, count=3, directions=("increase", "decrease"), pictures=True):
    landscape = make_landscape(modes)
    z = landscape.latents[:count]
    goals = {key: landscape.goal(z, {0: key}) for key in directions if key != "custom"}
    changes = {-1.0: torch.full((count,), -2.0), 0.0: torch.zeros(count), 1.0: torch.linspace(1, 3, count)}
    return Background.of(
        landscape,
        0,
        {"unedited": z, **goals},
        pictures=torch.rand(300, 3, 8, 8, generator=torch.Generator().manual_seed(1)) if pictures else None,
        names=[f"synthetic-{row:04d}" for row in range(300)] if pictures else None,
        prototypes={"increase": torch.arange(8), "decrease": torch.arange(20, 28)},
        changes=changes,
    )


def make_result(count=3, directions=("increase", "decrease"), side=8, modes=1, **changes):
    generator = torch.Generator().manual_seed(count)
    keys = ["inputs", "unedited", *directions]
    scaler = make_landscape().scaler
    arguments = {
        "unit": "16",
        "layer": "conv3",
        "model": "ConvNet",
        "images": {key: torch.rand(count, 3, side, side, generator=generator) for key in keys},
        "responses": {key: torch.randn(count, generator=generator) for key in keys},
        "response_mean": scaler.mean.item(),
        "response_std": scaler.std.item(),
        "similarity": {key: torch.rand(count, generator=generator) for key in keys[1:]},
        "evidence": GOOD,
        "names": [f"animals/cat {index}.jpg" for index in range(count)],
        "settings": {"method": "edit", "alpha": 1.0, "seeds": 42, "reference_set": "synthetic reference"},
        "background": make_background(modes, count, directions),
    }
    return LensResult(**(arguments | changes))
