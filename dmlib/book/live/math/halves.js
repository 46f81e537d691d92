// Weights in half precision, as Python packs them.

// The numbers of a text in base64, as float32.
export function numbers(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)), view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => {
    const bits = view.getUint16(2 * i, true), sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24);
  });
}

// Tensors by name: of {name: shape} and one row of halves.
export function tensors({ shapes, halves }) {
  const all = numbers(halves), found = {};
  let at = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const size = shape.reduce((a, b) => a * b, 1);
    found[name] = all.subarray(at, at + size);
    at += size;
  }
  return found;
}
