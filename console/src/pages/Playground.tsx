import { useEffect, useState } from "preact/hooks";
import { call, path, query } from "../api";
import { caseOf, download } from "../case";
import { useSession } from "../hooks";
import { DropZone } from "../parts/DropZone";
import { Fault } from "../parts/Fault";
import { PutOutcome, usePutting } from "../parts/PutOutcome";
import { parse } from "../payload";
import type { Form } from "../payload";
import { NOTHING, extension } from "../put";
import type { Route } from "../route";
import type { PlaygroundPlace, TrialResult } from "../types";
import { EditedDecoder, firstPlace, placeName, textAt } from "./playground/EditedDecoder";
import type { EditedText, EditorType } from "./playground/EditedDecoder";
import { siteIn, useMessage } from "./playground/message";
import { Outcome } from "./playground/Outcome";
import { useTarget } from "./playground/target";
import { TEXT_FILES } from "./playground/templates";
import type { TextFile } from "./playground/templates";

const FORMS: Form[] = ["text", "hex", "base64"];

/** The decoder of a run. */
type Source = "serving" | "edited" | "file";

const SOURCES: Record<Source, string> = { serving: "the one that serves", edited: "a script or a mapping, edited here", file: "a file of mine" };

interface BroughtFile {
  place: PlaygroundPlace;
  file: File;
  beganWith: string;
}

/** A run, and what it was made of: only that may be put. */
interface Run {
  result: TrialResult;
  sent: Uint8Array;
  source: Source;
  edited: EditedText | null;
  brought: BroughtFile | null;
}

export function Playground({ route }: { route: Route }) {
  const me = useSession();
  if (me.may_change) return <Bench key={route.query.toString()} route={route} />;
  return (
    <>
      <h1>Playground</h1>
      <p>The playground runs a decoder on a payload. It needs the operator's token, or a tenant's: log in with one.</p>
    </>
  );
}

function Bench({ route }: { route: Route }) {
  const message = useMessage(route);
  const { target, fault: topicFault, refresh } = useTarget(message.topic);
  const [source, setSource] = useState<Source>("serving");
  const [edited, setEdited] = useState<EditedText | null>(null);
  const [file, setFile] = useState<File | null>(null);
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState<unknown>(null);
  const [run, setRun] = useState<Run | null>(null);
  const putting = usePutting();
  const Editor = useEditor();
  const first = firstPlace(target?.places ?? [], target?.serves ?? null);
  const places = first ? [first, ...(target?.places ?? []).filter((place) => place !== first)] : [];

  const start = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setFault(null);
    putting.clear();
    try {
      const sent = parse(message.text, message.form);
      const own = target?.places[0];
      const brought = source === "file" && file && own ? { place: own, file, beganWith: own.version ?? NOTHING } : null;
      const decoder = source === "edited" && edited ? new Blob([edited.text]) : (brought?.file ?? null);
      const place = source === "edited" ? edited?.place : brought?.place;
      const values = {
        topic: message.topic,
        site: message.site || siteIn(sent),
        payload_bytes: decoder ? sent.length : undefined,
        place: decoder && place ? placeName(place) : undefined,
        file: decoder ? (source === "edited" ? edited?.file : extension(file?.name ?? "")) : undefined,
      };
      const body = new Blob(decoder ? [sent as BlobPart, decoder] : [sent as BlobPart]);
      const result = await call<TrialResult>("POST", query(path("playground"), values), body);
      setRun({ result, sent, source, edited: source === "edited" ? edited : null, brought });
    } catch (refused) {
      setFault(refused);
      setRun(null);
    }
    setBusy(false);
  };
  const saveCase = ({ result, sent }: Run) => {
    const expect = result.outcome === "quarantined" ? { refusal: result.reason ?? "" } : { lines: result.lines };
    download("case.jsonl", JSON.stringify(caseOf(`playground ${message.topic}`, message.topic, sent, result.received_at, expect, message.site || siteIn(sent))) + "\n");
  };
  const isChanged = run !== null && (run.source !== source || (source === "edited" && run.edited?.text !== edited?.text) || (source === "file" && run.brought?.file !== file));
  const putIt = async ({ edited: text, brought }: Run) => {
    const began = text ?? brought;
    if (!began) return;
    const request = {
      tenant: began.place.tenant,
      type: began.place.type,
      file: text ? text.file : extension(brought?.file.name ?? ""),
      content: text ? new Blob([text.text]) : (brought?.file ?? new Blob()),
      beganWith: began.beganWith,
    };
    if (await putting.start(request)) await took();
  };
  const of = run && (run.edited ?? run.brought);
  /** What was put is what the next edit begins with. */
  const took = async () => {
    refresh();
    if (!edited) return;
    const now = await textAt({ ...edited.place, file: edited.file }, edited.file).catch(() => null);
    if (now) setEdited((before) => before && { ...before, place: now.place, beganWith: now.beganWith });
  };
  /** Takes a decoder that was dropped: a text to edit, or a component. */
  const drop = (dropped: File) => {
    const kind = extension(dropped.name);
    const place = edited?.place ?? first;
    if (!(kind in TEXT_FILES) || !place) {
      setFile(dropped);
      setSource("file");
      return;
    }
    Promise.all([textAt(place, kind as TextFile), dropped.text()]).then(([before, text]) => {
      setEdited({ ...before, text });
      setSource("edited");
    }, setFault);
  };
  return (
    <>
      <h1>Playground</h1>
      <p>One payload through a decoder: the one that serves, or one that you write or bring. Nothing is sent, counted or put until you say so.</p>
      <form onSubmit={start}>
        <h2>Message</h2>
        <div class="row">
          <label class="grow">
            Topic
            <input required value={message.topic} placeholder="tenant/acme/device/dev-1/telemetry" onInput={(event) => message.set({ topic: event.currentTarget.value })} />
          </label>
          {target?.site === null && (
            <label>
              Site of the device
              <input value={message.site} placeholder="of the payload" onInput={(event) => message.set({ site: event.currentTarget.value })} />
            </label>
          )}
        </div>
        <Fault of={topicFault} />
        <fieldset>
          <legend>Payload as</legend>
          {FORMS.map((one) => (
            <label class="inline" key={one}>
              <input type="radio" name="form" checked={message.form === one} onChange={() => message.change(one)} />
              {one}
            </label>
          ))}
        </fieldset>
        <DropZone onFile={(dropped) => void dropped.arrayBuffer().then((bytes) => message.take(new Uint8Array(bytes)))}>
          {Editor ? <Editor label="Payload" value={message.text} language={message.form === "text" ? "json" : "none"} onChange={(text) => message.set({ text })} /> : <p>Loading the editor…</p>}
        </DropZone>
        <Fault of={message.fault} />
        <h2>Decoder</h2>
        <DropZone onFile={drop}>
        <fieldset>
          <legend class="hidden">Decoder</legend>
          {(Object.keys(SOURCES) as Source[]).map((one) => (
            <label class="inline" key={one}>
              <input type="radio" name="source" checked={source === one} onChange={() => setSource(one)} />
              {SOURCES[one]}
            </label>
          ))}
        </fieldset>
        {source === "serving" && target && (
          <p class="soft">{target.serves ? `${target.serves.guest ?? "None"} serves at ${placeName(target.serves)}.` : `Nothing serves ${target.tenant}/${target.type} yet: edit one here, or bring a file.`}</p>
        )}
        {source === "edited" && (target ? <EditedDecoder places={places} edited={edited} Editor={Editor} onEdit={setEdited} /> : <p class="soft">Name the topic first: it says where the decoder lies.</p>)}
        {source === "file" && (
          <div class="row">
            <label>
              Component (.wasm), script (.js) or route file (.toml); it can be dropped here too
              <input type="file" onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)} />
            </label>
            {file && <span>{file.name}</span>}
          </div>
        )}
        </DropZone>
        <div class="row">
          <button type="submit" class="main" disabled={busy || !message.isLoaded || (source === "edited" && !edited) || (source === "file" && !file)}>
            {busy ? "Running…" : "Run"}
          </button>
          <span role="status" class="soft">
            {busy && source !== "serving" && "It is sent, compiled, checked and run. The first one of its kind takes some seconds."}
          </span>
        </div>
      </form>
      <Fault of={fault} />
      {run && (
        <section aria-label="Result">
          <Outcome of={run.result} sent={run.sent} />
          <div class="row">
            <button type="button" onClick={() => saveCase(run)}>
              Save as case
            </button>
            {of && (
              <button type="button" class="main" disabled={isChanged || putting.busy || run.result.may_not_serve !== null} onClick={() => void putIt(run)}>
                Put it at {placeName(of.place)}
              </button>
            )}
            {isChanged && of && <span class="soft">It was changed since: run it again before you put it.</span>}
          </div>
          <PutOutcome of={putting} onPut={() => void took()} />
        </section>
      )}
    </>
  );
}

/** The editor is loaded when it is needed: no other page waits for it. */
function useEditor(): EditorType | null {
  const [editor, setEditor] = useState<EditorType | null>(null);
  useEffect(() => {
    void import("../parts/Editor").then((loaded) => setEditor(() => loaded.Editor));
  }, []);
  return editor;
}
