import { useMemo, useState } from "preact/hooks";
import { COLOURS, colourClass } from "./colours";
import { download } from "./csv";
import type { IntentRow, Overview } from "./data";
import { count, interval, link, percent, plural, points } from "./format";
import { Bar, type Line, Name, Partial, Rate, Spark, Tile, Trend, whole } from "./parts";

export function OverviewPage({ about }: { about: Overview }) {
  if (about.sessions === 0) {
    return (
      <section class="card narrow">
        <h1>No sessions yet</h1>
        <p>
          Nothing that models see has been read. <code>clickintent ingest</code> reads raw exports, and{" "}
          <code>clickintent inspect</code> tells what is in a file.
        </p>
      </section>
    );
  }
  return (
    <>
      <h1>What people come for</h1>
      <Figures about={about} />
      <OverTime about={about} />
      <Movers about={about} />
      <section>
        <div class="head">
          <h2>All intents</h2>
          <button type="button" onClick={() => takeIntents(about)}>
            Download as CSV
          </button>
        </div>
        <IntentTable about={about} />
      </section>
    </>
  );
}

function Figures({ about }: { about: Overview }) {
  const none = (about.links["none"] ?? 0) + (about.links["ambiguous"] ?? 0);
  const linked = 1 - none / about.sessions;
  const inSession = (about.links["in_session"] ?? 0) / about.sessions;
  return (
    <dl class="figures">
      <Tile label="Sessions" value={count(about.sessions)} note={plural(about.visitors, "visitor")} />
      {about.sure ? (
        <Tile
          label="Sure of the intent"
          value={percent(about.sure.sessions / about.sessions)}
          note={`confidence of at least ${about.sure.threshold.toFixed(2)}; all others count for their best of ${plural(about.intents.length, "intent")}, too`}
        />
      ) : (
        <Tile
          label="With an intent"
          value={percent(1 - about.unlabelled / about.sessions)}
          note={plural(about.intents.length, "intent")}
        />
      )}
      <Tile
        label="Linked to an account"
        value={percent(linked)}
        note={
          <span
            title={Object.entries(about.links)
              .map(([name, n]) => `${link(name)}: ${count(n)}`)
              .join("\n")}
          >
            {percent(inSession)} logged in during the session
          </span>
        }
      />
      {about.rate && (
        <Tile
          label="Converted"
          value={percent(about.rate[0])}
          note={
            <>
              {about.outcome}; {interval(about.rate)}
            </>
          }
        />
      )}
    </dl>
  );
}

function OverTime({ about }: { about: Overview }) {
  const [asShares, setAsShares] = useState(false);
  const lines = useMemo<Line[]>(() => {
    const named = about.intents.slice(0, COLOURS);
    const others = about.total.map((n, b) => n - named.reduce((sum, row) => sum + (row.series[b] ?? 0), 0));
    const all = [
      ...named.map((row, i) => ({ name: row.name, colour: colourClass(i), values: row.series })),
      { name: about.intents.length > COLOURS ? "all other" : "no intent", colour: "cx", values: others },
    ].filter((line) => line.values.some((n) => n > 0));
    if (!asShares) return all;
    return all.map((line) => ({
      ...line,
      values: line.values.map((n, b) => (about.total[b] ? n / about.total[b] : 0)),
    }));
  }, [about, asShares]);
  if (about.bins.length < 2) return null;
  return (
    <section class="card">
      <div class="head">
        <h2>Sessions by intent and {about.bin}</h2>
        <label class="check">
          <input type="checkbox" checked={asShares} onChange={(event) => setAsShares(event.currentTarget.checked)} /> as
          shares
        </label>
        <button type="button" onClick={() => takeSeries(about)}>
          Download as CSV
        </button>
      </div>
      <Trend
        times={about.bins}
        partial={about.partial}
        lines={lines}
        stacked
        shares={asShares}
        label={`Sessions by intent and ${about.bin}, stacked; the table below has the same numbers over time`}
      />
      <Partial about={about} />
    </section>
  );
}

function takeSeries(about: Overview) {
  const rows = about.bins.map((start, bin) => [
    new Date(start).toISOString().slice(0, 16),
    about.partial.includes(bin) ? 1 : 0,
    about.total[bin] ?? 0,
    ...about.intents.map((row) => row.series[bin] ?? 0),
  ]);
  download("over-time", [about.bin, "partial", "sessions", ...about.intents.map((row) => row.name)], rows);
}

function takeIntents(about: Overview) {
  const header = [
    "intent_id",
    "intent",
    "area",
    "sessions",
    "share",
    "change",
    "change_low",
    "change_high",
    "converted",
    "converted_low",
    "converted_high",
    "linked",
    "visitors",
    "accounts",
    "confidence",
    "approved",
  ];
  const rows = about.intents.map((row) => [
    row.id,
    row.name,
    row.area,
    row.sessions,
    Number((row.sessions / Math.max(about.sessions, 1)).toFixed(5)),
    ...(row.change ? [Number(change(row).toFixed(5)), row.change.low, row.change.high] : [null, null, null]),
    ...(row.rate ?? [null, null, null]),
    row.linked,
    row.visitors,
    row.accounts,
    row.confidence,
    row.is_approved ? 1 : 0,
  ]);
  download("intents", header, rows);
}

const isSure = (row: IntentRow) => row.change !== null && (row.change.low > 0 || row.change.high < 0);
const change = (row: IntentRow) => (row.change ? row.change.after - row.change.before : 0);

function Movers({ about }: { about: Overview }) {
  if (!about.compared) return null;
  const sure = about.intents.filter(isSure).sort((a, b) => change(b) - change(a));
  const risen = sure.filter((row) => change(row) > 0).slice(0, 5);
  const fallen = sure
    .filter((row) => change(row) < 0)
    .reverse()
    .slice(0, 5);
  const list = (rows: IntentRow[]) =>
    rows.length ? (
      <ul class="movers">
        {rows.map((row) => (
          <li>
            <Name about={about} intent={about.intents.indexOf(row)} />
            <span class="num" title={`95\u202f% interval ${points(row.change!.low)} to ${points(row.change!.high)}`}>
              {points(change(row))}
            </span>
            <small>
              {percent(row.change!.before)} → {percent(row.change!.after)}
            </small>
          </li>
        ))}
      </ul>
    ) : (
      <p class="muted">Nothing, beyond chance.</p>
    );
  return (
    <section>
      <h2>What rose and fell</h2>
      <p class="intro">
        Share of sessions, {about.compared}; only what is beyond chance: 95{"\u202f"}% intervals that hold for all
        intents together, a visitor’s sessions taken together.
      </p>
      <div class="two">
        <div class="card">
          <h3>Rose</h3>
          {list(risen)}
        </div>
        <div class="card">
          <h3>Fell</h3>
          {list(fallen)}
        </div>
      </div>
    </section>
  );
}

type Key = "name" | "sessions" | "change" | "rate" | "linked" | "confidence";
const VALUE: Record<Key, (row: IntentRow) => number | string> = {
  name: (row) => row.name.toLowerCase(),
  sessions: (row) => -row.sessions,
  change: (row) => -change(row),
  rate: (row) => -(row.rate?.[0] ?? -1),
  linked: (row) => -(row.linked ?? -1),
  confidence: (row) => -(row.confidence ?? -1),
};

/** Every intent in a row; a click on a heading sorts, another one the other way round. */
export function IntentTable({ about, filter = "" }: { about: Overview; filter?: string }) {
  const [by, setBy] = useState<Key>("sessions");
  const [isReversed, setReversed] = useState(false);
  const most = Math.max(...about.intents.map((row) => row.sessions), 1);
  const highest = Math.max(...about.intents.map((row) => row.rate?.[0] ?? 0), 0) * 1.25;
  const rows = useMemo(() => {
    const wanted = filter.trim().toLowerCase();
    return about.intents
      .map((row, i) => ({ row, i }))
      .filter(({ row }) => !wanted || `${row.name} ${row.area} ${row.definition}`.toLowerCase().includes(wanted))
      .sort((a, b) => {
        const [x, y] = [VALUE[by](a.row), VALUE[by](b.row)];
        return (x < y ? -1 : x > y ? 1 : a.i - b.i) * (isReversed ? -1 : 1);
      });
  }, [about, by, isReversed, filter]);
  const heading = (key: Key, label: string, title = "") => (
    <th
      scope="col"
      class={key === "name" ? "left" : ""}
      aria-sort={by === key ? ((key === "name") !== isReversed ? "ascending" : "descending") : undefined}
    >
      <button
        type="button"
        title={title}
        onClick={() => {
          setReversed(by === key && !isReversed);
          setBy(key);
        }}
      >
        {label}
      </button>
    </th>
  );
  const hasRates = about.rate !== null;
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            {heading("name", "Intent")}
            {heading("sessions", "Sessions")}
            <th scope="col">Over time</th>
            {about.compared && heading("change", "Change", `Share of sessions, ${about.compared}`)}
            {hasRates && heading("rate", "Converted", about.outcome ?? "")}
            {heading("linked", "Linked", "Share of the sessions that is linked to an account")}
            {heading("confidence", "Confidence", "Mean confidence of the label")}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ row, i }) => (
            <tr key={row.id}>
              <th scope="row">
                <Name about={about} intent={i} />
                <small>{row.area}</small>
              </th>
              <td>
                <span class="num">{count(row.sessions)}</span>
                <Bar share={row.sessions} of={most} />
                <small>
                  {percent(row.sessions / Math.max(about.sessions, 1))}
                  {row.visitors !== null && ` · ${plural(row.visitors, "visitor")}`}
                </small>
              </td>
              <td>
                <Spark
                  series={whole(about, row.series)}
                  label={`${row.name}: from ${count(whole(about, row.series)[0] ?? 0)} to ${count(whole(about, row.series).at(-1) ?? 0)} sessions a ${about.bin}`}
                />
              </td>
              {about.compared && (
                <td class={isSure(row) ? (change(row) > 0 ? "rise" : "fall") : "muted"}>
                  {row.change ? points(change(row)) : "–"}
                </td>
              )}
              {hasRates && (
                <td>
                  <Rate rate={row.rate} most={highest} base={about.rate?.[0]} />
                </td>
              )}
              <td>
                {row.linked === null ? "–" : percent(row.linked)}
                {row.accounts !== null && <small>{plural(row.accounts, "account")}</small>}
              </td>
              <td>{row.confidence === null ? "–" : row.confidence.toFixed(2)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length === 0 && <p class="muted">No intent is like that.</p>}
    </div>
  );
}
