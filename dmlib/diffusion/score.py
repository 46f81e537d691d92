"""From noise to data by the score alone, the gradient of the log-density of x_t, without a draw."""

from __future__ import annotations

from collections.abc import Sequence

from dmlib.checks import Tensor, require_callable
from dmlib.diffusion import sampling
from dmlib.diffusion.parameterization import Network, as_denoiser
from dmlib.diffusion.sampling import Trajectory
from dmlib.diffusion.schedule import NoiseSchedule


def probability_flow(
    score: Network, schedule: NoiseSchedule, x_T: Tensor, *, times: Sequence[int] | Tensor
) -> Trajectory:
    """The path of the probability flow: points that it moves without noise have the marginals q(x_t) at every time.

    `score` is (x_t [B, *event], t int64 [B]) -> the gradient of log q(x_t), [B, *event]; x_T is [B, *event] and belongs
    to the first of `times` [N+1], which strictly decrease to 0. Heun's steps along the angle of the schedule, two calls
    each; the one to 0 is DDIM's own. The x_0_hat of the result are what the score claims, by Tweedie's formula. Raises
    where no signal is left, alpha_bar = 0, since a score says nothing of x_0 there. No gradients.
    Eq. [eq-heun-step], [eq-predict-score]; [Song2021SDE].
    """
    require_callable(score, "score")
    return sampling.heun(as_denoiser(score, schedule, "score"), schedule, x_T, times=times)
