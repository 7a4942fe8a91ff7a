// Where the page's data comes from: files under data/, and the service's API where there is one.

import type { Account, Drift, IntentDetail, NewDecision, Overview, Pages, Review, Session } from "./data";

/** Whether the page comes from `clickintent serve`, and not from a folder of files. */
export const isServed = document.querySelector<HTMLMetaElement>('meta[name="clickintent-service"]')?.content === "v1";

/** What went wrong, in words for whoever looks at the page. */
export class LoadError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly field: string | null = null,
  ) {
    super(message);
  }
}

const KEY = "clickintent-key"; // in sessionStorage: forgotten with the tab

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value: string) => sessionStorage.setItem(KEY, value),
};

const TRIES = 4; // of what is refused for now: the answer says when to come back

async function request(path: string, init: RequestInit = {}, tries = TRIES): Promise<Response> {
  const headers = new Headers(init.headers);
  if (isServed && key.get()) headers.set("Authorization", `Bearer ${key.get()}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch {
    throw new LoadError("The server does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  const wait = Number(response.headers.get("Retry-After") ?? Number.NaN);
  if ((response.status === 429 || response.status === 503) && wait <= 10 && tries > 1) {
    await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    return request(path, init, tries - 1);
  }
  const problem: { message?: string; field?: string } = await response.json().catch(() => ({}));
  throw new LoadError(
    problem.message ?? `${path}: ${response.status} ${response.statusText}`,
    response.status,
    problem.field,
  );
}

const kept = new Map<string, Promise<unknown>>();

/** A JSON file, fetched once. */
function json<T>(path: string): Promise<T> {
  let found = kept.get(path) as Promise<T> | undefined;
  if (!found) {
    found = request(path).then((response) => response.json() as Promise<T>);
    found.catch(() => kept.delete(path)); // so that it is tried again
    kept.set(path, found);
  }
  return found;
}

/** A file that need not be there. */
async function maybe<T>(path: string): Promise<T | null> {
  try {
    return await json<T>(path);
  } catch (error) {
    if (error instanceof LoadError && error.status === 404) return null;
    throw error;
  }
}

export const overview = () => json<Overview>("data/overview.json");
export const pages = (about: Overview) => part<Pages>(about, "pages.json");
export const intent = (about: Overview, id: string) => part<IntentDetail>(about, `intents/${id}.json`);
export const drift = (about: Overview) => maybe<Drift>(`data/${about.run}/drift.json`);

/** A file of the run that the overview is of. Once `clickintent explore` ran again it is gone, and nothing is mixed. */
async function part<T>(about: Overview, name: string): Promise<T> {
  try {
    return await json<T>(`data/${about.run}/${name}`);
  } catch (error) {
    throw outdated(error);
  }
}

function outdated(error: unknown): unknown {
  if (!(error instanceof LoadError) || error.status !== 404) return error;
  return new LoadError("These data were made anew, or are not complete. Reload the page.", 404);
}

/** Session `i` of the map. */
export async function session(about: Overview, i: number): Promise<Session> {
  if (!(i >= 0 && i < about.points.n)) throw new LoadError("There is no such session here.", 404);
  const shard = await part<Session[]>(about, `sessions/${Math.floor(i / about.shard)}.json`);
  const found = shard[i % about.shard];
  if (!found) throw new LoadError("There is no such session here.", 404);
  return found;
}

export function review(about: Overview): Promise<Review> {
  return isServed
    ? request("v1/taxonomy/review").then((response) => response.json() as Promise<Review>)
    : part<Review>(about, "review.json");
}

export async function decide(decision: NewDecision): Promise<Review> {
  const init = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(decision) };
  const response = await request("v1/taxonomy/decisions", init, 1); // whoever decides sees what became of it
  return (await response.json()) as Review;
}

/** What is known of an account; only where the page is served. */
export async function account(id: string): Promise<Account> {
  const response = await request(`v1/accounts/${encodeURIComponent(id)}/intent`);
  return (await response.json()) as Account;
}

/** The columns of points.bin, or some of their rows. */
export interface Points {
  n: number;
  session: Uint32Array; // number of each
  x: Float32Array<ArrayBuffer>;
  y: Float32Array<ArrayBuffer>;
  intent: Uint16Array;
  confidence: Uint8Array;
  outcome: Uint8Array;
  linked: Uint8Array;
  start: Uint32Array;
  events: Uint8Array;
  device: Uint8Array;
  source: Uint8Array;
}

let columns: Promise<Points> | null = null;

export function points(about: Overview): Promise<Points> {
  columns ??= bytes(about, "points.bin").then((buffer) => decode(about, buffer));
  columns.catch(() => (columns = null));
  return columns;
}

function decode({ points: { n, columns } }: Overview, buffer: ArrayBuffer): Points {
  const { x, y, intent, confidence, outcome, linked, start, events, device, source } = columns;
  return {
    n,
    session: Uint32Array.from({ length: n }, (_, i) => i),
    x: new Float32Array(buffer, x.offset, n),
    y: new Float32Array(buffer, y.offset, n),
    intent: new Uint16Array(buffer, intent.offset, n),
    confidence: new Uint8Array(buffer, confidence.offset, n),
    outcome: new Uint8Array(buffer, outcome.offset, n),
    linked: new Uint8Array(buffer, linked.offset, n),
    start: new Uint32Array(buffer, start.offset, n),
    events: new Uint8Array(buffer, events.offset, n),
    device: new Uint8Array(buffer, device.offset, n),
    source: new Uint8Array(buffer, source.offset, n),
  };
}

/** Some rows of them. */
export function take(points: Points, rows: number[]): Points {
  return {
    n: rows.length,
    session: Uint32Array.from(rows, (i) => points.session[i]!),
    x: Float32Array.from(rows, (i) => points.x[i]!),
    y: Float32Array.from(rows, (i) => points.y[i]!),
    intent: Uint16Array.from(rows, (i) => points.intent[i]!),
    confidence: Uint8Array.from(rows, (i) => points.confidence[i]!),
    outcome: Uint8Array.from(rows, (i) => points.outcome[i]!),
    linked: Uint8Array.from(rows, (i) => points.linked[i]!),
    start: Uint32Array.from(rows, (i) => points.start[i]!),
    events: Uint8Array.from(rows, (i) => points.events[i]!),
    device: Uint8Array.from(rows, (i) => points.device[i]!),
    source: Uint8Array.from(rows, (i) => points.source[i]!),
  };
}

/** The ids of all sessions, as they end in the tables; "" where the table's id is of another form. */
export async function ids(about: Overview): Promise<string[]> {
  const codes = new BigUint64Array(await bytes(about, "ids.bin"));
  return Array.from(codes, (code) => (code ? code.toString(16).padStart(16, "0") : ""));
}

let rows: Promise<Int8Array> | null = null;

async function bytes(about: Overview, name: string): Promise<ArrayBuffer> {
  try {
    return await (await request(`data/${about.run}/${name}`)).arrayBuffer();
  } catch (error) {
    throw outdated(error);
  }
}

function vectors(about: Overview): Promise<Int8Array> {
  rows ??= bytes(about, "vectors.bin").then((buffer) => new Int8Array(buffer));
  rows.catch(() => (rows = null));
  return rows;
}

/** The sessions most like session `i` (cosine of the embeddings, quantised), with their similarity. */
export async function nearest(about: Overview, i: number, count: number): Promise<[number, number][]> {
  const { n, vectors: stored } = about.points;
  if (!stored) return [];
  const all = await vectors(about);
  const { dim } = stored;
  const mine = all.subarray(i * dim, (i + 1) * dim);
  const best: [number, number][] = [];
  for (let j = 0; j < n; j++) {
    if (j === i) continue;
    let dot = 0;
    for (let d = 0, at = j * dim; d < dim; d++, at++) dot += mine[d]! * all[at]!;
    if (best.length < count || dot > best[count - 1]![1]) {
      best.push([j, dot]);
      best.sort((a, b) => b[1] - a[1]);
      if (best.length > count) best.pop();
    }
  }
  return best.map(([j, dot]) => [j, Math.min(dot / (127 * 127), 1)]);
}
