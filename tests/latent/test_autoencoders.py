"""Autoencoders against explicit Jacobians, finite differences, closed forms of linear maps and torch.distributions."""

from __future__ import annotations

import itertools
import math

import jaxtyping
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, kl_divergence

from dmlib import networks
from dmlib.latent.autoencoders import (
    Autoencoder,
    contractive_penalty,
    corrupt,
    kl_sparsity,
    l1_penalty,
    squared_error,
    top_k,
)

B, D, K = 5, 4, 3


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


X, W, V = normal(1, B, D), normal(2, D, K), normal(3, K, D)
H = torch.sigmoid(normal(4, B, K))


def assert_near(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=atol)


def curved(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x.flatten(1) @ W) + 0.3 * (x.flatten(1) @ W) ** 2


def test_forward_gives_the_reconstruction_and_the_code() -> None:
    x_hat, z = Autoencoder(lambda x: x @ W, lambda z: z @ V)(X)
    assert_near(z, X @ W)
    assert_near(x_hat, X @ (W @ V))


def test_modules_in_it_are_trained_with_it() -> None:
    model = Autoencoder(nn.Linear(D, K), nn.Linear(K, D))
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"encoder", "decoder"}
    x_hat, _ = model(X.float())
    squared_error(x_hat, X.float()).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_images_and_logits_pass() -> None:
    levels = torch.zeros(B, 1, 2, 2, dtype=torch.uint8)
    model = Autoencoder(lambda x: x.flatten(1).float(), lambda z: z.new_zeros(len(z), 1, 2, 2, 17))
    x_hat, z = model(levels)
    assert (x_hat.shape, z.shape) == ((B, 1, 2, 2, 17), (B, 4))


@pytest.mark.parametrize("shape", [(B,), (B, D), (B, 1, 2, 2)])
def test_squared_error_is_a_squared_distance(shape: tuple[int, ...]) -> None:
    x, x_hat = normal(5, *shape), normal(6, *shape)
    assert_near(squared_error(x_hat, x), torch.linalg.vector_norm((x_hat - x).reshape(B, -1), dim=1) ** 2)


def test_the_best_linear_pair_leaves_the_discarded_eigenvalues() -> None:
    x = X - X.mean(0)
    values, axes = torch.linalg.eigh(x.T @ x / B)
    kept = axes[:, -2:]
    x_hat, _ = Autoencoder(lambda x: x @ kept, lambda z: z @ kept.T)(x)
    assert_near(squared_error(x_hat, x).mean(), values[:-2].sum())


def test_corrupt_adds_noise_of_this_spread() -> None:
    for std in (0, 0.0, 0.7, 3):
        noise = torch.randn(B, D, generator=generator(7), dtype=torch.float64)
        assert_near(corrupt(X, std, generator=generator(7)), X + std * noise)
    many = corrupt(torch.zeros(200_000), 0.7, generator=generator(8))
    assert abs(many.var() - 0.49) < 4.5 * 0.49 * math.sqrt(2 / 200_000)
    assert corrupt(X.float(), 0.7, generator=generator(8)).dtype == torch.float32


def test_l1_penalty_is_the_one_norm() -> None:
    assert_near(l1_penalty(X), torch.linalg.vector_norm(X, ord=1, dim=1))
    assert_near(l1_penalty(torch.tensor([[1.0, -2.0], [0.0, 0.5]])), torch.tensor([3.0, 0.5]))


@pytest.mark.parametrize("rho", [0.05, 0.5, 0.9])
def test_kl_sparsity_is_that_of_torch_distributions(rho: float) -> None:
    expected = kl_divergence(Bernoulli(torch.tensor(rho, dtype=torch.float64)), Bernoulli(H.mean(0))).sum()
    assert_near(kl_sparsity(H, rho), expected)
    by_sum = sum(p * math.log(p / q) for m in H.mean(0).tolist() for p, q in ((rho, m), (1 - rho, 1 - m)))
    assert_near(kl_sparsity(H, rho), torch.tensor(by_sum, dtype=torch.float64))


def test_kl_sparsity_looks_at_the_mean_over_the_batch() -> None:
    halves = torch.tensor([[0.1], [0.5]], dtype=torch.float64)  # mean 0.3
    assert_near(kl_sparsity(halves, 0.3), torch.zeros((), dtype=torch.float64))
    assert kl_sparsity(halves[:1], 0.3) > 0.1
    assert torch.autograd.gradcheck(lambda h: kl_sparsity(h, 0.2), H.clone().requires_grad_())


@pytest.mark.parametrize("k", [1, 2, K])
def test_top_k_keeps_the_largest(k: int) -> None:
    z = torch.tensor([[0.3, -5.0, 0.1], [-1.0, -3.0, -2.0]])
    kept = top_k(z, k)
    for row, out in zip(z, kept):
        largest = sorted(row.tolist(), reverse=True)[:k]
        assert [a if a in largest else 0.0 for a in row.tolist()] == out.tolist()


def test_top_k_of_codes_that_are_not_negative_loses_least() -> None:
    z = normal(9, B, 6).abs()
    for k in (1, 3, 5):
        lost = squared_error(top_k(z, k), z)
        masks = [torch.eye(6, dtype=torch.float64)[list(s)].sum(0) for s in itertools.combinations(range(6), k)]
        assert_near(lost, torch.stack([(z * (1 - m)).square().sum(1) for m in masks]).amin(0))


def test_top_k_passes_gradient_to_what_it_keeps() -> None:
    z = normal(10, B, 6).requires_grad_()
    kept = top_k(z, 2)
    (slope,) = torch.autograd.grad((kept * 3).sum(), z)
    assert torch.equal(slope, 3.0 * (kept != 0))
    assert (kept != 0).sum() == 2 * B


def test_top_k_keeps_k_where_entries_are_equal() -> None:
    assert (top_k(torch.ones(B, 6), 2) != 0).sum(1).tolist() == [2] * B


def test_contractive_penalty_of_a_linear_map_is_its_norm() -> None:
    assert_near(contractive_penalty(lambda x: x @ W + 1, X), W.square().sum().expand(B))


def test_contractive_penalty_of_a_sigmoid_layer_has_a_closed_form() -> None:
    h = torch.sigmoid(X @ W)
    expected = ((h * (1 - h)).square() * W.square().sum(0)).sum(1)
    assert_near(contractive_penalty(lambda x: torch.sigmoid(x @ W), X), expected)


@pytest.mark.parametrize("shape", [(B, D), (B, 1, 2, 2)])
def test_contractive_penalty_is_that_of_explicit_and_numerical_jacobians(shape: tuple[int, ...]) -> None:
    x = X.view(shape)
    penalty = contractive_penalty(curved, x)
    explicit = [torch.autograd.functional.jacobian(curved, one[None]).square().sum() for one in x]
    assert_near(penalty, torch.stack(explicit))
    step, numerical = 1e-5, torch.zeros(B, dtype=torch.float64)
    for i in range(D):
        e = step * torch.eye(D, dtype=torch.float64)[i].view(shape[1:])
        numerical += ((curved(x + e) - curved(x - e)) / (2 * step)).square().sum(1)
    assert_near(penalty, numerical, atol=1e-7)


def test_contractive_penalty_trains_a_network_of_the_package() -> None:
    encoder = networks.MLP([D, 6, K], "tanh").double()

    def value(*parameters: torch.Tensor) -> torch.Tensor:
        named = dict(zip((name for name, _ in encoder.named_parameters()), parameters))
        return contractive_penalty(lambda x: torch.func.functional_call(encoder, named, (x,)), X)

    assert torch.autograd.gradcheck(value, tuple(p.detach().clone().requires_grad_() for p in encoder.parameters()))


def test_all_compute_where_their_tensors_are() -> None:
    x, h = torch.empty(B, D, device="meta"), torch.empty(B, K, device="meta")
    w = torch.empty(D, K, device="meta")
    x_hat, _ = Autoencoder(lambda x: x @ w, lambda z: z @ w.T)(x)
    outputs = [
        squared_error(x_hat, x),
        corrupt(x, 0.5, generator=generator(0)),
        l1_penalty(h),
        kl_sparsity(h, 0.1),
        top_k(h, 2),
        contractive_penalty(lambda x: torch.tanh(x @ w), x),
    ]
    assert [(o.device.type, tuple(o.shape)) for o in outputs] == [
        *[("meta", shape) for shape in ((B,), (B, D), (B,), (), (B, K), (B,))]
    ]


@pytest.mark.parametrize("name", ["squared_error", "l1_penalty", "kl_sparsity", "top_k", "forward"])
def test_each_compiles_into_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the compiler cannot trace its checks
    torch.compiler.reset()
    fn, args = {
        "squared_error": (squared_error, (2 * X, X)),
        "l1_penalty": (l1_penalty, (X,)),
        "kl_sparsity": (kl_sparsity, (H, 0.1)),
        "top_k": (top_k, (X, 2)),
        "forward": (lambda x: Autoencoder.forward(MODEL, x)[0], (X,)),
    }[name]
    assert_near(torch.compile(fn, fullgraph=True, backend="eager")(*args), fn(*args))


MODEL = Autoencoder(lambda x: x @ W, lambda z: z @ V)
ROW = r"the shape of the encoder's code was \({}\); it must be \({}, ...\), a row for each x"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Autoencoder(None, lambda z: z), "encoder was NoneType; it must be a function"),
        (lambda: Autoencoder(lambda x: x, 3), "decoder was int; it must be a function"),
        (lambda: MODEL(X.tolist()), r"x was list; it must be a tensor \[B, \*event\]"),
        (lambda: MODEL(torch.tensor(1.0)), r"x was Tensor; it must be a tensor \[B, \*event\]"),
        (lambda: Autoencoder(lambda x: x.sum(0), lambda z: z)(X), ROW.format("4,", 5)),
        (lambda: Autoencoder(lambda x: x.sum(), lambda z: z)(X), ROW.format("", 5)),
        (
            lambda: Autoencoder(lambda x: x, lambda z: z[:1])(X),
            r"the shape of the decoder's output was \(1, 4\); it must be \(5, ...\)",
        ),
        (
            lambda: Autoencoder(lambda x: x, lambda z: (z,))(X),
            "the decoder's output was tuple; it must be a tensor",
        ),
        (
            lambda: Autoencoder(lambda x: x.long(), lambda z: z)(X),
            "the dtype of the encoder's code was torch.int64; it must be a floating-point dtype",
        ),
        (lambda: squared_error(X[:1], X), r"the shape of x_hat was \(1, 4\); it must be \(5, 4\), that of x"),
        (lambda: squared_error(X[:, :1], X), r"the shape of x_hat was \(5, 1\); it must be \(5, 4\), that of x"),
        (lambda: squared_error(X.float(), X), "the dtype of x_hat was torch.float32; it must be torch.float64"),
        (lambda: squared_error(X, X.long()), "the dtype of x was torch.int64; it must be a floating-point dtype"),
        (lambda: squared_error(X * math.nan, X), "x_hat was nan; it must be finite"),
        (lambda: squared_error(X.sum(), X.sum()), r"the shape of x was \(\); it must be \(B, \*event\)"),
        (lambda: squared_error(X.to("meta"), X), "the device of x_hat was meta; it must be cpu, that of x"),
        (lambda: corrupt(X, -0.1, generator=generator(0)), "noise_std was -0.1; it must be 0 or more"),
        (lambda: corrupt(X, math.nan, generator=generator(0)), "noise_std was nan; it must be 0 or more"),
        (lambda: corrupt(X, math.inf, generator=generator(0)), "noise_std was inf; it must be 0 or more, and finite"),
        (lambda: corrupt(X, X, generator=generator(0)), "noise_std was tensor"),
        (lambda: corrupt(X.long(), 0.1, generator=generator(0)), "the dtype of x was torch.int64"),
        (lambda: corrupt(X, 0.1, generator=0), "generator was int; it must be a torch.Generator"),
        (lambda: l1_penalty(X.sum()), r"the shape of z was \(\); it must be \(B, \*event\)"),
        (lambda: l1_penalty([1.0]), "z was list; it must be a tensor"),
        (lambda: kl_sparsity(H, 0), r"rho was 0; it must be in \(0, 1\)"),
        (lambda: kl_sparsity(H, 1.0), r"rho was 1.0; it must be in \(0, 1\)"),
        (lambda: kl_sparsity(H, math.nan), r"rho was nan; it must be in \(0, 1\)"),
        (lambda: kl_sparsity(H, "0.1"), "rho was '0.1'; it must be a number"),
        (lambda: kl_sparsity(H - H.min(), 0.1), r"h was 0.0; it must be in \(0, 1\)"),
        (lambda: kl_sparsity(H - H.max() + 1, 0.1), r"h was 1.0; it must be in \(0, 1\)"),
        (lambda: kl_sparsity(H[0], 0.1), r"the shape of h was \(3\,\); it must be \(any, any\)"),
        (lambda: kl_sparsity(H[:0], 0.1), "the number of rows of h was 0; it must be 1 or more"),
        (lambda: top_k(X, 0), r"k was 0; it must be an integer in 1..4"),
        (lambda: top_k(X, 5), r"k was 5; it must be an integer in 1..4"),
        (lambda: top_k(X, 2.0), r"k was 2.0; it must be an integer in 1..4"),
        (lambda: top_k(X[0], 1), r"the shape of z was \(4\,\); it must be \(any, any\)"),
        (lambda: contractive_penalty(W, X), "encoder was Tensor; it must be a function"),
        (lambda: contractive_penalty(lambda x: x @ W, X.long()), "the dtype of x was torch.int64"),
        (lambda: contractive_penalty(lambda x: x.sum(), X), ROW.format("", 1)),
        (lambda: contractive_penalty(lambda x: x[0], X), ROW.format("4,", 1)),
    ],
)
def test_bad_input_is_named(call: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in a reader's process
    with pytest.raises(ValueError, match=message):
        call()
