// Makes a component of a decoder in JavaScript:
//
//     node build.mjs src/decoder.js flat.wasm
//
// The engine goes in whole (StarlingMonkey, 12 MB), without what a decoder may not have: clocks,
// randomness, files and network are left out, so the component imports tidegate:ingest alone.

import { readFile, rename, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { componentize } from "@bytecodealliance/componentize-js";

const WIT = fileURLToPath(new URL("../../../wit/tidegate-ingest-0.1.0", import.meta.url));

const [source, output, name] = process.argv.slice(2);
if (output === undefined) {
  console.error("usage: node build.mjs SOURCE.js OUTPUT.wasm [NAME@VERSION]");
  process.exit(2);
}

const { component, imports } = await componentize({
  sourcePath: source,
  witPath: WIT,
  worldName: "decoder",
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
const foreign = imports.filter(([from]) => !from.startsWith("tidegate:ingest/"));
if (foreign.length > 0) {
  console.error(`the component imports ${foreign.map((names) => names.join("#")).join(", ")}, which Tidegate does not offer`);
  process.exit(1);
}

// Whole or not there: what watches the folder never sees half of it.
await writeFile(`${output}.new`, [component, section("tidegate:guest", name ?? (await ownName()))]);
await rename(`${output}.new`, output);

// `name@version` of the package, for the gateway to show.
async function ownName() {
  const { name, version } = JSON.parse(await readFile(new URL("package.json", import.meta.url), "utf8"));
  return `${name}@${version}`;
}

// A custom section; all lengths here are below 128, which one byte of LEB128 holds.
function section(title, text) {
  const body = Buffer.concat([Buffer.from([title.length]), Buffer.from(title), Buffer.from(text)]);
  if (body.length > 127) throw new Error(`${text} is too long a name`);
  return Buffer.concat([Buffer.from([0, body.length]), body]);
}
