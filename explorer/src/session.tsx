import { useState } from "preact/hooks";
import * as api from "./api";
import { colourClass } from "./colours";
import type { Label, Overview, Pages, Session } from "./data";
import { clock, count, dwell, link, percent, plural, time } from "./format";
import { useLoaded } from "./hooks";
import { Name, Page, pageName, sessionLink, Wait } from "./parts";

export function SessionPage({ about, which, id }: { about: Overview; which: string; id: string | undefined }) {
  const index = /^\d+$/.test(which) ? Number(which) : Number.NaN;
  const found = useLoaded(async () => {
    const session = await api.session(about, index);
    if (id && session.id !== id)
      throw new Error("The data were made anew since this link was made: it is another session's place.");
    return [session, await api.pages(about)] as const;
  }, [which, id]);
  return (
    <Wait of={found}>
      {([session, pages]) => (
        <>
          <h1>Session of {time(session.start)} UTC</h1>
          <Facts session={session} />
          <Timeline about={about} session={session} pages={pages} />
          <Nearest about={about} index={index} pages={pages} />
        </>
      )}
    </Wait>
  );
}

function Facts({ session }: { session: Session }) {
  const facts: [string, string | null][] = [
    ["Session", session.id],
    ["Account", link(session.link)],
    ["Channel", session.channel],
    ["Device", session.device],
    ["Country", session.country],
    ["Came from", session.referrer],
    ["Campaign", session.campaign],
    [
      "What followed",
      session.outcome === null ? "not known" : session.outcome === "none" ? "nothing" : session.outcome,
    ],
  ];
  return (
    <dl class="facts">
      {facts
        .filter(([, value]) => value)
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{name === "Session" ? <code>{value}</code> : value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** Events down the page, dwell as bars; a label shows which of them it rests on. */
function Timeline({ about, session, pages }: { about: Overview; session: Session; pages: Pages }) {
  const [chosen, setChosen] = useState(session.labels.findIndex((label) => label.events?.length)); // −1: none
  const label = session.labels[chosen];
  const behind = new Set(label?.events ?? []);
  const longest = Math.max(...session.events.map(([, , s]) => s ?? 0), 1);
  let at = session.start;
  return (
    <div class="with-side">
      <section>
        <h2>{plural(session.n_events, "event")}</h2>
        <ol class="timeline">
          {session.events.map(([page, type, seconds, text], i) => {
            const when = at;
            at += (seconds ?? 0) * 1000;
            const isBehind = behind.has(i);
            return (
              <li key={i} class={isBehind ? `behind ${colourClass(label!.intent)}` : ""}>
                <time>{clock(when)}</time>
                <div>
                  <Page pages={pages} page={page} />
                  <span class="type">{pages.types[type]}</span>
                  {text && <q>{text}</q>}
                  {isBehind && <span class="hidden">supports {about.intents[label!.intent]?.name}</span>}
                  {seconds !== null && (
                    <span class="dwell">
                      <svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
                        <rect
                          class="fill-second"
                          width={Math.max(Math.sqrt(seconds / longest) * 100, 0.5)}
                          height="4"
                        />
                      </svg>
                      {dwell(seconds)}
                    </span>
                  )}
                </div>
              </li>
            );
          })}
        </ol>
        {session.n_events > session.events.length && (
          <p class="muted">… and {count(session.n_events - session.events.length)} more.</p>
        )}
      </section>
      <aside>
        <h2>Labels</h2>
        {session.labels.length === 0 && <p class="muted">None.</p>}
        {session.labels.map((one, n) => (
          <LabelCard
            key={n}
            about={about}
            label={one}
            isChosen={n === chosen}
            choose={() => setChosen(n === chosen ? -1 : n)}
          />
        ))}
      </aside>
    </div>
  );
}

const SOURCES: Record<string, string> = {
  llm: "language model",
  keywords: "keyword namer",
  human: "a person",
  student: "student model",
};

function LabelCard({
  about,
  label,
  isChosen,
  choose,
}: {
  about: Overview;
  label: Label;
  isChosen: boolean;
  choose: () => void;
}) {
  const n = label.events?.length ?? 0;
  return (
    <div class="card label">
      <Name about={about} intent={label.intent} />
      <p>
        <b>{label.confidence.toFixed(2)}</b> <span class="muted">{SOURCES[label.source] ?? label.source}</span>
      </p>
      {label.evidence && <q>{label.evidence}</q>}
      {n > 0 && (
        <button type="button" aria-pressed={isChosen} onClick={choose}>
          Rests on {plural(n, "event")}
        </button>
      )}
      {label.events !== null && n === 0 && <p class="muted">Rests on where the session came from.</p>}
    </div>
  );
}

function Nearest({ about, index, pages }: { about: Overview; index: number; pages: Pages }) {
  const found = useLoaded(async () => {
    const near = await api.nearest(about, index, 8);
    const sessions = await Promise.all(near.map(([i]) => api.session(about, i)));
    return near.map(([i, similarity], n) => ({ i, similarity, session: sessions[n]! }));
  }, [index]);
  if (!about.points.vectors) return null;
  return (
    <section>
      <h2>Most like it</h2>
      <p class="intro">By the cosine of the session embeddings, among the {count(about.shown)} sessions of the map.</p>
      <Wait of={found}>
        {(rows) => (
          <ul class="strips">
            {rows.map(({ i, similarity, session }) => (
              <Strip
                key={i}
                about={about}
                index={i}
                session={session}
                pages={pages}
                note={`similarity ${similarity.toFixed(2)}`}
              />
            ))}
          </ul>
        )}
      </Wait>
    </section>
  );
}

/** A session in two lines: when, what it was labelled with, and its pages in their order. */
export function Strip({
  about,
  index,
  session,
  pages,
  note,
}: {
  about: Overview;
  index: number;
  session: Session;
  pages: Pages;
  note?: string;
}) {
  const names: { name: string; n: number }[] = [];
  for (const [page] of session.events) {
    const name = pageName(pages, page);
    const last = names.at(-1);
    if (last?.name === name) last.n++;
    else names.push({ name, n: 1 });
  }
  // as on the map: the student labels every session, the teacher some
  const best = session.labels.find(({ source }) => source === "student") ?? session.labels[0];
  return (
    <li class="strip">
      <div>
        <a href={sessionLink(index, session)}>{time(session.start)}</a>
        {best && <Name about={about} intent={best.intent} />}
        {best && <span class="muted">{percent(best.confidence, 0)} sure</span>}
        {session.outcome && session.outcome !== "none" && <span class="tag">{session.outcome}</span>}
        {note && <span class="muted">{note}</span>}
      </div>
      <p>
        {names
          .slice(0, 12)
          .map(({ name, n }) => (n > 1 ? `${name} ×${n}` : name))
          .join(" › ")}
        {names.length > 12 && " › …"}
      </p>
    </li>
  );
}

/** Sessions by their numbers, as strips. */
export function Strips({ about, sessions }: { about: Overview; sessions: number[] }) {
  const found = useLoaded(
    () => Promise.all([api.pages(about), Promise.all(sessions.map((i) => api.session(about, i)))]),
    [sessions.join()],
  );
  if (sessions.length === 0) return <p class="muted">None.</p>;
  return (
    <Wait of={found}>
      {([pages, all]) => (
        <ul class="strips">
          {all.map((session, n) => (
            <Strip key={sessions[n]!} about={about} index={sessions[n]!} session={session} pages={pages} />
          ))}
        </ul>
      )}
    </Wait>
  );
}
