// dmlib.networks.UNet for one square image of one channel, with patches of one pixel. Arrays are flat, channels first;
// `w` holds the weights by torch's names.

const FEATURES = 64, GROUPS = 8, HEADS = 4, TINY = 1e-5;

export function silu(x) {
  return x.map((value) => value / (1 + Math.exp(-value)));
}

// bias + weight [outputs, inputs] times rows [inputs, n], n numbers a row; by fours, as that is twice as fast.
export function linear(weight, bias, rows, n) {
  const out = new Float64Array(bias.length * n), inputs = rows.length / n, fours = inputs - (inputs % 4);
  bias.forEach((value, o) => {
    const row = out.subarray(o * n).fill(value), from = o * inputs;
    for (let k = 0; k < fours; k += 4) {
      const a = weight[from + k], b = weight[from + k + 1], c = weight[from + k + 2], d = weight[from + k + 3];
      const r = k * n, s = r + n, t = s + n, u = t + n;
      for (let i = 0; i < n; i++)
        row[i] += a * rows[r + i] + b * rows[s + i] + c * rows[t + i] + d * rows[u + i];
    }
    for (let k = fours; k < inputs; k++)
      for (let i = 0; i < n; i++)
        row[i] += weight[from + k] * rows[k * n + i];
  });
  return out;
}

// What a kernel sees at each place, as rows [channels * kernel * kernel, places]; zeros surround the image.
function unfold(x, side, kernel, stride) {
  const pad = (kernel - 1) / 2, inputs = (x.length / side ** 2) * kernel ** 2;
  const rows = new Float64Array(inputs * Math.ceil(side / stride) ** 2);
  let at = 0;
  for (let first = 0; first < x.length; first += side ** 2)
    for (let dy = -pad; dy <= pad; dy++)
      for (let dx = -pad; dx <= pad; dx++)
        for (let y = dy; y < side + dy; y += stride)
          for (let column = dx; column < side + dx; column += stride, at++)
            if (y >= 0 && y < side && column >= 0 && column < side) rows[at] = x[first + y * side + column];
  return rows;
}

// A convolution with an odd kernel, padded such that at stride 1 it keeps the size.
export function conv(weight, bias, x, side, stride = 1) {
  const kernel = Math.sqrt((weight.length * side ** 2) / (bias.length * x.length));
  return linear(weight, bias, unfold(x, side, kernel, stride), Math.ceil(side / stride) ** 2);
}

// Each of the groups of channels with mean 0 and variance 1, then scaled and shifted by channel.
export function groupNorm(weight, bias, x) {
  const size = x.length / GROUPS, places = x.length / weight.length, average = (part) => part.reduce((a, b) => a + b) / size;
  const moments = Array.from({ length: GROUPS }, (_, group) => {
    const part = x.subarray(group * size, (group + 1) * size), mean = average(part);
    return [mean, Math.sqrt(average(part.map((v) => (v - mean) ** 2)) + TINY)];
  });
  return x.map((value, i) => {
    const [mean, std] = moments[Math.floor(i / size)], channel = Math.floor(i / places);
    return ((value - mean) / std) * weight[channel] + bias[channel];
  });
}

// Each pixel four times.
export function upsample(x, side) {
  const from = (_, at) => x[(Math.floor(at / side) >> 2) * side + ((at % (2 * side)) >> 1)];
  return new Float64Array(4 * x.length).map(from);
}

// Sines and cosines of t at frequencies from 1 down to 1/1000.
export function timeFeatures(t) {
  const half = FEATURES / 2;
  return new Float64Array(FEATURES).map((_, i) => {
    const angle = t * 1000 ** (-(i % half) / (half - 1));
    return i < half ? Math.sin(angle) : Math.cos(angle);
  });
}

const added = (x, y) => x.map((value, i) => value + y[i]);
// A layer of this name, as a function of the rest.
const layer = (apply, w, name, ...rest) => apply(w[name + ".weight"], w[name + ".bias"], ...rest);

// x plus two convolutions of it, between which the time scales and shifts each channel.
export function residual(w, name, x, time, side) {
  const inner = layer(conv, w, name + ".conv_in", silu(layer(groupNorm, w, name + ".norm_in", x)), side);
  const turn = layer(linear, w, name + ".scale_shift", time, 1), channels = turn.length / 2;
  const turned = layer(groupNorm, w, name + ".norm_out", inner).map((value, i) => {
    const channel = Math.floor(i / side ** 2);
    return value * (1 + turn[channel]) + turn[channels + channel];
  });
  const kept = name + ".skip.bias" in w ? layer(conv, w, name + ".skip", x, side) : x;
  return added(kept, layer(conv, w, name + ".conv_out", silu(turned), side));
}

// x plus what each place reads from all places, by heads of some channels each.
export function attention(w, name, x, side) {
  const places = side ** 2, size = x.length / HEADS;
  const all = layer(conv, w, name + ".query_key_value", layer(groupNorm, w, name + ".norm", x), side);
  // Of each head and place, the shares of the places that it reads from.
  const shares = Array.from({ length: HEADS * places }, (_, row) => {
    const head = Math.floor(row / places) * size, query = head + (row % places), key = x.length + head;
    const scores = new Float64Array(places);
    for (let d = 0; d < size; d += places)
      scores.forEach((_, k) => { scores[k] += all[query + d] * all[key + k + d]; });
    const parts = scores.map((score) => Math.exp(score / Math.sqrt(size / places)));
    const total = parts.reduce((a, b) => a + b);
    return parts.map((part) => part / total);
  });
  const read = x.map((_, at) => {
    const place = at % places, values = 2 * x.length + at - place;
    return shares[Math.floor(at / size) * places + place].reduce((sum, share, k) => sum + share * all[values + k], 0);
  });
  return added(x, layer(conv, w, name + ".out", read, side));
}

// The network's prediction at x and time t.
export function predict(w, x, t) {
  let side = Math.sqrt(x.length), h = layer(conv, w, "stem", x, side), time = timeFeatures(t);
  const skips = [];
  for (const name of ["time.0", "time.2"]) time = silu(layer(linear, w, name, time, 1));
  const blocks = (name, first = 0) => {
    for (let i = first; `${name}.${i}.conv_in.bias` in w; i++) h = residual(w, `${name}.${i}`, h, time, side);
  };
  blocks("down.0");
  for (let level = 0; `shrink.${level}.bias` in w; level++) {
    skips.push(h);
    h = layer(conv, w, `shrink.${level}`, h, side, 2);
    side /= 2;
    blocks(`down.${level + 1}`);
  }
  skips.push(h);
  blocks("middle");
  h = attention(w, "middle.1", h, side);
  blocks("middle", 2);
  while (skips.length > 0) {
    h = Float64Array.of(...h, ...skips.pop());
    blocks(`up.${skips.length}`);
    if (skips.length > 0) {
      h = layer(conv, w, `grow.${skips.length - 1}`, upsample(h, side), 2 * side);
      side *= 2;
    }
  }
  // The head is a transposed convolution; of one channel, with patches of one pixel, that is a convolution of 1 x 1.
  return layer(conv, w, "head.2", silu(layer(groupNorm, w, "head.0", h)), side);
}
