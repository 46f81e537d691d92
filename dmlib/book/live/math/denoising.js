// A network that predicts the noise as a denoiser, and the path of a sampler taken one prediction at a time.

import * as sampling from "./sampling.js";

// The x_t that standard normal noise makes of x_0; t stands for alphaBar at that time.
export function noised(x0, noise, t) {
  return x0.map((value, i) => Math.sqrt(t) * value + Math.sqrt(1 - t) * noise[i]);
}

// The x_0 that a prediction of the noise claims at x; `clamped` cuts it to -1..1, where the data lie.
export function cleaned(x, noise, t, clamped) {
  const x0 = x.map((value, i) => (value - Math.sqrt(1 - t) * noise[i]) / Math.sqrt(t));
  return clamped ? x0.map((value) => Math.min(1, Math.max(-1, value))) : x0;
}

// The path of DDIM as a generator: it hands out each state with its time, is given the prediction of x_0 there, and
// ends with the state at the last of the times.
export function* path(alphaBar, x, times, eta, noise) {
  for (let i = 0; i + 1 < times.length; i++) {
    const x0 = yield [x, times[i]];
    x = sampling.step(x, x0, alphaBar[times[i + 1]], alphaBar[times[i]], eta, noise);
  }
  return x;
}
