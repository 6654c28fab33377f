// Asking the server: JSON in and out, arrays of numbers, and streams of events. Nothing else on the page speaks to it.

const BASE = new URL("api/", document.baseURI);

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, BASE), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the server does not answer: is `unnoise studio` still running?", 0);
  }
  if (!answer.ok) throw new Refused(await reason(answer), answer.status);
  return answer;
}

async function reason(answer) {
  try {
    const told = await answer.json();
    return told.error?.message ?? told.detail ?? `the server answered ${answer.status}`;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

const asJson = (value) => ({ headers: { "content-type": "application/json" }, body: JSON.stringify(value) });

export const get = async (path, options) => (await ask(path, options)).json();
export const post = async (path, value, options) => (await ask(path, { method: "POST", ...asJson(value), ...options })).json();
export const send = async (path, body, headers = {}) => (await ask(path, { method: "PUT", body, headers })).json();
export const remove = async (path) => (await ask(path, { method: "DELETE" })).json();
export const address = (path) => new URL(path, BASE).href;

// The numbers of an array as the server sends them: {shape, type, data}, data in base64.
export function numbers(array) {
  const text = atob(array.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  const values = array.type === "uint8" ? bytes : new Float32Array(bytes.buffer);
  return { shape: array.shape, values };
}

// Events of a stream, each as what its data says, until it ends.
export async function* events(path, options) {
  const answer = await ask(path, options);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield JSON.parse(lines.map((line) => line.slice(5).trimStart()).join("\n"));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// The arrays of a safetensors file by name: {shape, values}.
const KINDS = { F32: Float32Array, I32: Int32Array, U8: Uint8Array, F64: Float64Array };

export async function tensors(path, options) {
  const buffer = await (await ask(path, options)).arrayBuffer();
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const found = {};
  delete head.__metadata__;
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(head)) {
    found[name] = { shape, values: new KINDS[dtype](buffer.slice(8 + length + begin, 8 + length + end)) };
  }
  return found;
}
