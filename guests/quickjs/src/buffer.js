// Buffer, as far as codecs use it: made from arrays and texts, read and written as numbers, shown as text.
(function () {
  "use strict";
  const hex = (text) => {
    const bytes = [];
    for (let at = 0; at + 1 < text.length; at += 2) {
      const pair = text.slice(at, at + 2);
      if (!/^[0-9a-fA-F]{2}$/.test(pair)) break;
      bytes.push(parseInt(pair, 16));
    }
    return bytes;
  };
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const base64 = (text) => {
    const bytes = [];
    let word = 0, bits = 0;
    for (const digit of text.replace(/-/g, "+").replace(/_/g, "/")) {
      if (digit === "=") break;
      const place = digits.indexOf(digit);
      if (place < 0) continue;
      word = ((word << 6) | place) & 0xffff;
      bits += 6;
      if (bits >= 8) bytes.push((word >> (bits -= 8)) & 0xff);
    }
    return bytes;
  };
  const toBase64 = (bytes, url) => {
    let text = "";
    for (let at = 0; at < bytes.length; at += 3) {
      const all = (bytes[at] << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
      for (let digit = 0; digit < 4; digit++) {
        if (at + digit > bytes.length) text += url ? "" : "=";
        else text += digits[(all >> (18 - 6 * digit)) & 63];
      }
    }
    return url ? text.replace(/\+/g, "-").replace(/\//g, "_") : text;
  };
  const utf8 = (text) => {
    const encoded = unescape(encodeURIComponent(text.toWellFormed()));
    return Array.from(encoded, (character) => character.charCodeAt(0));
  };
  const fromUtf8 = (bytes) => {
    let text = "";
    for (let at = 0; at < bytes.length; ) {
      const first = bytes[at++];
      const more = first < 0x80 ? 0 : first >= 0xf0 && first < 0xf5 ? 3 : first >= 0xe0 && first < 0xf0 ? 2
        : first >= 0xc2 && first < 0xe0 ? 1 : -1;
      let point = more < 0 ? 0xfffd : more === 0 ? first : first & (0x3f >> more);
      for (let left = more; left > 0; left--) {
        if (at >= bytes.length || (bytes[at] & 0xc0) !== 0x80) { point = 0xfffd; break; }
        point = (point << 6) | (bytes[at++] & 0x3f);
      }
      text += point > 0x10ffff || (more === 3 && point < 0x10000) ? "\ufffd" : String.fromCodePoint(point);
    }
    return text;
  };
  const encode = (text, encoding) => {
    switch (String(encoding ?? "utf8").toLowerCase()) {
      case "utf8": case "utf-8": return utf8(text);
      case "hex": return hex(text);
      case "base64": case "base64url": return base64(text);
      case "ascii": case "latin1": case "binary":
        return Array.from({ length: text.length }, (_, at) => text.charCodeAt(at) & 0xff);
      case "ucs2": case "ucs-2": case "utf16le": case "utf-16le":
        return Array.from({ length: 2 * text.length }, (_, at) => (text.charCodeAt(at >> 1) >> (8 * (at & 1))) & 0xff);
      default: throw new TypeError("Unknown encoding: " + encoding);
    }
  };
  class Bytes extends Uint8Array {
    static get [Symbol.species]() { return Bytes; }
    toString(encoding, start = 0, end = this.length) {
      const bytes = this.subarray(start, end);
      switch (String(encoding ?? "utf8").toLowerCase()) {
        case "utf8": case "utf-8": return fromUtf8(bytes);
        case "hex": return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
        case "base64": return toBase64(bytes, false);
        case "base64url": return toBase64(bytes, true);
        case "ascii": return Array.from(bytes, (byte) => String.fromCharCode(byte & 0x7f)).join("");
        case "latin1": case "binary": return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
        case "ucs2": case "ucs-2": case "utf16le": case "utf-16le": {
          let text = "";
          for (let at = 0; at + 1 < bytes.length; at += 2) text += String.fromCharCode(bytes[at] | (bytes[at + 1] << 8));
          return text;
        }
        default: throw new TypeError("Unknown encoding: " + encoding);
      }
    }
    toJSON() { return { type: "Buffer", data: Array.from(this) }; }
    slice(start, end) { return this.subarray(start, end); }
    equals(other) { return Bytes.compare(this, other) === 0; }
    compare(other) { return Bytes.compare(this, other); }
    copy(target, at = 0, start = 0, end = this.length) {
      const part = this.subarray(start, Math.min(end, start + Math.max(0, target.length - at)));
      target.set(part, at);
      return part.length;
    }
    write(text, at = 0, length, encoding) {
      if (typeof at === "string") [at, encoding] = [0, at];
      if (typeof length === "string") [length, encoding] = [undefined, length];
      const bytes = encode(String(text), encoding).slice(0, Math.min(length ?? Infinity, this.length - at));
      this.set(bytes, at);
      return bytes.length;
    }
    fill(value, start, end) {
      if (typeof value !== "string") return super.fill(value, start, end);
      const bytes = utf8(value), to = end ?? this.length;
      for (let at = start ?? 0; at < to && bytes.length > 0; at++) this[at] = bytes[(at - (start ?? 0)) % bytes.length];
      return this;
    }
    indexOf(value, from = 0) {
      if (typeof value === "number") return super.indexOf(value, from);
      const wanted = typeof value === "string" ? utf8(value) : value;
      for (let at = from; at + wanted.length <= this.length; at++) {
        let same = 0;
        while (same < wanted.length && this[at + same] === wanted[same]) same++;
        if (same === wanted.length) return at;
      }
      return -1;
    }
    includes(value, from) { return this.indexOf(value, from) >= 0; }
    static compare(one, other) {
      for (let at = 0; at < Math.min(one.length, other.length); at++) {
        if (one[at] !== other[at]) return one[at] < other[at] ? -1 : 1;
      }
      return Math.sign(one.length - other.length);
    }
  }
  const define = (name, value) =>
    Object.defineProperty(Bytes.prototype, name, { value, writable: true, enumerable: false, configurable: true });
  const view = (bytes, at, length) => {
    if (!Number.isInteger(at) || at < 0 || at + length > bytes.length) {
      throw new RangeError(`The value of "offset" is out of range. Received ${at}, with ${bytes.length} bytes`);
    }
    return new DataView(bytes.buffer, bytes.byteOffset + at, length);
  };
  for (const [kind, method, length] of [
    ["UInt8", "Uint8", 1], ["Int8", "Int8", 1], ["UInt16", "Uint16", 2], ["Int16", "Int16", 2],
    ["UInt32", "Uint32", 4], ["Int32", "Int32", 4], ["Float", "Float32", 4], ["Double", "Float64", 8],
    ["BigUInt64", "BigUint64", 8], ["BigInt64", "BigInt64", 8],
  ]) {
    for (const order of length === 1 ? [""] : ["LE", "BE"]) {
      const little = order === "LE";
      const read = function (at = 0) { return view(this, at, length)["get" + method](0, little); };
      const write = function (value, at = 0) {
        view(this, at, length)["set" + method](0, value, little);
        return at + length;
      };
      for (const name of kind.includes("UInt") ? [kind, kind.replace("UInt", "Uint")] : [kind]) {
        define("read" + name + order, read);
        define("write" + name + order, write);
      }
    }
  }
  for (const order of ["LE", "BE"]) {
    const unsigned = function (at, length) {
      view(this, at, length);
      let value = 0;
      for (let step = 0; step < length; step++) value = value * 256 + this[order === "BE" ? at + step : at + length - 1 - step];
      return value;
    };
    const signed = function (at, length) {
      const value = unsigned.call(this, at, length);
      return value >= 2 ** (8 * length - 1) ? value - 2 ** (8 * length) : value;
    };
    const write = function (value, at, length) {
      view(this, at, length);
      let left = value < 0 ? value + 2 ** (8 * length) : value;
      for (let step = 0; step < length; step++, left = Math.floor(left / 256)) {
        this[order === "LE" ? at + step : at + length - 1 - step] = left % 256;
      }
      return at + length;
    };
    for (const name of ["UInt", "Uint"]) { define("read" + name + order, unsigned); define("write" + name + order, write); }
    define("readInt" + order, signed);
    define("writeInt" + order, write);
  }
  const from = (value, encoding, length) => {
    if (typeof value === "string") return Bytes.from(encode(value, encoding));
    if (value instanceof ArrayBuffer) return new Bytes(value, encoding, length);
    if (value && value.type === "Buffer" && Array.isArray(value.data)) return Bytes.from(value.data);
    return Bytes.from(value);
  };
  // Both `Buffer(x)` and `new Buffer(x)` make one, as they did for long.
  const Buffer = function Buffer(value, encoding, length) {
    return typeof value === "number" ? new Bytes(value) : from(value, encoding, length);
  };
  Buffer.prototype = Bytes.prototype;
  Bytes.prototype.constructor = Buffer;
  Object.defineProperty(Buffer, Symbol.species, { get: () => Bytes });
  Buffer.from = from;
  Buffer.of = (...bytes) => Bytes.from(bytes);
  Buffer.alloc = (length, fill, encoding) => {
    const bytes = new Bytes(length);
    return fill === undefined ? bytes : bytes.fill(typeof fill === "string" ? from(fill, encoding)[0] ?? 0 : fill);
  };
  Buffer.allocUnsafe = (length) => new Bytes(length);
  Buffer.isBuffer = (value) => value instanceof Bytes;
  Buffer.byteLength = (value, encoding) => typeof value === "string" ? encode(value, encoding).length : value.byteLength;
  Buffer.compare = Bytes.compare;
  Buffer.concat = (parts, length = parts.reduce((sum, part) => sum + part.length, 0)) => {
    const all = new Bytes(length);
    let at = 0;
    for (const part of parts) {
      all.set(part.subarray ? part.subarray(0, length - at) : part.slice(0, length - at), at);
      at = Math.min(length, at + part.length);
    }
    return all;
  };
  Object.defineProperty(globalThis, "Buffer", { value: Buffer, writable: true, enumerable: false, configurable: true });
})();
