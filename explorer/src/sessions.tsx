import { useMemo } from "preact/hooks";
import * as api from "./api";
import type { Overview } from "./data";
import { count } from "./format";
import { useLoaded } from "./hooks";
import { Wait } from "./parts";
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
          : `All ${count(about.shown)} sessions.`}
      </p>
      <Wait of={points}>{(found) => <Filtered about={about} points={found} query={query} />}</Wait>
    </>
  );
}

const ORDERS = ["latest first", "surest first", "least sure first", "longest first"] as const;

function Filtered({ about, points, query }: { about: Overview; points: api.Points; query: URLSearchParams }) {
  const [intent, outcome, linked] = [query.get("intent") ?? "", query.get("outcome") ?? "", query.get("linked") ?? ""];
  const order = ORDERS.find((name) => name === query.get("order")) ?? ORDERS[0];
  const rows = useMemo(() => {
    const wanted =
      intent === "" ? null : intent === "none" ? 65535 : about.intents.findIndex((row) => row.id === intent);
    const found: number[] = [];
    for (let i = 0; i < points.n; i++) {
      if (wanted !== null && points.intent[i] !== wanted) continue;
      if (outcome !== "" && points.outcome[i] !== Number(outcome)) continue;
      if (linked !== "" && points.linked[i] !== Number(linked)) continue;
      found.push(i);
    }
    const by: Record<(typeof ORDERS)[number], (i: number) => number> = {
      "latest first": (i) => -points.start[i]!,
      "surest first": (i) => -points.confidence[i]!,
      "least sure first": (i) => points.confidence[i]!,
      "longest first": (i) => -points.events[i]!,
    };
    return found.sort((a, b) => by[order](a) - by[order](b) || a - b);
  }, [about, points, intent, outcome, linked, order]);
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  const at = Math.min(Math.max(0, Math.floor(Number(query.get("page")) || 0)), pages - 1);
  /** In the address, so that the way back from a session leads here. */
  const set = (name: string) => (value: string) => {
    const changed = new URLSearchParams(query);
    changed.delete("page");
    if (value) changed.set(name, value);
    else changed.delete(name);
    location.replace(`#/sessions?${changed}`);
  };
  return (
    <>
      <div class="filters">
        <Select
          label="Intent"
          value={intent}
          change={set("intent")}
          options={[
            ["", "any"],
            ["none", "no intent"],
            ...about.intents.map((row): [string, string] => [row.id, row.name]),
          ]}
        />
        {about.rate && (
          <Select
            label="Converted"
            value={outcome}
            change={set("outcome")}
            options={[
              ["", "any"],
              ["2", "yes"],
              ["1", "no"],
              ["0", "not known"],
            ]}
          />
        )}
        <Select
          label="Linked to an account"
          value={linked}
          change={set("linked")}
          options={[
            ["", "any"],
            ["1", "yes"],
            ["0", "no"],
          ]}
        />
        <Select label="Order" value={order} change={set("order")} options={ORDERS.map((name) => [name, name])} />
      </div>
      <p class="muted" role="status">
        {count(rows.length)} found
      </p>
      <Strips about={about} sessions={rows.slice(at * PAGE, (at + 1) * PAGE)} />
      {pages > 1 && (
        <div class="pager">
          <button type="button" disabled={at === 0} onClick={() => set("page")(String(at - 1))}>
            Before
          </button>
          <span>
            {count(at + 1)} of {count(pages)}
          </span>
          <button type="button" disabled={at >= pages - 1} onClick={() => set("page")(String(at + 1))}>
            Next
          </button>
        </div>
      )}
    </>
  );
}

export function Select({
  label,
  value,
  change,
  options,
}: {
  label: string;
  value: string;
  change: (value: string) => void;
  options: [value: string, label: string][];
}) {
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => change(event.currentTarget.value)}>
        {options.map(([id, name]) => (
          <option key={id} value={id}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}
