// Bundles viewer.js and three.js into one file: node build.mjs [OUT] (default: dist/viewer.html).
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2] ?? path.join(here, "dist", "viewer.html"));

const bundle = await build({
  entryPoints: [path.join(here, "viewer.js")],
  bundle: true,
  minify: true,
  write: false,
  format: "iife",
  target: "es2022",
  legalComments: "none", // the whole licence is put in front instead
});
// Inside a script element only this sequence would end it.
const script = bundle.outputFiles[0].text.replaceAll("</script", "<\\/script");
const licence = await readFile(path.join(here, "node_modules", "three", "LICENSE"), "utf8");
const page = await readFile(path.join(here, "viewer.html"), "utf8");
const whole = page
  .replace("<!--LICENCE-->", () => `<!--\nThis file contains three.js:\n\n${licence.trim()}\n-->`)
  .replace("<!--SCRIPT-->", () => `<script>${script}</script>`);

await mkdir(path.dirname(out), { recursive: true });
await writeFile(`${out}.part`, whole);
await rename(`${out}.part`, out); // whole or not at all
console.log(`${path.relative(process.cwd(), out)}  ${(whole.length / 1024).toFixed(0)} KiB`);
