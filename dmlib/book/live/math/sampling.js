// Samplers against a denoiser (x, t) -> x_0_hat, over flat Float64Arrays, as in dmlib.diffusion.sampling.

import * as schedule from "./schedule.js";

// Of one step of DDIM between two values of alphaBar: the weights of x_0_hat and of x_t, and the variance.
export function weights(s, t, eta) {
  const fresh = (s - t) / (s * (1 - t)), kept = 1 - eta * eta + (eta * eta * (t / s) * (1 - s)) / (1 - t);
  const ofX = Math.sqrt(((1 - s) * kept) / (1 - t));
  return [Math.sqrt(s) - ofX * Math.sqrt(t), ofX, eta * eta * fresh * (1 - s)];
}

// One step of DDIM from x; noise is asked for only where the step has a variance.
export function step(x, x0, s, t, eta, noise) {
  const [ofX0, ofX, variance] = weights(s, t, eta), std = Math.sqrt(variance);
  const fresh = std > 0 ? noise() : null;
  return x.map((value, i) => ofX0 * x0[i] + ofX * value + (fresh ? std * fresh[i] : 0));
}

// The states and predictions of DDIM at these times, strictly decreasing to 0; eta = 1 is ancestral sampling.
export function ddim(denoise, alphaBar, xT, times, eta, noise) {
  const x = [xT], x0 = [];
  for (let i = 0; i + 1 < times.length; i++) {
    x0.push(denoise(x[i], times[i]));
    x.push(step(x[i], x0[i], alphaBar[times[i + 1]], alphaBar[times[i]], eta, noise));
  }
  return { x, x0 };
}

// The states of the forward process at these times, strictly decreasing to 0, where it starts in x0.
export function forward(x0, alphaBar, times, noise) {
  const x = [x0];
  for (let i = times.length - 1; i > 0; i--) {
    const [kept, variance] = schedule.transition(alphaBar[times[i]], alphaBar[times[i - 1]]), fresh = noise();
    x.unshift(x[0].map((value, j) => kept * value + Math.sqrt(variance) * fresh[j]));
  }
  return x;
}

// The probability flow by Heun's method along the angle whose sine is sqrt(1 - alphaBar); the last step is DDIM's.
export function flow(denoise, alphaBar, xT, times) {
  const velocity = (x, x0, a) => x.map((value, i) => (Math.sqrt(a) * value - x0[i]) / Math.sqrt(1 - a));
  const angle = (a) => Math.atan2(Math.sqrt(1 - a), Math.sqrt(a));
  const x = [xT], x0 = [];
  for (let i = 0; i + 1 < times.length; i++) {
    const [t, s] = [alphaBar[times[i]], alphaBar[times[i + 1]]];
    x0.push(denoise(x[i], times[i]));
    let earlier = step(x[i], x0[i], s, t, 0, null);
    if (s < 1) {
      const turn = Math.tan((angle(t) - angle(s)) / 2);
      const [here, there] = [velocity(x[i], x0[i], t), velocity(earlier, denoise(earlier, times[i + 1]), s)];
      earlier = x[i].map((value, j) => value - turn * (here[j] + there[j]));
    }
    x.push(earlier);
  }
  return { x, x0 };
}
