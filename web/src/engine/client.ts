// The worker, seen from the page.

import type { Device } from "./models";
import type { ExportOrder, Order, Settings, StylePart } from "./painter";
import type { Reply, Request } from "./worker";

export class PaintError extends Error {
  constructor(
    readonly reason: string,
    detail: string,
  ) {
    super(detail);
  }
}

export interface Shown {
  photo: ImageBitmap;
  painted: ImageBitmap;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  onProgress?: (share: number) => void;
}

export class Engine {
  device: Device | null = null;
  private worker: Worker | null = null;
  private ready: Promise<Device> | null = null;
  private readonly waiting = new Map<number, Waiting>();
  private count = 0;

  constructor(private readonly settings: Settings) {}

  /** Start the worker, and load what it needs. */
  open(): Promise<Device> {
    if (this.ready === null) {
      this.worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
      this.worker.onmessage = (event: MessageEvent<Reply>) => this.receive(event.data);
      this.worker.onerror = () => this.fail(new PaintError("load", "the worker did not start"));
      this.ready = this.send<Device>({ kind: "open", settings: this.settings }).then((device) => (this.device = device));
      this.ready.catch(() => this.stop());
    }
    return this.ready;
  }

  async look(photo: string, file: Blob): Promise<{ width: number; height: number }> {
    await this.open();
    return this.send({ kind: "look", photo, file });
  }

  async paint(order: Order, onProgress?: (share: number) => void): Promise<Shown> {
    await this.open();
    return this.send({ kind: "paint", order }, [], onProgress);
  }

  async export(order: ExportOrder, onProgress?: (share: number) => void): Promise<Blob> {
    await this.open();
    return this.send({ kind: "export", order }, [], onProgress);
  }

  async paintFrame(bitmap: ImageBitmap, styles: StylePart[], memory: number): Promise<ImageBitmap> {
    await this.open();
    return this.send({ kind: "frame", bitmap, styles, memory }, [bitmap]);
  }

  async forget(): Promise<void> {
    await this.open();
    return this.send({ kind: "forget" });
  }

  /** End whatever is done at once; the next call starts anew. */
  stop(): void {
    this.worker?.terminate();
    this.worker = this.ready = null;
    this.fail(new PaintError("stopped", "stopped"));
  }

  private send<T>(request: Request, moved: Transferable[] = [], onProgress?: (share: number) => void): Promise<T> {
    const id = ++this.count;
    return new Promise<T>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (value: unknown) => void, reject, onProgress });
      this.worker!.postMessage({ id, request }, moved);
    });
  }

  private receive(reply: Reply): void {
    const waiting = this.waiting.get(reply.id);
    if (waiting === undefined) return;
    if (reply.kind === "progress") return waiting.onProgress?.(reply.share);
    this.waiting.delete(reply.id);
    if (reply.kind === "done") waiting.resolve(reply.value);
    else waiting.reject(new PaintError(reply.reason, reply.detail));
  }

  private fail(error: PaintError): void {
    const all = [...this.waiting.values()];
    this.waiting.clear();
    for (const one of all) one.reject(error);
  }
}
