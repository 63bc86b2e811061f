// The service worker: after the first visit everything works without a connection.

/// <reference lib="webworker" />
const worker = self as unknown as ServiceWorkerGlobalScope;

/** Filled in by the build. */
declare const __FILES__: string[];
declare const __VERSION__: string;

const CACHE = `impasto-${__VERSION__}`;
const SERVER = /\/(v1|gradio|health|ready|metrics|openapi\.json)(\/|$)/;
const PATIENCE = 4000;

worker.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      await cache.addAll(__FILES__.map((file) => new Request(file, { cache: "no-cache" })));
      await worker.skipWaiting();
    })(),
  );
});

worker.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const old = (await caches.keys()).filter((name) => name.startsWith("impasto-") && name !== CACHE);
      await Promise.all(old.map((name) => caches.delete(name)));
      await worker.clients.claim();
    })(),
  );
});

worker.addEventListener("message", (event) => {
  const files: string[] = event.data?.keep ?? [];
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      for (const file of files) if (!(await cache.match(file))) await cache.add(file);
      for (const client of await worker.clients.matchAll({ includeUncontrolled: true })) client.postMessage("kept");
    })(),
  );
});

worker.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const own = url.origin === location.origin && url.href.startsWith(worker.registration.scope);
  if (event.request.method !== "GET" || !own || SERVER.test(url.pathname)) return;
  event.respondWith(event.request.mode === "navigate" ? navigate(event.request) : keepFirst(event.request));
});

/** The newest page if the connection is good, else the one that was kept. */
async function navigate(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = (await cache.match("./")) ?? (await cache.match("index.html"));
  try {
    const wait = kept ? { signal: AbortSignal.timeout(PATIENCE) } : {};
    const answer = await fetch(request, wait);
    return answer.ok && !answer.redirected ? isolate(answer) : answer;
  } catch (error) {
    if (kept) return isolate(kept);
    throw error;
  }
}

async function keepFirst(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept) return isolate(kept);
  return isolate(await fetch(request));
}

/** With these headers the browser lets WebAssembly use several threads, on hosts that can't send them, too. */
function isolate(answer: Response): Response {
  if (answer.status === 0 || answer.type === "opaqueredirect") return answer;
  const headers = new Headers(answer.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}
