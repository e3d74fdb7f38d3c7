import { useEffect, useState } from "preact/hooks";
import type { ComponentType } from "preact";
import { call, get, path, query } from "../api";
import { tappedMessage } from "../carried";
import { caseOf, download } from "../case";
import { count, visible } from "../format";
import { useSession } from "../hooks";
import { Fault } from "../parts/Fault";
import { bytesOf } from "../parts/Payload";
import { parse, textOf, write } from "../payload";
import type { Form } from "../payload";
import type { Route } from "../route";
import type { Entry, Put, TapPayload, TrialResult } from "../types";
import { Verdict, extension } from "./Decoders";

type EditorType = ComponentType<{ label: string; value: string; isJson: boolean; onChange: (value: string) => void }>;

const FORMS: Form[] = ["text", "hex", "base64"];

export function Playground({ route }: { route: Route }) {
  const me = useSession();
  const [topic, setTopic] = useState(route.query.get("topic") ?? "");
  const [site, setSite] = useState("");
  const [form, setForm] = useState<Form>("text");
  const [text, setText] = useState("");
  const [component, setComponent] = useState<File | null>(null);
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState<unknown>(null);
  const [result, setResult] = useState<TrialResult | null>(null);
  const [put, setPut] = useState<Put | null>(null);
  const Editor = useEditor();
  const entry = route.query.get("entry");
  const tapped = route.query.get("tap");
  const of = entry ? `entry ${entry}` : tapped ? `tap ${tapped}` : null;
  const [loaded, setLoaded] = useState<string | null>(null);
  useEffect(() => {
    if (of === null) return;
    const asked: Promise<Entry | TapPayload> = entry ? get<Entry>(path("quarantine", "entries", entry)) : tappedMessage(tapped ?? "");
    const taken = asked.then((message) => {
      const bytes = bytesOf(message);
      setTopic(message.topic);
      if ("site" in message && message.site) setSite(message.site);
      if (bytes) {
        const fits: Form = textOf(bytes) === null ? "hex" : "text";
        setForm(fits);
        setText(write(bytes, fits));
      }
    }, setFault);
    void taken.then(() => setLoaded(of));
  }, [of]);

  const change = (next: Form) => {
    try {
      const bytes = parse(text, form);
      const fits = next === "text" && textOf(bytes) === null ? "hex" : next;
      setText(write(bytes, fits));
      setForm(fits);
      setFault(fits === next ? null : new Error("these bytes are no text"));
    } catch (refused) {
      setFault(refused);
    }
  };
  const run = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setFault(null);
    setPut(null);
    try {
      const bytes = parse(text, form);
      const values = { topic, site, payload_bytes: component ? bytes.length : undefined, file: component ? extension(component.name) : undefined };
      const body = new Blob(component ? [bytes as BlobPart, component] : [bytes as BlobPart]);
      setResult(await call<TrialResult>("POST", query(path("playground"), values), body));
    } catch (refused) {
      setFault(refused);
      setResult(null);
    }
    setBusy(false);
  };
  const saveCase = (of: TrialResult) => {
    const expect = of.outcome === "quarantined" ? { refusal: of.reason ?? "" } : { lines: of.lines };
    // The lines have the time of this trial: the case is received at the same.
    const nanoseconds = of.lines[0]?.match(/ (\d{19})$/)?.[1];
    const receivedAt = nanoseconds ? `${new Date(Number(nanoseconds.slice(0, 10)) * 1000).toISOString().slice(0, 19)}.${nanoseconds.slice(10)}Z` : new Date().toISOString();
    download("case.jsonl", JSON.stringify(caseOf(`playground ${topic}`, topic, parse(text, form), receivedAt, expect, site || undefined)) + "\n");
  };
  const putIt = async (of: TrialResult) => {
    const type = of.steps[0]?.text.match(/, type (.*)$/)?.[1];
    if (!component || !of.tenant || !type) return;
    try {
      setPut(await call<Put>("PUT", query(path("guests", fileName(of.tenant), fileName(type)), { file: extension(component.name) }), component));
    } catch (refused) {
      setFault(refused);
    }
  };
  if (!me.may_change) {
    return (
      <>
        <h1>Playground</h1>
        <p>The playground runs a decoder on a payload: it needs the operator's token, or a tenant's.</p>
      </>
    );
  }
  return (
    <>
      <h1>Playground</h1>
      <p>One payload through the decoder that serves, or through a component that you bring along. Nothing is sent, counted or put.</p>
      <form onSubmit={run}>
        <div class="row">
          <label>
            Topic
            <input required size={48} value={topic} onInput={(event) => setTopic(event.currentTarget.value)} />
          </label>
          <label>
            Site, if the gateway knows none
            <input value={site} onInput={(event) => setSite(event.currentTarget.value)} />
          </label>
          <label>
            Decoder, in place of the one that serves
            <input type="file" onChange={(event) => setComponent(event.currentTarget.files?.[0] ?? null)} />
          </label>
        </div>
        <fieldset>
          <legend>Payload</legend>
          {FORMS.map((one) => (
            <label class="inline" key={one}>
              <input type="radio" name="form" checked={form === one} onChange={() => change(one)} />
              {one}
            </label>
          ))}
        </fieldset>
        {Editor ? <Editor label="Payload" value={text} isJson={form === "text"} onChange={setText} /> : <p>Loading the editor…</p>}
        <div class="row">
          <button type="submit" class="main" disabled={busy || of !== loaded}>
            {busy ? "Running…" : "Run"}
          </button>
        </div>
      </form>
      <Fault of={fault} />
      {result && (
        <section aria-label="Result">
          <div role="status">
            <h2>
            {result.outcome === "quarantined" ? `It would be refused: ${result.reason}` : result.outcome === "empty" ? "No line would be made of it" : `${count(result.lines.length)} ${result.lines.length === 1 ? "line" : "lines"}, ${count(result.cpu_us)} µs of CPU time`}
            </h2>
          </div>
          <ol class="steps">
            {result.steps.map((step) => (
              <li key={step.step}>
                <strong>{step.step}</strong>
                <span class={step.ok ? "soft" : "bad"}>{step.ok ? "good" : "refused"}</span>
                <span>{visible(step.text)}</span>
              </li>
            ))}
          </ol>
          {result.lines.length > 0 && (
            <pre class="box" tabIndex={0} role="region" aria-label="Lines">
              {visible(result.lines.join("\n"))}
            </pre>
          )}
          {result.ignored.length > 0 && <p>Left out: {visible(result.ignored.join(", "))}</p>}
          {result.put && <Verdict put={result.put} />}
          <div class="row">
            <button type="button" onClick={() => saveCase(result)}>
              Save as case
            </button>
            {result.put && (
              <button type="button" class="main" onClick={() => void putIt(result)}>
                Put this component
              </button>
            )}
          </div>
          {put && <Verdict put={put} />}
        </section>
      )}
    </>
  );
}

/** The name of a folder or a file of decoders, as the gateway writes it. */
function fileName(name: string): string {
  const plain = /[A-Za-z0-9\-_.]/;
  const encoded = Array.from(new TextEncoder().encode(name), (byte, index) => {
    const character = String.fromCharCode(byte);
    const isPlain = byte < 0x80 && plain.test(character) && !(index === 0 && /[_.]/.test(character));
    return isPlain ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  });
  return encoded.join("");
}

/** The editor is loaded when it is needed: no other page waits for it. */
function useEditor(): EditorType | null {
  const [editor, setEditor] = useState<EditorType | null>(null);
  useEffect(() => {
    void import("../parts/Editor").then((loaded) => setEditor(() => loaded.Editor));
  }, []);
  return editor;
}
