// Builds the page into the package: src/impasto/server/site, which the wheel holds and git does not.

import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { gzipSync } from "node:zlib";
import { build, defaultClientConditions, defineConfig, type Plugin } from "vite";

const site = join(import.meta.dirname, "../src/impasto/server/site");
const runtime = join(import.meta.dirname, "node_modules/onnxruntime-web/dist");
const BINARIES = { "plain.wasm.gz": "ort-wasm-simd-threaded.wasm", "webgpu.wasm.gz": "ort-wasm-simd-threaded.jspi.wasm" };
/** Kept by the service worker only where they are used. */
const LATER = /^(ort\/|models\/style\.onnx|sw\.js|.*\.map$)/;

function walk(folder: string): string[] {
  const entries = readdirSync(folder, { withFileTypes: true });
  return entries.flatMap((entry) => (entry.isDirectory() ? walk(join(folder, entry.name)) : [join(folder, entry.name)]));
}

/** ONNX Runtime's files, compressed, and the service worker with the list of all files. */
function finish(): Plugin {
  return {
    name: "finish",
    apply: "build",
    async closeBundle() {
      mkdirSync(join(site, "ort"), { recursive: true });
      for (const [name, from] of Object.entries(BINARIES)) {
        writeFileSync(join(site, "ort", name), gzipSync(readFileSync(join(runtime, from)), { level: 9 }));
        const glue = from.replace(".wasm", ".mjs");
        cpSync(join(runtime, glue), join(site, "ort", glue));
      }
      const files = walk(site).sort();
      const digest = createHash("sha256");
      for (const file of files) digest.update(relative(site, file)).update(readFileSync(file));
      const names = files.map((file) => relative(site, file).replaceAll("\\", "/"));
      const core = ["./", ...names.filter((name) => name !== "index.html" && !LATER.test(name))];
      await build({
        configFile: false,
        logLevel: "warn",
        define: { __FILES__: JSON.stringify(core), __VERSION__: JSON.stringify(digest.digest("hex").slice(0, 16)) },
        build: {
          outDir: site,
          emptyOutDir: false,
          copyPublicDir: false,
          rollupOptions: {
            input: join(import.meta.dirname, "src/sw.ts"),
            output: { entryFileNames: "sw.js", format: "es" },
          },
        },
      });
    },
  };
}

export default defineConfig({
  base: "./",
  worker: { format: "es" },
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  build: { outDir: site, emptyOutDir: true, target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  plugins: [finish()],
});
