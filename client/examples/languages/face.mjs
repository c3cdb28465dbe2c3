// A photograph -> face.glb and some numbers, by Node 18 or newer, which needs no package for it.
//
//   node face.mjs http://localhost:8000 portrait.jpg face.glb
//
// HTTP with binary tensors (KServe v2): a JSON head, then the tensors' bytes; the header Inference-Header-Content-Length
// says how long the head is. An element of a BYTES tensor has its length in front, four bytes, little-endian.
import { readFile, writeFile } from "node:fs/promises";

const [server, photo, out] = process.argv.slice(2);

/** Ask a model. `outputs` maps names to true (bytes behind the head) or false (numbers or texts in the head). */
async function infer(model, picture, outputs, parameters = {}) {
  const head = Buffer.from(JSON.stringify({
    inputs: [{ name: "image", datatype: "BYTES", shape: [1, 1], parameters: { binary_data_size: picture.length + 4 } }],
    outputs: Object.entries(outputs).map(([name, binary]) => ({ name, parameters: { binary_data: binary } })),
    parameters,
  }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(picture.length);
  const response = await fetch(`${server}/v2/models/${model}/infer`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream", "Inference-Header-Content-Length": String(head.length) },
    body: Buffer.concat([head, length, picture]),
  });
  const body = Buffer.from(await response.arrayBuffer());
  if (!response.ok) throw new Error(JSON.parse(body).error); // "[NoFace] ...": the name of the error, and a sentence
  const headLength = Number(response.headers.get("inference-header-content-length") ?? body.length);
  const answer = {};
  let place = headLength;
  for (const output of JSON.parse(body.subarray(0, headLength)).outputs) {
    const size = output.parameters?.binary_data_size;
    answer[output.name] = size === undefined ? output.data : body.subarray(place, place + size);
    place += size ?? 0;
  }
  return answer;
}

try {
  const picture = await readFile(photo);
  const { mesh, face, landmarks, warnings } = await infer(
    "face3d", picture, { mesh: true, face: false, landmarks: false, warnings: false }, { score_threshold: 0.7 });
  await writeFile(out, mesh.subarray(4)); // behind the length of the one element
  console.log(JSON.stringify({ box: face.slice(0, 4), score: face[4], points: landmarks.length / 2, warnings }));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
