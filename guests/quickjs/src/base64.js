// atob and btoa as the HTML standard says.
(function () {
  "use strict";
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const places = new Map();
  for (let place = 0; place < 64; place++) places.set(digits[place], place);
  const define = (name, value) =>
    Object.defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
  define("atob", function atob(data) {
    let text = String(data).replace(/[\t\n\f\r ]/g, "");
    if (text.length % 4 === 0) text = text.replace(/={1,2}$/, "");
    let bytes = "", word = 0, bits = 0;
    if (text.length % 4 === 1) throw new Error("atob: the text is no base64");
    for (const digit of text) {
      const place = places.get(digit);
      if (place === undefined) throw new Error("atob: the text is no base64");
      word = ((word << 6) | place) & 0xffff;
      bits += 6;
      if (bits >= 8) bytes += String.fromCharCode((word >> (bits -= 8)) & 0xff);
    }
    return bytes;
  });
  define("btoa", function btoa(data) {
    const bytes = String(data);
    let text = "";
    for (let at = 0; at < bytes.length; at += 3) {
      const word = [0, 1, 2].map((next) => (at + next < bytes.length ? bytes.charCodeAt(at + next) : 0));
      if (word.some((byte) => byte > 255)) throw new Error("btoa: a character is above 255");
      const all = (word[0] << 16) | (word[1] << 8) | word[2];
      for (let digit = 0; digit < 4; digit++) {
        text += at + digit > bytes.length ? "=" : digits[(all >> (18 - 6 * digit)) & 63];
      }
    }
    return text;
  });
})();
