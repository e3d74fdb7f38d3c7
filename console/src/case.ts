// Cases: messages with what is expected of them, as `tidegate test` reads them, and downloads.

import { get, path } from "./api";
import { ofBase64, textOf, toBase64 } from "./payload";
import type { TapPayload } from "./types";

export interface Case {
  name: string;
  topic: string;
  payload?: string;
  payload_base64?: string;
  received_at: string;
  site?: string;
  expect: { lines: string[] } | { refusal: string };
}

export function caseOf(name: string, topic: string, bytes: Uint8Array, receivedAt: string, expect: Case["expect"], site?: string): Case {
  const text = textOf(bytes);
  const payload = text === null ? { payload_base64: toBase64(bytes) } : { payload: text };
  return { name, topic, ...payload, received_at: receivedAt, ...(site ? { site } : {}), expect };
}

/** Makes a case of a message of the tap; null if it is not remembered any more, or cut. */
export async function caseOfTapped(id: number): Promise<Case | null> {
  let message: TapPayload;
  try {
    message = await get<TapPayload>(path("tap", String(id)));
  } catch {
    return null;
  }
  const lines = message.lines ?? [];
  if (message.truncated || lines.length < message.line_count) return null;
  const expect = message.outcome === "quarantined" ? { refusal: message.reason ?? "" } : { lines };
  const bytes = message.payload_base64 ? ofBase64(message.payload_base64) : new TextEncoder().encode(message.payload ?? "");
  const site = message.site ?? undefined;
  return caseOf(`${message.topic} at ${message.received_at}`, message.topic, bytes, message.received_at, expect, site);
}

export function download(name: string, text: string, type = "application/jsonl"): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
