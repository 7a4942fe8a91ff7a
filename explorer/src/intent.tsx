import { useMemo, useState } from "preact/hooks";
import * as api from "./api";
import { colourClass } from "./colours";
import type { IntentDetail, IntentRow, Neighbour, Overview, Pages, Visited } from "./data";
import { count, date, interval, percent, plural, points, times } from "./format";
import { useLoaded } from "./hooks";
import { IntentTable } from "./overview";
import { Bar, Failure, Name, Page, Partial, pageName, Tile, Trend, Wait } from "./parts";
import { Strips } from "./session";

export function IntentsPage({ about }: { about: Overview }) {
  const [filter, setFilter] = useState("");
  return (
    <>
      <h1>Intents</h1>
      <div class="filters">
        <label>
          Find
          <input
            type="search"
            value={filter}
            onInput={(event) => setFilter(event.currentTarget.value)}
            placeholder="name, area or definition"
          />
        </label>
      </div>
      <IntentTable about={about} filter={filter} />
    </>
  );
}

export function IntentPage({ about, id }: { about: Overview; id: string }) {
  const index = about.intents.findIndex((row) => row.id === id);
  const row = about.intents[index];
  const found = useLoaded(
    () =>
      row
        ? Promise.all([api.intent(about, id), api.pages(about)])
        : Promise.reject(new Error(`There is no intent ${id}.`)),
    [id],
  );
  if (!row) return <Failure error={new Error(`There is no intent ${id}.`)} />;
  return (
    <>
      <p class="kicker">{row.area || "Intent"}</p>
      <h1>
        <i class={`dot large ${colourClass(index)}`} aria-hidden="true" />
        {row.name}
      </h1>
      <p class="lede">{row.definition}</p>
      <Figures about={about} row={row} />
      <Wait of={found}>
        {([detail, pages]) => <Detail about={about} row={row} index={index} detail={detail} pages={pages} />}
      </Wait>
    </>
  );
}

function Figures({ about, row }: { about: Overview; row: IntentRow }) {
  return (
    <dl class="figures">
      <Tile
        label="Sessions"
        value={count(row.sessions)}
        note={`${percent(row.sessions / Math.max(about.sessions, 1))} of all${row.visitors === null ? "" : `, of ${plural(row.visitors, "visitor")}`}`}
      />
      {row.change && about.compared && (
        <Tile label="Change" value={points(row.change.after - row.change.before)} note={about.compared} />
      )}
      {row.rate && <Tile label="Converted" value={percent(row.rate[0])} note={interval(row.rate)} />}
      {row.linked !== null && (
        <Tile
          label="Linked to an account"
          value={percent(row.linked)}
          note={row.accounts !== null && plural(row.accounts, "account")}
        />
      )}
      {row.confidence !== null && (
        <Tile label="Confidence" value={row.confidence.toFixed(2)} note="mean of its labels" />
      )}
    </dl>
  );
}

function Detail({
  about,
  row,
  index,
  detail,
  pages,
}: {
  about: Overview;
  row: IntentRow;
  index: number;
  detail: IntentDetail;
  pages: Pages;
}) {
  const lines = useMemo(
    () => [{ name: row.name, colour: index < 10 ? `c${index}` : "accent", values: row.series }],
    [row, index],
  );
  return (
    <>
      <section class="card two">
        <h2 class="hidden">Definition</h2>
        <div>
          <h3>It includes</h3>
          {detail.includes.length ? (
            <ul>
              {detail.includes.map((line) => (
                <li key={line}>{line}</li>
              ))}
            </ul>
          ) : (
            <p class="muted">Nothing is said.</p>
          )}
          {detail.excludes.length > 0 && (
            <>
              <h3>It does not include</h3>
              <ul>
                {detail.excludes.map((line) => (
                  <li key={line}>{line}</li>
                ))}
              </ul>
            </>
          )}
        </div>
        <div>
          {detail.keywords.length > 0 && (
            <>
              <h3>Keywords</h3>
              <p class="chips">
                {detail.keywords.slice(0, 20).map(([word]) => (
                  <span key={word} class="tag">
                    {word}
                  </span>
                ))}
              </p>
            </>
          )}
          <p class="muted">
            {detail.approved
              ? `Approved by ${detail.approved.by}, ${date(detail.approved.at)}.`
              : "Nobody has approved it yet."}{" "}
            <a href={`#/review/${row.id}`}>Review</a>
          </p>
        </div>
      </section>
      {about.bins.length > 1 && (
        <section class="card">
          <h2>Over time</h2>
          <Trend
            times={about.bins}
            partial={about.partial}
            lines={lines}
            label={`Sessions with ${row.name} by ${about.bin}`}
          />
          <Partial about={about} />
        </section>
      )}
      <section>
        <h2>Examples</h2>
        <p class="intro">
          The surest first. <a href={`#/sessions?intent=${encodeURIComponent(row.id)}`}>All of its sessions</a>
        </p>
        <Strips about={about} sessions={detail.surest.slice(0, 5)} />
        {detail.some.length > 0 && (
          <>
            <h3>Drawn at random</h3>
            <Strips about={about} sessions={detail.some.slice(0, 5)} />
          </>
        )}
      </section>
      <section>
        <h2>What sets it apart</h2>
        <p class="intro">Pages in its sessions, beside all sessions (the tick).</p>
        <VisitedTable rows={detail.pages} pages={pages} />
      </section>
      <section>
        <h2>In and out</h2>
        <div class="two">
          <div class="card">
            <h3>It begins on</h3>
            <VisitedTable rows={detail.entries.slice(0, 8)} pages={pages} />
          </div>
          <div class="card">
            <h3>It ends on</h3>
            <VisitedTable rows={detail.exits.slice(0, 8)} pages={pages} />
          </div>
          <div class="card">
            <h3>The visitor's session before</h3>
            <Neighbours about={about} rows={detail.before} none="their first session" />
          </div>
          <div class="card">
            <h3>The visitor's session after</h3>
            <Neighbours about={about} rows={detail.after} none="none so far" />
          </div>
          <div class="card">
            <h3>Where from</h3>
            <Shares rows={detail.sources} />
          </div>
          <div class="card">
            <h3>On which device</h3>
            <Shares rows={detail.devices} />
          </div>
        </div>
        {detail.paths.length > 0 && (
          <div class="card">
            <h3>Frequent steps</h3>
            <ol class="paths">
              {detail.paths.map((path) => (
                <li key={path.pages.join()}>
                  {path.pages.map((page) => pageName(pages, page)).join(" › ")}{" "}
                  <span class="muted">{count(path.sessions)}</span>
                </li>
              ))}
            </ol>
          </div>
        )}
      </section>
      {detail.outcomes.length > 0 && (
        <section>
          <h2>What followed</h2>
          {detail.lift && (
            <p>
              It converts <b>{times(detail.lift[0])}</b> as often as all sessions{" "}
              <span class="muted">
                (95{"\u202f"}% interval {times(detail.lift[1])} to {times(detail.lift[2])}; {about.outcome}).
              </span>
            </p>
          )}
          <Counts
            rows={detail.outcomes.map(({ outcome, sessions }) => [outcome === "none" ? "nothing" : outcome, sessions])}
          />
        </section>
      )}
      <section>
        <h2>When</h2>
        <div class="two">
          <div class="card">
            <h3>Hour of the day (UTC)</h3>
            <Columns values={detail.hours} names={detail.hours.map((_, h) => String(h))} />
          </div>
          <div class="card">
            <h3>Day of the week</h3>
            <Columns values={detail.weekdays} names={["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]} />
          </div>
        </div>
      </section>
      <section>
        <h2>What it is taken for</h2>
        <p class="intro">
          The intents whose sessions look most like its own. Many shared or exchanged sessions speak for a merge, or for
          clearer definitions.
        </p>
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col" class="left">
                  Intent
                </th>
                <th scope="col">Similarity</th>
                <th scope="col">Both labels</th>
                <th scope="col">Teacher said this, student the other</th>
              </tr>
            </thead>
            <tbody>
              {detail.confusions.map((other) => (
                <tr key={other.intent}>
                  <th scope="row">
                    <Name about={about} intent={other.intent} />
                  </th>
                  <td>
                    <span class="num">{other.similarity.toFixed(2)}</span>
                    <Bar share={Math.max(other.similarity, 0)} />
                  </td>
                  <td>{count(other.both)}</td>
                  <td>{count(other.teacher)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
    </>
  );
}

function VisitedTable({ rows, pages }: { rows: Visited[]; pages: Pages }) {
  if (rows.length === 0) return <p class="muted">Nothing stands out.</p>;
  return (
    <table class="plain">
      <tbody>
        {rows.map(({ page, share, overall }) => (
          <tr key={page}>
            <th scope="row">
              <Page pages={pages} page={page} />
            </th>
            <td>
              <Bar share={share} tick={overall} />
            </td>
            <td class="num" title={`${percent(overall)} of all sessions`}>
              {percent(share)}
            </td>
            <td class="num muted">{overall > 0 ? times(share / overall) : ""}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Shares({ rows }: { rows: { name: string; share: number; overall: number }[] }) {
  if (rows.length === 0) return <p class="muted">Not known.</p>;
  return (
    <table class="plain">
      <tbody>
        {rows.map(({ name, share, overall }) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>
              <Bar share={share} tick={overall} />
            </td>
            <td class="num" title={`${percent(overall)} of all sessions`}>
              {percent(share)}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Neighbours({ about, rows, none }: { about: Overview; rows: Neighbour[]; none: string }) {
  if (rows.length === 0) return <p class="muted">Not known.</p>;
  return (
    <table class="plain">
      <tbody>
        {rows.slice(0, 8).map(({ intent, sessions, share, overall }) => (
          <tr key={intent}>
            <th scope="row">
              {intent < 0 ? <span class="muted">{none}</span> : <Name about={about} intent={intent} />}
            </th>
            <td>
              <Bar share={share} tick={overall} />
            </td>
            <td class="num" title={`${count(sessions)} sessions; ${percent(overall)} if intents did not matter`}>
              {percent(share)}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Counts({ rows }: { rows: [string, number][] }) {
  const all = rows.reduce((sum, [, n]) => sum + n, 0);
  return (
    <table class="plain card">
      <tbody>
        {rows.map(([name, n]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>
              <Bar share={n} of={all} />
            </td>
            <td class="num">{count(n)}</td>
            <td class="num muted">{percent(n / Math.max(all, 1))}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Columns({ values, names }: { values: number[]; names: string[] }) {
  const most = Math.max(...values, 1);
  return (
    <div class="columns" role="img" aria-label={values.map((n, i) => `${names[i]}: ${n}`).join(", ")}>
      {values.map((n, i) => (
        <span key={names[i]} title={`${names[i]}: ${count(n)}`}>
          <svg viewBox="0 0 10 60" preserveAspectRatio="none" aria-hidden="true">
            <rect class="fill-accent" x="1" width="8" y={60 - (n / most) * 58} height={(n / most) * 58} />
          </svg>
          <small>{names.length > 12 && i % 6 ? "\u00a0" : names[i]}</small>
        </span>
      ))}
    </div>
  );
}
