// The decoder natively, on the fixtures: beside each payload what is expected of it.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { configure, decode } from "../src/decoder.js";
import { float } from "../src/tidegate.js";

const folder = new URL("../fixtures/", import.meta.url);
const read = (name) => readFileSync(new URL(name, folder));

function decodeOne(payload, options = [["tags", "unit"]]) {
  configure({ tenant: "acme", messageType: "sensor", options });
  const messages = [{ receivedNs: 1_700_000_000_000_000_000n, payloadEnd: payload.length }];
  const { lines, outcomes } = decode({ payloads: payload, messages });
  const [{ tag, val }] = outcomes;
  return tag === "lines" ? new TextDecoder().decode(lines) : `${val.code}: ${val.detail}`;
}

for (const name of readdirSync(folder).filter((name) => name.endsWith(".payload"))) {
  test(name, () => {
    const got = decodeOne(read(name));
    const stem = name.slice(0, -".payload".length);
    try {
      assert.equal(got, read(`${stem}.lp`).toString());
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
      assert.ok(got.startsWith(read(`${stem}.err`).toString().trimEnd()), got);
    }
  });
}

test("a refused message costs its neighbours nothing", () => {
  configure({ tenant: "acme", messageType: "sensor", options: [] });
  const payloads = new TextEncoder().encode('{"a":1}[]{"b":2}');
  const messages = [7, 9, 16].map((payloadEnd) => ({ receivedNs: 0n, payloadEnd }));
  const { lines, outcomes } = decode({ payloads, messages });
  assert.equal(new TextDecoder().decode(lines), "sensor a=1.0\nsensor b=2.0\n");
  assert.deepEqual(outcomes.map(({ tag, val }) => [tag, val.code ?? val]), [
    ["lines", 13],
    ["refused", "NOT_AN_OBJECT"],
    ["lines", 26],
  ]);
});

test("floats are written as the Rust SDK writes them", () => {
  for (const [value, text] of [
    [21, "21.0"],
    [-0, "-0.0"],
    [0.1, "0.1"],
    [1e15, "1000000000000000.0"],
    [1e16, "1e+16"],
    [1.5e300, "1.5e+300"],
    [0.0001, "0.0001"],
    [0.00001, "1e-05"],
    [-1.25e-7, "-1.25e-07"],
  ]) {
    assert.equal(float(value), text);
  }
});

test("options that it does not know are refused with those it knows", () => {
  assert.throws(
    () => configure({ tenant: "acme", messageType: "sensor", options: [["measurment", "x"]] }),
    (error) => error === 'unknown option "measurment": expected measurement, tags',
  );
});
