"""No function breaks a compiled graph, and none reads a value where reading makes an accelerator wait.

Tensors on the device "meta" have shapes and no values: any attempt to read one raises.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import jaxtyping
import pytest
import torch
from torch import Tensor

from dmlib.probability import elbo, gaussian, likelihoods, linear_gaussian, mixture, multivariate
from dmlib.probability.gaussian import Gaussian
from dmlib.probability.linear_gaussian import LinearChain, LinearGaussian
from dmlib.probability.mixture import Mixture
from dmlib.probability.multivariate import MVN

F64 = torch.float64


def law(m: Tensor) -> Gaussian:
    return Gaussian(m, m**2 + 1)


def levels(x: Tensor) -> Tensor:
    return torch.full_like(x, 3, dtype=torch.int64)


def eye(x: Tensor) -> Tensor:
    return torch.eye(3, dtype=x.dtype, device=x.device)


class Models:
    """One of each, on the device of x."""

    def __init__(self, x: Tensor) -> None:
        self.mvn = MVN(x[0], eye(x))
        self.linear = LinearGaussian(eye(x), x[0], x[0, 0] ** 2 + 1)
        self.chain = LinearChain(torch.stack([eye(x)] * 2), x[:2], x[0, :2] ** 2 + 1)
        self.mixture = Mixture(x.new_full((4,), 0.25), x, x[:, 0] ** 2 + 0.1)
        schedule = SimpleNamespace(alpha_bar=torch.tensor([1.0, 0.8, 0.5, 0.1], dtype=F64, device=x.device))
        self.denoiser = mixture.as_denoiser(self.mixture, schedule)


CALLS: dict[str, Callable[[Models, Tensor], object]] = {
    "gaussian.log_prob": lambda m, x: gaussian.log_prob(law(x), x),
    "gaussian.entropy": lambda m, x: gaussian.entropy(law(x)),
    "gaussian.kl": lambda m, x: gaussian.kl(law(x), law(x + 1)),
    "gaussian.product": lambda m, x: gaussian.product(law(x), law(x + 1)),
    "gaussian.log_overlap": lambda m, x: gaussian.log_overlap(law(x), law(x + 1)),
    "gaussian.standard": lambda m, x: gaussian.standard(x),
    "elbo.sgvb_a": lambda m, x: elbo.sgvb_a(x),
    "elbo.sgvb_b": lambda m, x: elbo.sgvb_b(x, x[0]),
    "elbo.iwae": lambda m, x: elbo.iwae(x),
    "elbo.effective_sample_size": lambda m, x: elbo.effective_sample_size(x),
    "likelihoods.bernoulli": lambda m, x: likelihoods.bernoulli(x, levels(x) - 2),
    "likelihoods.binomial": lambda m, x: likelihoods.binomial(x, levels(x), 16),
    "likelihoods.continuous_bernoulli": lambda m, x: likelihoods.continuous_bernoulli(x, x.sigmoid()),
    "likelihoods.gaussian": lambda m, x: likelihoods.gaussian(x, x, x),
    "likelihoods.discretized_gaussian": lambda m, x: likelihoods.discretized_gaussian(x, x[0, 0], levels(x)),
    "likelihoods.categorical": lambda m, x: likelihoods.categorical(x, levels(x)[:, 0] - 2),
    "likelihoods.to_unit": lambda m, x: likelihoods.to_unit(levels(x), 17),
    "likelihoods.to_levels": lambda m, x: likelihoods.to_levels(x, 17),
    "multivariate.log_prob": lambda m, x: multivariate.log_prob(m.mvn, x),
    "multivariate.kl": lambda m, x: multivariate.kl(m.mvn, m.mvn),
    "multivariate.entropy": lambda m, x: multivariate.entropy(m.mvn),
    "multivariate.condition": lambda m, x: multivariate.condition(m.mvn, [1], x[:, :1]),
    "linear_gaussian.posterior": lambda m, x: linear_gaussian.posterior(m.linear, x),
    "linear_gaussian.elbo": lambda m, x: linear_gaussian.elbo(m.linear, x, law(x)),
    "linear_gaussian.gap": lambda m, x: linear_gaussian.gap(m.linear, x, law(x)),
    "linear_gaussian.mean_field_posterior": lambda m, x: linear_gaussian.mean_field_posterior(m.linear, x),
    "mixture.log_prob": lambda m, x: mixture.log_prob(m.mixture, x, 0.3),
    "mixture.posterior_mean": lambda m, x: mixture.posterior_mean(m.mixture, x, x[:, 0].sigmoid()),
    "mixture.score": lambda m, x: mixture.score(m.mixture, x, 0.3),
    "mixture.minimum_mse": lambda m, x: mixture.minimum_mse(m.mixture, x, 0.3),
    "mixture.as_denoiser": lambda m, x: m.denoiser(x, levels(x)[:, 0]),
}
# What builds an object: the compiler takes it, but not with the shape checks of these tests around it.
BUILDERS: dict[str, Callable[[Models, Tensor], object]] = {
    "elbo.total": lambda m, x: elbo.ElboTerms(x[:, 0], x[:, 1], x).total,
    "multivariate.marginal": lambda m, x: multivariate.marginal(m.mvn, [2, 0]).cov,
    "multivariate.affine": lambda m, x: multivariate.affine(m.mvn, eye(x), x[0], eye(x)).cov,
    "multivariate.joint": lambda m, x: multivariate.joint(m.mvn, eye(x), x[0], eye(x)).cov,
    "linear_gaussian.log_evidence": lambda m, x: linear_gaussian.log_evidence(m.linear, x),
    "linear_gaussian.chain": lambda m, x: linear_gaussian.posterior(m.chain, x),
    "mixture.empirical": lambda m, x: mixture.empirical(x).weights,
}
X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=F64)


def tensors(result: object) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


@pytest.mark.parametrize("name", CALLS | BUILDERS)
def test_no_value_is_read_beside_the_cpu(name: str) -> None:
    call = (CALLS | BUILDERS)[name]
    here, there = (tensors(call(Models(x), x)) for x in (X, X.to("meta")))
    assert [(r.shape, r.dtype) for r in there] == [(r.shape, r.dtype) for r in here]
    assert {r.device.type for r in there} == {"meta"}


@pytest.mark.parametrize("name", CALLS)
def test_compiled_whole_it_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the compiler cannot trace its checks
    torch.compiler.reset()
    models = Models(X)
    compiled = torch.compile(lambda x: CALLS[name](models, x), fullgraph=True, backend="eager")
    for one, other in zip(tensors(compiled(X)), tensors(CALLS[name](models, X)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
