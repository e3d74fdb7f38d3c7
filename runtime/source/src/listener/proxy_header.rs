//! The PROXY header, by which a balancer names the address of the device that it connects (HAProxy,
//! doc/proxy-protocol.txt, versions 1 and 2). It stands before the first byte of the device.
//!
//! Only addresses of balancers may send one: others could name any address. Exactly the header is read, so that
//! the device's bytes stay in the socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::{PROXY_HEADER_BYTES_MAX, PROXY_LINE_BYTES_MAX};

/// The first bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes that are read before the version is known: fewer than the shortest header has.
const FIRST_BYTES: usize = SIGNATURE.len() + 1;

/// The fault of a header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyHeaderError {
    #[error("the connection ended in its PROXY header: {0}")]
    Ended(#[from] io::Error),
    #[error("a connection of a balancer in listen.proxies begins without a PROXY header")]
    Missing,
    #[error("a PROXY header of version 1 that cannot be read: {0:?}")]
    Line(String),
    #[error("a PROXY header of version 2 with {what} 0x{value:02x}")]
    Field { what: &'static str, value: u8 },
    #[error("a PROXY header of {0} bytes, more than {PROXY_HEADER_BYTES_MAX}")]
    Long(usize),
    #[error("a PROXY header of version 2 whose {0} bytes are too few for its addresses")]
    Short(usize),
}

/// Reads the header; gives the device's address, or `None` if the balancer connects for itself, as for a check.
///
/// # Errors
/// There is none, or it cannot be read.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, ProxyHeaderError> {
    let mut first = [0; FIRST_BYTES];
    stream.read_exact(&mut first).await?;
    if first[..SIGNATURE.len()] == SIGNATURE {
        return read_binary(stream, first[SIGNATURE.len()]).await;
    }
    if first.starts_with(b"PROXY ") {
        return read_line(stream, &first).await;
    }
    Err(ProxyHeaderError::Missing)
}

/// The rest of version 2, after its byte of version and command.
async fn read_binary(
    stream: &mut (impl AsyncRead + Unpin),
    command: u8,
) -> Result<Option<IpAddr>, ProxyHeaderError> {
    let family = stream.read_u8().await?;
    let length = usize::from(stream.read_u16().await?);
    if length > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::Long(length));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match command {
        0x20 => return Ok(None),
        0x21 => {}
        value => return Err(ProxyHeaderError::Field { what: "version and command", value }),
    }
    let short = || ProxyHeaderError::Short(length);
    // Source and target, then the two ports.
    match family {
        0x11 => {
            let source: [u8; 4] = rest.get(..12).ok_or_else(short)?[..4].try_into().map_err(|_| short())?;
            Ok(Some(Ipv4Addr::from(source).into()))
        }
        0x21 => {
            let source: [u8; 16] = rest.get(..36).ok_or_else(short)?[..16].try_into().map_err(|_| short())?;
            Ok(Some(Ipv6Addr::from(source).into()))
        }
        // AF_UNSPEC: the balancer knows no address.
        0x00 => Ok(None),
        value => Err(ProxyHeaderError::Field { what: "family", value }),
    }
}

/// The rest of version 1: `PROXY TCP4 192.0.2.7 192.0.2.1 56324 1883`.
async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    first: &[u8],
) -> Result<Option<IpAddr>, ProxyHeaderError> {
    let mut line = first.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= PROXY_LINE_BYTES_MAX {
            return Err(ProxyHeaderError::Long(line.len()));
        }
        line.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&line);
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    let bad = || ProxyHeaderError::Line(text.trim_end().to_owned());
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", "TCP4", source, _, _, _] => Ok(Some(source.parse::<Ipv4Addr>().map_err(|_| bad())?.into())),
        ["PROXY", "TCP6", source, _, _, _] => Ok(Some(source.parse::<Ipv6Addr>().map_err(|_| bad())?.into())),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result, and the bytes that were left in the socket.
    async fn read_from(bytes: &[u8]) -> (Result<Option<IpAddr>, ProxyHeaderError>, Vec<u8>) {
        let mut socket = bytes;
        let result = read(&mut socket).await;
        (result, socket.to_vec())
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend(body);
        header
    }

    #[tokio::test]
    async fn each_form_names_the_device_and_its_own_bytes_stay() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 7, 91];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        let with_more = [&four[..], &[0x20, 0, 3, 1, 2, 3]].concat();
        let device = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (header, expected) in [
            (binary(0x21, 0x11, &four), device("192.0.2.7")),
            (binary(0x21, 0x11, &with_more), device("192.0.2.7")),
            (binary(0x21, 0x21, &six), device("2001:db8::7")),
            (binary(0x21, 0x00, &[]), None),
            (binary(0x20, 0x11, &four), None),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 1883\r\n".to_vec(), device("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 56324 1883\r\n".to_vec(), device("2001:db8::7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
        ] {
            let (result, left) = read_from(&[&header[..], b"\x10\x0c"].concat()).await;
            assert_eq!(result.unwrap(), expected, "{header:?}");
            assert_eq!(left, b"\x10\x0c");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_after_a_bounded_number_of_bytes() {
        let connect = b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0and more";
        assert!(matches!(read_from(connect).await.0, Err(ProxyHeaderError::Missing)));
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 500]].concat();
        let (result, left) = read_from(&endless).await;
        assert!(matches!(result, Err(ProxyHeaderError::Long(PROXY_LINE_BYTES_MAX))));
        assert_eq!(endless.len() - left.len(), PROXY_LINE_BYTES_MAX);
        let mut long = binary(0x21, 0x11, &[]);
        long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        assert!(matches!(read_from(&long).await.0, Err(ProxyHeaderError::Long(65_535))));
        assert!(matches!(read_from(&binary(0x21, 0x11, &[1; 11])).await.0, Err(ProxyHeaderError::Short(11))));
        assert!(matches!(
            read_from(&binary(0x31, 0x11, &[0; 12])).await.0,
            Err(ProxyHeaderError::Field { .. })
        ));
        assert!(matches!(
            read_from(&binary(0x21, 0x31, &[0; 12])).await.0,
            Err(ProxyHeaderError::Field { .. })
        ));
        for line in
            ["PROXY TCP4 no.address 10.0.0.1 1 2\r\n", "PROXY TCP4 192.0.2.7\r\n", "PROXY UDP4 a b c d\r\n"]
        {
            assert!(matches!(read_from(line.as_bytes()).await.0, Err(ProxyHeaderError::Line(_))), "{line}");
        }
        assert!(matches!(read_from(b"PROXY TCP4 192.0").await.0, Err(ProxyHeaderError::Ended(_))));
    }
}
