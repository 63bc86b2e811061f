// The server beside the page, where `impasto serve` shows it: methods that a browser can't run.

export interface Method {
  name: string;
  summary: string;
  one_pass: boolean;
  /** Whether it paints in the style of any painting. */
  paintings: boolean;
  /** The built-in styles that it knows. */
  styles: string[];
}

export interface Job {
  id: string;
  state: "waiting" | "running" | "done" | "failed" | "cancelled";
  step: number;
  steps: number;
  waiting: number;
  seconds: number | null;
  error: string | null;
  about?: { width?: number; height?: number; notes?: string[] } | null;
}

export interface ServerOrder {
  method: string;
  photo: Blob;
  /** Built-in styles first, then paintings: the order in which the server counts shares. */
  styles: string[];
  paintings: Blob[];
  shares: number[];
  colours: boolean;
  longer: number | null;
}

export class ServerError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** The methods of the server that this page comes from; null if it comes from a plain host. */
export async function findMethods(): Promise<Method[] | null> {
  if (document.documentElement.dataset.server === undefined) return null;
  try {
    const answer = await fetch("v1/methods", { headers: { Accept: "application/json" } });
    if (!answer.ok || !(answer.headers.get("content-type") ?? "").includes("json")) return null;
    const found = await answer.json();
    return Array.isArray(found) ? found : null;
  } catch {
    return null;
  }
}

/** Whether the server has Gradio's page, too. */
export function hasClassicPage(): boolean {
  return document.documentElement.dataset.server === "classic";
}

async function call(path: string, init?: RequestInit): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new ServerError("", 0);
  }
  if (answer.ok) return answer;
  let message = `${answer.status}`;
  try {
    message = (await answer.json()).error ?? message;
  } catch {
    // not from our server; the number has to do
  }
  throw new ServerError(message, answer.status);
}

export async function start(order: ServerOrder): Promise<Job> {
  const form = new FormData();
  form.set("content", order.photo, "photo");
  form.set("method", order.method);
  for (const name of order.styles) form.append("styles", name);
  for (const painting of order.paintings) form.append("paintings", painting, "painting");
  if (order.shares.length > 1) for (const share of order.shares) form.append("style_weights", String(share));
  if (order.colours) form.set("keep_color", "luminance");
  if (order.longer !== null) form.set("size", String(order.longer));
  return (await call("v1/stylize?wait=false", { method: "POST", body: form })).json();
}

/** Follow a job to its end. */
export function follow(id: string, onChange: (job: Job) => void): Promise<Job> {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`v1/jobs/${id}/events`);
    let failures = 0;
    source.addEventListener("progress", (event) => {
      failures = 0;
      onChange(JSON.parse((event as MessageEvent<string>).data));
    });
    source.addEventListener("end", (event) => {
      source.close();
      resolve(JSON.parse((event as MessageEvent<string>).data));
    });
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED && ++failures < 5) return; // it connects again by itself
      source.close();
      call(`v1/jobs/${id}`).then(async (answer) => {
        const job: Job = await answer.json();
        if (job.state === "waiting" || job.state === "running") reject(new ServerError("", 0));
        else resolve(job);
      }, reject);
    };
  });
}

export async function result(id: string): Promise<Blob> {
  return (await call(`v1/jobs/${id}/result`)).blob();
}

/** The picture of a running optimisation; null as long as there is none. */
export async function preview(id: string): Promise<Blob | null> {
  try {
    return await (await call(`v1/jobs/${id}/preview`)).blob();
  } catch {
    return null;
  }
}

export async function cancel(id: string): Promise<void> {
  await call(`v1/jobs/${id}/cancel`, { method: "POST" });
}
