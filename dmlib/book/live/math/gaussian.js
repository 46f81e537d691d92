// The normal distribution in one dimension.

export function density(mean, variance, x) {
  return Math.exp((-0.5 * (x - mean) ** 2) / variance) / Math.sqrt(2 * Math.PI * variance);
}
