// Temperature in tenths and a door; normalised as The Things Stack has it.
function decodeUplink(input) {
  if (input.fPort !== 3) {
    return { errors: ["unknown port " + input.fPort] };
  }
  var b = input.bytes;
  var data = { temperature: (((b[0] << 24) >> 16) | b[1]) / 10, door: (b[2] & 1) === 1 ? "open" : "closed" };
  return { data: data, warnings: b.length > 3 ? ["more bytes than expected"] : [] };
}

function normalizeUplink(input) {
  return { data: { air: { temperature: input.data.temperature } } };
}
