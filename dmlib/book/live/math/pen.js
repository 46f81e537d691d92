// A pen on images.

// A square image after a pen went straight from a to b, in units of pixels; an eraser takes ink away.
export function stroke(image, [ax, ay], [bx, by], top, erase) {
  const side = Math.sqrt(image.length), [dx, dy] = [bx - ax, by - ay], squared = dx ** 2 + dy ** 2;
  return image.map((level, i) => {
    const x = (i % side) + 0.5 - ax, y = Math.floor(i / side) + 0.5 - ay;
    const share = Math.min(1, Math.max(0, (x * dx + y * dy) / Math.max(squared, Number.MIN_VALUE)));
    const ink = Math.round(top * Math.min(1, Math.max(0, 1.2 - Math.hypot(x - share * dx, y - share * dy))));
    return erase ? Math.min(level, top - ink) : Math.max(level, ink);
  });
}
