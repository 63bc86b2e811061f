// The live camera: the latest frame wins, the size governs itself, moments change slowly.

import type { App } from "../app";
import { say } from "../words";
import { find, save } from "./dom";
import type { Viewer } from "./viewer";

const MEMORY = 0.8;
const TARGET = 1000 / 12; // a little more than ten pictures a second
const [LEAST, MOST, FIRST] = [96, 960, 320];

export class Camera {
  private readonly video = find<HTMLVideoElement>("video");
  private stream: MediaStream | null = null;
  private recorder: MediaRecorder | null = null;
  private longer = FIRST;
  private spent = TARGET;

  constructor(
    private readonly app: App,
    private readonly viewer: Viewer,
  ) {
    for (const button of document.querySelectorAll(".open-camera")) button.addEventListener("click", () => void this.open());
    find("stop-camera").addEventListener("click", () => this.close());
    find("snapshot").addEventListener("click", () => void this.snapshot());
    find("record").addEventListener("click", () => this.record());
  }

  private async open(): Promise<void> {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" }, audio: false });
      this.video.srcObject = this.stream;
      await this.video.play();
      this.app.note("camera");
      find("status").textContent = say("liveShort");
      find("result").scrollIntoView({ block: "start" });
      await this.app.engine.forget();
      await this.run();
    } catch {
      this.close();
      this.app.error = say("errorCamera");
      this.app.changed();
    }
  }

  private async run(): Promise<void> {
    let count = 0;
    let since = performance.now();
    while (this.stream?.active) {
      const begin = performance.now();
      const [width, height] = this.size();
      const options = { resizeWidth: width, resizeHeight: height, resizeQuality: "medium" as const };
      const frame = await createImageBitmap(this.video, options);
      const painted = await this.app.engine.paintFrame(frame, this.app.parts(), MEMORY);
      if (!this.stream?.active) return;
      this.viewer.showFrame(this.video, painted);
      painted.close();
      this.govern(performance.now() - begin);
      count++;
      if (performance.now() - since > 2000) {
        find("device").textContent = say("live", width, height, ((1000 * count) / (performance.now() - since)).toFixed(1));
        [count, since] = [0, performance.now()];
      }
      await new Promise(requestAnimationFrame);
    }
  }

  private size(): [number, number] {
    const { videoWidth, videoHeight } = this.video;
    const scale = Math.min(1, this.longer / Math.max(videoWidth, videoHeight));
    return [Math.max(16, Math.round(videoWidth * scale)), Math.max(16, Math.round(videoHeight * scale))];
  }

  /** Time grows with the square of the side; change only if it is clearly wrong, since every change can be seen. */
  private govern(spent: number): void {
    this.spent = 0.7 * this.spent + 0.3 * spent;
    const ratio = Math.sqrt(TARGET / this.spent);
    if (ratio > 0.93 && ratio < 1.2) return; // below, it would be less than ten pictures a second
    const side = Math.floor((this.longer * Math.min(1.4, Math.max(0.6, ratio))) / 32) * 32;
    this.longer = Math.min(MOST, Math.max(LEAST, side));
    this.spent = TARGET;
  }

  private close(): void {
    if (this.recorder?.state === "recording") this.recorder.stop();
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
    this.app.note("idle");
    this.app.request();
  }

  private async snapshot(): Promise<void> {
    const { videoWidth, videoHeight } = this.video;
    const canvas = document.createElement("canvas");
    canvas.width = videoWidth;
    canvas.height = videoHeight;
    canvas.getContext("2d")!.drawImage(this.video, 0, 0);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
    this.close();
    if (blob) await this.app.addPhotos([new File([blob], `${say("camera")}.png`, { type: "image/png" })]);
  }

  /** Record what is shown as a WebM film. */
  private record(): void {
    const button = find("record");
    if (this.recorder?.state === "recording") return this.recorder.stop();
    const parts: Blob[] = [];
    this.recorder = new MediaRecorder(this.viewer.canvas.captureStream(), { mimeType: "video/webm" });
    this.recorder.ondataavailable = (event) => parts.push(event.data);
    this.recorder.onstop = () => {
      button.textContent = say("record");
      button.dataset.word = "record";
      save(new Blob(parts, { type: "video/webm" }), `impasto-${this.app.choice.style}.webm`);
    };
    this.recorder.start(1000);
    button.textContent = say("stopRecording");
    button.dataset.word = "stopRecording";
  }
}
