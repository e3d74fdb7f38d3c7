import { useEffect, useRef, useState } from "preact/hooks";
import { get, path, query, reachable, words } from "../api";
import { carry } from "../carried";
import { caseOfTapped, download } from "../case";
import { bytes, clock, count, visible } from "../format";
import { useSession, useZone } from "../hooks";
import { Payload } from "../parts/Payload";
import { bytesOf } from "../payload";
import { link } from "../route";
import type { Route } from "../route";
import type { TapMessage, TapPayload } from "../types";

/** Messages that the page keeps; older ones go. */
const KEPT_MAX = 500;

/** Milliseconds between two paints of the list, however fast messages come. */
const PAINT_MS = 250;

const AGAIN_MS = 2_000;

/** Cases in one export. */
const CASES_MAX = 200;

export interface TapFilters {
  tenant?: string;
  device?: string;
  type?: string;
  outcome?: string;
}

export interface TapState {
  messages: TapMessage[];
  passedOver: number;
  dropped: number;
  /** Connected, or the reason why not. */
  state: string;
  paused: boolean;
  pause: (paused: boolean) => void;
  clear: () => void;
}

/** Messages as they come, the latest first. It connects again by itself. */
export function useTap(filters: TapFilters): TapState {
  const [shown, setShown] = useState<{ messages: TapMessage[]; passedOver: number; dropped: number; state: string }>({
    messages: [],
    passedOver: 0,
    dropped: 0,
    state: "connecting",
  });
  const [paused, setPaused] = useState(false);
  const isPaused = useRef(false);
  isPaused.current = paused;
  const clear = useRef(() => {});
  const of = query(path("tap"), { ...filters });
  useEffect(() => {
    let [messages, passedOver, dropped, state, changed]: [TapMessage[], number, number, string, boolean] = [[], 0, 0, "connecting", true];
    let source: EventSource | null = null;
    let again = 0;
    clear.current = () => {
      messages = [];
      changed = true;
    };
    const connect = () => {
      source = new EventSource(of);
      source.addEventListener("message", (event) => {
        if (isPaused.current) return;
        messages = [JSON.parse(event.data) as TapMessage, ...messages.slice(0, KEPT_MAX - 1)];
        changed = true;
      });
      source.addEventListener("counts", (event) => {
        const counts = JSON.parse((event as MessageEvent<string>).data) as { passed_over: number; dropped: number };
        [passedOver, dropped, state, changed] = [counts.passed_over, counts.dropped, "connected", true];
        reachable.set(true);
      });
      source.addEventListener("error", () => {
        source?.close();
        [state, changed] = ["not connected; trying again", true];
        // An EventSource does not tell why it was refused: the same path asked by hand does.
        void reason(of).then((why) => {
          if (why !== null) [state, changed] = [why, true];
        });
        again = window.setTimeout(connect, AGAIN_MS);
      });
    };
    connect();
    const paint = setInterval(() => {
      if (changed) setShown({ messages, passedOver, dropped, state });
      changed = false;
    }, PAINT_MS);
    return () => {
      source?.close();
      clearTimeout(again);
      clearInterval(paint);
    };
  }, [of]);
  return { ...shown, paused, pause: setPaused, clear: () => clear.current() };
}

async function reason(of: string): Promise<string | null> {
  const stop = new AbortController();
  try {
    const response = await fetch(of, { signal: stop.signal, cache: "no-store" });
    if (response.ok) return null;
    return ((await response.json()) as { message?: string }).message ?? null;
  } catch {
    reachable.set(false);
    return null;
  } finally {
    stop.abort();
  }
}

const OUTCOMES = ["lines", "empty", "quarantined", "unsettled"];

export function Tap({ route }: { route: Route }) {
  const me = useSession();
  const start = (name: string) => route.query.get(name) ?? "";
  const [filters, setFilters] = useState({ tenant: start("tenant"), device: start("device"), type: start("type"), outcome: start("outcome") });
  const [asked, setAsked] = useState(filters);
  useEffect(() => {
    const timer = setTimeout(() => setAsked(filters), 400);
    return () => clearTimeout(timer);
  }, [filters]);
  const tap = useTap(asked);
  const field = (name: "tenant" | "device" | "type", title: string) => (
    <label>
      {title}
      <input value={filters[name]} onInput={(event) => setFilters({ ...filters, [name]: event.currentTarget.value })} />
    </label>
  );
  return (
    <>
      <h1>Live tap</h1>
      <p>Messages as they come, the latest first: at most 200 a second, of more a sample.</p>
      <form class="row" role="search" onSubmit={(event) => event.preventDefault()}>
        {me.who !== "tenant" && field("tenant", "Tenant")}
        {field("device", "Device")}
        {field("type", "Type")}
        <label>
          Outcome
          <select value={filters.outcome} onChange={(event) => setFilters({ ...filters, outcome: event.currentTarget.value })}>
            <option value="">any</option>
            {OUTCOMES.map((outcome) => (
              <option key={outcome}>{outcome}</option>
            ))}
          </select>
        </label>
      </form>
      <Messages tap={tap} />
    </>
  );
}

/** The list of a tap, with what can be done with it. */
export function Messages({ tap }: { tap: TapState }) {
  const me = useSession();
  const zone = useZone();
  const [open, setOpen] = useState<number | null>(null);
  const [said, setSaid] = useState("");
  const saveCases = async () => {
    const wanted = tap.messages.filter((message) => message.outcome !== "unsettled").slice(0, CASES_MAX);
    const cases = await Promise.all(wanted.map((message) => caseOfTapped(message.id)));
    const whole = cases.filter((one) => one !== null);
    if (whole.length > 0) download("cases.jsonl", whole.map((one) => JSON.stringify(one) + "\n").join(""));
    const gone = wanted.length - whole.length;
    setSaid(`${count(whole.length)} cases saved${gone > 0 ? `; ${count(gone)} messages are not remembered any more, or are cut` : ""}.`);
  };
  return (
    <>
      <div class="row">
        <button type="button" aria-pressed={tap.paused} onClick={() => tap.pause(!tap.paused)}>
          {tap.paused ? "Go on" : "Pause"}
        </button>
        <button type="button" onClick={tap.clear}>
          Clear
        </button>
        {me.sees_payloads && (
          <button type="button" disabled={tap.messages.length === 0} onClick={() => void saveCases()}>
            Save as cases
          </button>
        )}
        <span role="status" class="soft">
          {tap.state}
          {tap.passedOver > 0 && `; ${count(tap.passedOver)} messages passed over`}
          {tap.dropped > 0 && `; ${count(tap.dropped)} dropped, because this page reads too slowly`}
        </span>
      </div>
      <p role="status">{said}</p>
      <div class="scroll tall" role="region" aria-label="Messages" tabIndex={0}>
        <table>
          <thead>
            <tr>
              {["Time", "Topic", "Outcome", "Lines or reason", "Size"].map((name) => (
                <th scope="col" key={name}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {tap.messages.map((message) => (
              <Row key={message.id} message={message} isOpen={message.id === open} time={clock(message.received_at, zone)} onToggle={() => setOpen(open === message.id ? null : message.id)} />
            ))}
            {tap.messages.length === 0 && (
              <tr>
                <td colSpan={5}>No message has come yet.</td>
              </tr>
            )}
          </tbody>
        </table>
      </div>
    </>
  );
}

function Row({ message, isOpen, time, onToggle }: { message: TapMessage; isOpen: boolean; time: string; onToggle: () => void }) {
  const isBad = message.outcome === "quarantined";
  const first = message.lines?.[0];
  const words = isBad ? `${message.reason}: ${message.detail ?? ""}` : (first ?? "");
  return (
    <>
      <tr>
        <td>
          <button type="button" class="plain" aria-expanded={isOpen} onClick={onToggle}>
            {time}
          </button>
        </td>
        <td class="wide">{visible(message.topic)}</td>
        <td>{isBad ? <strong class="bad">{message.outcome}</strong> : message.outcome}</td>
        <td class="wide">
          <span class={isBad ? "" : "mono"}>{visible(words.slice(0, 200))}</span>
          {message.line_count > 1 && <span class="soft"> and {count(message.line_count - 1)} more</span>}
        </td>
        <td class="number">{bytes(message.payload_bytes)}</td>
      </tr>
      {isOpen && (
        <tr>
          <td colSpan={5} class="wide">
            <Detail message={message} />
          </td>
        </tr>
      )}
    </>
  );
}

function Detail({ message }: { message: TapMessage }) {
  const me = useSession();
  const [payload, setPayload] = useState<TapPayload | null>(null);
  const [fault, setFault] = useState("");
  useEffect(() => {
    if (me.sees_payloads) get<TapPayload>(path("tap", String(message.id))).then(setPayload, (refused: unknown) => setFault(words(refused)));
  }, [message.id, me.sees_payloads]);
  const shown = payload ? bytesOf(payload) : null;
  return (
    <>
      <dl class="facts">
        <dt>Device</dt>
        <dd>{message.device ? <a href={link("devices", message.tenant, message.device)}>{visible(`${message.device} of ${message.tenant}`)}</a> : "none that the topic names"}</dd>
        <dt>Came by</dt>
        <dd>{message.via}</dd>
        <dt>Decoder</dt>
        <dd>{visible(message.guest ?? "none")}</dd>
        {message.database && (
          <>
            <dt>Database</dt>
            <dd>{visible(message.database)}</dd>
          </>
        )}
        {message.detail && (
          <>
            <dt>Detail</dt>
            <dd>{visible(message.detail)}</dd>
          </>
        )}
      </dl>
      {message.lines && message.lines.length > 0 && (
        <pre class="box" tabIndex={0} role="region" aria-label="Lines">
          {visible(message.lines.join("\n"))}
          {message.line_count > message.lines.length && `\n… ${message.line_count - message.lines.length} more lines`}
        </pre>
      )}
      {fault && <p class="bad">{fault}</p>}
      {payload?.truncated && <p>This is the beginning of the payload.</p>}
      {shown && <Payload bytes={shown} />}
      {shown && payload && (
        <a class="button" href={`${link("playground")}?tap=${message.id}`} onClick={() => carry(payload)}>
          Open in the playground
        </a>
      )}
    </>
  );
}
