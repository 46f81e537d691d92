// Runs in a worker: builds the files of live/math as they come and returns the first case that fails, or null.
const flat = (value) => {
  if (typeof value === "number" || typeof value === "boolean") return [Number(value)];
  if (value === null || value === undefined) return [NaN];
  return (ArrayBuffer.isView(value) ? [...value] : Object.values(value)).flatMap(flat);
};

const compare = (found, { expected, atol }) => {
  if (found.length !== expected.length) return `${found.length} numbers, not ${expected.length}`;
  for (let i = 0; i < found.length; i++) {
    const off = Math.abs(found[i] - expected[i]);
    if (!(off <= atol * Math.max(1, Math.abs(expected[i])))) return `[${i}] is ${found[i]}, not ${expected[i]}`;
  }
  return null;
};

onmessage = ({ data: { source, names, cases } }) => {
  let lib;
  try {
    lib = new Function(`"use strict"; ${source}\nreturn { ${names.join(", ")} };`)();
  } catch (error) {
    return postMessage(`does not load: ${error}`);
  }
  for (const one of cases) {
    const given = { ...lib, ...structuredClone(one.values) };
    let fault;
    try {
      fault = compare(flat(new Function(...Object.keys(given), `"use strict"; return ${one.call};`)(...Object.values(given))), one);
    } catch (error) {
      fault = String(error);
    }
    if (fault) return postMessage(`${one.call}: ${fault}`);
  }
  postMessage(null);
};
