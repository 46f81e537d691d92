// The normal distribution in one dimension.

export function density(mean, variance, x) {
  return Math.exp((-0.5 * (x - mean) ** 2) / variance) / Math.sqrt(2 * Math.PI * variance);
}

// The outline of an ellipse, closed, as n + 1 values of x and of y: its middle, and its two half axes as vectors.
export function ellipse(middle, a, b, n = 72) {
  const turns = Array.from({ length: n + 1 }, (_, i) => (2 * Math.PI * i) / n);
  return Array.from(middle, (start, k) => turns.map((turn) => start + Math.cos(turn) * a[k] + Math.sin(turn) * b[k]));
}
