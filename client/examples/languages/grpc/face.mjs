// A photograph -> face.glb and some numbers over gRPC, by Node 18 or newer and the two packages of package.json.
//
//   npm ci && node face.mjs localhost:8001 portrait.jpg face.glb
//
// kserve.proto works the same way in Go, C#, Rust, Swift ...: tensors travel as bytes, little-endian, in the order of the
// lists `inputs` and `outputs`; an element of a BYTES tensor has its length in front, four bytes.
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [server, photo, out] = process.argv.slice(2);
const proto = loadSync(fileURLToPath(new URL("kserve.proto", import.meta.url)), { keepCase: true, longs: Number });
const { GRPCInferenceService } = grpc.loadPackageDefinition(proto).inference;
const client = new GRPCInferenceService(server, grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": 64 << 20, // a 4K texture as PNG is larger than gRPC's 4 MiB
  "grpc.enable_http_proxy": 0, // a proxy of the environment is seldom meant for it
});

/** Ask a model for outputs by name; resolves to a map of Buffers. */
function infer(model, picture, outputs, parameters = {}) {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(picture.length);
  const request = {
    model_name: model,
    parameters,
    inputs: [{ name: "image", datatype: "BYTES", shape: [1, 1] }],
    outputs: outputs.map((name) => ({ name })),
    raw_input_contents: [Buffer.concat([length, picture])],
  };
  return new Promise((resolve, reject) => {
    client.ModelInfer(request, { deadline: Date.now() + 60_000 }, (error, answer) => {
      if (error) reject(new Error(error.details)); // "[NoFace] ...": the name of the error, and a sentence
      else resolve(new Map(answer.outputs.map((output, i) => [output.name, answer.raw_output_contents[i]])));
    });
  });
}

/** The numbers of an FP32 tensor. */
const floats = (bytes) => Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));

try {
  const answer = await infer(
    "face3d", await readFile(photo), ["mesh", "face", "landmarks"], { score_threshold: { double_param: 0.7 } });
  await writeFile(out, answer.get("mesh").subarray(4)); // behind the length of the one element
  const face = floats(answer.get("face"));
  console.log(JSON.stringify({ box: face.slice(0, 4), score: face[4], points: floats(answer.get("landmarks")).length / 2 }));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  client.close();
}
