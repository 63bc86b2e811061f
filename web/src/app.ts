// What is chosen, what is shown, and how one becomes the other.

import { Engine, PaintError, type Shown } from "./engine/client";
import type { Models } from "./engine/models";
import type { Order, StylePart } from "./engine/painter";
import { builtIn, explain, own, slug, smallPicture, stem, type Style } from "./names";
import { methodOf, othersOf, qualitiesOf, type Wanted } from "./qualities";
import * as server from "./server";
import * as store from "./store";
import { say, sayName } from "./words";

export type { Style };

export interface View extends Shown {
  key: string;
  /** Whether it has the size of the download. */
  full: boolean;
  /** What the server painted. */
  picture: Blob | null;
  /** The photo that it shows. */
  of: string;
  /** Whether it was stopped before its end. */
  unfinished: boolean;
}

/** What a picture was made of. */
type About = Pick<store.HistoryRecord, "choice" | "photoName" | "styleName">;

type Activity = "idle" | "loading" | "painting" | "saving" | "camera";

const PREVIEW_SIDE = 1024;
const PREVIEW_FROM = 1400;
/** From this size on the server paints, if there is one and the browser has no graphics card. */
const SERVER_FROM = 6_000_000;
const HISTORY_DELAY = 1500;
const MOST_HISTORY = 24;

export class App {
  photos: store.PhotoRecord[] = [];
  styles: Style[] = [];
  history: store.HistoryRecord[] = [];
  methods: server.Method[] | null = null;
  choice: store.Choice = {
    photo: null,
    style: "starry-night",
    second: null,
    mixing: false,
    mix: 0.5,
    strength: 1,
    colours: false,
    quality: "quick",
    longer: null,
  };
  view: View | null = null;
  activity: Activity = "idle";
  share: number | null = null;
  message = "";
  error = "";
  job: server.Job | null = null;
  /** What the server said of the picture that is shown. */
  notes: string[] = [];
  /** Done when the area that was brushed last is known. */
  brushed: Promise<void> = Promise.resolve();
  private began = 0;
  /** Whether Stop was clicked since the last job began. */
  private halted = false;
  private wanted = false;
  private busy = false;
  private later = 0;
  private readonly listeners: (() => void)[] = [];

  constructor(readonly engine: Engine) {}

  // --- changes

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  changed(): void {
    for (const listener of this.listeners) listener();
  }

  /** Read what was remembered and what there is; then go on where the last visit ended. */
  async begin(models: Models, methods: server.Method[] | null): Promise<void> {
    this.methods = methods;
    this.styles = models.styles.map(builtIn);
    for (const record of await store.list("paintings")) this.styles.push(own(record));
    this.photos = await store.list("photos");
    this.history = (await store.list("history")).reverse();
    this.choice = { ...this.choice, ...store.recall<store.Choice>("choice") };
    if (!this.findPhoto()) this.choice.photo = this.photos.at(-1)?.id ?? null;
    if (!this.styles.some((style) => style.id === this.choice.style)) this.choice.style = this.styles[0].id;
    if (!this.styles.some((style) => style.id === this.choice.second)) this.choice.second = null;
    this.settleQuality();
    this.changed();
    const job = store.recall<{ id: string; choice: store.Choice }>("job");
    if (job !== null && this.methods !== null && this.photos.some((photo) => photo.id === job.choice.photo)) {
      this.choice = job.choice;
      void this.followJob(job.id);
    } else if (this.findPhoto()) this.request();
  }

  choose(change: Partial<store.Choice>): void {
    this.choice = { ...this.choice, ...change };
    this.settleQuality();
    store.remember("choice", this.choice);
    this.error = "";
    if (this.activity === "idle") this.message = "";
    this.request();
  }

  findPhoto(): store.PhotoRecord | null {
    return this.photos.find((photo) => photo.id === this.choice.photo) ?? null;
  }

  findStyle(id: string | null): Style | null {
    return this.styles.find((style) => style.id === id) ?? null;
  }

  // --- photos and paintings

  async addPhotos(files: Iterable<File | Blob>): Promise<void> {
    const unread: string[] = [];
    for (const file of files) {
      try {
        const id = store.newId();
        this.note("loading");
        const { width, height } = await this.engine.look(id, file);
        const name = file instanceof File ? stem(file.name) : "photo";
        const record = { id, name, file, width, height, added: Date.now() };
        this.photos.push(record);
        await store.put("photos", record);
        this.note("idle");
        this.choose({ photo: id });
      } catch (error) {
        if (error instanceof PaintError && error.reason === "picture" && file instanceof File) unread.push(file.name);
        this.fail(error);
      }
    }
    this.blame(unread);
  }

  /** Name the files that are no pictures, after all of them were tried. */
  private blame(names: string[]): void {
    if (names.length === 0) return;
    this.error = say("errorFiles", names.join(", "));
    this.changed();
  }

  async removePhoto(id: string): Promise<void> {
    this.photos = this.photos.filter((photo) => photo.id !== id);
    await store.remove("photos", id);
    if (this.choice.photo === id) {
      this.view = null;
      this.choose({ photo: this.photos.at(-1)?.id ?? null });
    } else this.changed();
  }

  async addPaintings(files: Iterable<File>): Promise<void> {
    const unread: string[] = [];
    for (const file of files) {
      try {
        (await createImageBitmap(file)).close();
        const record = { id: store.newId(), name: stem(file.name), file, added: Date.now() };
        this.styles.push(own(record));
        await store.put("paintings", record);
        this.pick(record.id);
      } catch {
        unread.push(file.name);
      }
    }
    this.blame(unread);
  }

  async removePainting(id: string): Promise<void> {
    this.styles = this.styles.filter((style) => style.id !== id);
    await store.remove("paintings", id);
    const left = this.choice.style === id ? { style: this.styles[0].id } : {};
    this.choose(this.choice.second === id ? { ...left, second: null } : left);
  }

  /** A click on a style: the style itself, or while mixing the second one. */
  pick(id: string): void {
    if (this.choice.mixing && id !== this.choice.style) this.choose({ second: id });
    else this.choose({ style: id, second: this.choice.second === id ? null : this.choice.second });
  }

  async setMask(mask: Blob | undefined): Promise<void> {
    const photo = this.findPhoto();
    if (photo === null) return;
    photo.mask = mask;
    this.error = "";
    await store.put("photos", photo);
    this.changed();
  }

  // --- what can be chosen

  private wantedStyles(): Wanted[] {
    return this.parts().map((part) => ({ id: part.id, own: part.painting !== undefined }));
  }

  /** The qualities that suit the chosen styles. */
  qualities(): string[] {
    return qualitiesOf(this.methods, this.wantedStyles());
  }

  /** Other methods that suit them. */
  otherMethods(): string[] {
    return othersOf(this.methods, this.wantedStyles());
  }

  private settleQuality(): void {
    if (![...this.qualities(), ...this.otherMethods()].includes(this.choice.quality)) this.choice.quality = "quick";
  }

  /** The styles that are mixed, with their shares. */
  parts(): StylePart[] {
    const { style, second, mixing, mix } = this.choice;
    const chosen = mixing && second !== null ? [[style, 1 - mix] as const, [second, mix] as const] : [[style, 1] as const];
    return chosen.flatMap(([id, share]) => {
      const found = this.findStyle(id);
      return found && share > 0 ? [{ id, share, numbers: found.numbers, painting: found.file }] : [];
    });
  }

  /** The longer side of what is shown: large photos are previewed small. */
  previewSide(): number | null {
    const photo = this.findPhoto();
    if (photo === null || this.choice.longer !== null) return this.choice.longer;
    return Math.max(photo.width, photo.height) > PREVIEW_FROM ? PREVIEW_SIDE : null;
  }

  key(photo = this.choice.photo): string {
    const parts = this.parts().map((part) => `${part.id}:${part.share.toFixed(3)}`);
    return [photo, parts.join("+"), this.choice.colours, this.choice.longer, this.choice.quality].join("/");
  }

  get stale(): boolean {
    return this.view !== null && this.view.key !== this.key();
  }

  /** Whether the photo itself is shown, as nothing was painted of it yet. */
  get bare(): boolean {
    return this.view?.key === `${this.view?.of}/photo`;
  }

  /** Whether the chosen quality needs the server, and a click on Paint. */
  get onServer(): boolean {
    return this.choice.quality !== "quick";
  }

  get working(): boolean {
    return this.activity === "painting" || this.activity === "saving" || this.activity === "loading";
  }

  // --- painting here

  /** Paint what is chosen, soon; what was asked for before and not begun is left out. */
  request(): void {
    window.clearTimeout(this.later);
    this.later = window.setTimeout(() => void this.keep(), HISTORY_DELAY);
    this.changed();
    if (this.activity === "camera" || this.findPhoto() === null) return;
    if (this.onServer) {
      void this.showEarlier();
      return;
    }
    this.wanted = true;
    if (!this.busy) void this.paintAll();
  }

  /** Show what the server painted of this choice before; else the photo. */
  private async showEarlier(): Promise<void> {
    const photo = this.findPhoto();
    const key = this.key();
    if (photo === null || this.view?.key === key) return;
    const record = this.earlier(photo);
    let view: View;
    if (record !== undefined) view = await this.viewOf(photo, record.picture!, key, record.unfinished);
    else if (this.view?.of !== photo.id) view = await this.viewOfPhoto(photo);
    else return;
    if (this.key() !== key || !this.onServer) return;
    this.view = view;
    this.notes = [];
    this.changed();
  }

  /** What the server painted of this photo with what is chosen, if it is kept. */
  private earlier(photo: store.PhotoRecord): store.HistoryRecord | undefined {
    return this.history.find((record) => record.id === this.key(photo.id) && record.picture !== undefined);
  }

  private async paintAll(): Promise<void> {
    this.busy = true;
    while (this.wanted) {
      this.wanted = false;
      try {
        await this.paintOnce();
      } catch (error) {
        this.fail(error);
      }
    }
    this.busy = false;
  }

  private async paintOnce(): Promise<void> {
    const photo = this.findPhoto();
    const key = this.key();
    if (photo === null || this.view?.key === key) return;
    this.note("painting");
    const longer = this.previewSide();
    const found = await this.engine.paint(this.order(photo, longer), (share) => this.progress(share));
    this.view = { ...found, key, full: longer === this.choice.longer, picture: null, of: photo.id, unfinished: false };
    this.notes = [];
    this.note("idle");
    window.clearTimeout(this.later);
    this.later = window.setTimeout(() => void this.keep(), HISTORY_DELAY);
  }

  private order(photo: store.PhotoRecord, longer: number | null): Order {
    return { photo: photo.id, file: photo.file, longer, styles: this.parts(), colours: this.choice.colours };
  }

  /** The file of the chosen picture at full size. */
  async export(photo: store.PhotoRecord, type: string): Promise<Blob> {
    this.note("saving");
    await this.brushed;
    const picture = this.paintedOf(photo);
    if (picture === null && this.onServer) {
      const method = methodOf(this.choice.quality, this.methods, this.wantedStyles())?.name ?? "swift";
      const made = await this.exportByServer(photo, type, method);
      this.note("idle");
      return made;
    }
    const large = this.choice.longer === null && photo.width * photo.height > SERVER_FROM;
    let found: Blob | null = null;
    if (this.methods !== null && picture === null && large && this.engine.device === "wasm") {
      found = await this.exportByServer(photo, type).catch((error) => {
        if (error instanceof PaintError) throw error;
        return null; // too large for it, say: the browser can do it, too
      });
    }
    found ??= await this.exportHere(photo, type, picture);
    this.note("idle");
    return found;
  }

  /** What the server painted of this photo with what is chosen; null if the browser paints it. */
  private paintedOf(photo: store.PhotoRecord): Blob | null {
    if (photo.id === this.choice.photo && !this.stale) return this.view?.picture ?? null;
    const record = this.onServer ? this.earlier(photo) : undefined;
    return record === undefined || record.unfinished ? null : record.picture!;
  }

  private async exportHere(photo: store.PhotoRecord, type: string, picture: Blob | null): Promise<Blob> {
    const order = { ...this.order(photo, this.choice.longer), strength: this.choice.strength, type, picture };
    try {
      return await this.engine.export({ ...order, mask: photo.mask ?? null }, (share) => this.progress(share));
    } catch (error) {
      const short = error instanceof PaintError && error.reason === "memory" && picture === null;
      if (short && this.methods !== null) return this.exportByServer(photo, type);
      throw error;
    }
  }

  /** A picture that the browser can't paint: painted by the server, put together here. */
  private async exportByServer(photo: store.PhotoRecord, type: string, method = "swift"): Promise<Blob> {
    this.halted = false;
    try {
      this.job = await this.startJob({ ...this.serverOrder(photo), method });
      const end = await server.follow(this.job.id, (now) => this.progress(now.steps ? now.step / now.steps : 0));
      if (end.state === "cancelled" || this.halted) throw new PaintError("stopped", "");
      if (end.state === "failed") throw new server.ServerError(end.error ?? "", 422);
      return await this.exportHere(photo, type, await server.result(end.id));
    } finally {
      this.job = null;
    }
  }

  // --- painting by the server

  async paintByServer(): Promise<void> {
    const photo = this.findPhoto();
    if (photo === null) return;
    this.note("painting");
    this.message = say("loading");
    this.halted = false;
    this.changed();
    try {
      const job = await this.startJob(this.serverOrder(photo));
      store.remember("job", { id: job.id, choice: this.choice });
      await this.followJob(job.id);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Start a job; if Stop was clicked meanwhile, it ends at once. */
  private async startJob(order: server.ServerOrder): Promise<server.Job> {
    const job = await server.start(order);
    if (this.halted) await server.cancel(job.id);
    return job;
  }

  private serverOrder(photo: store.PhotoRecord): server.ServerOrder {
    const parts = this.parts();
    const named = parts.filter((part) => !part.painting);
    const painted = parts.filter((part) => part.painting);
    return {
      method: methodOf(this.choice.quality, this.methods, this.wantedStyles())?.name ?? "swift",
      photo: photo.file,
      styles: named.map((part) => part.id),
      paintings: painted.map((part) => part.painting!),
      shares: [...named, ...painted].map((part) => part.share),
      colours: this.choice.colours,
      longer: this.choice.longer,
    };
  }

  private async followJob(id: string): Promise<void> {
    const photo = this.findPhoto();
    if (photo === null) return;
    const key = this.key();
    const about = this.about(photo);
    this.note("painting");
    const previews = window.setInterval(() => void this.showPreview(id, photo, key), 2000);
    try {
      const end = await server.follow(id, (job) => {
        this.job = job;
        this.message = job.waiting > 0 ? say("waiting", job.waiting) : "";
        this.progress(job.steps ? job.step / job.steps : 0);
      });
      window.clearInterval(previews);
      if (end.state === "failed") throw new server.ServerError(end.error ?? "", 422);
      if (end.state === "cancelled") throw new PaintError("stopped", "");
      const view = await this.viewOf(photo, await server.result(id), key, this.halted);
      this.job = null;
      this.note("idle");
      if (this.key() === key) {
        this.view = view;
        this.notes = end.about?.notes ?? [];
        if (view.unfinished) this.message = say("stoppedEarly");
      } else this.message = say("kept");
      await this.remember(view, about);
    } catch (error) {
      this.job = null;
      this.fail(error);
    } finally {
      window.clearInterval(previews);
      store.remember("job", null);
      this.changed();
    }
  }

  private async showPreview(id: string, photo: store.PhotoRecord, key: string): Promise<void> {
    const picture = await server.preview(id);
    if (picture === null) return;
    const view = await this.viewOf(photo, picture, `${key}/preview`);
    if (this.job?.id !== id || this.key() !== key) return; // it has ended, or something else is chosen
    this.view = view;
    this.changed();
  }

  private async viewOf(photo: store.PhotoRecord, picture: Blob, key: string, unfinished = false): Promise<View> {
    const painted = await createImageBitmap(picture);
    const { width, height } = painted;
    const size = { resizeWidth: width, resizeHeight: height, resizeQuality: "high" as const };
    const shown = await createImageBitmap(photo.file, size);
    return { photo: shown, painted, key, full: true, picture, of: photo.id, unfinished };
  }

  /** The photo itself, before the server has painted it. */
  private async viewOfPhoto(photo: store.PhotoRecord): Promise<View> {
    const scale = Math.min(1, PREVIEW_FROM / Math.max(photo.width, photo.height));
    const [resizeWidth, resizeHeight] = [photo.width, photo.height].map((side) => Math.max(1, Math.round(side * scale)));
    const shown = await createImageBitmap(photo.file, { resizeWidth, resizeHeight, resizeQuality: "high" });
    return { photo: shown, painted: shown, key: `${photo.id}/photo`, full: false, picture: null, of: photo.id, unfinished: false };
  }

  /** End what runs; an optimisation on the server keeps its best picture. */
  async stop(): Promise<void> {
    this.wanted = false;
    this.halted = true;
    if (this.job !== null) {
      try {
        await server.cancel(this.job.id);
      } catch (error) {
        this.fail(error);
      }
    } else this.engine.stop();
  }

  // --- history

  private async keep(): Promise<void> {
    const photo = this.findPhoto();
    if (this.view === null || photo === null || this.stale) return;
    await this.remember(this.view, this.about(photo));
  }

  private about(photo: store.PhotoRecord): About {
    return { choice: { ...this.choice }, photoName: photo.name, styleName: this.styleName() };
  }

  private async remember(view: View, about: About): Promise<void> {
    const old = this.history.find((record) => record.id === view.key);
    const thumb = await smallPicture(view.painted);
    const { key: id, unfinished } = view;
    const record: store.HistoryRecord = { ...about, id, thumb, picture: view.picture ?? undefined, unfinished, added: Date.now() };
    this.history = [record, ...this.history.filter((other) => other !== old)];
    await store.put("history", record);
    for (const last of this.history.splice(MOST_HISTORY)) await store.remove("history", last.id);
    this.changed();
  }

  /** Go back to an earlier picture. */
  async goBack(record: store.HistoryRecord): Promise<void> {
    if (!this.photos.some((photo) => photo.id === record.choice.photo)) return;
    this.choice = { ...record.choice };
    store.remember("choice", this.choice);
    const photo = this.findPhoto();
    if (record.picture && photo) this.view = await this.viewOf(photo, record.picture, this.key(), record.unfinished);
    this.request();
  }

  async clearHistory(): Promise<void> {
    for (const record of this.history) await store.remove("history", record.id);
    this.history = [];
    this.changed();
  }

  // --- what is said

  styleName(): string {
    const names = this.parts().map((part) => this.findStyle(part.id)!);
    return names.map((style) => (style.file ? style.title : sayName(style.title))).join(" + ");
  }

  /** photo-starry-night.png */
  fileName(photo: store.PhotoRecord, type: string): string {
    const parts = this.parts().map((part) => {
      const found = this.findStyle(part.id)!;
      return found.file ? slug(found.title) : found.id;
    });
    return `${[slug(photo.name), ...parts].join("-")}.${type === "image/jpeg" ? "jpg" : "png"}`;
  }

  note(activity: Activity): void {
    if (activity === "idle" && this.job !== null) activity = "painting"; // the server still paints
    if (activity !== this.activity) this.began = performance.now();
    this.activity = activity;
    this.share = null;
    this.message = "";
    this.changed();
  }

  progress(share: number): void {
    this.share = share;
    this.changed();
  }

  /** Seconds that are left, once that can be guessed. */
  secondsLeft(): number | null {
    const spent = (performance.now() - this.began) / 1000;
    return this.share && this.share > 0.05 && spent > 1 ? (spent * (1 - this.share)) / this.share : null;
  }

  fail(error: unknown): void {
    this.note("idle");
    if (error instanceof PaintError && error.reason === "stopped") this.message = say("stopped");
    else this.error = explain(error);
    this.changed();
  }
}
