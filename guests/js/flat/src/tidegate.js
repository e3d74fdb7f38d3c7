// What the Rust SDK does for Rust, for JavaScript: batches taken apart, lines built so that the
// gateway takes them, refusals.

const NAME_BYTES_MAX = 65_536;
const RESERVED = new Set(["time", "device_id", "site_id"]);

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Thrown by a decoder: the message goes to quarantine with these words, its neighbours do not. */
export class Refusal {
  /**
   * @param {string} code for machines: stable, upper-case, as BAD_SEQ
   * @param {string} detail for people: what was wrong, where, and what would be right
   */
  constructor(code, detail) {
    this.code = code;
    this.detail = detail;
  }
}

/** One message. */
export class Message {
  #bytes;

  constructor(bytes, receivedNs, index) {
    this.#bytes = bytes;
    /** When the gateway received it, a BigInt of nanoseconds. */
    this.receivedNs = receivedNs;
    /** Its number in the batch, for the functions of tidegate:ingest/context. */
    this.index = index;
  }

  /** The payload, a Uint8Array. */
  get bytes() {
    return this.#bytes;
  }

  /** The payload as text. */
  text() {
    try {
      return decoder.decode(this.#bytes);
    } catch {
      throw new Refusal("BAD_JSON", "the payload is not UTF-8");
    }
  }

  /** The payload as JSON. */
  json() {
    const text = this.text();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Refusal("BAD_JSON", `${error.message}`);
    }
  }
}

/** The lines of one message. */
export class Lines {
  text = "";

  /** Starts a line. */
  line(measurement) {
    return new Line(this, measurement);
  }
}

/** A line while it is written: tags first, then fields. It counts only with end() or at(). */
class Line {
  #lines;
  #text;
  #keys = new Set();
  #hasField = false;

  constructor(lines, measurement) {
    this.#lines = lines;
    if (measurement === "") throw bad("the measurement is empty");
    if (measurement.startsWith("#")) throw bad("a measurement that begins with # would be a comment");
    if (measurement.endsWith("\\")) throw bad("a measurement may not end in a backslash");
    this.#text = name(measurement, "measurement", /[, \\]/g);
  }

  /** Adds a tag. An empty value is left out, as InfluxDB has no empty tags. */
  tag(key, value) {
    if (this.#hasField) throw bad(`the tag ${show(key)} stands behind a field: tags come first`);
    if (value === "") return this;
    if (key.endsWith("\\") || value.endsWith("\\")) {
      throw bad(`the tag ${show(key)} ends in a backslash, which would escape what follows`);
    }
    this.#text += `,${this.#key(key, "tag")}=${name(value, "tag value", /[, =\\]/g)}`;
    return this;
  }

  /** Adds a float; it must be finite. */
  float(key, value) {
    if (!Number.isFinite(value)) throw bad(`the field ${show(key)} is ${value}, which no database takes`);
    return this.#field(key, float(value));
  }

  /** Adds an integer: a BigInt, or a number without a fraction. */
  integer(key, value) {
    const whole = BigInt(value);
    if (BigInt.asIntN(64, whole) !== whole) throw bad(`the field ${show(key)} is ${whole}, outside 64-bit integers`);
    return this.#field(key, `${whole}i`);
  }

  /** Adds a boolean. */
  boolean(key, value) {
    return this.#field(key, value ? "true" : "false");
  }

  /** Adds a text. */
  string(key, value) {
    if (bytes(value) > NAME_BYTES_MAX) throw bad(`the field ${show(key)} has ${bytes(value)} bytes; at most ${NAME_BYTES_MAX}`);
    if (value.includes("\0")) throw bad(`the field ${show(key)} has a NUL character`);
    return this.#field(key, `"${value.replace(/["\\]/g, "\\$&")}"`);
  }

  /** Ends the line without a time: the gateway gives it the message's. */
  end() {
    if (!this.#hasField) throw bad("a line without a field");
    this.#lines.text += `${this.#text}\n`;
  }

  /** Ends the line with a time: a BigInt, nanoseconds since the Unix epoch. */
  at(timeNs) {
    this.#text += this.#hasField ? ` ${timeNs}` : "";
    this.end();
  }

  #field(key, value) {
    const separator = this.#hasField ? "," : " ";
    this.#hasField = true;
    this.#text += `${separator}${this.#key(key, "field")}=${value}`;
    return this;
  }

  #key(key, what) {
    if (key === "") throw bad(`an empty ${what} key`);
    if (RESERVED.has(key)) throw bad(`a ${what} named ${key}: the gateway and the database have that name`);
    if (this.#keys.has(key)) throw bad(`the key ${show(key)} stands twice`);
    this.#keys.add(key);
    return name(key, what, /[, =\\]/g);
  }
}

/**
 * A batch, message by message: `decode` is the export of the same name, and `one` makes the lines
 * of one message. What `one` throws refuses that message alone.
 */
export function decodeBatch(batch, one) {
  const outcomes = [];
  const parts = [];
  let [start, length] = [0, 0];
  batch.messages.forEach(({ receivedNs, payloadEnd }, index) => {
    const message = new Message(batch.payloads.subarray(start, payloadEnd), receivedNs, index);
    start = payloadEnd;
    const lines = new Lines();
    try {
      one(message, lines);
    } catch (error) {
      outcomes.push({ tag: "refused", val: refusal(error) });
      return;
    }
    const part = encoder.encode(lines.text);
    parts.push(part);
    length += part.length;
    outcomes.push({ tag: "lines", val: length });
  });
  return { lines: joined(parts, length), outcomes };
}

function joined(parts, length) {
  if (parts.length === 1) return parts[0];
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// A fault of the decoder is told like a refusal: a trap would cost an engine, and say nothing.
function refusal(error) {
  if (error instanceof Refusal) return { code: error.code, detail: error.detail };
  return { code: "EXCEPTION", detail: `${error}` };
}

/**
 * Options that the decoder does not know are mistakes: the route is refused, with those it knows.
 * Gives the others by name.
 */
export function readOptions(route, known) {
  const options = new Map(route.options);
  for (const key of options.keys()) {
    if (!known.includes(key)) throw `unknown option ${show(key)}: expected ${known.join(", ")}`;
  }
  return options;
}

function bad(detail) {
  return new Refusal("BAD_LINE", detail);
}

function show(text) {
  return JSON.stringify(text);
}

function bytes(text) {
  // Below a third of the limit no text can pass it.
  return text.length * 3 <= NAME_BYTES_MAX ? text.length : encoder.encode(text).length;
}

function name(text, what, special) {
  if (bytes(text) > NAME_BYTES_MAX) throw bad(`a ${what} of ${bytes(text)} bytes; at most ${NAME_BYTES_MAX}`);
  // eslint-disable-next-line no-control-regex
  if (/[\0-\x1f]/.test(text)) throw bad(`the ${what} ${show(text)} has a control character`);
  return text.replace(special, "\\$&");
}

/**
 * A float as the Rust SDK writes it: the shortest digits that read back as the same value, `.0`
 * behind whole numbers, an exponent of at least two digits below 1e-4 and from 1e16 on.
 */
export function float(value) {
  if (value === 0) return Object.is(value, -0) ? "-0.0" : "0.0";
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e16) {
    // JavaScript writes an exponent only below 1e-6 and from 1e21 on.
    const text = `${value}`;
    return text.includes(".") ? text : `${text}.0`;
  }
  const [digits, power] = value.toExponential().split("e");
  const sign = power.startsWith("-") ? "-" : "+";
  return `${digits}e${sign}${power.slice(1).padStart(2, "0")}`;
}
