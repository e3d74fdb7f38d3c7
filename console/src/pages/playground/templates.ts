// Decoders to begin with, where nothing lies at a place yet.

const SCRIPT = `// One payload in, one object out: each number, text and boolean of it becomes a field.
function decodeUplink(input) {
  const bytes = input.bytes;
  return {
    data: {
      temperature: ((bytes[0] << 8) | bytes[1]) / 10,
      battery: bytes[2],
    },
  };
}
`;

const MAPPING = `# Where values stand in the payload: type@offset, and a factor.
decoder = "mapping"

[options]
measurement = "meter"
fields.temperature = "i16be@0 * 0.1"
fields.battery = "u8@2"
`;

export type TextFile = "js" | "toml";

export const TEXT_FILES: Record<TextFile, { title: string; template: string }> = {
  js: { title: "script (JavaScript)", template: SCRIPT },
  toml: { title: "route file (a mapping, or another built-in decoder)", template: MAPPING },
};
