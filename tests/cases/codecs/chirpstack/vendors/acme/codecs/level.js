// The level of a tank whose height is a variable of the device.
function decodeUplink(input) {
  var buffer = Buffer.from(input.bytes);
  var height = parseInt(input.variables.height || "100", 10);
  return { data: { level_percent: (buffer.readUInt16BE(0) / height) * 100, at: input.recvTime.toISOString() } };
}
