// What this browser remembers: choices in local storage, pictures in a database. Both may be missing.

export interface PhotoRecord {
  id: string;
  name: string;
  file: Blob;
  width: number;
  height: number;
  mask?: Blob;
  added: number;
}

export interface PaintingRecord {
  id: string;
  name: string;
  file: Blob;
  added: number;
}

export interface HistoryRecord {
  id: string;
  choice: Choice;
  photoName: string;
  styleName: string;
  thumb: Blob;
  /** The whole picture, if the browser can't paint it again by itself. */
  picture?: Blob;
  /** Whether it was stopped before its end. */
  unfinished?: boolean;
  added: number;
}

export interface Choice {
  photo: string | null;
  style: string;
  second: string | null;
  mixing: boolean;
  mix: number;
  strength: number;
  colours: boolean;
  quality: string;
  longer: number | null;
}

type Table = "photos" | "paintings" | "history";
type Records = { photos: PhotoRecord; paintings: PaintingRecord; history: HistoryRecord };

const NAME = "impasto";
const memory: { [T in Table]: Map<string, Records[T]> } = { photos: new Map(), paintings: new Map(), history: new Map() };
let database: Promise<IDBDatabase | null> | null = null;

function open(): Promise<IDBDatabase | null> {
  database ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => {
        for (const table of Object.keys(memory)) request.result.createObjectStore(table, { keyPath: "id" });
      };
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
      request.onblocked = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return database;
}

async function run<T>(table: Table, mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest<T>): Promise<T | null> {
  const found = await open();
  if (found === null) return null;
  return new Promise((resolve) => {
    try {
      const transaction = found.transaction(table, mode);
      const request = work(transaction.objectStore(table));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => resolve(null); // the disk is full, say: this session goes on
    } catch {
      resolve(null);
    }
  });
}

/** All records, oldest first. */
export async function list<T extends Table>(table: T): Promise<Records[T][]> {
  const found = await run(table, "readonly", (store) => store.getAll() as IDBRequest<Records[T][]>);
  for (const record of found ?? []) (memory[table] as Map<string, Records[T]>).set(record.id, record);
  return ([...memory[table].values()] as Records[T][]).sort((a, b) => a.added - b.added);
}

export async function put<T extends Table>(table: T, record: Records[T]): Promise<void> {
  (memory[table] as Map<string, Records[T]>).set(record.id, record);
  await run(table, "readwrite", (store) => store.put(record));
}

export async function remove(table: Table, id: string): Promise<void> {
  memory[table].delete(id);
  await run(table, "readwrite", (store) => store.delete(id));
}

/** A value in local storage. */
export function recall<T>(name: string): T | null {
  try {
    return JSON.parse(localStorage.getItem(`${NAME}.${name}`) ?? "null");
  } catch {
    return null;
  }
}

export function remember(name: string, value: unknown): void {
  try {
    if (value === null) localStorage.removeItem(`${NAME}.${name}`);
    else localStorage.setItem(`${NAME}.${name}`, JSON.stringify(value));
  } catch {
    // private windows may refuse; then nothing is remembered
  }
}

export function newId(): string {
  return crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`;
}
