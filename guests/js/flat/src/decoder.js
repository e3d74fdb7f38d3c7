// Any JSON object to the fields of one line, as the decoder `json` makes them with
// `integers = "float"`: JSON.parse gives the nearest float, so that lost digits cannot be refused.

import { Refusal, decodeBatch, readOptions } from "./tidegate.js";

const DEPTH_MAX = 64;
// Keys of the outermost object that say who sends, and are the gateway's to read.
const CREDENTIALS = new Set(["tenant_id", "device_id", "site_id", "provision_token"]);

// Names that the gateway or the database needs for itself.
const RESERVED = new Set(["time", "device_id", "site_id"]);

let measurement;
let tags;

export function configure(route) {
  const options = readOptions(route, ["measurement", "tags"]);
  measurement = options.get("measurement") ?? route.messageType;
  tags = new Set((options.get("tags") ?? "").split(",").map((tag) => tag.trim()));
}

export function decode(batch) {
  return decodeBatch(batch, decodeOne);
}

function decodeOne(message, lines) {
  const payload = message.json();
  if (kind(payload) !== "an object") {
    throw new Refusal("NOT_AN_OBJECT", `the payload is ${kind(payload)}: expected an object`);
  }
  const leaves = [];
  walk(payload, "", 0, leaves);
  const line = lines.line(measurement);
  for (const [key, value] of leaves) {
    if (tags.has(key)) line.tag(name(key), `${value}`);
  }
  let fields = 0;
  for (const [key, value] of leaves) {
    if (tags.has(key)) continue;
    fields += 1;
    switch (typeof value) {
      case "boolean":
        line.boolean(name(key), value);
        break;
      case "number":
        if (!Number.isFinite(value)) throw new Refusal("BAD_NUMBER", `${key} is outside 64-bit floats`);
        line.float(name(key), value);
        break;
      default:
        line.string(name(key), value);
    }
  }
  if (fields > 0) line.end();
}

function walk(value, path, depth, leaves) {
  if (depth > DEPTH_MAX) throw new Refusal("TOO_DEEP", `${path} is nested more than ${DEPTH_MAX} levels deep`);
  if (value === null) return;
  if (typeof value !== "object") {
    leaves.push([path, value]);
    return;
  }
  for (const key in value) {
    if (depth === 0 && CREDENTIALS.has(key)) continue;
    walk(value[key], path === "" ? key : `${path}_${key}`, depth + 1, leaves);
  }
}

/** The name of a joined key in a line. */
function name(key) {
  return RESERVED.has(key) ? `${key}_` : key;
}

function kind(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return "an object";
  return typeof value === "boolean" ? "a boolean" : `a ${typeof value}`;
}
