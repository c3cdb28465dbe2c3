// The Khronos validator on GLB files: node validate.mjs FILE... prints its reports as JSON, one a line.
import { readFile } from "node:fs/promises";
import validator from "gltf-validator";

let bad = 0;
for (const file of process.argv.slice(2)) {
  const report = await validator.validateBytes(new Uint8Array(await readFile(file)), { uri: file, maxIssues: 100 });
  bad += report.issues.numErrors + report.issues.numWarnings;
  console.log(JSON.stringify({ file, ...report.issues }));
}
process.exitCode = bad ? 1 : 0;
