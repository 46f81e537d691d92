// Gaussian mixtures, exactly, as in dmlib.probability.mixture: points of D numbers lie flat in x, one after the other.
// A mixture is { D, weights, means, vars }: weights that sum to one, means flat, a variance for each component.

// The weights divided by their sum; equal ones where all are zero.
export function normalized(weights) {
  const total = weights.reduce((a, b) => a + b);
  return weights.map((w) => (total > 0 ? w / total : 1 / weights.length));
}

// The mixture of x_t at alphaBar = a, and the log of each component's density at its mean, times its weight.
export function diffused({ D, weights, means, vars }, a) {
  const wider = vars.map((v) => 1 - a + a * v);
  const peaks = wider.map((v, k) => Math.log(weights[k]) - (D / 2) * Math.log(2 * Math.PI * v));
  return { D, weights, means: means.map((v) => Math.sqrt(a) * v), vars: wider, peaks };
}

// Calls use(i, shares, log) for each point of x under a diffused mixture: p(k | x_t) by component, and the log density.
function weigh({ D, means, vars, peaks }, x, use) {
  const shares = vars.slice();
  for (let i = 0; i < x.length / D; i++) {
    let peak = -Infinity, total = 0;
    for (let k = 0; k < vars.length; k++) {
      let far = 0;
      for (let d = 0; d < D; d++) far += (x[i * D + d] - means[k * D + d]) ** 2;
      shares[k] = peaks[k] - far / (2 * vars[k]);
      peak = Math.max(peak, shares[k]);
    }
    for (let k = 0; k < vars.length; k++) total += shares[k] = Math.exp(shares[k] - peak);
    shares.forEach((part, k) => { shares[k] = part / total; });
    use(i, shares, peak + Math.log(total));
  }
}

// The log density of x_t at each point.
export function logDensity(m, x, a) {
  const found = [];
  weigh(diffused(m, a), x, (i, shares, log) => found.push(log));
  return found;
}

// The mean over the components of value(x_t less its mean given k, k, d) at each point, for each of its numbers d.
function average(q, x, value) {
  const found = [];
  weigh(q, x, (i, shares) => {
    for (let d = 0; d < q.D; d++) {
      let sum = 0;
      for (let k = 0; k < shares.length; k++) sum += shares[k] * value(x[i * q.D + d] - q.means[k * q.D + d], k, d);
      found.push(sum);
    }
  });
  return found;
}

// E[x_0 | x_t] at each point: what a perfect denoiser returns.
export function posteriorMean(m, x, a) {
  const q = diffused(m, a), gain = m.vars.map((v, k) => (Math.sqrt(a) * v) / q.vars[k]);
  return Float64Array.from(average(q, x, (away, k, d) => m.means[k * m.D + d] + gain[k] * away));
}

// The gradient of the log density of x_t at each point.
export function score(m, x, a) {
  const q = diffused(m, a);
  return average(q, x, (away, k) => -away / q.vars[k]);
}

// E[eps | x_t] at each point.
export function noise(m, x, a) {
  return score(m, x, a).map((v) => -Math.sqrt(1 - a) * v);
}

// E[v | x_t] at each point, v = sqrt(a) eps - sqrt(1 - a) x_0.
export function velocity(m, x, a) {
  const x0 = posteriorMean(m, x, a);
  return noise(m, x, a).map((v, i) => Math.sqrt(a) * v - Math.sqrt(1 - a) * x0[i]);
}

// How many points of x_0 belong to each component: every point is shared out by p(k | x_0).
export function counts(m, x) {
  const found = m.weights.map(() => 0);
  weigh(diffused(m, 1), x, (i, shares) => shares.forEach((p, k) => { found[k] += p; }));
  return found;
}

// n draws of x_0.
export function sample({ D, weights, means, vars }, n, { uniform, normal }) {
  const x = [];
  while (x.length < n * D) {
    let k = 0;
    for (let left = uniform(); left >= weights[k] && k + 1 < weights.length; k++) left -= weights[k];
    for (let d = 0; d < D; d++) x.push(means[k * D + d] + Math.sqrt(vars[k]) * normal());
  }
  return Float64Array.from(x);
}

// The unbiased estimate of 2 E|x - y| - E|x - x'| - E|y - y'|, as in dmlib.metrics; it may fall below 0.
export function energy(D, x, y) {
  const n = x.length / D, m = y.length / D;
  return (2 * apart(D, x, y)) / (n * m) - apart(D, x, x) / (n * (n - 1)) - apart(D, y, y) / (m * (m - 1));
}

// The sum of all distances from points of x to points of y.
function apart(D, x, y) {
  let total = 0;
  for (let i = 0; i < x.length; i += D)
    for (let j = 0; j < y.length; j += D) {
      let square = 0;
      for (let d = 0; d < D; d++) square += (x[i + d] - y[j + d]) ** 2;
      total += Math.sqrt(square);
    }
  return total;
}
