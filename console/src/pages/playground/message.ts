// The message to try: typed, of the tap, or of quarantine.

import { useEffect, useState } from "preact/hooks";
import { get, path } from "../../api";
import { tappedMessage } from "../../carried";
import { bytesOf, parse, textOf, write } from "../../payload";
import type { Form } from "../../payload";
import type { Route } from "../../route";
import type { Entry, TapPayload } from "../../types";

export interface Message {
  topic: string;
  site: string;
  form: Form;
  text: string;
  fault: unknown;
  isLoaded: boolean;
  set: (part: Partial<{ topic: string; site: string; text: string }>) => void;
  /** Takes other bytes as the payload. */
  take: (bytes: Uint8Array) => void;
  /** Writes the payload in another form. */
  change: (form: Form) => void;
}

/** Bytes as text where they are some, else in hex. */
function written(bytes: Uint8Array): { form: Form; text: string } {
  const form: Form = textOf(bytes) === null ? "hex" : "text";
  return { form, text: write(bytes, form) };
}

/** The message of a page, whose address may name one. */
export function useMessage(route: Route): Message {
  const [state, setState] = useState<{ topic: string; site: string; form: Form; text: string; fault: unknown }>({
    topic: route.query.get("topic") ?? "",
    site: "",
    form: "text",
    text: "",
    fault: null,
  });
  const entry = route.query.get("entry");
  const tapped = route.query.get("tap");
  const of = entry ? `entry ${entry}` : tapped ? `tap ${tapped}` : null;
  const [loaded, setLoaded] = useState<string | null>(null);
  useEffect(() => {
    if (of === null) return;
    const asked: Promise<Entry | TapPayload> = entry ? get<Entry>(path("quarantine", "entries", entry)) : tappedMessage(tapped ?? "");
    const taken = asked.then(
      (message) => {
        const bytes = bytesOf(message) ?? new Uint8Array();
        const site = "site" in message && message.site ? message.site : "";
        setState({ topic: message.topic, site, ...written(bytes), fault: null });
      },
      (fault: unknown) => setState((before) => ({ ...before, fault })),
    );
    void taken.then(() => setLoaded(of));
  }, [of]);
  const change = (next: Form) =>
    setState((before) => {
      try {
        const bytes = parse(before.text, before.form);
        const form = next === "text" && textOf(bytes) === null ? "hex" : next;
        return { ...before, form, text: write(bytes, form), fault: form === next ? null : new Error("these bytes are no text") };
      } catch (fault) {
        return { ...before, fault };
      }
    });
  const take = (bytes: Uint8Array) => setState((before) => ({ ...before, ...written(bytes), fault: null }));
  return { ...state, isLoaded: of === loaded, take, set: (part) => setState((before) => ({ ...before, ...part, fault: null })), change };
}

/** The site that an envelope names. */
export function siteIn(payload: Uint8Array): string | undefined {
  try {
    const site = (JSON.parse(textOf(payload) ?? "") as { site_id?: unknown } | null)?.site_id;
    return typeof site === "string" ? site : undefined;
  } catch {
    return undefined;
  }
}
