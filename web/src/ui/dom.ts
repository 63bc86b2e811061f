// Elements of the page, found and made.

export function find<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

/** Make an element; text is text, never markup. */
export function make<K extends keyof HTMLElementTagNameMap>(
  kind: K,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Call `done` for every file that is chosen by the input. */
export function onFiles(input: HTMLInputElement, done: (files: File[]) => void): void {
  input.addEventListener("change", () => {
    const files = [...(input.files ?? [])];
    input.value = "";
    if (files.length) done(files);
  });
}

export function save(blob: Blob, name: string): void {
  const address = URL.createObjectURL(blob);
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  window.setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Keep a list of elements in step with items: what is there stays, so that focus and pictures stay. */
export function keepList<T extends { id: string }>(list: HTMLElement, items: T[], create: (item: T) => HTMLElement): Map<string, HTMLElement> {
  const before = new Map([...list.children].map((child) => [(child as HTMLElement).dataset.id!, child as HTMLElement]));
  const found = new Map<string, HTMLElement>();
  let place: Element | null = list.firstElementChild;
  for (const item of items) {
    const element = before.get(item.id) ?? create(item);
    element.dataset.id = item.id;
    found.set(item.id, element);
    if (element === place) place = place.nextElementSibling;
    else list.insertBefore(element, place);
  }
  for (const [id, element] of before) if (!found.has(id)) element.remove();
  return found;
}
