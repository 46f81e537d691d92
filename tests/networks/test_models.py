"""Networks: shapes, scales, and specs that make the same weights again."""

from __future__ import annotations

import json
import math

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dmlib import networks, rng
from dmlib.networks import MODELS, build
from dmlib.networks.mlp import ACTIVATIONS, LEVELED, LIKELIHOODS
from dmlib.probability import likelihoods

EVENT, LEVELS = (1, 2, 3), 5
CONV_VAE = {
    **{"name": "conv_vae", "channels": 1, "size": 8, "latent": 2, "widths": [4, 6]},
    **{"likelihood": "discretized_gaussian", "levels": LEVELS},
}
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)
each_spec = pytest.mark.parametrize("name", MODELS)


HVAE = {"name": "hvae", "event": EVENT, "latents": [4, 2], "hidden": [8, 7], "between": [5, 6]} | {
    "likelihood": "categorical",
    "levels": LEVELS,
}


def levels_of(likelihood: str) -> int | None:
    return LEVELS if likelihood in LEVELED else None


def spec_of(name: str) -> dict:
    return {
        "mlp": {"name": "mlp", "sizes": [2, 16, 3], "activation": "tanh"},
        "time_mlp": {"name": "time_mlp", "dim": 6, "hidden": 8, "depth": 2},
        "gaussian_encoder": {"name": "gaussian_encoder", "event": EVENT, "hidden": [8], "latent": 2, "levels": LEVELS},
        "decoder": {"name": "decoder", "latent": 2, "hidden": [8], "event": EVENT, "likelihood": "bernoulli"},
        "vae": vae_spec("categorical"),
        "hvae": HVAE,
        "conv_vae": CONV_VAE,
        "vqvae": {
            "name": "vqvae",
            "event": EVENT,
            "positions": 3,
            "n_codes": 5,
            "dim": 2,
            "hidden": [8, 7],
            "likelihood": "categorical",
            "levels": LEVELS,
            "prior_hidden": 4,
        },
        "code_prior": {"name": "code_prior", "positions": 3, "n_codes": 5, "hidden": 4, "dim": 2},
        "unet": {"name": "unet", "channels": 2, "size": 8, "patch": 2, "widths": [8, 16]},
        "classifier": {"name": "classifier", "channels": 1, "size": 8, "widths": [4, 8], "features": 6},
    }[name]


def vae_spec(likelihood: str, **more: object) -> dict:
    spec = {"name": "vae", "event": EVENT, "latent": 2, "hidden": [8, 7], "likelihood": likelihood}
    return spec | {"levels": levels_of(likelihood)} | more


def data_of(likelihood: str, n: int = 4) -> torch.Tensor:
    """Images that the likelihood takes."""
    g = rng.generator(8)
    if likelihood == "bernoulli":
        return torch.randint(2, (n, *EVENT), generator=g)
    if likelihood in LEVELED:
        return torch.randint(LEVELS, (n, *EVENT), generator=g, dtype=torch.uint8)
    return torch.rand(n, *EVENT, generator=g)


def test_mlp_is_affine_maps_with_activations_between() -> None:
    mlp = build({"name": "mlp", "sizes": [2, 5, 4, 3], "activation": "tanh"})
    x = torch.randn(7, 2, generator=rng.generator(0))
    weights = [p.detach().numpy() for p in mlp.parameters()]
    hidden = np.tanh(x.numpy() @ weights[0].T + weights[1])
    hidden = np.tanh(hidden @ weights[2].T + weights[3])
    np.testing.assert_allclose(mlp(x).detach(), hidden @ weights[4].T + weights[5], atol=1e-6)


def test_time_features_are_sines_and_cosines() -> None:
    t = torch.tensor([1, 17, 1000])
    frequencies = 1000.0 ** -(np.arange(32) / 31)
    angles = t.numpy()[:, None] * frequencies
    expected = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    np.testing.assert_allclose(networks.time_features(t), expected, atol=1e-3)  # float32 angles up to 1000


def test_time_features_tell_all_steps_apart() -> None:
    features = networks.time_features(torch.arange(1, 1001))
    distances = torch.cdist(features, features) + 10 * torch.eye(1000)
    assert distances.min() > 0.5


@pytest.mark.parametrize("t", [torch.tensor([1, 5, 9]), torch.tensor([-13.3, 0.0, 5.0])])
def test_time_mlp_predicts_in_the_shape_of_x_and_hears_the_time(t: torch.Tensor) -> None:
    network = build({"name": "time_mlp", "dim": 6, "hidden": 16, "depth": 2})
    x_t = torch.randn(1, *EVENT, generator=rng.generator(0)).expand(3, -1, -1, -1)
    prediction = network(x_t, t)
    assert prediction.shape == x_t.shape
    assert prediction.dtype == x_t.dtype
    assert (prediction[0] - prediction[1]).abs().min() > 1e-4
    assert (prediction[1] - prediction[2]).abs().min() > 1e-4
    torch.testing.assert_close(network(x_t[1:2], t[1:2]), prediction[1:2])
    deaf = build({"name": "time_mlp", "dim": 6, "hidden": 16, "depth": 2, "time_conditional": False})(x_t, t)
    assert torch.equal(deaf, deaf[:1].expand_as(deaf))


def test_encoder_puts_levels_on_minus_one_to_one() -> None:
    by_levels = build(spec_of("gaussian_encoder"))
    as_is = build(spec_of("gaussian_encoder") | {"levels": None})
    x = data_of("categorical")
    scaled = likelihoods.to_unit(x, LEVELS)
    assert by_levels.latent_dim == 2
    for kind in (x, x.long(), x.float()):
        for found, expected in zip(by_levels(kind), as_is(scaled)):
            assert found.shape == (4, 2)
            torch.testing.assert_close(found, expected)


def test_encoder_gives_the_mean_first() -> None:
    encoder = build(spec_of("gaussian_encoder"))
    encoder.mlp.layers[-1].weight.data.zero_()
    encoder.mlp.layers[-1].bias.data.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    mean, log_var = encoder(data_of("categorical", 1))
    assert mean.tolist() == [[1, 2]]
    assert log_var.tolist() == [[3, 4]]


@each_likelihood
@pytest.mark.parametrize("spread", ["shared", "pixel"])
def test_decoder_gives_what_its_likelihood_takes(likelihood: str, spread: str) -> None:
    model = build(vae_spec(likelihood, spread=spread))
    parameters = model.decoder(torch.randn(4, 2, generator=rng.generator(0)))
    shapes = [tuple(p.shape) for p in parameters]
    image = (4, *EVENT)
    logits = (*image, LEVELS) if likelihood == "categorical" else image
    assert shapes == ([image, image] if "gaussian" in likelihood else [logits])
    assert model.likelihood(*parameters, data_of(likelihood)).shape == (4,)


@pytest.mark.parametrize("likelihood", ["gaussian", "discretized_gaussian"])
def test_spread_is_one_learned_number_or_one_for_each_pixel(likelihood: str) -> None:
    z = torch.randn(4, 2, generator=rng.generator(0))
    _, shared = build(vae_spec(likelihood)).decoder(z)
    _, pixel = build(vae_spec(likelihood, spread="pixel")).decoder(z)
    assert shared.requires_grad
    assert shared.unique().numel() == 1
    assert pixel.unique().numel() == pixel.numel()


@pytest.mark.parametrize("likelihood", ["bernoulli", *LEVELED])
def test_masses_of_a_vae_sum_to_one(likelihood: str) -> None:
    levels = levels_of(likelihood) or 2
    spec = {"name": "vae", "event": [1], "latent": 2, "hidden": [8], "likelihood": likelihood}
    model = build(spec | {"levels": levels_of(likelihood)})
    (z,) = torch.randn(1, 1, 2, generator=rng.generator(0))
    parameters = [p.expand(levels, *p.shape[1:]) for p in model.decoder(z)]
    log_prob = model.likelihood(*parameters, torch.arange(levels).unsqueeze(1))
    np.testing.assert_allclose(log_prob.logsumexp(0).item(), 0, atol=1e-5)


@each_likelihood
def test_vae_has_a_bound_that_reaches_every_weight(likelihood: str) -> None:
    model, x = build(vae_spec(likelihood)), data_of(likelihood)
    bound = model.elbo(x, *model.draw(x, generator=rng.generator(0)))
    assert bound.shape == (4,)
    bound.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    assert model.sample(3, generator=rng.generator(0)).shape == (3, *EVENT)
    assert model.sample(3, generator=rng.generator(0), mean=True).shape == (3, *EVENT)


def test_hvae_stands_on_a_vae_and_mirrors_what_is_between_its_levels() -> None:
    model, base = build(HVAE, seed=3), build(vae_spec("categorical", latent=4), seed=3)
    for part in ("encoder", "decoder"):
        ours, theirs = (getattr(m, part).state_dict() for m in (model, base))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    shapes = [[tuple(w.shape) for w in maps[0].parameters() if w.dim() > 1] for maps in (model.upward, model.downward)]
    assert shapes == [[(5, 4), (6, 5), (4, 6)], [(6, 2), (5, 6), (8, 5)]]
    assert len(model.upward) == len(model.downward) == 1
    x = data_of("categorical")
    (noise,) = model.draw(x, generator=rng.generator(9))
    assert [tuple(e.shape) for e in noise] == [(1, 4, 4), (1, 4, 2)]
    model.elbo(x, noise).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())
    assert model.sample(3, generator=rng.generator(9)).shape == (3, *EVENT)
    assert len(build(HVAE | {"latents": [4, 3, 2, 1]}).downward) == 3
    with pytest.raises(ValueError, match="latents was"):
        build(HVAE | {"latents": []})


def test_vae_mirrors_its_hidden_sizes() -> None:
    model = build(vae_spec("categorical"))
    sizes = [[m.weight.shape[::-1] for m in part.modules() if isinstance(m, nn.Linear)] for part in model.children()]
    assert sizes == [[(6, 8), (8, 7), (7, 4)], [(2, 7), (7, 8), (8, math.prod(EVENT) * LEVELS)]]


def test_a_vqvae_mirrors_its_hidden_sizes_and_encodes_levels_on_minus_one_to_one() -> None:
    model = build(spec_of("vqvae"))
    sizes = [[m.weight.shape[::-1] for m in part.modules() if isinstance(m, nn.Linear)]
             for part in (model.encoder, model.decoder)]  # fmt: skip
    assert sizes == [[(6, 8), (8, 7), (7, 6)], [(6, 7), (7, 8), (8, math.prod(EVENT) * LEVELS)]]
    x = data_of("categorical")
    expected = model.encoder.mlp(likelihoods.to_unit(x, LEVELS).flatten(1)).view(4, 3, 2)
    torch.testing.assert_close(model.encoder(x), expected)
    assert (model.positions, model.quantizer.codebook.shape, model.prior.shape) == (3, (5, 2), (3, 5))
    with pytest.raises(ValueError, match="likelihood was 'bernoulli'; it must be one of levels"):
        build(spec_of("vqvae") | {"likelihood": "bernoulli", "levels": None})


def test_a_prior_over_codes_is_a_small_network_for_each_position() -> None:
    prior = build(spec_of("code_prior"))
    nn.init.normal_(prior.bias, generator=rng.generator(1))
    idx = torch.randint(5, (6, 3), generator=rng.generator(0))
    e = prior.embedding.weight[idx].detach()  # [6, 3, 2]
    first = prior.first.weight.detach().view(3, 4, 3, 2)
    for i in range(3):
        hidden = prior.first.bias.detach().view(3, 4)[i].expand(6, 4)
        for j in range(i):
            hidden = hidden + e[:, j] @ first[i, :, j].T
        expected = nn.functional.silu(hidden) @ prior.weight[i] + prior.bias[i]
        torch.testing.assert_close(prior(idx)[:, i], expected)
    big = build({"name": "code_prior", "positions": 2, "n_codes": 300, "hidden": 64, "dim": 3})
    assert big.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert big.bias.abs().max() == 0
    assert build({"name": "code_prior", "positions": 2, "n_codes": 3}).first.weight.shape == (64, 16)


@each_spec
def test_a_spec_survives_json_and_makes_the_same_weights_again(name: str) -> None:
    spec = spec_of(name)
    first, again, other = build(spec), build(json.loads(json.dumps(spec))), build(spec, seed=1)
    for one, same in zip(first.parameters(), again.parameters()):
        assert torch.equal(one, same)
    assert not all(torch.equal(one, two) for one, two in zip(first.parameters(), other.parameters()))
    assert spec == spec_of(name)


@each_spec
def test_build_leaves_the_random_state_alone_and_does_not_depend_on_it(name: str) -> None:
    torch.manual_seed(1)
    first, before = build(spec_of(name)), torch.get_rng_state()
    torch.manual_seed(2)
    second = build(spec_of(name))
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters()))


known = {*MODELS, *LIKELIHOODS, *ACTIVATIONS, "shared", "pixel"}


@settings(deadline=None)
@given(st.text().filter(lambda name: name not in known))
def test_unknown_names_raise(name: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)spec\['name'\] was .*; it must be one of mlp, "):
        build({"name": name})
    with pytest.raises(ValueError, match=r"(?s)likelihood was .*; it must be one of binomial, "):
        build(vae_spec(name))
    with pytest.raises(ValueError, match=r"(?s)activation was .*; it must be one of silu, "):
        build({"name": "mlp", "sizes": [2, 2], "activation": name})
    with pytest.raises(ValueError, match=r"(?s)spread was .*; it must be one of shared, pixel"):
        build(vae_spec("gaussian", spread=name))


@settings(deadline=None)
@given(st.sampled_from(list(MODELS)), st.text(min_size=1), st.booleans())
def test_unknown_and_missing_keys_raise(name: str, key: str, extra: bool) -> None:
    spec = spec_of(name)
    required = next(k for k in spec if k != "name")
    wrong = spec | {f"{key} ": 1} if extra else {k: v for k, v in spec.items() if k != required}
    with pytest.raises(ValueError, match=rf"(?s)the keys of spec for '{name}' was .*; it must be .*{required}"):
        build(wrong)


@settings(deadline=None)
@given(st.lists(st.integers(max_value=3), max_size=4).filter(lambda sizes: len(sizes) < 2 or min(sizes) < 1))
def test_bad_sizes_raise(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"sizes was .*; it must be two or more integers"):
        build({"name": "mlp", "sizes": sizes})


@each_likelihood
def test_levels_are_given_exactly_where_they_are_needed(likelihood: str) -> None:
    wrong = {"binomial": None, "categorical": None, "discretized_gaussian": 1}.get(likelihood, 17)
    with pytest.raises(
        ValueError, match=rf"levels was {wrong}; it must be (.* for '{likelihood}'|an integer, 2 or more)"
    ):
        build(vae_spec(likelihood) | {"levels": wrong})


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("time_mlp", (torch.zeros(3, 5), torch.ones(3)), "the shape of x_t"),
        ("time_mlp", (torch.zeros(3, 6), torch.ones(3, 1)), "the shape of t was"),
        ("time_mlp", (torch.zeros(3, 6), torch.ones(1)), "the shape of t was"),
        ("time_mlp", (torch.zeros(3, 6).long(), torch.ones(3)), "the dtype of x_t was"),
        ("gaussian_encoder", (torch.zeros(3, 6),), "the shape of x was"),
        ("mlp", (torch.zeros(3, 5),), "the shape of x was"),
        ("decoder", (torch.zeros(3, 5),), "the shape of x was"),
    ],
)
def test_bad_inputs_raise(name: str, inputs: tuple[torch.Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(spec_of(name))(*inputs)


def test_encoder_without_levels_takes_floats_only() -> None:
    with pytest.raises(ValueError, match=r"the dtype of x was torch.uint8; it must be a floating-point dtype"):
        build(spec_of("gaussian_encoder") | {"levels": None})(data_of("categorical"))
    with pytest.raises(ValueError, match="depth was 0"):
        build(spec_of("time_mlp") | {"depth": 0})
    with pytest.raises(ValueError, match="levels was 1"):
        build(spec_of("gaussian_encoder") | {"levels": 1})


@each_spec
def test_networks_compile_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # The compiler cannot trace its checks.
    torch.compiler.reset()
    inputs = {
        "mlp": (torch.zeros(3, 2),),
        "time_mlp": (torch.zeros(3, 6), torch.ones(3, dtype=torch.int64)),
        "gaussian_encoder": (data_of("categorical"),),
        "decoder": (torch.zeros(3, 2),),
        "vae": (data_of("categorical"), torch.zeros(1, 4, 2)),
        "hvae": (data_of("categorical"), [torch.zeros(1, 4, 4), torch.zeros(1, 4, 2)]),
        "conv_vae": (torch.ones(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, 3, 2)),
        "vqvae": (data_of("categorical"),),
        "code_prior": (torch.zeros(3, 3, dtype=torch.int64),),
        "unet": (torch.zeros(3, 2, 8, 8), torch.ones(3, dtype=torch.int64)),
        "classifier": (torch.zeros(3, 1, 8, 8),),
    }[name]
    model = build(spec_of(name)).eval()
    function = getattr(model, "elbo", model)
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), function(*inputs))


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "mlp", "sizes": [1, 1]},
        {"name": "time_mlp", "dim": 1, "hidden": 1, "depth": 1},
        {"name": "gaussian_encoder", "event": [1], "hidden": [1], "latent": 1, "levels": 2},
        {"name": "decoder", "latent": 1, "hidden": [1], "event": [1], "likelihood": "binomial", "levels": 2},
        {"name": "code_prior", "positions": 1, "n_codes": 2, "hidden": 1, "dim": 1},
        {
            "name": "vqvae",
            "event": [1],
            "positions": 1,
            "n_codes": 2,
            "dim": 1,
            "hidden": [1],
            "likelihood": "categorical",
            "levels": 2,
            "prior_hidden": 1,
        },
        {"name": "unet", "channels": 1, "size": 1, "patch": 1, "widths": [8], "blocks": 1},
        {"name": "classifier", "channels": 1, "size": 2, "widths": [1], "features": 1, "classes": 1},
        {"name": "conv_vae", "channels": 1, "size": 2, "latent": 1, "widths": [1], "likelihood": "bernoulli"},
    ],
    ids=lambda spec: spec["name"],
)
def test_the_smallest_of_each_kind_is_a_network(spec: dict) -> None:
    assert all(p.isfinite().all() for p in build(spec).parameters())


def test_each_half_of_a_code_has_its_own_output() -> None:
    for encoder in (
        build(spec_of("gaussian_encoder") | {"latent": 3}),
        networks.ConvEncoder(1, 8, [4], 3),
    ):
        mean, log_var = encoder(torch.zeros(2, *encoder.event))
        assert mean.shape == log_var.shape == (2, 3)


def test_a_shared_spread_begins_at_one() -> None:
    assert build(vae_spec("gaussian")).decoder.spread.item() == 0  # The logarithm of it.


@pytest.mark.parametrize("likelihood", ["bernoulli", "binomial", "discretized_gaussian", "gaussian"])
def test_the_encoder_reads_the_levels_of_the_likelihood(likelihood: str) -> None:
    levels = levels_of(likelihood)
    plain, convolutional = build(vae_spec(likelihood)), build(CONV_VAE | {"likelihood": likelihood, "levels": levels})
    for model in (plain, convolutional):
        assert model.encoder.levels == (2 if likelihood == "bernoulli" else levels)
    numbers = convolutional.decoder(torch.zeros(3, 2))
    assert [n.shape for n in numbers] == (1 + ("gaussian" in likelihood)) * [(3, 1, 8, 8)]


def test_a_network_without_the_time_answers_for_time_zero() -> None:
    x_t, t = torch.randn(3, 2, 8, 8, generator=rng.generator(5)), torch.tensor([1, 7, 20])
    for spec in (spec_of("unet"), {"name": "time_mlp", "dim": 128, "hidden": 8}):
        seeing, other = build(spec), build(spec | {"time_conditional": False})
        for parameter in (*seeing.parameters(), *other.parameters()):
            torch.nn.init.normal_(parameter, std=0.1, generator=rng.generator(parameter.numel()))
        torch.testing.assert_close(other(x_t, t), seeing(x_t, torch.zeros(3, dtype=torch.int64)))
        assert (other(x_t, t) - seeing(x_t, t)).abs().max() > 1e-3
