import { useMemo } from "preact/hooks";
import * as api from "./api";
import { type Cell, download } from "./csv";
import type { Overview } from "./data";
import { Filters, isFiltered, matching, unfiltered } from "./filters";
import { count } from "./format";
import { useLoaded } from "./hooks";
import { Failing, Select, Wait } from "./parts";
import { Strips } from "./session";

const PAGE = 25;

/** The sessions of the map, filtered: the map's content for the keyboard, and for who knows what they look for. */
export function SessionsPage({ about, query }: { about: Overview; query: URLSearchParams }) {
  const points = useLoaded(() => api.points(about), []);
  if (about.points.n === 0) {
    return (
      <section class="card narrow">
        <h1>No single sessions</h1>
        <p>This explorer was made without single sessions.</p>
      </section>
    );
  }
  return (
    <>
      <h1>Sessions</h1>
      <p class="intro">
        {about.shown < about.sessions
          ? `${count(about.shown)} of ${count(about.sessions)} sessions, drawn at random.`
          : `All ${count(about.shown)} sessions.`}{" "}
        <a href={`#/map?${query}`}>On the map</a>
      </p>
      <Wait of={points}>{(found) => <Filtered about={about} points={found} query={query} />}</Wait>
    </>
  );
}

const ORDERS = ["latest first", "earliest first", "surest first", "least sure first", "longest first"] as const;

function Filtered({ about, points, query }: { about: Overview; points: api.Points; query: URLSearchParams }) {
  const order = ORDERS.find((name) => name === query.get("order")) ?? ORDERS[0];
  const rows = useMemo(() => {
    const by: Record<(typeof ORDERS)[number], (i: number) => number> = {
      "latest first": (i) => -points.start[i]!,
      "earliest first": (i) => points.start[i]!,
      "surest first": (i) => -points.confidence[i]!,
      "least sure first": (i) => points.confidence[i]!,
      "longest first": (i) => -points.events[i]!,
    };
    return matching(about, points, query).sort((a, b) => by[order](a) - by[order](b) || a - b);
  }, [about, points, query, order]);
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  const at = Math.min(Math.max(0, Math.floor(Number(query.get("page")) || 0)), pages - 1);
  /** In the address, so that the way back from a session leads here. */
  const change = (changed: URLSearchParams) => location.replace(`#/sessions?${changed}`);
  const set = (name: string, value: string) => {
    const changed = new URLSearchParams(query);
    changed.delete("page");
    changed.set(name, value);
    change(changed);
  };
  const turn = (page: number) => {
    set("page", String(page));
    scrollTo(0, 0);
  };
  return (
    <>
      <div class="filters">
        <Filters about={about} query={query} change={change} />
        <Select
          label="Order"
          value={order}
          change={(value) => set("order", value)}
          options={ORDERS.map((name) => [name, name])}
        />
      </div>
      <div class="head">
        <p class="muted" role="status">
          {count(rows.length)} found
        </p>
        {isFiltered(query) && (
          <button type="button" onClick={() => change(unfiltered(query))}>
            Clear
          </button>
        )}
        <Downloaded about={about} points={points} rows={rows} />
      </div>
      <Strips about={about} sessions={rows.slice(at * PAGE, (at + 1) * PAGE).map((i) => points.session[i]!)} />
      {pages > 1 && (
        <div class="pager">
          <button type="button" disabled={at === 0} onClick={() => turn(at - 1)}>
            Before
          </button>
          <span>
            {count(at + 1)} of {count(pages)}
          </span>
          <button type="button" disabled={at >= pages - 1} onClick={() => turn(at + 1)}>
            Next
          </button>
        </div>
      )}
    </>
  );
}

const HEADER = [
  "session",
  "start",
  "intent_id",
  "intent",
  "confidence",
  "events",
  "outcome",
  "linked",
  "source",
  "device",
];

/** A button that takes sessions along: a row each, with the id by which they are found in the tables. */
export function Downloaded({ about, points, rows }: { about: Overview; points: api.Points; rows: number[] }) {
  const take = async () => {
    const ids = await api.ids(about);
    const { device = [], source = [] } = about.points.names;
    const row = (i: number): Cell[] => {
      const intent = about.intents[points.intent[i]!];
      return [
        ids[points.session[i]!] ?? "",
        new Date(points.start[i]! * 60_000).toISOString().slice(0, 16),
        intent?.id ?? null,
        intent?.name ?? null,
        intent ? Number((points.confidence[i]! / 255).toFixed(3)) : null,
        points.events[i]!,
        ["", "none", "converted"][points.outcome[i]!] ?? "",
        points.linked[i]!,
        source[points.source[i]!] ?? "other",
        device[points.device[i]!] ?? "other",
      ];
    };
    download("sessions", HEADER, rows.map(row));
  };
  return (
    <Failing act={take} disabled={rows.length === 0}>
      Download as CSV
    </Failing>
  );
}
