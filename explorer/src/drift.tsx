import { useMemo, useState } from "preact/hooks";
import * as api from "./api";
import type { Drift, DriftMeasure, Overview, Review } from "./data";
import { count, date, percent, plural } from "./format";
import { useLoaded } from "./hooks";
import { Bar, Trend, Wait } from "./parts";

export function DriftPage({ about }: { about: Overview }) {
  const found = useLoaded(() => api.drift(about), []);
  const review = useLoaded(() => api.review(about), []);
  return (
    <>
      <h1>Drift</h1>
      <Wait of={found}>
        {(drift) =>
          drift ? (
            <Report drift={drift} />
          ) : (
            <section class="card narrow">
              <p>
                Nothing was compared yet: <code>clickintent drift</code> compares the latest sessions with those that
                the models learned from, and <code>clickintent explore</code> takes it here.
              </p>
            </section>
          )
        }
      </Wait>
      <Wait of={review}>{(value) => <Suggested review={value} />}</Wait>
    </>
  );
}

const VERDICTS: Record<Drift["verdict"], [title: string, text: string]> = {
  drift: [
    "There is drift",
    "What came in is unlike what the models learned from, beyond what differs within their own training window.",
  ],
  none: ["No drift", "Nothing differs more than it does within the training window itself."],
  too_few: ["Too few sessions to tell", "The windows are too small for a verdict."],
};

function Report({ drift }: { drift: Drift }) {
  const [title, text] = VERDICTS[drift.verdict];
  const alarms = drift.measures.filter((measure) => measure.is_alarm);
  const groups: [DriftMeasure["group"], string][] = [
    ["input", "What comes in"],
    ["embedding", "Embeddings"],
    ["label", "Intents"],
  ];
  return (
    <>
      <section class={`card verdict ${drift.verdict}`}>
        <h2>{title}</h2>
        <p>{text}</p>
        {alarms.length > 0 && (
          <p>
            Above their alarm levels: <b>{alarms.map(({ name }) => words(name)).join(", ")}</b>.
          </p>
        )}
        <p class="muted">
          {plural(drift.current.sessions, "session")} from {date(drift.current.from)} to {date(drift.current.to)},
          beside {count(drift.reference.sessions)} from {date(drift.reference.from)} to {date(drift.reference.to)}.
        </p>
      </section>
      {groups.map(([group, name]) => (
        <Group key={group} title={name} rows={drift.measures.filter((measure) => measure.group === group)} />
      ))}
      <Weeks drift={drift} />
      <NewPages drift={drift} />
    </>
  );
}

const words = (name: string) => name.replaceAll("_", " ");
const MEASURES: Record<DriftMeasure["measure"], string> = {
  psi: "population stability index",
  js: "Jensen–Shannon divergence",
  mmd: "maximum mean discrepancy",
};

function Group({ title, rows }: { title: string; rows: DriftMeasure[] }) {
  const [open, setOpen] = useState<string | null>(null);
  if (rows.length === 0) return null;
  return (
    <section>
      <h2>{title}</h2>
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col" class="left">
                What
              </th>
              <th scope="col">Value</th>
              <th scope="col">Beside its alarm level</th>
              <th scope="col">Alarm level</th>
              <th scope="col">Alarm</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <>
                <tr key={row.name}>
                  <th scope="row">
                    {row.detail.length > 0 ? (
                      <button
                        type="button"
                        class="link"
                        aria-expanded={open === row.name}
                        onClick={() => setOpen(open === row.name ? null : row.name)}
                      >
                        {words(row.name)}
                      </button>
                    ) : (
                      words(row.name)
                    )}
                    <small>{MEASURES[row.measure]}</small>
                  </th>
                  <td class="num">{row.value.toFixed(4)}</td>
                  <td>
                    <Bar
                      share={row.value}
                      of={Math.max(2 * row.alarm, row.value)}
                      tick={row.alarm}
                      colour={row.is_alarm ? "warm" : "accent"}
                    />
                  </td>
                  <td class="num">{row.alarm.toFixed(4)}</td>
                  <td class={row.is_alarm ? "fall" : "muted"}>{row.is_alarm ? "yes" : "no"}</td>
                </tr>
                {open === row.name && (
                  <tr key={`${row.name} detail`} class="detail">
                    <td colSpan={5}>
                      <Contributions row={row} />
                    </td>
                  </tr>
                )}
              </>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Contributions({ row }: { row: DriftMeasure }) {
  const most = Math.max(...row.detail.flatMap(({ before, now }) => [before, now]), 0.0001);
  return (
    <table class="plain">
      <thead>
        <tr>
          <th scope="col" class="left">
            {words(row.name)}
          </th>
          <th scope="col">Now (the tick: before)</th>
          <th scope="col">Before</th>
          <th scope="col">Now</th>
        </tr>
      </thead>
      <tbody>
        {row.detail.map(({ value, before, now }) => (
          <tr key={value}>
            <th scope="row">{value}</th>
            <td>
              <Bar share={now} of={most} tick={before} />
            </td>
            <td class="num">{percent(before)}</td>
            <td class="num">{percent(now)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Each measure over the weeks, as a multiple of its alarm level. */
function Weeks({ drift }: { drift: Drift }) {
  const colours = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
  const lines = useMemo(
    () =>
      [...drift.measures]
        .filter(({ name, alarm }) => alarm > 0 && drift.weeks.some(({ values }) => name in values))
        .sort((a, b) => b.value / b.alarm - a.value / a.alarm)
        .slice(0, colours.length)
        .map(({ name, alarm }, i) => ({
          name: words(name),
          colour: colours[i]!,
          values: drift.weeks.map(({ values }) => (name in values ? values[name]! / alarm : null)),
        })),
    [drift],
  );
  const times = useMemo(() => drift.weeks.map(({ from }) => Date.parse(from)), [drift]);
  if (times.length < 2 || lines.length === 0) return null;
  return (
    <section class="card">
      <h2>Week by week</h2>
      <p class="intro">Each measure as a share of its alarm level: 100{"\u202f"}% is an alarm.</p>
      <Trend times={times} lines={lines} shares label="Drift measures by week, as shares of their alarm levels" />
    </section>
  );
}

function NewPages({ drift }: { drift: Drift }) {
  return (
    <section>
      <h2>Pages never seen in training</h2>
      {drift.new_pages.length === 0 ? (
        <p class="muted">None.</p>
      ) : (
        <>
          <p class="intro">
            They are {percent(drift.new_page_share)} of the events. The encoder reads their titles and addresses; it
            never learned what they are for.
          </p>
          <div class="scroll">
            <table>
              <thead>
                <tr>
                  <th scope="col" class="left">
                    Page
                  </th>
                  <th scope="col">Sessions</th>
                  <th scope="col">Share</th>
                  <th scope="col">First seen</th>
                </tr>
              </thead>
              <tbody>
                {drift.new_pages.map((page) => (
                  <tr key={page.page}>
                    <th scope="row">
                      {page.title} <code>{page.page}</code>
                    </th>
                    <td class="num">{count(page.sessions)}</td>
                    <td class="num">{percent(page.share)}</td>
                    <td>{date(page.first_seen)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </section>
  );
}

function Suggested({ review }: { review: Review }) {
  return (
    <section>
      <h2>Suggested intents</h2>
      {review.proposals.length === 0 ? (
        <p class="muted">
          None: <code>clickintent taxonomy propose</code> looks for groups of sessions that no intent fits.
        </p>
      ) : (
        <ul class="strips">
          {review.proposals.map(({ id, name, definition, sessions }) => (
            <li key={id} class="strip">
              <div>
                <a href={`#/review/${id}`}>{name}</a>
                <span class="muted">{plural(sessions, "session")}</span>
              </div>
              <p>{definition}</p>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
