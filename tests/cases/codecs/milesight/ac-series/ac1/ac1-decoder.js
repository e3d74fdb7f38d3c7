function decodeUplink(input) {
  return { data: acmeDecode(input.bytes) };
}

function Decoder(bytes, port) {
  return acmeDecode(bytes);
}

function acmeDecode(bytes) {
  var decoded = {};
  for (var i = 0; i < bytes.length; ) {
    var channel = bytes[i++];
    if (channel === 1) {
      decoded.battery = bytes[i++];
    } else if (channel === 2) {
      decoded.alarm = { state: bytes[i++] === 1 ? "on" : "off" };
    } else {
      break;
    }
  }
  return decoded;
}
