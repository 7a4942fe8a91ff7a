import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import type { NewDecision, Overview, Proposal, Review, ReviewIntent } from "./data";
import { count, plural, time } from "./format";
import { asError } from "./hooks";
import { Failure, intentLink } from "./parts";

type Action = NewDecision["action"];
const NAME = "clickintent-reviewer"; // who reviews, for this tab

export function ReviewPage({ about, which }: { about: Overview; which: string | null }) {
  const [found, setFound] = useState<Review | null>(null);
  const [failure, setFailure] = useState<Error | null>(null);
  const load = () =>
    api.review(about).then((value) => {
      setFound(value);
      setFailure(null);
    }, setFailure);
  useEffect(() => void load(), []);
  if (failure && !found) return <Failure error={failure} />;
  if (!found)
    return (
      <p class="wait" role="status">
        Loading…
      </p>
    );
  return <Desk about={about} review={found} which={which} changed={setFound} reload={load} />;
}

function Desk({
  about,
  review,
  which,
  changed,
  reload,
}: {
  about: Overview;
  review: Review;
  which: string | null;
  changed: (review: Review) => void;
  reload: () => Promise<void>;
}) {
  const [by, setBy] = useState(sessionStorage.getItem(NAME) ?? "");
  const [error, setError] = useState<Error | null>(null);
  const [said, setSaid] = useState("");
  const [isBusy, setBusy] = useState(false);
  const open = review.intents.filter((intent) => !intent.is_approved).length;
  const here = review.intents.find(({ id }) => id === which) ?? null;
  const proposal = review.proposals.find(({ id }) => id === which) ?? null;

  const decide = async (action: Action, rest: Partial<NewDecision> = {}) => {
    if (isBusy) return false;
    setBusy(true);
    setError(null);
    setSaid("");
    try {
      const after = await api.decide({ digest: review.digest, by, action, ...rest });
      changed(after);
      setSaid(`Written: ${action.replace("_", " ")}. It is version ${after.version} now.`);
      if (rest.intent && !["rename", "redefine", "move"].includes(action)) goOn(review, after, rest.intent);
      return true;
    } catch (problem) {
      setError(asError(problem));
      if (problem instanceof api.LoadError && problem.status === 409) await reload();
      return false;
    } finally {
      setBusy(false);
    }
  };

  return (
    <>
      <h1>Review</h1>
      <p class="intro">
        Version {review.version} of the taxonomy: {plural(review.intents.length, "intent")}, {count(open)} still to be
        approved, {plural(review.proposals.length, "proposal")}.{" "}
        {review.approved_by && review.approved_at
          ? `Signed by ${review.approved_by}, ${time(review.approved_at)} UTC.`
          : "As a whole it is not signed."}
      </p>
      {api.isServed ? (
        <div class="filters">
          <label>
            Your name, for the history
            <input
              value={by}
              maxLength={80}
              autocomplete="name"
              onInput={(event) => {
                setBy(event.currentTarget.value);
                sessionStorage.setItem(NAME, event.currentTarget.value);
              }}
            />
          </label>
          <button
            type="button"
            disabled={!by.trim()}
            onClick={() =>
              confirm(
                `Sign all ${plural(review.intents.length, "intent")}? ${count(open)} of them nobody has approved.`,
              ) && decide("approve_all")
            }
          >
            Sign the taxonomy as a whole
          </button>
        </div>
      ) : (
        <p class="banner">
          These are files, so nothing can be decided here. <code>clickintent serve</code> opens the same page with
          decisions, and <code>clickintent taxonomy review</code> asks in a terminal.
        </p>
      )}
      {about.versions.taxonomy !== String(review.version) && (
        <p class="muted">
          The figures of the other pages are of version {about.versions.taxonomy}: <code>clickintent run</code> labels
          with this one and makes them anew.
        </p>
      )}
      {error && <Failure error={error} />}
      <p role="status" class="said">
        {said}
      </p>
      <div class="with-list">
        <nav aria-label="Intents to review">
          <ul>
            {review.intents.map((intent) => (
              <Entry key={intent.id} item={intent} here={which} mark={intent.is_approved ? "✓" : ""} />
            ))}
            {review.proposals.length > 0 && <li class="muted">Proposals</li>}
            {review.proposals.map((item) => (
              <Entry key={item.id} item={item} here={which} mark="new" />
            ))}
          </ul>
        </nav>
        <div>
          {here && (
            <Intent
              key={here.id}
              intent={here}
              isKnown={about.intents.some(({ id }) => id === here.id)}
              review={review}
              canDecide={api.isServed && by.trim() !== ""}
              decide={decide}
            />
          )}
          {proposal && (
            <Proposed
              key={`${proposal.id} ${proposal.name}`}
              proposal={proposal}
              canDecide={api.isServed && by.trim() !== ""}
              decide={decide}
            />
          )}
          {!here && !proposal && <p class="muted">{which ? "It is no longer there. " : ""}Choose an intent.</p>}
          <History review={review} which={here?.id ?? null} />
        </div>
      </div>
    </>
  );
}

/** After a decision that closes an intent, the next open one. */
function goOn(before: Review, after: Review, id: string) {
  const queue = [...before.intents, ...before.proposals].map((item) => item.id);
  const open = new Set(
    [...after.intents.filter((intent) => !intent.is_approved), ...after.proposals].map((item) => item.id),
  );
  const at = queue.indexOf(id);
  const next = [...queue.slice(at + 1), ...queue.slice(0, at)].find((other) => open.has(other));
  if (next) location.hash = `#/review/${next}`;
}

function Entry({ item, here, mark }: { item: { id: string; name: string }; here: string | null; mark: string }) {
  return (
    <li>
      <a href={`#/review/${item.id}`} aria-current={item.id === here ? "true" : undefined}>
        {item.name}
        <small>{mark}</small>
      </a>
    </li>
  );
}

type Decide = (action: Action, rest?: Partial<NewDecision>) => Promise<boolean>; // whether it was made

function Intent({
  intent,
  isKnown,
  review,
  canDecide,
  decide,
}: {
  intent: ReviewIntent;
  isKnown: boolean; // to the figures
  review: Review;
  canDecide: boolean;
  decide: Decide;
}) {
  const [why, setWhy] = useState("");
  const act = async (action: Action, rest: Partial<NewDecision> = {}) => {
    const reason = why.trim() ? { why: why.trim() } : {};
    if (await decide(action, { intent: intent.id, ...reason, ...rest })) setWhy("");
  };
  const others = review.intents.filter(({ id }) => id !== intent.id);
  return (
    <article class="card">
      <p class="kicker">
        {intent.area ?? "no area"} · {intent.id}
      </p>
      <h2>{intent.name}</h2>
      <p>{intent.definition}</p>
      {intent.includes.length > 0 && (
        <p>
          <b>Includes:</b> {intent.includes.join("; ")}
        </p>
      )}
      {intent.excludes.length > 0 && (
        <p>
          <b>Does not include:</b> {intent.excludes.join("; ")}
        </p>
      )}
      <p class="muted">
        {intent.sessions === null
          ? "No session was labelled with it yet."
          : `${plural(intent.sessions, "session")} labelled by the teacher.`}{" "}
        {intent.is_approved
          ? `Approved by ${intent.approved_by}.`
          : intent.approved_by
            ? `Approved by ${intent.approved_by}, but changed since.`
            : ""}{" "}
        {isKnown && <a href={intentLink(intent.id)}>Its sessions</a>}
      </p>
      {intent.examples.length > 0 && (
        <details>
          <summary>Examples</summary>
          {intent.examples.map((text) => (
            <pre key={text}>{text}</pre>
          ))}
        </details>
      )}
      {api.isServed && (
        <fieldset disabled={!canDecide}>
          <legend>{canDecide ? "Decide" : "Give your name above to decide"}</legend>
          <label class="wide">
            Why (optional)
            <input value={why} onInput={(event) => setWhy(event.currentTarget.value)} />
          </label>
          <div class="actions">
            <button type="button" class="primary" onClick={() => act("approve")}>
              Approve as it stands
            </button>
            <button
              type="button"
              onClick={() => confirm(`Reject “${intent.name}”? Its id goes, for good.`) && act("reject")}
            >
              Reject
            </button>
          </div>
          <Change label="Name" value={intent.name} change={(value) => act("rename", { value })} />
          <Change label="Definition" value={intent.definition} long change={(value) => act("redefine", { value })} />
          <Change label="Area" value={intent.area ?? ""} change={(value) => act("move", { value })} />
          <Merge others={others} merge={(value) => act("merge", { value })} />
          <Split split={(parts) => act("split", { parts })} />
        </fieldset>
      )}
    </article>
  );
}

function Change({
  label,
  value,
  long = false,
  change,
}: {
  label: string;
  value: string;
  long?: boolean;
  change: (value: string) => void;
}) {
  const [text, setText] = useState(value);
  const isNew = text.trim() !== "" && text.trim() !== value;
  return (
    <div class="change">
      <label class="wide">
        {label}
        {long ? (
          <textarea rows={3} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        ) : (
          <input value={text} onInput={(event) => setText(event.currentTarget.value)} />
        )}
      </label>
      <button type="button" disabled={!isNew} onClick={() => change(text.trim())}>
        Change
      </button>
    </div>
  );
}

function Merge({ others, merge }: { others: ReviewIntent[]; merge: (id: string) => void }) {
  const [into, setInto] = useState("");
  return (
    <div class="change">
      <label class="wide">
        It is the same as
        <select value={into} onChange={(event) => setInto(event.currentTarget.value)}>
          <option value="">choose…</option>
          {others.map(({ id, name }) => (
            <option key={id} value={id}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <button
        type="button"
        disabled={!into}
        onClick={() => confirm("Merge them? The id of this one goes, for good.") && merge(into)}
      >
        Merge into it
      </button>
    </div>
  );
}

function Split({ split }: { split: (parts: { name: string; definition: string }[]) => void }) {
  const empty = { name: "", definition: "" };
  const [parts, setParts] = useState([empty, empty]);
  const set = (i: number, change: Partial<typeof empty>) =>
    setParts(parts.map((part, j) => (j === i ? { ...part, ...change } : part)));
  const isComplete = parts.every(({ name, definition }) => name.trim() && definition.trim());
  return (
    <details class="split">
      <summary>Split it</summary>
      {parts.map((part, i) => (
        <div class="part" key={i}>
          <label class="wide">
            Name of part {i + 1}
            <input value={part.name} onInput={(event) => set(i, { name: event.currentTarget.value })} />
          </label>
          <label class="wide">
            Definition
            <input value={part.definition} onInput={(event) => set(i, { definition: event.currentTarget.value })} />
          </label>
        </div>
      ))}
      <div class="actions">
        <button type="button" onClick={() => setParts([...parts, empty])}>
          Another part
        </button>
        <button
          type="button"
          disabled={!isComplete}
          onClick={() => confirm("Split it? Its id goes, for good.") && split(parts)}
        >
          Split
        </button>
      </div>
    </details>
  );
}

function Proposed({ proposal, canDecide, decide }: { proposal: Proposal; canDecide: boolean; decide: Decide }) {
  const [name, setName] = useState(proposal.name);
  return (
    <article class="card">
      <p class="kicker">Proposal · {proposal.id}</p>
      <h2>{proposal.name}</h2>
      <p>{proposal.definition}</p>
      <p class="muted">{plural(proposal.sessions, "session")} that no intent fits.</p>
      {proposal.examples.map((text) => (
        <pre key={text}>{text}</pre>
      ))}
      {api.isServed && (
        <fieldset disabled={!canDecide}>
          <legend>{canDecide ? "Decide" : "Give your name above to decide"}</legend>
          <label class="wide">
            Name
            <input value={name} onInput={(event) => setName(event.currentTarget.value)} />
          </label>
          <div class="actions">
            <button
              type="button"
              class="primary"
              disabled={!name.trim()}
              onClick={() => decide("accept", { intent: proposal.id, value: name.trim() })}
            >
              Accept as an intent
            </button>
            <button
              type="button"
              onClick={() => confirm(`Dismiss “${proposal.name}”?`) && decide("dismiss", { intent: proposal.id })}
            >
              Dismiss
            </button>
          </div>
        </fieldset>
      )}
    </article>
  );
}

function History({ review, which }: { review: Review; which: string | null }) {
  const names = new Map<string, string>(
    [...review.retired, ...review.intents].map(({ id, name }): [string, string] => [id, name]),
  );
  const rows = which ? review.history.filter(({ intent }) => intent === which) : review.history;
  const part = (text: ComponentChildren) => text && <> {text}</>;
  return (
    <section>
      <h2>{which ? "What was decided about it" : "What was decided"}</h2>
      {rows.length === 0 && <p class="muted">Nothing yet.</p>}
      <ol class="history">
        {rows.slice(0, 100).map((row, i) => (
          <li key={i}>
            <time>{time(row.at)}</time> <b>{row.by}</b> {row.action.replace("_", " ")}
            {part(row.intent && (names.get(row.intent) ?? row.intent))}
            {part(row.what)} <span class="muted">version {row.version}</span>
            {row.why && <q>{row.why}</q>}
          </li>
        ))}
      </ol>
    </section>
  );
}
