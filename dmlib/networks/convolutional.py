"""Small convolutional networks for images: the two halves of a VAE, and a classifier whose features measure samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from dmlib.checks import Float, Tensor, integer, require, require_fits, require_shape, sizes
from dmlib.networks.reduced import reducible


class ConvEncoder(nn.Module):
    """Maps images [B, channels, size, size] to the mean and log-variance of a Gaussian code, each [B, latent_dim].

    Each of `widths` halves the resolution. With `levels`, x holds levels 0..levels-1 of any dtype, which are put on
    [-1, 1] first; without, x is a float tensor and is used as it is.
    """

    def __init__(self, channels: int, size: int, widths: Sequence[int], latent: int, levels: int | None = None) -> None:
        super().__init__()
        channels, latent = integer(channels, "channels", 1), integer(latent, "latent", 1)
        levels = None if levels is None else integer(levels, "levels", 2)
        self.event, self.latent_dim, self.levels = (channels, size, size), latent, levels
        self.layers = _shrinking(channels, size, widths, 2 * latent)

    @reducible
    def forward(self, x: Tensor) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        require_shape(x, "x", None, *self.event)
        if self.levels is None:
            require_fits(x, "x", self)
        else:
            x = 2 * x.to(self.layers[0].weight.dtype) / (self.levels - 1) - 1
        mean, log_var = self.layers(x).chunk(2, 1)
        return mean, log_var


class ConvDecoder(nn.Module):
    """Maps codes z [B, latent] to `outputs` images [B, channels, size, size] each: the parameters of a likelihood."""

    def __init__(self, channels: int, size: int, widths: Sequence[int], latent: int, outputs: int = 1) -> None:
        super().__init__()
        channels, latent, outputs = (
            integer(n, name, 1) for n, name in ((channels, "channels"), (latent, "latent"), (outputs, "outputs"))
        )
        side = _coarse_side(size, widths)
        layers: list[nn.Module] = [nn.Linear(latent, widths[-1] * side**2), nn.Unflatten(1, (widths[-1], side, side))]
        for n_in, n_out in itertools.pairwise([*reversed(widths), channels * outputs]):
            layers += [nn.SiLU(), nn.ConvTranspose2d(n_in, n_out, 4, 2, 1)]
        self.outputs, self.layers = outputs, nn.Sequential(*layers)

    @reducible
    def forward(self, z: Tensor) -> tuple[Float[Tensor, "B C H W"], ...]:
        require_fits(z, "z", self)
        require_shape(z, "z", None, self.layers[0].in_features)
        return self.layers(z).chunk(self.outputs, 1)


class Classifier(nn.Module):
    """Maps images [B, channels, size, size] on [-1, 1] to logits [B, classes], by way of `features` numbers each."""

    def __init__(self, channels: int, size: int, widths: Sequence[int], features: int = 32, classes: int = 10) -> None:
        super().__init__()
        channels, features = integer(channels, "channels", 1), integer(features, "features", 1)
        classes = integer(classes, "classes", 1)
        self.event, self.body = (channels, size, size), _shrinking(channels, size, widths, features)
        self.head = nn.Sequential(nn.SiLU(), nn.Dropout(0.2), nn.Linear(features, classes))

    def features(self, x: Tensor) -> Float[Tensor, "B F"]:
        """What the last layer but one says of each image: where alike images lie close to each other."""
        require_fits(x, "x", self)
        require_shape(x, "x", None, *self.event)
        return self.body(x)

    @reducible
    def forward(self, x: Tensor) -> Float[Tensor, "B V"]:
        return self.head(self.features(x))


def _shrinking(channels: int, size: int, widths: Sequence[int], outputs: int) -> nn.Sequential:
    """Convolutions, each of which halves the resolution, and a linear map to `outputs` numbers."""
    side, layers = _coarse_side(size, widths), []
    for n_in, n_out in itertools.pairwise([channels, *widths]):
        layers += [nn.Conv2d(n_in, n_out, 3, 2, 1), nn.SiLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side**2, outputs))


def _coarse_side(size: int, widths: Sequence[int]) -> int:
    """The side of the coarsest picture; raises where `size` cannot be halved for each width."""
    factor = 2 ** len(sizes(widths, "widths"))
    size = integer(size, "size", 1)
    require(size % factor == 0, "size", size, f"a multiple of {factor}, 2 for each of widths")
    return size // factor
