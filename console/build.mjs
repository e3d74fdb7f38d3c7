// Builds the page into a folder, each file in gzip beside nothing else: build.rs of the gateway takes it from there.
// Usage: node build.mjs FOLDER

import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const GZIPPED_BYTES_MAX = 350_000;

const folder = resolve(process.argv[2] ?? "../target/console");
const plain = `${folder}.plain`;

await build({
  configFile: false,
  logLevel: "warn",
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    outDir: plain,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});

function files(of, under = "") {
  return readdirSync(join(of, under)).flatMap((name) => {
    const path = join(under, name);
    return statSync(join(of, path)).isDirectory() ? files(of, path) : [path];
  });
}

rmSync(folder, { recursive: true, force: true });
mkdirSync(join(folder, "assets"), { recursive: true });
let bytes = 0;
for (const path of files(plain)) {
  const packed = gzipSync(readFileSync(join(plain, path)), { level: 9 });
  bytes += packed.length;
  writeFileSync(join(folder, `${path}.gz`), packed);
}
rmSync(plain, { recursive: true, force: true });
console.log(`the console has ${bytes} bytes in gzip (at most ${GZIPPED_BYTES_MAX})`);
if (bytes > GZIPPED_BYTES_MAX) {
  console.error("that is too much");
  process.exit(1);
}
