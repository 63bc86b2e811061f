// The worker: messages in, pictures out. One thing after the other; what is superseded is never begun.

import { Painter, type ExportOrder, type Order, type Settings, type StylePart } from "./painter";
import type { Pixels } from "./pixels";

export type Request =
  | { kind: "open"; settings: Settings }
  | { kind: "look"; photo: string; file: Blob }
  | { kind: "paint"; order: Order }
  | { kind: "export"; order: ExportOrder }
  | { kind: "frame"; bitmap: ImageBitmap; styles: StylePart[]; memory: number }
  | { kind: "forget" };

export type Reply =
  | { id: number; kind: "done"; value: unknown }
  | { id: number; kind: "failed"; reason: string; detail: string }
  | { id: number; kind: "progress"; share: number };

let painter: Promise<Painter> | null = null;
let queue: Promise<void> = Promise.resolve();

self.onmessage = (event: MessageEvent<{ id: number; request: Request }>) => {
  const { id, request } = event.data;
  queue = queue.then(() => answer(id, request));
};

async function answer(id: number, request: Request): Promise<void> {
  try {
    const [value, moved] = await handle(request, (share) => post({ id, kind: "progress", share }));
    post({ id, kind: "done", value }, moved);
  } catch (error) {
    post({ id, kind: "failed", reason: reasonOf(error, request), detail: String(error) });
  }
}

function post(reply: Reply, moved: Transferable[] = []): void {
  self.postMessage(reply, { transfer: moved });
}

async function handle(request: Request, onProgress: (share: number) => void): Promise<[unknown, Transferable[]]> {
  if (request.kind === "open") {
    painter = Painter.open(request.settings);
    return [(await painter).device, []];
  }
  if (painter === null) throw new Error("the painter is not open");
  const own = await painter;
  switch (request.kind) {
    case "look": {
      const { width, height } = await own.look(request.photo, request.file);
      return [{ width, height }, []];
    }
    case "paint": {
      const { photo, painted } = await own.paint(request.order, onProgress);
      const bitmaps = await Promise.all([show(photo), show(painted)]);
      return [{ photo: bitmaps[0], painted: bitmaps[1] }, bitmaps];
    }
    case "export":
      return [await own.export(request.order, onProgress), []];
    case "frame": {
      const bitmap = await show(await own.paintFrame(request.bitmap, request.styles, request.memory));
      return [bitmap, [bitmap]];
    }
    case "forget":
      own.forget();
      return [null, []];
  }
}

function show(image: Pixels): Promise<ImageBitmap> {
  return createImageBitmap(new ImageData(image.data, image.width, image.height));
}

/** What went wrong, as the page has words for it. */
function reasonOf(error: unknown, request: Request): string {
  const text = String(error).toLowerCase();
  if (error instanceof RangeError || /memory|alloc|out of bounds|too large/.test(text)) return "memory";
  if (request.kind === "open") return "load";
  if (error instanceof DOMException) return "picture";
  if (/fetch|network error|failed to load/.test(text)) return "load";
  return "fault";
}
