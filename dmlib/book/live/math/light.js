// An object of the plane, standard normal, and its shadow x: the coordinate along the wall, seen with noise.

// Wall and light as unit vectors, and the posterior: its mean, and along each of the two a mean and a variance.
export function posterior(angle, x, variance) {
  const u = [Math.cos(angle), Math.sin(angle)], wall = [x / (1 + variance), variance / (1 + variance)];
  return { u, h: [-u[1], u[0]], mean: u.map((part) => part * wall[0]), wall, light: [0, 1] };
}
