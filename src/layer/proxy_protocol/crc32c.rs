/// The polynomial of Castagnoli, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Returns the CRC32c of `bytes` ([RFC 4960, appendix B](https://www.rfc-editor.org/rfc/rfc4960#appendix-B)). Bit by bit:
/// a connection has one header of some dozen bytes, which is not worth a table.
pub(super) fn crc32c(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let shift = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.into_iter().fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(byte), shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums_are_met() {
        // RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
        for (bytes, sum) in [
            (b"123456789".to_vec(), 0xe306_9283),
            (vec![0; 32], 0x8a91_36aa),
            (vec![0xff; 32], 0x62a8_ab43),
            ((0..32).collect(), 0x46dd_794e),
            (Vec::new(), 0),
        ] {
            assert_eq!(crc32c(bytes.iter().copied()), sum, "{bytes:?}");
        }
    }
}
