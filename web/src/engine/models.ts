// What `impasto export --browser` writes, and ONNX Runtime to run it.

import type * as Ort from "onnxruntime-web";

export interface LayerForm {
  weight: string;
  bias?: string;
  scale?: string;
  shift?: string;
  gain?: string;
  kernel: number;
  inputs: number;
  outputs: number;
  stride: number;
  up: boolean;
  relu: boolean;
  opens: boolean;
  closes: boolean;
  shortcut: number;
}

export interface BuiltInStyle {
  name: string;
  title?: string;
  artist?: string;
  year?: string;
  numbers: number[];
  picture: string;
}

export interface Models {
  version: string;
  network: { method: string; output: "sigmoid" | "linear"; numbers: number; normed: number; layers: LayerForm[] };
  styles: BuiltInStyle[];
}

/** All weights of the network of one style, by name. */
export type Kernels = Record<string, Ort.Tensor>;

export type Device = "webgpu" | "wasm";
export type GraphName = "style" | "kernels" | "network" | "convolve1" | "convolve2";

const RUNTIMES = {
  webgpu: { binary: "ort/webgpu.wasm.gz", glue: "ort/ort-wasm-simd-threaded.jspi.mjs" },
  wasm: { binary: "ort/plain.wasm.gz", glue: "ort/ort-wasm-simd-threaded.mjs" },
};

/** The files that a device needs besides the models. */
export function runtimeFiles(device: Device): string[] {
  return Object.values(RUNTIMES[device]);
}

export class Runtime {
  private constructor(
    readonly ort: typeof Ort,
    readonly device: Device,
    readonly models: Models,
    private readonly base: string,
    private readonly sessions = new Map<GraphName, Promise<Ort.InferenceSession>>(),
  ) {}

  /** Load ONNX Runtime; on a graphics card if there is one, unless `wish` says otherwise. */
  static async open(base: string, wish: Device | "auto"): Promise<Runtime> {
    const device = wish === "auto" ? await findDevice() : wish;
    const binary = fetchFile(base + RUNTIMES[device].binary).then(unpack);
    const models = fetchFile(`${base}models/models.json`).then((data) => JSON.parse(new TextDecoder().decode(data)));
    const ort = await (device === "webgpu" ? import("onnxruntime-web/jspi") : import("onnxruntime-web/wasm"));
    ort.env.wasm.wasmPaths = { mjs: new URL(RUNTIMES[device].glue, base).href };
    ort.env.wasm.wasmBinary = await binary;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
    ort.env.logLevel = "error";
    return new Runtime(ort, device, await models, base);
  }

  /** A graph ready to run. */
  session(name: GraphName): Promise<Ort.InferenceSession> {
    let found = this.sessions.get(name);
    if (found === undefined) {
      const providers = name === "kernels" || this.device === "wasm" ? ["wasm"] : ["webgpu", "wasm"];
      found = fetchFile(`${this.base}models/${name}.onnx`).then((data) =>
        this.ort.InferenceSession.create(data, { executionProviders: providers, logSeverityLevel: 3 }),
      );
      found.catch(() => this.sessions.delete(name));
      this.sessions.set(name, found);
    }
    return found;
  }

  tensor(data: Float32Array, dims: readonly number[]): Ort.Tensor {
    return new this.ort.Tensor("float32", data, dims);
  }
}

/** The graphics card, if it is a real one and WebAssembly can wait for it. */
async function findDevice(): Promise<Device> {
  if (!("Suspending" in WebAssembly)) return "wasm";
  const gpu = (navigator as unknown as { gpu?: { requestAdapter(): Promise<{ isFallbackAdapter?: boolean; info?: { isFallbackAdapter?: boolean } } | null> } }).gpu;
  try {
    const adapter = await gpu?.requestAdapter();
    return adapter && !adapter.isFallbackAdapter && !adapter.info?.isFallbackAdapter ? "webgpu" : "wasm";
  } catch {
    return "wasm";
  }
}

async function fetchFile(url: string): Promise<ArrayBuffer> {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return answer.arrayBuffer();
}

/** Unpack gzip, unless the server or the browser has done so already. */
async function unpack(data: ArrayBuffer): Promise<ArrayBuffer> {
  const head = new Uint8Array(data, 0, 2);
  if (head[0] !== 0x1f || head[1] !== 0x8b) return data;
  return new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
