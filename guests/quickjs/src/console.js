// console, and Math.random by the numbers of the message. Levels: 0 debug, 1 info, 2 warn, 3 error.
(function (write, random) {
  "use strict";
  const { stringify } = JSON;
  const shown = (value) => {
    if (typeof value === "string") return value;
    if (typeof value === "object" && value !== null && !(value instanceof Error)) {
      try {
        return stringify(value) ?? String(value);
      } catch {
        return "[object]";
      }
    }
    return String(value);
  };
  const at = (level) => (...values) => {
    let text = "";
    for (let index = 0; index < values.length; index++) text += (index > 0 ? " " : "") + shown(values[index]);
    write(level, text);
  };
  const hidden = { writable: true, enumerable: false, configurable: true };
  const value = { debug: at(0), trace: at(0), log: at(1), info: at(1), warn: at(2), error: at(3) };
  Object.defineProperty(globalThis, "console", { ...hidden, value });
  Object.defineProperty(Math, "random", { ...hidden, value: random });
});
