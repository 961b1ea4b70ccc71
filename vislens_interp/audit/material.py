"""What the tests of an audit share: pictures, photographs that nobody edited, responses, and an independent judge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vislens_interp import zoo
from vislens_interp.landscape.prior import SENSES, Sense
from vislens_interp.methods.base import Method
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.target import Target

if TYPE_CHECKING:
    from vislens_interp.lens import FeatureLens

JUDGES = {"squeezenet1_0": "SqueezeNet", "efficientnet_lite2": "EfficientNet"}
"""Networks of the zoo that judge, and their classes; the first of another class than the target's."""
SMALLEST_SIDE = 64
"""Pixels at which a judge sees small pictures, at least."""
DRAWS = 500
Pictures = Mapping[Sense, Tensor]


@dataclass(eq=False)
class Material:
    """One unit with what its tests need.

    Args:
        lens: Fitted.
        unit: Its place in the target.
        inputs: (K, 3, S, S) photographs that edits start from.
        photographs: (N, 3, S, S) further ones, from which no method learned and which none edits.
        groups: (N,) which of them are crops of one photograph: what the bootstrap draws.
        judge: Images (N, 3, S, S) in [0, 1] to features (N, F), of a network that is neither the landscape's nor the
            target's.
        seed: Of the pictures, the permutations and the bootstrap.
    """

    lens: "FeatureLens"
    unit: int
    inputs: Tensor
    photographs: Tensor
    groups: Tensor
    judge: Callable[[Tensor], Tensor]
    seed: int = 0
    pictures: dict[str, Pictures] = field(default_factory=dict)
    _seen: dict[str, Pictures] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        return self.lens.target

    @cached_property
    def layer(self) -> tuple[Tensor, int] | None:
        """(N, C) responses of all units of the layer to the photographs, and our place; None where it has no others."""
        found = self.target.whole_layer()
        if found is None:
            return None
        whole, columns, _ = found
        return whole().responses(self.photographs).double(), columns[self.unit]

    @cached_property
    def responses(self) -> Tensor:
        """(N,) of the unit to the photographs."""
        if self.layer is not None:
            return self.layer[0][:, self.layer[1]]
        return self.target.responses(self.photographs)[:, self.unit].double()

    @cached_property
    def features(self) -> Tensor:
        """(N, F) of the photographs."""
        return self.see(self.photographs)

    @cached_property
    def learned(self) -> ReferenceSet:
        """The reference images that methods learned from, with responses."""
        return self.lens.reference_set.learned()

    @cached_property
    def weights(self) -> Tensor:
        """(D, N) how often each photograph is in each bootstrap draw; crops of one go together."""
        _, group = self.groups.unique(return_inverse=True)
        count = int(group.max()) + 1
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(count, (DRAWS, count), generator=generator)
        times = torch.zeros(DRAWS, count, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        return times[:, group]

    @torch.no_grad()
    def see(self, images: Tensor) -> Tensor:
        """Images to the judge's features (N, F), each of length 1, float64 on the CPU."""
        parts = [self.judge(part).detach().flatten(1).double().cpu() for part in images.split(32)]
        return nn.functional.normalize(torch.cat(parts), dim=1)

    def make(self, name: str, maker: Method) -> Pictures:
        """Preferred and suppressed pictures of a fitted method, (K, 3, S, S) each, rounded to 8 bits.

        A method that shows fewer reference images than there are inputs gives as many as it has.
        """
        if name not in self.pictures:
            self.pictures[name] = self.draw(maker)
        return self.pictures[name]

    def draw(self, maker: Method) -> Pictures:
        """The same of a method that is not kept."""
        first = 0 if maker.shows_reference else self.seed  # reference images in their order
        inputs = self.inputs[: maker.distinct]  # one that is shown again would count as one more
        seeds = list(range(first, first + len(inputs)))
        return {
            sense: (maker.generate(inputs, {self.unit: sense}, seeds=seeds).images * 255).round() / 255
            for sense in SENSES
        }

    @property
    def column(self) -> Tensor:
        """(M,) the unit's responses to the reference images that methods learned from."""
        assert self.learned.responses is not None  # a fitted lens has them
        return self.learned.responses[:, self.unit]

    def redrawn(self, values: Tensor) -> Tensor:
        """(D, ...) means of values (N, ...) whose rows are drawn again."""
        generator = torch.Generator().manual_seed(self.seed + len(values))
        return values[torch.randint(len(values), (DRAWS, len(values)), generator=generator)].mean(1)

    def seen(self, name: str, maker: Method) -> Pictures:
        """The judge's features (K, F) of a method's pictures."""
        if name not in self._seen:
            self._seen[name] = self.view(self.make(name, maker))
        return self._seen[name]

    def view(self, pictures: Pictures) -> Pictures:
        """The same of any pictures."""
        return {sense: self.see(pictures[sense]) for sense in SENSES}


def axis(seen: Pictures) -> Tensor:
    """(F,) the way from suppressed to preferred pictures, in the judge's features, of length 1."""
    return nn.functional.normalize(seen["increase"].mean(0) - seen["decrease"].mean(0), dim=0)


def independent_judge(target: Target, size: int) -> tuple[Callable[[Tensor], Tensor], str]:
    """Pooled last features of a network of the zoo that is neither the target's architecture nor an embedder's.

    Args:
        target: What is audited.
        size: Side of the pictures in pixels.
    """
    own = target.describe().get("model")
    name = next(one for one, kind in JUDGES.items() if kind != own)
    network: Any = zoo.load(name).requires_grad_(False)
    given = network.preprocess
    if size < given.size:  # small pictures are not worth a pass at full size
        side = max(size, SMALLEST_SIDE)
        network.preprocess = given.at_size(side)
    last = network.features if name == "squeezenet1_0" else network.forward_features
    device = target.device
    network.to(device)
    return lambda images: last(network.preprocess(images.to(device))).mean((2, 3)), name


def ends(values: Tensor, point: float) -> tuple[float, float, float]:
    """A value with the 95 % percentile interval of its bootstrap draws."""
    values = values[values.isfinite()]
    if not len(values):
        return point, float("nan"), float("nan")
    low, high = values.double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return point, low, high
