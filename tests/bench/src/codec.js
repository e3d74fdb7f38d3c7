// A codec of the usual form: channels with types, as makers of LoRaWAN sensors write them.
function readUInt16LE(bytes) {
  var value = (bytes[1] << 8) + bytes[0];
  return value & 0xffff;
}

function readInt16LE(bytes) {
  var ref = readUInt16LE(bytes);
  return ref > 0x7fff ? ref - 0x10000 : ref;
}

function decode(bytes) {
  var decoded = {};
  for (var i = 0; i < bytes.length;) {
    var channel = bytes[i++];
    var type = bytes[i++];
    if (channel === 0x01 && type === 0x75) {
      decoded.battery = bytes[i];
      i += 1;
    } else if (channel === 0x03 && type === 0x67) {
      decoded.temperature = readInt16LE(bytes.slice(i, i + 2)) / 10;
      i += 2;
    } else if (channel === 0x04 && type === 0x68) {
      decoded.humidity = bytes[i] / 2;
      i += 1;
    } else if (channel === 0x05 && type === 0x00) {
      decoded.door = bytes[i] === 0 ? "closed" : "open";
      i += 1;
    } else {
      break;
    }
  }
  return decoded;
}

function decodeUplink(input) {
  return { data: decode(input.bytes) };
}
