"""A VAE, its aggregate posterior, and an object's shadow: live/math/vae.js, light.js and the ellipse of gaussian.js."""

from __future__ import annotations

import math

import torch

from dmlib import data, rng
from dmlib.learning import checkpoints
from dmlib.networks import build
from dmlib.probability import gaussian, likelihoods, linear_gaussian
from tools.vectors import NETWORK, Case

LEVELS = 3
TINY = {"name": "vae", "event": [1, 2, 2], "hidden": [3, 2], "latent": 2, "likelihood": "categorical"}


def cases() -> list[Case]:
    """The two networks and the bound of a tiny VAE and of the shipped one; densities; a pen; the cave."""
    tiny = build({**TINY, "levels": LEVELS})
    g = rng.generator(0)
    for weight in tiny.parameters():
        weight.data = torch.randn(weight.shape, generator=g)
    plane, _ = checkpoints.pretrained("vae-digits-plane")
    small = networks(tiny, torch.tensor([[[[0, 2], [1, 2]]]]), LEVELS, 1e-10)
    far = torch.tensor([[3000.0], [-2000.0], [500.0]], dtype=torch.float64)  # one layer, logits far apart
    values = {"net": {"decoder.mlp.layers.0.weight": far.flatten(), "decoder.mlp.layers.0.bias": [0, 0, 0]}}
    shipped = [case._replace(once=True) for case in networks(plane, data.digits("test")[:1], 17, NETWORK)]
    small.append(Case("eq-categorical", "far logits", "vae.decode(net, [1], 3)", values, far.log_softmax(0)))
    return [*small, *shipped, *densities(), *pen(), *cave()]


def networks(net: torch.nn.Module, image: torch.Tensor, levels: int, atol: float) -> list[Case]:
    """Encoder, decoder, mean image and bound of one image."""
    net, x = net.half().double(), image.flatten().tolist()
    z, noise = torch.tensor([[0.8, -0.3]], dtype=torch.float64), torch.tensor([[0.4, -1.1], [1.5, 0.2], [-0.6, 0.9]])
    noise = noise.double()[:, None]
    mean, log_var = net.encoder(image)
    (logits,) = net.decoder(z)
    terms = net.elbo_terms(image, noise)
    bound = net.elbo(image, noise)
    codes = mean + torch.exp(log_var / 2) * noise
    bits = -bound / (len(x) * math.log(2))
    parts = [terms.reconstruction, terms.prior, bound, bits, codes, mean, log_var]
    values = {"net": net, "x": x, "z": z[0], "noise": noise.flatten()}
    each = {
        "eq-gaussian-encoder": (f"vae.encode(net, x, {levels})", [mean, log_var]),
        "eq-categorical": (f"vae.decode(net, z, {levels})", logits.log_softmax(-1)),
        "eq-blur": (f"vae.means(vae.decode(net, z, {levels}))", likelihoods.mean(net.likelihood, logits)),
        "eq-sgvb-b": (f"vae.elbo(net, x, noise, {levels})", parts),
    }
    claim = f"a VAE of {len(x)} pixels"
    return [Case(label, claim, call, values, expected, atol) for label, (call, expected) in each.items()]


def densities() -> list[Case]:
    """The divergence from the prior, and the average of encoders at a point."""
    mean = torch.tensor([[0.5, -1.2], [0.1, 0.7], [-0.4, 0.3]], dtype=torch.float64)
    var = torch.tensor([[0.3, 1.4], [0.8, 0.2], [0.5, 0.6]], dtype=torch.float64)
    q, xs, ys = gaussian.Gaussian(mean, var), [0.2, -1.3], [-0.4, 0.6, 1.1]
    divergence = gaussian.kl(q, gaussian.standard(mean))[0]
    places = torch.tensor([[[x, y] for x in xs] for y in ys], dtype=torch.float64)
    density = torch.stack([gaussian.log_prob(q, z.expand(3, 2)).exp().mean() for z in places.view(-1, 2)])
    given = {"mean": mean, "variance": var}
    call = f"vae.aggregate(mean, variance, {xs}, {ys})"
    return [
        Case("eq-gaussian-kl-standard", "of one code", "vae.kl(mean[0], variance[0].map(Math.log))", given, divergence),
        Case("eq-averaged-codes", "three encoders at six places", call, given, density),
    ]


def pen() -> list[Case]:
    """An image of 3 x 3 pixels after a stroke, its ink computed from the nearest of many points of the stroke."""
    image, found = [0, 3, 9, 16, 0, 1, 2, 0, 5], []
    for start, end in (((0.7, 0.4), (2.2, 1.9)), ((1.4, 2.6), (1.4, 2.6)), ((2.5, 1.2), (0.3, 1.7))):
        a, b = (torch.tensor(point, dtype=torch.float64) for point in (start, end))
        points = a + (b - a) * torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
        cells = torch.tensor([[i % 3 + 0.5, i // 3 + 0.5] for i in range(9)], dtype=torch.float64)
        nearest = torch.stack([(points - cell).norm(dim=1).min() for cell in cells])
        ink = (16 * (1.2 - nearest).clamp(0, 1)).round()
        level = torch.tensor(image, dtype=torch.float64)
        for erase, after in (("false", torch.maximum(level, ink)), ("true", torch.minimum(level, 16 - ink))):
            call = f"pen.stroke({image}, {list(start)}, {list(end)}, 16, {erase})"
            found.append(Case("eq-categorical", "levels after a stroke", call, {}, after))
    return found


def cave() -> list[Case]:
    """The posterior of an object given its shadow, whole and along wall and light, and its ellipse."""
    found = []
    for angle, x, var in ((0.4, 1.7, 0.5), (2.5, -0.8, 1.3)):
        u = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        h = torch.tensor([-math.sin(angle), math.cos(angle)], dtype=torch.float64)
        model = linear_gaussian.LinearGaussian(u[None], torch.zeros_like(u[:1]), torch.tensor(var, dtype=u.dtype))
        mean, cov = linear_gaussian.posterior(model, torch.tensor([[x]], dtype=u.dtype))
        sides = [value for d in (u, h) for value in ((mean[0] @ d).item(), (d @ cov @ d).item())]
        expected, call = [u, h, mean, sides], f"light.posterior({angle}, {x}, {var})"
        found.append(Case("eq-linear-gaussian-posterior", f"light at {angle}", call, {}, expected))
        found.append(
            Case(
                "eq-latent-cave",
                "the covariance",
                f"[{call}].map(({{ u, h, wall, light }}) => "
                "[0, 1].map((i) => [0, 1].map((j) => wall[1] * u[i] * u[j] + light[1] * h[i] * h[j])))",
                {},
                cov,
            )
        )
        axes = [2 * math.sqrt(sides[1]) * u, 2 * h]
        turns = torch.linspace(0, 2 * math.pi, 6, dtype=torch.float64)[:, None]
        outline = mean + turns.cos() * axes[0] + turns.sin() * axes[1]
        given = {"mean": mean[0], "axes": axes}
        call = "gaussian.ellipse(mean, ...axes, 5)"
        found.append(Case("eq-latent-cave", "two standard deviations", call, given, outline.T))
    length = "gaussian.ellipse([0], [1], [0])[0].length"
    return [*found, Case("eq-latent-cave", "the points of an outline", length, {}, 73)]
