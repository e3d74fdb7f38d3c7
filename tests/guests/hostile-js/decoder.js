// Does what the payload's key `do` says: `ok` makes a line, everything else is what a script must
// not achieve. Without the helper of guests/js, so that nothing softens it.

import { device } from "tidegate:ingest/context@0.1.0";
import { write } from "tidegate:ingest/log@0.1.0";

export function configure(route) {
  const options = new Map(route.options);
  if (options.get("configure") === "loop") for (;;);
  if (options.get("configure") === "refuse") throw "it serves nobody";
}

export function decode(batch) {
  const lines = [];
  const outcomes = [];
  let [start, length] = [0, 0];
  batch.messages.forEach(({ payloadEnd }, index) => {
    const payload = JSON.parse(new TextDecoder().decode(batch.payloads.subarray(start, payloadEnd)));
    start = payloadEnd;
    const line = new TextEncoder().encode(`${act(payload, index)}\n`);
    lines.push(...line);
    length += line.length;
    outcomes.push({ tag: "lines", val: length });
  });
  return { lines: new Uint8Array(lines), outcomes };
}

function act({ do: what, seq }, index) {
  switch (what) {
    case "ok":
      return `ok seq=${seq}i`;
    case "who":
      write("info", `about ${device(index)}`);
      return `who seq=${seq}i,name="${device(index)}"`;
    case "loop":
      for (;;);
    case "backtrack":
      return `${/^(a+)+$/.test(`${"a".repeat(60)}!`)}`;
    case "hog": {
      const kept = [];
      for (;;) kept.push(new Uint8Array(1 << 20).fill(kept.length));
    }
    case "objects": {
      let kept = null;
      for (let n = 0; ; n++) kept = { kept, text: `text ${n}` };
    }
    case "recurse":
      return `${recurse(0)}`;
    case "throw":
      throw new Error("on purpose");
    case "outside":
      return device(index + 1_000);
    case "forge":
      return `ok,device_id=other seq=${seq}i`;
    // What of the world a script can see: nothing that is not the same each time.
    case "world":
      return `world random=${Math.random()},now=${Date.now()}i,offset=${new Date(0).getTimezoneOffset()}i`;
    default:
      throw new Error(`unknown ${what}`);
  }
}

function recurse(depth) {
  return recurse(depth + 1) + depth;
}
