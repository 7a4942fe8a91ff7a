// What `clickintent explore` writes under data/, and the page reads. Python's side: clickintent.explorer.
// All but overview.json is in a folder of its run, data/RUN/: files of two runs never mix.

/** A value with its 95 % interval. */
export type Interval = [value: number, low: number, high: number];

/** data/overview.json: everything that the first page needs. Counts are over all sessions that models see. */
export interface Overview {
  format: 1;
  run: string; // the folder under data/ with all other files of this run
  title: string;
  made_at: string; // ISO 8601, UTC
  versions: Record<string, string>; // clickintent, encoder, student, taxonomy
  sessions: number;
  shown: number; // of them on the map; drawn at random where there are more than explore.max_sessions
  visitors: number;
  links: Record<string, number>; // account_link → sessions
  outcome: string | null; // what "converted" means, in words; null where no outcome is configured
  rate: Interval | null; // converted, of the sessions whose outcome is known
  bin: "hour" | "day" | "week";
  bins: number[]; // starts, ms since 1970 UTC
  partial: number[]; // bins that were not seen as a whole: the first, the last
  from: number; // start of the first session and of the last, ms since 1970 UTC
  to: number;
  total: number[]; // sessions by bin
  compared: string | null; // what `change` compares, such as "the last 7 days with the 7 days before"
  unlabelled: number; // sessions without an intent
  sure: { threshold: number; sessions: number } | null; // not below what the student abstains at
  intents: IntentRow[]; // the most frequent first; "index" of an intent is its place here
  points: PointColumns;
  shard: number; // sessions in a file of data/RUN/sessions/
}

export interface IntentRow {
  id: string;
  name: string;
  area: string;
  definition: string;
  is_approved: boolean;
  sessions: number; // of which it is the most confident intent
  visitors: number | null; // that had such a session; null: few
  accounts: number | null; // that such sessions are linked to; null: few, or none is known
  confidence: number | null; // their mean
  rate: Interval | null; // converted
  linked: number | null; // share of them that is linked to an account
  series: number[]; // sessions by bin
  change: { before: number; after: number; low: number; high: number } | null; // share; interval of after − before that holds for all intents together
}

/** data/RUN/points.bin: columns one after the other, little endian; point i is session i. */
export interface PointColumns {
  n: number;
  columns: Record<
    "x" | "y" | "intent" | "confidence" | "outcome" | "linked" | "start" | "events" | "device" | "source",
    { type: "f32" | "u32" | "u16" | "u8"; offset: number } // bytes; a multiple of the type's size
  >;
  // x, y f32 within [-1, 1] · intent u16, 65535 none · confidence u8, 255 = 1 · outcome u8: 0 not known, 1 none,
  // 2 converted · linked u8 · start u32, minutes since 1970 UTC · events u8, 255 = 255 or more · device, source u8:
  // place in names, 255 = other
  names: { device?: string[]; source?: string[] }; // the most frequent ones
  vectors: { dim: number } | null; // data/RUN/vectors.bin: int8 (n, dim), rows scaled to length 127
}

/** data/RUN/ids.bin: u64 by point, little endian: the session's id in 16 hexadecimal digits; 0: none. */

/** data/RUN/pages.json */
export interface Pages {
  pages: { page: string; title: string | null }[]; // one per page and title that occur
  types: string[]; // event types
}

/** data/RUN/sessions/K.json: sessions K·shard … */
export interface Session {
  id: string; // the code of its first event; "" where the table's id is of another form
  start: number; // ms since 1970 UTC
  channel: string;
  link: string;
  device: string | null;
  country: string | null;
  referrer: string | null;
  campaign: string | null;
  outcome: string | null; // "none", or what followed; null: not known
  events: [page: number, type: number, dwell_s: number | null, text: string | null][]; // the first 200; no text of a page itself
  n_events: number;
  labels: Label[]; // the most confident first
}
export interface Label {
  intent: number;
  confidence: number;
  source: string; // student, llm, keywords, human
  events: number[] | null; // places of those that support it; null: nobody said
  evidence: string | null; // in the session's own words
}

/** data/RUN/intents/ID.json */
export interface IntentDetail {
  includes: string[];
  excludes: string[];
  keywords: [keyword: string, weight: number][];
  approved: { by: string; at: string } | null;
  surest: number[]; // sessions (points) with it, the most confident first
  some: number[]; // others, drawn at random
  pages: Visited[]; // seen in its sessions more often than elsewhere, by lift
  entries: Visited[]; // first pages, the most frequent first
  exits: Visited[]; // last pages
  sources: { name: string; share: number; overall: number }[]; // referrer or campaign; "direct"
  paths: { pages: number[]; sessions: number }[]; // most frequent runs of three pages
  before: Neighbour[]; // intent of the visitor's session before, and after; -1: no session
  after: Neighbour[];
  outcomes: { outcome: string; sessions: number }[];
  lift: Interval | null; // its rate over that of all sessions
  confusions: Confusion[]; // the most similar first
  hours: number[]; // sessions by hour of the day, UTC
  weekdays: number[]; // Monday first
  devices: { name: string; share: number; overall: number }[];
}
export interface Visited {
  page: number;
  share: number; // of its sessions
  overall: number; // of all sessions
}
export interface Neighbour {
  intent: number;
  sessions: number;
  share: number;
  overall: number; // share of all sessions whose session before (after) has that intent
}
export interface Confusion {
  intent: number;
  similarity: number; // cosine of the mean embeddings
  both: number; // sessions with both labels
  teacher: number; // sessions that the teacher gave this and the student the other as the most confident
}

/** data/RUN/review.json, and GET v1/taxonomy/review: the contract as people decide on it. */
export interface Review {
  version: number;
  digest: string;
  approved_by: string | null;
  approved_at: string | null;
  intents: ReviewIntent[];
  proposals: Proposal[];
  retired: { id: string; name: string; into: string[] }[];
  history: Decision[]; // the latest first
}
export interface ReviewIntent {
  id: string;
  name: string;
  definition: string;
  area: string | null;
  includes: string[];
  excludes: string[];
  examples: string[]; // redacted narratives
  sessions: number | null; // labelled with it by the teacher
  is_approved: boolean;
  approved_by: string | null;
}
export interface Proposal {
  id: string;
  name: string;
  definition: string;
  sessions: number;
  examples: string[];
}
export interface Decision {
  at: string;
  by: string;
  action: string;
  version: number;
  intent: string | null;
  what: string | null;
  why: string | null;
}
/** POST v1/taxonomy/decisions */
export interface NewDecision {
  digest: string; // of the taxonomy that was looked at
  by: string;
  action:
    | "approve"
    | "rename"
    | "redefine"
    | "move"
    | "merge"
    | "split"
    | "reject"
    | "accept"
    | "dismiss"
    | "approve_all";
  intent?: string; // id of the intent or proposal; none for approve_all
  value?: string; // name, definition, area, id to merge into, name to accept under
  parts?: { name: string; definition: string }[]; // split
  why?: string;
}

/** GET v1/accounts/ID/intent: what an account's visitors wanted lately. */
export interface Account {
  as_of: number; // µs since 1970 UTC
  sessions: number; // that are still kept
  last: number | null; // end of the latest, µs
  intents: AccountIntent[]; // the likeliest first
}
export interface AccountIntent {
  id: string;
  name: string;
  area: string | null;
  confidence: number;
  sure: boolean;
  evidence: {
    session_id: string;
    end: number; // µs
    confidence: number;
    link: string;
    events: { position: number; page: string; title: string | null; share: number }[];
  }[];
}

/** data/RUN/drift.json: absent until `clickintent drift` ran. */
export interface Drift {
  made_at: string;
  reference: Window;
  current: Window;
  verdict: "drift" | "none" | "too_few";
  measures: DriftMeasure[];
  weeks: { from: string; to: string; sessions: number; values: Record<string, number> }[]; // by measure name
  new_pages: { page: string; title: string | null; sessions: number; share: number; first_seen: string }[];
  new_page_share: number; // of the current events
}
export interface Window {
  from: string;
  to: string;
  sessions: number;
}
export interface DriftMeasure {
  group: "input" | "embedding" | "label";
  name: string; // unique: page, event_type, channel, hour, events, embedding, intent, …
  measure: "psi" | "js" | "mmd";
  value: number;
  alarm: number; // the level above which it is an alarm
  is_alarm: boolean;
  detail: { value: string; before: number; now: number }[]; // what contributes most, shares
}
