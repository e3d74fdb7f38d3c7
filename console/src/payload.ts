// Payloads: bytes as text, hex and base64.

export type Form = "text" | "hex" | "base64";

const decoder = new TextDecoder("utf-8", { fatal: true });

export function ofBase64(text: string): Uint8Array {
  const plain = atob(text.replace(/\s+/g, ""));
  return Uint8Array.from(plain, (character) => character.charCodeAt(0));
}

export function toBase64(bytes: Uint8Array): string {
  let plain = "";
  for (let at = 0; at < bytes.length; at += 8192) plain += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(plain);
}

/** The text of bytes; null if they are none. */
export function textOf(bytes: Uint8Array): string | null {
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}

/** The bytes of a payload that an answer has as text or in base64. */
export function bytesOf(of: { payload?: string | null; payload_base64?: string | null }): Uint8Array | null {
  if (of.payload !== undefined && of.payload !== null) return new TextEncoder().encode(of.payload);
  if (of.payload_base64) return ofBase64(of.payload_base64);
  return null;
}

/** The bytes that somebody has written in one of the forms. */
export function parse(text: string, form: Form): Uint8Array {
  if (form === "text") return new TextEncoder().encode(text);
  if (form === "base64") {
    try {
      return ofBase64(text);
    } catch {
      throw new Error("this is not base64");
    }
  }
  const digits = text.replace(/0x|[\s,:;]+/gi, "");
  if (digits.length % 2 === 1 || /[^0-9a-f]/i.test(digits)) {
    throw new Error("this is not hex: expected pairs of the digits 0-9 and a-f");
  }
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Bytes in one of the forms; of those that are no text, as hex. */
export function write(bytes: Uint8Array, form: Form): string {
  if (form === "base64") return toBase64(bytes);
  const text = form === "text" ? textOf(bytes) : null;
  return text ?? Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/** Lines of a hex dump: place, 16 bytes, and what of them is printable. */
export function dump(bytes: Uint8Array, linesMax: number): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length && lines.length < linesMax; at += 16) {
    const row = bytes.subarray(at, at + 16);
    const hex = Array.from(row, (byte) => byte.toString(16).padStart(2, "0"));
    const half = (part: string[]) => part.join(" ");
    const shown = Array.from(row, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "."));
    const columns = `${half(hex.slice(0, 8)).padEnd(24)} ${half(hex.slice(8)).padEnd(24)}`;
    lines.push(`${at.toString(16).padStart(6, "0")}  ${columns} ${shown.join("")}`);
  }
  const more = bytes.length - lines.length * 16;
  if (more > 0) lines.push(`… ${more} more bytes`);
  return lines.join("\n");
}
