// Tables of a noise schedule: alphaBar[t] belongs to time t, and alphaBar[0] = 1 is the data, as in dmlib.diffusion.

// alphaBar [T+1] of a linear schedule.
export function linear(T, beta1 = 1e-4, betaT = 0.02) {
  const alphaBar = new Float64Array(T + 1).fill(1);
  for (let t = 1; t <= T; t++)
    alphaBar[t] = alphaBar[t - 1] * (1 - beta1 - ((betaT - beta1) * (t - 1)) / Math.max(T - 1, 1));
  return alphaBar;
}

// alphaBar [T+1] of a cosine schedule.
export function cosine(T, s = 0.008, maxBeta = 0.999) {
  const f = (t) => Math.cos(((t / T + s) / (1 + s)) * (Math.PI / 2)) ** 2;
  const alphaBar = new Float64Array(T + 1).fill(1);
  for (let t = 1; t <= T; t++) alphaBar[t] = alphaBar[t - 1] * (1 - Math.min(1 - f(t) / f(t - 1), maxBeta));
  return alphaBar;
}

// The values of alphaBar nearest to these, by turns, that decrease strictly from 1 and stay above 0.
export function decreasing(knots, gap = 0.0005) {
  let last = 1;
  return knots.map((v, i) => (last = Math.max(Math.min(v, last - gap), gap * (knots.length - i))));
}

// alphaBar [T+1] by straight lines from 1 through knots at equal distances, the last of them at T.
export function drawn(T, knots) {
  const ends = [1, ...decreasing(knots)];
  return Float64Array.from({ length: T + 1 }, (_, t) => {
    const place = (t / T) * knots.length, left = Math.min(Math.floor(place), knots.length - 1);
    return ends[left] + (place - left) * (ends[left + 1] - ends[left]);
  });
}

// The weight of x_0 in the mean of q(x_t | x_0), and its variance; t stands for alphaBar at that time.
export function marginal(t) {
  return [Math.sqrt(t), 1 - t];
}

// The weight of x_s in the mean of q(x_t | x_s), and its variance.
export function transition(s, t) {
  return [Math.sqrt(t / s), (s - t) / s];
}

// The weights of x_0 and of x_t in the mean of q(x_s | x_t, x_0), and its variance.
export function posterior(s, t) {
  const added = (s - t) / s;
  return [(Math.sqrt(s) * added) / (1 - t), (Math.sqrt(t / s) * (1 - s)) / (1 - t), (added * (1 - s)) / (1 - t)];
}

// One reverse step, as three Gaussians over x_s, each [mean, variance], and the weights of x_0 and x_t in the posterior:
// the prior given x_0, the likelihood of x_t (as the Gaussian it is proportional to), and the posterior.
export function reverse(alphaBar, x_0, x_t, s, t) {
  const [a, b] = [alphaBar[s], alphaBar[t]], [of0, var0] = marginal(a);
  const [ofS, varT] = transition(a, b), [w0, wt, variance] = posterior(a, b);
  return {
    prior: [of0 * x_0, var0],
    likelihood: [x_t / ofS, varT / ofS ** 2],
    posterior: [w0 * x_0 + wt * x_t, variance],
    weights: [w0, wt],
  };
}

// n + 1 times from T down to 0, as equally spaced as integers can be.
export function evenly(T, n) {
  return Array.from({ length: n + 1 }, (_, i) => Math.round((T * (n - i)) / n));
}
