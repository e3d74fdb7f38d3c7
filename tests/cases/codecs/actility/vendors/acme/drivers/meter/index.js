// A counter, in the form of a module.
function decodeUplink(input) {
  if (input.bytes.length < 4) {
    throw new Error("expected 4 bytes");
  }
  return {
    data: { counter: input.bytes.reduce((sum, byte) => sum * 256 + byte, 0) },
    errors: [],
    warnings: [],
  };
}
exports.decodeUplink = decodeUplink;
