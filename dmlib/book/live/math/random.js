// Random numbers from a seed, so that a figure is the same twice.

// A source of numbers: uniform() in (0, 1) and normal(). Mulberry32, and the transform of Box and Muller.
export function generator(seed) {
  let state = seed >>> 0, spare = null;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (((z ^ (z >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  const normal = () => {
    if (spare !== null) {
      const kept = spare;
      spare = null;
      return kept;
    }
    const radius = Math.sqrt(-2 * Math.log(uniform())), angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
  return { uniform, normal };
}

// n standard normal numbers.
export function normals(seed, n) {
  const { normal } = generator(seed);
  return Float64Array.from({ length: n }, normal);
}
