//! Go's `net.IP` and `net.IPMask` as its JSON has them.

use std::net::IpAddr;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

use super::json::{Go, JsonError, Reader};

/// `net.IP`: nil, which is the empty text, or an address; a mapped IPv4 address is IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ip(pub(super) Option<IpAddr>);

/// `net.IPMask`: nil or bytes, in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mask(pub(super) Option<Vec<u8>>);

impl Go for Ip {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        if !reader.null()? {
            let bad = reader.expected("an IP address");
            let text = reader.text()?;
            let ip = if text.is_empty() { None } else { Some(text.parse::<IpAddr>()) };
            self.0 = ip.transpose().map_err(|_| bad)?.map(|ip| ip.to_canonical());
        }
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.text().write(out);
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Ip {
    pub(super) fn new(text: &str) -> Self {
        Self(text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()))
    }

    pub(super) fn text(self) -> String {
        self.0.map(|ip| ip.to_string()).unwrap_or_default()
    }
}

/// Go's standard encoding, which does not look at the bits beyond the last byte.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

impl Go for Mask {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        self.0 = match reader.null()? {
            true => None,
            false => {
                let bad = reader.expected("base64");
                let text = reader.text()?.replace(['\r', '\n'], "");
                Some(BASE64.decode(text).map_err(|_| bad)?)
            }
        };
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Some(bytes) => BASE64.encode(bytes).write(out),
            None => out.extend(b"null"),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Mask {
    /// The mask of a prefix; none when the address is shorter than that.
    pub(super) fn new(ip: IpAddr, prefix_len: u8) -> Option<Self> {
        let ones = u32::from(prefix_len);
        let mask = match ip {
            IpAddr::V4(_) => u32::MAX.checked_shl(32_u32.checked_sub(ones)?).unwrap_or(0).to_be_bytes().to_vec(),
            IpAddr::V6(_) => u128::MAX.checked_shl(128_u32.checked_sub(ones)?).unwrap_or(0).to_be_bytes().to_vec(),
        };
        Some(Self(Some(mask)))
    }

    /// The length of the prefix; none when the mask is no prefix or does not fit the address. The mask of an IPv4
    /// address may be that of the mapped one.
    pub(super) fn ones(&self, ip: IpAddr) -> Option<u8> {
        let mask = self.0.as_deref()?;
        let mask = match (ip, mask.split_first_chunk::<12>()) {
            (IpAddr::V4(_), Some((head, tail))) if *head == [0xff; 12] => tail,
            _ => mask,
        };
        let set: Vec<bool> = mask.iter().flat_map(|b| (0..8).map(move |i| b & (0x80 >> i) != 0)).collect();
        let ones = set.iter().take_while(|set| **set).count();
        let fits = set.len() == if ip.is_ipv4() { 32 } else { 128 } && !set[ones..].contains(&true);
        fits.then(|| u8::try_from(ones).expect("at most 128 bits"))
    }
}
