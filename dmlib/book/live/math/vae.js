// A VAE of discrete images, as in dmlib.latent.vae: an image is a row of levels, tensors have torch's names.

import * as gaussian from "./gaussian.js";

// The sum of products of b with what stands in a from `start` on.
export function dot(a, start, b) {
  let sum = 0;
  for (let k = 0; k < b.length; k++) sum += a[start + k] * b[k];
  return sum;
}

// The network of this name: linear maps with SiLU between two of them.
export function mlp(net, name, x) {
  for (let i = 0; ; i += 2) {
    const weight = net[`${name}.mlp.layers.${i}.weight`];
    if (!weight) return x;
    const seen = i === 0 ? x : x.map((value) => value / (1 + Math.exp(-value)));
    const bias = net[`${name}.mlp.layers.${i}.bias`];
    x = Float64Array.from(bias, (value, row) => value + dot(weight, row * seen.length, seen));
  }
}

// The encoder's Gaussian of an image.
export function encode(net, image, levels) {
  const out = mlp(net, "encoder", image.map((level) => (2 * level) / (levels - 1) - 1)), K = out.length / 2;
  return { mean: out.slice(0, K), logVar: out.slice(K) };
}

// The log-probabilities of the levels given a code, a row for each pixel.
export function decode(net, z, levels) {
  const logits = mlp(net, "decoder", z);
  return Array.from({ length: logits.length / levels }, (_, pixel) => {
    const row = logits.slice(pixel * levels, (pixel + 1) * levels), top = Math.max(...row);
    const total = top + Math.log(row.reduce((sum, value) => sum + Math.exp(value - top), 0));
    return row.map((value) => value - total);
  });
}

// The mean level of each pixel.
export function means(rows) {
  return rows.map((row) => row.reduce((sum, value, level) => sum + Math.exp(value) * level, 0));
}

// The divergence from the standard normal, in nats.
export function kl(mean, logVar) {
  return mean.reduce((sum, m, k) => sum + (m ** 2 + Math.exp(logVar[k]) - 1 - logVar[k]) / 2, 0);
}

// Estimator B of an image's bound, in nats, with its parts; noise is standard normal, for S codes, one after another.
export function elbo(net, image, noise, levels) {
  const { mean, logVar } = encode(net, image, levels), codes = [], divergence = kl(mean, logVar);
  for (let i = 0; i < noise.length; i += mean.length)
    codes.push(mean.map((m, k) => m + Math.exp(logVar[k] / 2) * noise[i + k]));
  const each = codes.map((z) => decode(net, z, levels).reduce((sum, row, i) => sum + row[image[i]], 0));
  const reconstruction = each.reduce((a, b) => a + b) / each.length, bound = reconstruction - divergence;
  return { reconstruction, divergence, bound, bits: -bound / (image.length * Math.log(2)), codes, mean, logVar };
}

// The density of a mixture in equal parts of Gaussians of the plane, rows of means and of variances: a row for each y.
export function aggregate(means, variances, xs, ys) {
  const side = (k, at) => means.map((mean, n) => at.map((z) => gaussian.density(mean[k], variances[n][k], z)));
  const [across, up] = [side(0, xs), side(1, ys)];
  return ys.map((_, j) => xs.map((_, i) => across.reduce((sum, row, n) => sum + row[i] * up[n][j], 0) / means.length));
}
