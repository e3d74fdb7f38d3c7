import { useState } from "preact/hooks";
import { visible } from "../format";
import { dump, textOf } from "../payload";

/** Characters and lines of a payload that are shown before somebody asks for more. */
const TEXT_MAX = 20_000;
const DUMP_LINES_MAX = 200;

function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** A payload as text or as hex. */
export function Payload({ bytes }: { bytes: Uint8Array }) {
  const text = textOf(bytes);
  const [asHex, setAsHex] = useState(text === null);
  const [whole, setWhole] = useState(false);
  const most = whole ? Infinity : TEXT_MAX;
  const full = asHex ? dump(bytes, whole ? Infinity : DUMP_LINES_MAX) : visible(bytes.length <= TEXT_MAX ? pretty(text ?? "") : (text ?? ""));
  const isCut = asHex ? bytes.length > DUMP_LINES_MAX * 16 : full.length > TEXT_MAX;
  return (
    <div>
      <div class="row">
        <button type="button" aria-pressed={!asHex} disabled={text === null} onClick={() => setAsHex(false)}>
          Text
        </button>
        <button type="button" aria-pressed={asHex} onClick={() => setAsHex(true)}>
          Hex
        </button>
        <span class="soft">{text === null ? "not UTF-8" : ""}</span>
      </div>
      <pre class="box" tabIndex={0} role="region" aria-label="Payload">
        {full.slice(0, most)}
      </pre>
      {isCut && !whole && (
        <button type="button" onClick={() => setWhole(true)}>
          Show all
        </button>
      )}
    </div>
  );
}
